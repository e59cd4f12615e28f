"""The panel: it shows and asks; what is done is the logic's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from LiverUNetLib.errors import LiverUNetError
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.segmentation.summary import table_row
from LiverUNetLib.steps import Progress

from .consent import agreesToLicense, chooseDevice
from .installer import Installer
from .logic import LiverUNetLogic, Outcome
from .nodes.segmentation import findLiver
from .nodes.table import addMeasurements
from .nodes.volume import span
from .parameters import LiverUNetParameterNode
from .runner import StepRunner
from .sections.buttons import enableOrSayWhy
from .sections.folder import FolderSection
from .sections.model import ModelSection
from .sections.result import ResultSection
from .settings import Settings

__all__ = ["LiverUNetWidget"]

DEVICES = {"auto": "Auto", "cpu": "CPU", "cuda": "NVIDIA GPU (PyTorch)", "mps": "Apple GPU (PyTorch)"}


class LiverUNetWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """From a CT volume to a segmentation with one button."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self._parameterNode: LiverUNetParameterNode | None = None
        self._parameterNodeGuiTag = None
        self._shownBefore: tuple[Any, Any] = (None, None)
        self._emptyVolume = None

    # Life cycle

    def setup(self) -> None:
        """Called when the module is opened for the first time."""
        super().setup()
        panel = slicer.util.loadUI(self.resourcePath("UI/LiverUNet.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = LiverUNetLogic()
        self.runner = StepRunner(self)
        self.settings = Settings()
        self.installer = Installer(Path(self.resourcePath("LiverUNet-requirements.txt")))
        self.models = ModelSection(self.ui, self._onModelChosen)
        self.result = ResultSection(self)
        self.folder = FolderSection(self)
        self._showSettings()
        self._connect()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        for event in (slicer.mrmlScene.EndCloseEvent, slicer.mrmlScene.EndImportEvent):
            self.addObserver(slicer.mrmlScene, event, self.onSceneReady)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Called when the application quits or the module is reloaded."""
        self.runner.stop()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        """Called each time the module is opened."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """Called each time another module is opened; a run continues and writes its result."""
        self._disconnectParameterNode()

    def onSceneStartClose(self, caller: Any = None, event: Any = None) -> None:
        """The nodes go: nothing may be written to them any more."""
        if not self.runner.running:
            self.say("")  # what it says is about this scene
        self.runner.stop()
        self.setParameterNode(None)
        self.result.show(None)

    def onSceneReady(self, caller: Any = None, event: Any = None) -> None:
        """Begin anew in an empty scene, or with the choices of one that was opened, if the panel is in view."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onReload(self) -> None:
        """Forget our packages, so that the module imports them anew."""
        for name in [name for name in sys.modules if name.split(".")[0] in ("LiverUNetPanel", "LiverUNetLib")]:
            del sys.modules[name]
        super().onReload()

    # Parameter node

    def initializeParameterNode(self) -> None:
        """Show the scene's choices; the first volume is chosen if there is none."""
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.volume:
            self._parameterNode.volume = next(iter(self.logic.ctVolumes()), None)

    def setParameterNode(self, parameterNode: LiverUNetParameterNode | None) -> None:
        """Show and observe a parameter node, or none."""
        self._disconnectParameterNode()
        self._parameterNode = parameterNode
        if parameterNode:
            self._parameterNodeGuiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersChanged)
            self.models.show(parameterNode.model)
            self._showStored()
        self.updateButtons()

    def _disconnectParameterNode(self) -> None:
        if self._parameterNode and self._parameterNodeGuiTag is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self._parameterNodeGuiTag = None
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersChanged)

    def _onParametersChanged(self, caller: Any = None, event: Any = None) -> None:
        """Another volume has another liver: never replace that of the one before."""
        if slicer.mrmlScene.IsImporting():
            return
        if self._parameterNode.model != self.models.name:
            self.models.show(self._parameterNode.model)
        chosen, (volume, segmentation) = self._parameterNode, self._shownBefore
        if chosen.volume is not volume:
            self._shownBefore = chosen.volume, self.logic.ownSegmentation(chosen.volume)
            chosen.segmentation = self._shownBefore[1]
            self._showStored()
        elif chosen.segmentation is not segmentation:
            self._showStored()
        self.updateButtons()

    def _showStored(self) -> None:
        """Show what the scene knows of the chosen liver, or else of that of the chosen volume."""
        volume, segmentation = self._shownBefore = self._parameterNode.volume, self._parameterNode.segmentation
        if volume is self._emptyVolume:
            return  # the last run has found nothing in it, or there is none any more: what is shown stays true
        self._emptyVolume = None
        node = segmentation if segmentation and findLiver(segmentation) else self.logic.ownSegmentation(volume)
        self.result.show(self.logic.outcomeOf(node) if node else None)

    # Buttons

    def _connect(self) -> None:
        ui = self.ui
        ui.segmentButton.clicked.connect(self.onSegmentOrCancel)
        ui.segmentAllButton.clicked.connect(self.onSegmentAll)
        ui.regionSelector.nodeAddedByUser.connect(self._onRegionAdded)
        ui.addModelButton.clicked.connect(self.onAddModel)
        ui.doctorButton.clicked.connect(self.onDoctor)
        ui.withdrawButton.clicked.connect(self.onWithdraw)
        ui.deviceSelector.currentIndexChanged.connect(self._onDeviceChosen)
        ui.wheelPath.currentPathChanged.connect(self._onWheelFolderChosen)

    def onSegmentOrCancel(self) -> None:
        """Segment the chosen volume, or end the run."""
        if self.runner.running:
            self.runner.cancel()
            return
        chosen, volume = self._parameterNode, self._parameterNode.volume
        segmentation, region = chosen.segmentation, chosen.region
        if options := self.readyToRun():
            steps = self.logic.segmentSteps(volume, segmentation, roiNode=region, **options)
            self.start(steps, lambda outcome: self._onSegmented(outcome, volume))

    def onSegmentAll(self) -> None:
        """Segment every scalar volume of the scene."""
        if options := self.readyToRun():
            self.start(self.logic.segmentAllSteps(self.logic.ctVolumes(), **options), self._onAllSegmented)

    def onAddModel(self) -> None:
        """Install a model from a zip."""
        path = qt.QFileDialog.getOpenFileName(self.parent, _("Add a model"), "", _("Models (*.zip)"))
        with slicer.util.tryWithErrorDisplay(_("The model was not added.")):
            if path and self._ensureInstalled("onnx"):
                self.start(self.logic.installModelSteps(Path(path)), self._onModelAdded)

    def onDoctor(self) -> None:
        """Examine this installation and copy what is found."""
        self.start(self.logic.examineSteps(), self._onExamined)

    def onWithdraw(self) -> None:
        """Forget the agreements to licenses."""
        self.settings.withdrawConsents()
        self.say(_("The next run asks for your consent again."))
        self.updateButtons()

    # Before a run

    def readyToRun(self) -> dict[str, str]:
        """Model and device as the logic takes them, once their license is agreed to and their packages are there.

        Asks where it must; nothing if the user declines.
        """
        with slicer.util.tryWithErrorDisplay(_("LiverUNet cannot start.")):
            name, model = self.models.name, self.models.model()
            if not agreesToLicense(model.card, self.settings):
                self.say(_("Nothing was done: the license of the model was not agreed to."))
                return {}
            device, engine = chooseDevice(self.settings)
            if self._ensureInstalled(engine if model.has_onnx else "torch"):
                return {"modelName": name, "deviceName": device}
        return {}

    def _ensureInstalled(self, engine: str) -> bool:
        """Whether a run can begin now; Slicer stays alive meanwhile, and another one may have begun."""
        installed = self.installer.ensureAndSay(self.settings.wheelFolder, self.say, engine=engine)
        return installed and not self.runner.running

    def say(self, words: str) -> None:
        """Tell the user in the status line, which takes no room while it is empty."""
        self.ui.statusLabel.text = words
        self.ui.statusLabel.visible = bool(words)

    def start(self, steps: Any, onDone: Any) -> None:
        """Take steps from the event loop; `onDone` gets their result."""
        self.runner.start(steps, onDone)
        self.ui.progressBar.visible = True
        self.say(_("Starting"))
        self.updateButtons()

    # During and after a run

    def onProgress(self, progress: Progress) -> None:
        """Show stage and slices; a bar without an end where the total is unknown."""
        bar = self.ui.progressBar
        bar.maximum = progress.total
        bar.value = progress.done
        count = _(", {done} of {total}").format(done=progress.done, total=progress.total) if progress.total else ""
        self.say(progress.stage + (_("; this cannot be cancelled") if progress.final else count))

    def onCancelled(self) -> None:
        """Say what came of it."""
        self.ended(_("Cancelled; nothing unfinished was written."))

    def onFailed(self, error: Exception) -> None:
        """Show what was wrong, once."""
        self.ended(str(error) if isinstance(error, LiverUNetError) else _("Failed: {error}").format(error=error))
        with slicer.util.tryWithErrorDisplay(_("LiverUNet could not finish.")):
            raise error

    def _onSegmented(self, outcome: Outcome, volume: slicer.vtkMRMLScalarVolumeNode) -> None:
        self.ended(" ".join(filter(None, [_("Done."), outcome.note])))
        self._emptyVolume = None if outcome.segmentationNode else volume
        if outcome.segmentationNode and self._parameterNode and self._parameterNode.volume is volume:
            self._parameterNode.segmentation = outcome.segmentationNode
        self.result.show(outcome)

    def _onAllSegmented(self, outcomes: list[Outcome]) -> None:
        good = [outcome for outcome in outcomes if outcome.result]
        if good:
            addMeasurements(slicer.mrmlScene, [table_row(outcome.result) for outcome in good])
        failures = [f"{outcome.name}: {outcome.error}" for outcome in outcomes if outcome.error]
        kept = [outcome.note for outcome in outcomes if outcome.note]
        words = _("{good} volumes segmented, {failed} failed, what was done before was skipped.")
        self.ended("\n".join([words.format(good=len(good), failed=len(failures)), *failures, *kept]))
        self.result.show(good[-1] if good else None)
        if self._parameterNode:
            self._parameterNode.segmentation = self.logic.ownSegmentation(self._parameterNode.volume)

    def _onModelAdded(self, model: LiverModel) -> None:
        self.ended(_("Installed {name} {version}.").format(name=model.card.name, version=model.card.version))
        self.models.show(model.card.name)
        self._onModelChosen(model.card.name)

    def _onExamined(self, text: str) -> None:
        slicer.app.clipboard().setText(text)
        self.ended(_("Copied for a bug report:\n{text}").format(text=text))

    def ended(self, words: str) -> None:
        """Show that nothing is under way any more, and what came of it."""
        self.ui.progressBar.visible = False
        self.say(words)
        self.updateButtons()

    # What the widgets show

    def _showSettings(self) -> None:
        for name, words in DEVICES.items():
            self.ui.deviceSelector.addItem(words, name)
        self.ui.deviceSelector.currentIndex = max(self.ui.deviceSelector.findData(self.settings.device), 0)
        self.ui.wheelPath.currentPath = self.settings.wheelFolder
        self.ui.progressBar.visible = False
        self.say("")
        self.result.show(None)

    def _onDeviceChosen(self) -> None:
        self.settings.device = self.ui.deviceSelector.itemData(self.ui.deviceSelector.currentIndex)

    def _onWheelFolderChosen(self, folder: str) -> None:
        self.settings.wheelFolder = folder

    def _onRegionAdded(self, roi: slicer.vtkMRMLMarkupsROINode) -> None:
        if self._parameterNode.volume is not None:
            span(roi, self._parameterNode.volume)

    def _onModelChosen(self, name: str) -> None:
        if self._parameterNode:
            self._parameterNode.model = name
        self.updateButtons()

    def updateButtons(self, *_ignored: Any) -> None:
        """What can be pressed now; a tooltip says what is missing."""
        ui, running = self.ui, self.runner.running
        busy = _("Wait for the run to end, or cancel it.") if running else ""
        noModel = self._modelFault()
        noVolume = "" if self._parameterNode and self._parameterNode.volume else _("Choose a CT volume.")
        ui.segmentButton.text = _("Cancel") if running else _("Segment")
        missing = "" if running else noVolume or noModel
        enableOrSayWhy(
            ui.segmentButton,
            missing,
            _("End the run; nothing unfinished is written.") if running else _("Find the liver."),
        )
        enableOrSayWhy(
            ui.segmentAllButton, busy or noVolume or noModel, _("What this model has done already is skipped.")
        )
        self.folder.updateButtons(busy, noModel)
        enableOrSayWhy(ui.addModelButton, busy, _("Install a model from a zip; nothing in it is executed."))
        enableOrSayWhy(ui.doctorButton, busy, _("Try devices and models and copy what is found, for a bug report."))
        self.result.updateButtons(busy)
        consents = "" if self.settings.hasConsents() else _("You have agreed to no license.")
        enableOrSayWhy(ui.withdrawButton, consents, _("The next run asks for your consent again."))

    def _modelFault(self) -> str:
        try:
            self.models.model()
        except LiverUNetError as error:
            return str(error)
        return ""
