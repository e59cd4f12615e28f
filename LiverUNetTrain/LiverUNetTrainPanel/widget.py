"""LiverUNetTrain's panel: four sections in the order of work, and one run for all of them."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from LiverUNetPanel.installer import Installer
from LiverUNetPanel.runner import StepRunner
from LiverUNetPanel.sections.buttons import enableOrSayWhy
from LiverUNetPanel.sections.run import RunSection
from LiverUNetPanel.settings import Settings

from .choices import TrainingChoices
from .logic import LiverUNetTrainLogic
from .sections.data import DataSection
from .sections.evaluate import EvaluateSection
from .sections.train import TrainSection
from .sections.use import UseSection

__all__ = ["LiverUNetTrainWidget"]

PACKAGES = ("LiverUNetTrainPanel", "LiverUNetTrainLib", "LiverUNetPanel", "LiverUNetLib")

# Folders that are chosen again when Slicer is started the next time.
REMEMBERED = ("dataPath", "ownPath", "cachePath", "runPath")


class LiverUNetTrainWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """From scans to a model for the LiverUNet module."""

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
        self.settings = Settings()
        self.installer = Installer(Path(self.resourcePath("LiverUNetTrain-requirements.txt")))
        self._showFolders()
        self.run = RunSection(
            self.ui,
            "LiverUNetTrain",
            runner=StepRunner(),
            packages=self.installer,
            settings=self.settings,
            onChanged=self._onRunChanged,
            engine="torch",
        )
        shared = self.ui, self.logic, self.run, TrainingChoices(self.ui)
        self.data = DataSection(*shared)
        self.train = TrainSection(*shared, onWatched=self._onWatched)
        self.evaluate = EvaluateSection(*shared)
        self.use = UseSection(*shared, onInstalled=self.evaluate.enter)
        for name in REMEMBERED:
            getattr(self.ui, name).currentPathChanged.connect(partial(self._onFolderChosen, name))
        self.ui.nameEdit.textChanged.connect(lambda _name: self.updateButtons())
        self.ui.cancelButton.clicked.connect(self.run.cancel)
        scene = slicer.mrmlScene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent):
            self.addObserver(scene, event, self._onSceneChanged)
        self.addObserver(scene, scene.StartCloseEvent, self._onSceneClosing)
        self.updateButtons()
        if self.parent.isEntered:  # reloaded while in view
            self.enter()

    def cleanup(self) -> None:
        """Called when the application quits or the module is reloaded; a training continues."""
        self.run.stop()
        self.train.leave()
        self.removeObservers()

    def enter(self) -> None:
        """Called each time the module is opened; a folder may have been chosen or a model installed elsewhere."""
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

    def updateButtons(self) -> None:
        """Enable what is possible now; the tooltips of the other buttons tell what is missing."""
        running = self.run.running
        busy = _("Wait for the run to end, or cancel it.") if running else ""
        for section in (self.data, self.train, self.evaluate, self.use):
            section.updateButtons(busy)
        idle = "" if running else _("Nothing is running in this panel.")
        enableOrSayWhy(self.ui.cancelButton, idle, _("End the run; a training continues."))
        self.ui.cancelButton.visible = running

    def _onRunChanged(self) -> None:
        if not self.run.running:
            self.data.showScene()
        self.updateButtons()

    def _onWatched(self) -> None:
        self.data.showParts(self.train.parts())
        self.updateButtons()

    def _showFolders(self) -> None:
        for name in REMEMBERED:
            if getattr(self.ui, name).currentPath != self.settings.folder(name):
                getattr(self.ui, name).currentPath = self.settings.folder(name)

    def _onFolderChosen(self, name: str, path: str) -> None:
        self.settings.setFolder(name, path)
        self.updateButtons()

    def _onSceneChanged(self, caller: Any = None, event: Any = None) -> None:
        if self.parent.isEntered and not self.run.running and not slicer.mrmlScene.IsBatchProcessing():
            self.data.showScene()
            self.updateButtons()

    def _onSceneClosing(self, caller: Any = None, event: Any = None) -> None:
        self.run.stop()
        self.train.forgetCharts()
