"""LiverUNet's panel: its life cycle, its parameter node, and the runs on volumes of the scene."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from .consent import agreesToLicense, chooseDevice
from .installer import Installer
from .logic import LiverUNetLogic, Outcome
from .parameters import LiverUNetParameterNode
from .runner import StepRunner
from .sections.buttons import enableOrSayWhy
from .sections.computer import ComputerSection
from .sections.folder import FolderSection
from .sections.model import ModelSection
from .sections.result import ResultSection
from .sections.run import RunSection
from .settings import Settings

__all__ = ["LiverUNetWidget"]


class LiverUNetWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """From a CT volume to a segmentation with one button."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.parameterNode: LiverUNetParameterNode | None = None
        self._parameterNodeGuiTag = None
        self._shownVolume = self._shownSegmentation = None  # the choices that are shown
        self._volumeWithoutLiver = None  # if the last run found none

    # Life cycle

    def setup(self) -> None:
        """Called when the module is opened for the first time."""
        super().setup()
        panel = slicer.util.loadUI(self.resourcePath("UI/LiverUNet.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = LiverUNetLogic()
        self.settings = Settings()
        self.installer = Installer(Path(self.resourcePath("LiverUNet-requirements.txt")))
        self.run = RunSection(
            self.ui,
            "LiverUNet",
            runner=StepRunner(),
            packages=self.installer,
            settings=self.settings,
            onChanged=self.updateButtons,
        )
        self.models = ModelSection(self.ui, self.logic, self.run, self._onModelChosen)
        self.result = ResultSection(self.ui, self.logic, self.run)
        self.folder = FolderSection(self.ui, self.logic, self.run, self._prepareRun, onChanged=self.updateButtons)
        self.computer = ComputerSection(self.ui, self.logic, self.run, self.settings)
        self.ui.segmentButton.clicked.connect(self.onSegmentOrCancel)
        self.ui.segmentAllButton.clicked.connect(self.onSegmentAll)
        self.ui.regionSelector.nodeAddedByUser.connect(self._onRegionAdded)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._onSceneStartClose)
        for event in (scene.EndCloseEvent, scene.EndImportEvent):
            self.addObserver(scene, event, self._onSceneReady)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Called when the application quits or the module is reloaded."""
        self.run.stop()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        """Called each time the module is opened."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """Called each time another module is opened; a run continues and writes its result."""
        self._disconnectParameterNode()

    def onReload(self) -> None:
        """Forget our packages, so that the module imports them anew."""
        for name in [name for name in sys.modules if name.split(".")[0] in ("LiverUNetPanel", "LiverUNetLib")]:
            del sys.modules[name]
        super().onReload()

    def _onSceneStartClose(self, caller: Any = None, event: Any = None) -> None:
        """The nodes are about to be removed: write nothing to them any more."""
        if not self.run.running:
            self.run.say("")  # the message was about this scene
        self.run.stop()
        self.setParameterNode(None)
        self.result.show(None)

    def _onSceneReady(self, caller: Any = None, event: Any = None) -> None:
        """Show the choices of an empty scene, or of one that was opened, if the panel is in view."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    # Parameter node

    def initializeParameterNode(self) -> None:
        """Show the choices of the scene; choose its first volume if none is chosen."""
        self.setParameterNode(self.logic.getParameterNode())
        if not self.parameterNode.volume:
            self.parameterNode.volume = next(iter(self.logic.ctVolumes()), None)

    def setParameterNode(self, parameterNode: LiverUNetParameterNode | None) -> None:
        """Show and observe a parameter node, or none."""
        self._disconnectParameterNode()
        self.parameterNode = parameterNode
        if parameterNode:
            self._parameterNodeGuiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersChanged)
            self.models.show(parameterNode.model)
            self._showStored()
        self.updateButtons()

    def _disconnectParameterNode(self) -> None:
        if self.parameterNode and self._parameterNodeGuiTag is not None:
            self.parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self._parameterNodeGuiTag = None
            self.removeObserver(self.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersChanged)

    def _onParametersChanged(self, caller: Any = None, event: Any = None) -> None:
        """Follow the choices. With another volume its own segmentation is chosen, so that no other is replaced."""
        if slicer.mrmlScene.IsImporting():
            return
        if self.parameterNode.model != self.models.name:
            self.models.show(self.parameterNode.model)
        chosen = self.parameterNode
        if chosen.volume is not self._shownVolume:
            self._choose(self.logic.ownSegmentation(chosen.volume))
        elif chosen.segmentation is not self._shownSegmentation:
            self._showStored()
        self.updateButtons()

    def _choose(self, segmentation: slicer.vtkMRMLSegmentationNode | None) -> None:
        """Choose a segmentation for the chosen volume, and show its stored result."""
        # Noted first: the choice itself calls `_onParametersChanged`.
        self._shownVolume, self._shownSegmentation = self.parameterNode.volume, segmentation
        self.parameterNode.segmentation = segmentation
        self._showStored()

    def _showStored(self) -> None:
        """Show the stored result of the chosen segmentation, otherwise of the chosen volume.

        Nothing changes if no volume is chosen, or if the last run found no liver in the chosen one.
        """
        volume, segmentation = self.parameterNode.volume, self.parameterNode.segmentation
        self._shownVolume, self._shownSegmentation = volume, segmentation
        if volume and volume is not self._volumeWithoutLiver:
            self._volumeWithoutLiver = None
            self.result.show(self.logic.storedOutcome(volume, segmentation))

    # Runs on the scene

    def onSegmentOrCancel(self) -> None:
        """Segment the chosen volume, or cancel the run."""
        if self.run.running:
            self.run.cancel()
            return
        chosen = self.parameterNode
        volume, segmentation, region = chosen.volume, chosen.segmentation, chosen.region
        if options := self._prepareRun():
            self.run.start(self.logic.segmentSteps(volume, segmentation, roiNode=region, **options), self._onSegmented)

    def onSegmentAll(self) -> None:
        """Segment every scalar volume of the scene."""
        if options := self._prepareRun():
            self.run.start(self.logic.segmentAllSteps(self.logic.ctVolumes(), **options), self._onAllSegmented)

    def _prepareRun(self) -> dict[str, str]:
        """Ask for consent, choose the device and install its packages; empty if the user declined."""
        with slicer.util.tryWithErrorDisplay(_("LiverUNet cannot start.")):
            name, model = self.models.name, self.models.model()
            if not agreesToLicense(model.card, self.settings):
                self.run.say(_("Nothing was done: you did not agree to the license of the model."))
                return {}
            device, engine = chooseDevice(self.settings)
            if self.run.ensureInstalled(engine if model.has_onnx else "torch"):
                return {"modelName": name, "deviceName": device}
        return {}

    def _onSegmented(self, outcome: Outcome) -> None:
        self.run.say(" ".join(filter(None, [_("Done."), outcome.note])))
        self._show(outcome)

    def _show(self, outcome: Outcome) -> None:
        """Show what a run found. If its volume is still chosen, its liver is chosen too."""
        liver = outcome.segmentationNode
        self._volumeWithoutLiver = None if liver else outcome.volumeNode
        if liver and outcome.volumeNode is self.parameterNode.volume:
            self._choose(liver)
        else:
            self.result.show(outcome)

    def _onAllSegmented(self, outcomes: list[Outcome]) -> None:
        """Tell how each volume went, and show the result of the chosen one, whether it is new or not."""
        good = [outcome for outcome in outcomes if outcome.result]
        if good:
            self.logic.addToTable([outcome.result for outcome in good])
        failures = [f"{outcome.name}: {outcome.error}" for outcome in outcomes if outcome.error]
        notes = [outcome.note for outcome in outcomes if outcome.note]
        counts = _("{good} segmented, {failed} failed; finished volumes were skipped.").format(
            good=len(good), failed=len(failures)
        )
        self.run.say("\n".join([counts, *failures, *notes]))
        volume = self.parameterNode.volume
        if new := next((outcome for outcome in good if outcome.volumeNode is volume), None):
            self._show(new)
        else:
            self._choose(self.logic.ownSegmentation(volume))

    # What the widgets show

    def updateButtons(self, *_ignored: Any) -> None:
        """Enable what is possible now; the tooltips of the other buttons tell what is missing."""
        ui, running = self.ui, self.run.running
        busy = _("Wait for the run to end, or cancel it.") if running else ""
        modelFault = self.models.fault()
        noVolume = "" if self.parameterNode and self.parameterNode.volume else _("Choose a CT volume.")
        ui.segmentButton.text = _("Cancel") if running else _("Segment")
        purpose = _("End the run; nothing unfinished is written.") if running else _("Find the liver.")
        enableOrSayWhy(ui.segmentButton, "" if running else noVolume or modelFault, purpose)
        finished = _("Volumes that this model has segmented before are skipped.")
        enableOrSayWhy(ui.segmentAllButton, busy or noVolume or modelFault, finished)
        self.folder.updateButtons(busy, modelFault)
        for section in (self.models, self.result, self.computer):
            section.updateButtons(busy)

    def _onRegionAdded(self, roi: slicer.vtkMRMLMarkupsROINode) -> None:
        if self.parameterNode.volume is not None:
            self.logic.spanVolume(roi, self.parameterNode.volume)

    def _onModelChosen(self, name: str) -> None:
        if self.parameterNode:
            self.parameterNode.model = name
        self.updateButtons()
