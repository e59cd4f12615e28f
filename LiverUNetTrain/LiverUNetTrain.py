"""The module that Slicer loads, and its self-test; everything else is in LiverUNetTrainPanel and LiverUNetTrainLib."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any
from unittest import mock

import slicer
from slicer import vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest

from LiverUNetLib.scan.phantom import abdomen, axial_affine
from LiverUNetLib.steps import Progress, finish
from LiverUNetPanel.case_action import provideCaseAction
from LiverUNetPanel.installer import Installer
from LiverUNetPanel.logic import LiverUNetLogic
from LiverUNetTrainPanel.logic import LiverUNetTrainLogic
from LiverUNetTrainPanel.widget import LiverUNetTrainWidget

__all__ = ["LiverUNetTrain", "LiverUNetTrainLogic", "LiverUNetTrainTest", "LiverUNetTrainWidget"]


class LiverUNetTrain(ScriptedLoadableModule):
    """The module as Slicer lists it."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        parent.title = _("LiverUNetTrain")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["LiverUNet", "Segmentations", "Plots", "Tables", "Markups"]
        parent.contributors = ["The LiverUNet developers"]
        parent.helpText = _(
            "Trains, evaluates and installs liver models on pairs of scans and masks, or on the segmentations of this "
            "scene, on this computer. A training runs in a separate process, which outlives Slicer and is found again "
            "by its run folder. The license of a model that you train depends on the licenses of your data."
        )
        parent.acknowledgementText = _("Built on MONAI and PyTorch, for 3D-IRCADb-01 of IRCAD, Strasbourg.")
        provideCaseAction(_addLiverCase)


def _addLiverCase(segmentationNode: vtkMRMLSegmentationNode) -> Generator[Progress, None, str] | None:
    """Import the action when it is used: after a reload it is the new one."""
    from LiverUNetTrainPanel.liver_case import addLiverCase

    return addLiverCase(segmentationNode)


class LiverUNetTrainTest(ScriptedLoadableModuleTest):
    """Needs no data, network or GPU: it trains on two tiny phantoms for two epochs."""

    def setUp(self) -> None:
        """Begin with an empty scene; skip the test if packages are missing."""
        slicer.mrmlScene.Clear()
        missing = Installer(Path(__file__).parent / "Resources" / "LiverUNetTrain-requirements.txt").missing("torch")
        if missing:
            self.skipTest(f"not installed: {', '.join(missing)}")

    def test_two_phantoms_become_a_model_that_segments(self) -> None:
        """Prepare, train in a separate process, install, evaluate, segment."""
        from LiverUNetTrainLib.data.pairs import add_case
        from LiverUNetTrainLib.run.options import TrainingOptions

        logic, shape = LiverUNetTrainLogic(), (64, 48, 16)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            scans = [abdomen(axial_affine((6.0, 6.0, 12.0), shape), shape[::-1], seed=seed) for seed in range(2)]
            for scan, liver in scans:
                add_case(folder / "pairs", scan, liver, {})
            prepared = finish(logic.prepareSteps([folder / "pairs"], folder / "cache"))
            self.assertEqual([case.usable for case in prepared], [True, True])
            options = TrainingOptions(folder / "cache", folder / "run", epochs=2, batch_size=4, device="cpu")
            logic.launch(options).wait()
            state = logic.stateOf(folder / "run")
            self.assertEqual((state.phase, len(state.history)), ("finished", 2), state.message)
            logic.showCurves("run", state.history)
            with mock.patch.dict(os.environ, {"LIVER_UNET_MODELS": str(folder / "models")}):
                finish(logic.installSteps(folder / "run", "self-test"))
                steps = logic.evaluateSteps("self-test", [folder / "pairs"], heldOutOnly=False, deviceName="cpu")
                table = logic.showScores("self-test", finish(steps))
                self.assertEqual(table.GetNumberOfRows(), 2)
                volume = slicer.util.addVolumeFromArray(scans[0][0].hu_kji, scans[0][0].affine, "Phantom")
                outcome = LiverUNetLogic().process(volume, modelName="self-test", deviceName="cpu")
            self.assertEqual(outcome.result.provenance.model, "self-test")
