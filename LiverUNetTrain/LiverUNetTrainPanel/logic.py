"""What LiverUNetTrain does in Slicer, without a widget."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Collection, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
from slicer import vtkMRMLPlotChartNode, vtkMRMLSegmentationNode, vtkMRMLTableNode
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from LiverUNetLib.errors import LiverUNetError, TrainingError
from LiverUNetLib.models.bundle import check_name
from LiverUNetLib.models.exchange import install_model, pack_model
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.models.store import find_model, list_models
from LiverUNetLib.steps import Progress, in_background
from LiverUNetPanel.nodes.stored_result import modelOf
from LiverUNetPanel.nodes.volume import scanSteps
from LiverUNetTrainLib.data.pairs import add_case, write_pairs
from LiverUNetTrainLib.evaluation import tables
from LiverUNetTrainLib.evaluation.measures import MAIN_MEASURES
from LiverUNetTrainLib.evaluation.metrics import CaseScores
from LiverUNetTrainLib.run import background
from LiverUNetTrainLib.run.background import RunState
from LiverUNetTrainLib.run.folder import EpochLog, RunFolder
from LiverUNetTrainLib.run.options import TrainingOptions
from LiverUNetTrainLib.run.run_settings import RunSettings

from .nodes.cases import showCase, shownHeight
from .nodes.plots import curvesOf, scoresTable
from .nodes.segments import SceneCase, maskSteps, sceneCases
from .steps import each, job

if TYPE_CHECKING:
    from types import ModuleType

    from LiverUNetTrainLib.data.cases import Finding
    from LiverUNetTrainLib.evaluation.before_after import Verdict

__all__ = ["LiverUNetTrainLogic"]


class LiverUNetTrainLogic(ScriptedLoadableModuleLogic):
    """Prepares data, starts trainings that outlive Slicer, evaluates and installs models.

    Methods that return steps do nothing until the steps are taken. PyTorch is imported by the first
    steps that need it, never before.

    Attributes:
        trainings: the processes that were started from here, by run folder.
    """

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.trainings: dict[Path, subprocess.Popen] = {}

    # Data

    def sceneCases(self) -> list[SceneCase]:
        """Every segment of the scene with the volume it was drawn on, the most likely livers first."""
        return sceneCases()

    def addCaseSteps(self, case: SceneCase, folder: Path) -> Generator[Progress, None, str]:
        """Copy a volume and its segment to the user's own training set; returns the name of the new case."""
        scan = yield from scanSteps(case.volumeNode)
        mask = yield from maskSteps(case.segmentationNode, case.segmentId, scan.volume)
        add = partial(add_case, folder, scan.volume, mask, modelOf(case.segmentationNode))
        return (yield from in_background("Adding the case", add, final=True))

    def prepareSteps(
        self, folders: Sequence[Path], cache: Path, *, parent: str | None = None
    ) -> Generator[Progress, None, list[Finding]]:
        """Check all cases of the folders and bring them onto the model grid.

        Args:
            parent: prepare for fine-tuning this model, on its grid.

        Raises:
            TrainingError: a folder is missing or holds no case, the disk is too small, or no case can be used.
        """
        work, count = yield from job("Looking for cases", lambda jobs: jobs.prepareCases(folders, cache, parent))
        return (yield from each("Preparing", work, count))

    def pairsSteps(self, source: Path, target: Path) -> Generator[Progress, None, list[Finding]]:
        """Write the cases of a folder, or of 3D-IRCADb-01 as one zip, as pairs of NIfTI files."""
        return (yield from each("Writing pair", write_pairs(source, target)))

    def previewSteps(self, cache: Path, name: str, recipe: str, picture: Path) -> Generator[Progress, None, Path]:
        """Draw what the augmentation of a recipe does to a slice of a prepared case, as PNG; returns the picture.

        It is the slice in the red view if the case is loaded, otherwise the one with the most liver.
        """
        height = shownHeight(name)
        return (yield from job("Drawing", lambda jobs: jobs.drawPreview(cache, name, recipe, picture, height)))

    def loadCaseSteps(
        self, folders: Sequence[Path], name: str, modelName: str = ""
    ) -> Generator[Progress, None, vtkMRMLSegmentationNode]:
        """Load a case with its reference as a segment and, if a model is named, its prediction as another.

        The slice views jump to where the two differ most, or to the middle of the reference.
        """
        scan, masks = yield from job(f"Loading {name}", lambda jobs: jobs.readCase(folders, name, modelName))
        return showCase(name, scan, masks)

    # Training

    def estimateSteps(self, options: TrainingOptions) -> Generator[Progress, None, str]:
        """Estimate the time and memory of a training; returns a sentence."""
        return (yield from job("Estimating", lambda jobs: jobs.estimate(options)))

    def launch(self, options: TrainingOptions) -> subprocess.Popen:
        """Start a training that outlives the panel, the module and Slicer."""
        self.trainings[options.run] = background.launch(options.arguments(), options.run, python=_python())
        return self.trainings[options.run]

    def resume(self, run: Path) -> None:
        """Resume a training with its original options."""
        self.trainings[run] = background.resume(run, python=_python())

    def requestStop(self, run: Path) -> None:
        """Ask a training to end after the current batch; its checkpoint is kept."""
        RunFolder(run).request_stop()

    def stateOf(self, run: Path) -> RunState:
        """The state of a training; raises TrainingError or OSError if its folder is gone, damaged or unreadable."""
        return background.state_of(run, self.trainings.get(run))

    def settingsOf(self, run: Path) -> RunSettings:
        """The settings of a run that has begun, with its split."""
        return RunFolder(run).settings()

    def showCurves(
        self, name: str, history: Sequence[EpochLog], *, inLayout: bool = False
    ) -> dict[str, vtkMRMLPlotChartNode]:
        """Update charts of loss, accuracy and Dice.

        Args:
            inLayout: show the chart of Dice in a plot view.
        """
        charts = curvesOf(slicer.mrmlScene, name, history)
        if inLayout:
            slicer.modules.plots.logic().ShowChartInLayout(charts["Dice"])
        return charts

    # Evaluation

    def usableModels(self) -> list[str]:
        """The names of the installed models that are not broken."""
        return [name for name, model in list_models().items() if not isinstance(model, LiverUNetError)]

    def isInstalled(self, modelName: str) -> bool:
        """Whether a model of that name is installed and not broken."""
        return modelName in self.usableModels()

    def evaluateSteps(
        self,
        modelName: str,
        folders: Sequence[Path],
        *,
        heldOutOnly: bool,
        only: Collection[str] | None = None,
        faults: list[Finding] | None = None,
        deviceName: str = "auto",
    ) -> Generator[Progress, None, list[CaseScores]]:
        """Score a model on every case, or on those that it holds out.

        Args:
            only: names of cases; None for all.
            faults: collects the cases that cannot be used; without it the first one ends the evaluation.
        """
        options = {"heldOutOnly": heldOutOnly, "only": only, "faults": faults, "deviceName": deviceName}
        work = yield from job("Loading the model", lambda jobs: jobs.evaluate(modelName, folders, **options))
        return (yield from each("Evaluating case", work))

    def evaluateAllSteps(
        self, modelNames: Sequence[str], folders: Sequence[Path], *, heldOutOnly: bool, faults: list[Finding]
    ) -> Generator[Progress, None, list[list[CaseScores]]]:
        """Score several models on the same cases: those that the first one holds out, or all."""
        found = [(yield from self.evaluateSteps(modelNames[0], folders, heldOutOnly=heldOutOnly, faults=faults))]
        names = {case.case for case in found[0]}
        for name in modelNames[1:]:
            scores = yield from self.evaluateSteps(name, folders, heldOutOnly=False, only=names)
            found.append(scores)
        return found

    def comparison(self, first: Sequence[CaseScores], second: Sequence[CaseScores], *, names: tuple[str, str]) -> str:
        """Means, differences and Wilcoxon's test of two models, as text."""
        lines = tables.paired(first, second, names=names)[: 1 + len(MAIN_MEASURES)]
        return "\n".join(" ".join(line.split()) for line in lines)

    def showScores(self, name: str, scores: Sequence[CaseScores]) -> vtkMRMLTableNode:
        """Write scores to a table node, the worst patient first."""
        return scoresTable(slicer.mrmlScene, name, scores)

    def writeScores(self, path: Path, scores: Sequence[CaseScores]) -> None:
        """Write scores as CSV."""
        tables.write_csv(path, scores)

    def writeReport(self, path: Path, modelName: str, scores: Sequence[CaseScores]) -> None:
        """Write scores as one HTML file with figures."""
        from LiverUNetTrainLib.evaluation.report import Report

        Report(modelName, {}, scores, {}).write(path)

    # Use

    def judgeSteps(self, run: Path, folders: Sequence[Path]) -> Generator[Progress, None, Verdict | None]:
        """Tell whether a fine-tuned run is better than the model it started from; None if it started from none."""
        return (yield from job("Comparing with the parent model", lambda jobs: jobs.compareWithParent(run, folders)))

    def checkName(self, name: str) -> None:
        """Raise LiverUNetError unless a new model can have this name."""
        check_name(name)
        if name in list_models():
            raise TrainingError(f"A model {name} is installed already; choose another name or remove it first.")

    def installSteps(
        self, run: Path, name: str, *, description: str = "", terms: str = ""
    ) -> Generator[Progress, None, LiverModel]:
        """Export a run as a model and install it for the LiverUNet module."""

        def install(jobs: ModuleType) -> LiverModel:
            self.checkName(name)
            return jobs.install(run, name, description, terms)

        return (yield from job("Installing the model", install, final=True))

    def packSteps(self, name: str, path: Path) -> Generator[Progress, None, None]:
        """Write an installed model as a zip; a file of that name is overwritten."""
        yield from in_background(
            "Packing the model", lambda: pack_model(find_model(name), path, overwrite=True), final=True
        )

    def addModelSteps(self, path: Path) -> Generator[Progress, None, LiverModel]:
        """Verify a model in a zip and install it."""
        return (yield from in_background("Verifying the model", lambda: install_model(path), final=True))


def _python() -> str:
    return shutil.which("PythonSlicer") or sys.executable
