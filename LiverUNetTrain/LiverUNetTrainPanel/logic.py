"""What LiverUNetTrain does in Slicer, without a widget."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import slicer
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTableNode
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from LiverUNetLib.errors import LiverUNetError, TrainingError
from LiverUNetLib.models.bundle import check_name
from LiverUNetLib.models.exchange import install_model, pack_model
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.models.store import find_model, list_models
from LiverUNetLib.steps import Progress, in_background
from LiverUNetPanel.imports import importLibraries, withoutCollector
from LiverUNetPanel.nodes.segmentation import volumeOf
from LiverUNetPanel.nodes.volume import scanSteps
from LiverUNetTrainLib.data.cases import Finding
from LiverUNetTrainLib.run import background
from LiverUNetTrainLib.run.options import TrainingOptions

from .nodes.cases import showCase, shownHeight
from .nodes.segments import liverRanks, maskSteps

__all__ = ["LiverUNetTrainLogic", "SceneCase"]


@dataclass(frozen=True)
class SceneCase:
    """A volume of the scene with a segment that could be its liver."""

    volumeNode: vtkMRMLScalarVolumeNode
    segmentationNode: vtkMRMLSegmentationNode
    segmentId: str

    @property
    def name(self) -> str:
        """How a table calls it."""
        segment = self.segmentationNode.GetSegmentation().GetSegment(self.segmentId).GetName()
        return f"{self.volumeNode.GetName()} / {self.segmentationNode.GetName()} / {segment}"


class LiverUNetTrainLogic(ScriptedLoadableModuleLogic):
    """Prepares data, starts trainings that outlive Slicer, evaluates and installs models.

    torch and all that needs it are imported when a method is called, never before.
    """

    def sceneCases(self) -> list[SceneCase]:
        """Every segment of the scene with the volume that it was drawn on, the likeliest livers first.

        A segmentation from a file knows no volume; it belongs to the only one, if there is one only.
        """
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        only = volumes[0] if len(volumes) == 1 else None
        found = []
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
            volume = volumeOf(node) or only
            if volume is not None:
                found += [(rank, SceneCase(volume, node, segmentId)) for segmentId, rank in liverRanks(node).items()]
        return [case for _, case in sorted(found, key=lambda pair: pair[0])]

    def addCaseSteps(self, case: SceneCase, folder: Path) -> Generator[Progress, None, str]:
        """Copy a volume and its segment to a training set of one's own; returns the name that the case gets."""
        from LiverUNetTrainLib.data.pairs import add_case

        scan = yield from scanSteps(case.volumeNode)
        mask = yield from maskSteps(case.segmentationNode, case.segmentId, scan.volume)
        names = ("Model", "ModelVersion", "ModelChecksum")
        provenance = {name: case.segmentationNode.GetAttribute(f"LiverUNet.{name}") for name in names}
        add = partial(add_case, folder, scan.volume, mask, provenance)
        return (yield from in_background("Adding the case", add, final=True))

    def prepareSteps(
        self, folders: Sequence[Path], cache: Path, *, parent: str | None = None
    ) -> Generator[Progress, None, list[Finding]]:
        """Check all cases of the folders and bring them onto the model grid.

        Args:
            parent: prepare for the fine-tuning of this model, on its grid.

        Raises:
            TrainingError: a folder is missing or holds no case, the disk is too small, nothing can be used.
        """
        yield Progress("Looking for cases", 0, 0)
        yield from in_background("Loading", _importTraining)
        from LiverUNetTrainLib.data.cache import Grids, prepare
        from LiverUNetTrainLib.data.layouts import find_cases
        from LiverUNetTrainLib.training.cost import check_disk

        cases = find_cases(folders)
        check_disk(cases, cache)
        grids = Grids.of(find_model(parent).card.spec) if parent else Grids()
        return (yield from _each("Preparing", prepare(cases, cache, grids), len(cases)))

    def pairsSteps(self, source: Path, target: Path) -> Generator[Progress, None, list[Finding]]:
        """Write the cases of a folder, or of 3D-IRCADb-01 as one zip, as pairs of NIfTI."""
        from LiverUNetTrainLib.data.pairs import write_pairs

        return (yield from _each("Writing pair", write_pairs(source, target)))

    def previewSteps(self, cache: Path, name: str, recipeName: str, picture: Path) -> Generator[Progress, None, Path]:
        """Draw what the augmentation of a recipe does to a slice of a prepared case, as PNG; returns the picture.

        The slice is the one that the red view shows, if the case is loaded, or else the fullest one.
        """
        height = shownHeight(name)

        def draw() -> Path:
            _importTraining()
            from LiverUNetLib.segmentation.picture import write_figure
            from LiverUNetTrainLib.data.cache import open_cache
            from LiverUNetTrainLib.training.pictures import draw_augmentation
            from LiverUNetTrainLib.training.recipes import RECIPES

            write_figure(picture, draw_augmentation(open_cache(cache), name, RECIPES[recipeName], height=height))
            return picture

        return (yield from in_background("Drawing", draw))

    def estimateSteps(self, options: TrainingOptions) -> Generator[Progress, None, str]:
        """What a training would cost, in words."""

        def reckon() -> str:
            _importTraining()
            from LiverUNetLib.steps import finish
            from LiverUNetLib.system.environment import choose_device
            from LiverUNetTrainLib.data.cache import open_cache
            from LiverUNetTrainLib.training.cost import estimate_options

            parent = find_model(options.parent) if options.parent else None
            cost = estimate_options(options, open_cache(options.cache), parent, choose_device(options.device, "torch"))
            return finish(cost).words(options.minutes)

        return (yield from in_background("Estimating", reckon))

    def launch(self, options: TrainingOptions) -> subprocess.Popen:
        """Start a training that outlives this panel, this module and Slicer."""
        return background.launch(options.arguments(), options.run, python=_python())

    def resume(self, run: Path) -> subprocess.Popen:
        """Resume a training with the settings that it was ordered with."""
        return background.resume(run, python=_python())

    def requestStop(self, run: Path) -> None:
        """Ask a training to end after the batch in hand; its checkpoint stays."""
        if not run.is_dir():
            raise TrainingError(f"The run folder {run} is gone.")
        (run / "stop").touch()

    def evaluateSteps(
        self,
        modelName: str,
        folders: Sequence[Path],
        *,
        heldOutOnly: bool,
        only: Collection[str] | None = None,
        faults: list[Finding] | None = None,
        deviceName: str = "auto",
    ) -> Generator[Progress, None, list]:
        """The scores of a model on every case, or on those that it holds out, in a thread that touches no MRML.

        Args:
            only: names of cases, None for all.
            faults: takes the cases that cannot be used; without it the first one ends all.
        """

        def begin() -> object:
            _importTraining()
            from LiverUNetLib.system.environment import choose_device
            from LiverUNetTrainLib.data.layouts import find_cases
            from LiverUNetTrainLib.evaluation.evaluate import evaluate_model

            cases = [case for case in find_cases(folders) if only is None or case.name in only]
            model, device = find_model(modelName), choose_device(deviceName)
            return evaluate_model(model, cases, device, held_out_only=heldOutOnly, faults=faults)

        work = yield from in_background("Loading the model", begin)
        return (yield from _each("Evaluating case", work))

    def evaluateAllSteps(
        self, modelNames: Sequence[str], folders: Sequence[Path], *, heldOutOnly: bool, faults: list[Finding]
    ) -> Generator[Progress, None, list[list]]:
        """The scores of several models on the same cases: those that the first one holds out, or all."""
        found = [(yield from self.evaluateSteps(modelNames[0], folders, heldOutOnly=heldOutOnly, faults=faults))]
        names = {case.case for case in found[0]}
        for name in modelNames[1:]:
            scores = yield from self.evaluateSteps(name, folders, heldOutOnly=False, only=names)
            found.append(scores)
        return found

    def loadCaseSteps(
        self, folders: Sequence[Path], name: str, modelName: str = ""
    ) -> Generator[Progress, None, vtkMRMLSegmentationNode]:
        """Load a case with its reference as a segment, and with what a model makes of it as another.

        The slice views go to where the two disagree most, or to the middle of the reference.
        """

        def read() -> tuple:
            _importTraining()
            from LiverUNetLib.segmentation.pipeline import segment
            from LiverUNetLib.steps import finish
            from LiverUNetLib.system.environment import choose_device
            from LiverUNetTrainLib.data.layouts import find_cases

            case = next((case for case in find_cases(folders) if case.name == name), None)
            if case is None:
                raise TrainingError(f"There is no case {name} in the chosen folders any more.")
            scan, reference = case.read()
            found = finish(segment(scan, find_model(modelName), choose_device())) if modelName else None
            return scan, reference.hu_kji, found.mask_kji if found else None

        scan, reference, prediction = yield from in_background(f"Loading {name}", read)
        return showCase(name, scan, {"reference": reference, "prediction": prediction})

    def showScores(self, name: str, scores: Sequence) -> vtkMRMLTableNode:
        """A table node, the worst patient first."""
        from .nodes.plots import scoresTable

        return scoresTable(slicer.mrmlScene, name, scores)

    def showCurves(self, name: str, history: Sequence, *, inLayout: bool = False) -> dict:
        """Charts of loss, accuracy and Dice; the one of Dice in a plot view, if the user wants to see it."""
        from .nodes.plots import curvesOf

        charts = curvesOf(slicer.mrmlScene, name, history)
        if inLayout:
            slicer.modules.plots.logic().ShowChartInLayout(charts["Dice"])
        return charts

    def judgeSteps(self, run: Path, folders: Sequence[Path]) -> Generator[Progress, None, Any]:
        """Whether a fine-tuned run is better than the model it started from; None if it started from none."""

        def compare() -> object:
            _importTraining()
            from LiverUNetLib.system.environment import choose_device
            from LiverUNetTrainLib.data.layouts import find_cases
            from LiverUNetTrainLib.evaluation.before_after import judge

            return judge(run, find_cases(folders) if folders else [], choose_device())

        return (yield from in_background("Comparing with the model before", compare))

    def checkName(self, name: str) -> None:
        """Raise LiverUNetError unless a new model can have this name."""
        check_name(name)
        if name in list_models():
            raise TrainingError(f"A model {name} is installed already; choose another name or remove it first.")

    def installSteps(
        self,
        run: Path,
        name: str,
        *,
        description: str = "",
        terms: str = "",
    ) -> Generator[Progress, None, LiverModel]:
        """Make a model of a run and install it for the LiverUNet module."""

        def install() -> LiverModel:
            _importTraining()
            from LiverUNetLib.models.store import model_folders
            from LiverUNetTrainLib.evaluation.export import ModelInfo, export_run

            self.checkName(name)
            target = model_folders()[-1] / name
            said = {"description": description, "license": terms}
            info = ModelInfo(name, **{key: value for key, value in said.items() if value})
            return export_run(run, target, info)

        return (yield from in_background("Installing the model", install, final=True))

    def packSteps(self, name: str, path: Path) -> Generator[Progress, None, None]:
        """Write an installed model as a zip, over one that is there."""
        yield from in_background(
            "Packing the model", lambda: pack_model(find_model(name), path, overwrite=True), final=True
        )

    def addModelSteps(self, path: Path) -> Generator[Progress, None, LiverModel]:
        """Verify a model in a zip and install it."""
        return (yield from in_background("Verifying the model", lambda: install_model(path), final=True))


def _each(name: str, work: Iterator[Any], total: int = 0) -> Generator[Progress, None, list[Any]]:
    """All that an iterator gives, each made in the background."""
    found: list[Any] = []
    while True:
        count = f"{len(found) + 1} of {total}" if total else str(len(found) + 1)
        try:
            one = yield from in_background(f"{name} {count}", lambda: next(work, None))
        except TrainingError as error:
            faults = [str(one) for one in found if isinstance(one, Finding) and not one.usable]
            raise TrainingError("\n".join([str(error), *faults])) from error
        if one is None:
            return found
        found.append(one)


def _python() -> str:
    return shutil.which("PythonSlicer") or sys.executable


def _importTraining() -> None:
    """Import in a background thread what would hold the event loop for seconds."""
    try:
        importLibraries("torch")
        with withoutCollector():
            import LiverUNetTrainLib.training.model_training  # noqa: F401
    except ImportError as error:
        raise LiverUNetError(
            f"A package is missing ({error}); press Prepare in the module LiverUNetTrain once."
        ) from error
