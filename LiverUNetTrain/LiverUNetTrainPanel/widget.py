"""The panel of training: four sections in the order of use, and one place for what takes time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from LiverUNetLib.errors import LiverUNetError
from LiverUNetLib.steps import Progress
from LiverUNetPanel.installer import Installer
from LiverUNetPanel.runner import StepRunner
from LiverUNetPanel.sections.buttons import enableOrSayWhy
from LiverUNetPanel.settings import Settings

from .logic import LiverUNetTrainLogic
from .sections.data import DataSection
from .sections.evaluate import EvaluateSection
from .sections.train import TrainSection
from .sections.use import UseSection

__all__ = ["LiverUNetTrainWidget"]

PACKAGES = ("LiverUNetTrainPanel", "LiverUNetTrainLib", "LiverUNetPanel", "LiverUNetLib")

# Folders that the user has chosen are remembered from one day to the next.
REMEMBERED = ("dataPath", "ownPath", "cachePath", "runPath")


class LiverUNetTrainWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """From scans to a model that the LiverUNet module uses."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    def setup(self) -> None:
        """Called when the module is opened for the first time."""
        super().setup()
        panel = slicer.util.loadUI(self.resourcePath("UI/LiverUNetTrain.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = LiverUNetTrainLogic()
        self.runner = StepRunner(self)
        self.settings = Settings()
        self.installer = Installer(Path(self.resourcePath("LiverUNetTrain-requirements.txt")))
        self._showFolders()
        self.say("")
        self.data, self.train = DataSection(self), TrainSection(self)
        self.evaluate, self.use = EvaluateSection(self), UseSection(self)
        for name in REMEMBERED:
            getattr(self.ui, name).currentPathChanged.connect(partial(self._onFolderChosen, name))
        self.ui.cancelButton.clicked.connect(self.runner.cancel)
        scene = slicer.mrmlScene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent):
            self.addObserver(scene, event, self._onSceneChanged)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._onSceneClosing)
        self.updateButtons()
        if self.parent.isEntered:  # reloaded while in view
            self.enter()

    def cleanup(self) -> None:
        """Called when the application quits or the module is reloaded; a training continues."""
        self.runner.stop()
        self.train.leave()
        self.removeObservers()

    def enter(self) -> None:
        """Called each time the module is opened; another one may have chosen a folder or installed a model."""
        self._showFolders()
        self.data.showScene()
        self.evaluate.enter()
        self.train.enter()

    def exit(self) -> None:
        """Called each time another module is opened."""
        self.train.leave()

    def onReload(self) -> None:
        """Forget our packages, and those of LiverUNet, so that the module imports them anew."""
        for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
            del sys.modules[name]
        super().onReload()

    def start(self, steps: Generator[Progress, None, Any], onDone: Callable[[Any], None]) -> None:
        """Take steps from the event loop, once the packages are there."""
        with slicer.util.tryWithErrorDisplay(_("LiverUNetTrain cannot start.")):
            if self.ensureInstalled():
                self.runner.start(steps, lambda result: self._onDone(result, onDone))
                self.updateButtons()

    def ensureInstalled(self) -> bool:
        """Whether a run can begin now; installs what is missing, if the user agrees."""
        installed = self.installer.ensureAndSay(self.settings.wheelFolder, self.say, engine="torch")
        return installed and not self.runner.running

    def say(self, words: str) -> None:
        """Tell the user in the status line, which takes no room while it is empty."""
        self.ui.statusLabel.text = words
        self.ui.statusLabel.visible = bool(words)

    def updateButtons(self) -> None:
        """What can be pressed now; a tooltip says what is missing."""
        busy = _("Wait for what this panel does, or cancel it.") if self.runner.running else ""
        for section in (self.data, self.train, self.evaluate, self.use):
            section.updateButtons(busy)
        idle = "" if self.runner.running else _("This panel is doing nothing.")
        enableOrSayWhy(self.ui.cancelButton, idle, _("End it; a training continues."))
        self.ui.progressBar.visible = self.ui.cancelButton.visible = self.runner.running

    def onProgress(self, progress: Progress) -> None:
        """Show the stage."""
        self.ui.progressBar.maximum = progress.total
        self.ui.progressBar.value = progress.done
        self.say(progress.stage + (_("; this cannot be cancelled") if progress.final else ""))

    def onCancelled(self) -> None:
        """Say so."""
        self._ended(_("Cancelled."))

    def onFailed(self, error: Exception) -> None:
        """Show what was wrong, once."""
        self._ended(str(error) if isinstance(error, LiverUNetError) else _("Failed: {error}").format(error=error))
        with slicer.util.tryWithErrorDisplay(_("LiverUNetTrain could not finish.")):
            raise error

    def _onDone(self, result: Any, onDone: Callable[[Any], None]) -> None:
        self._ended(_("Done."))
        onDone(result)
        self.updateButtons()

    def _ended(self, words: str) -> None:
        self.say(words)
        self.data.showScene()
        self.updateButtons()

    def _showFolders(self) -> None:
        for name in REMEMBERED:
            if getattr(self.ui, name).currentPath != self.settings.folder(name):
                getattr(self.ui, name).currentPath = self.settings.folder(name)

    def _onFolderChosen(self, name: str, path: str) -> None:
        self.settings.setFolder(name, path)
        self.updateButtons()

    def _onSceneChanged(self, caller: Any = None, event: Any = None) -> None:
        if self.parent.isEntered and not self.runner.running and not slicer.mrmlScene.IsBatchProcessing():
            self.data.showScene()
            self.updateButtons()

    def _onSceneClosing(self, caller: Any = None, event: Any = None) -> None:
        self.runner.stop()
        self.train.forgetCurves()
