"""The section *Train*: starts a training, watches its run folder, stops and resumes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from LiverUNetLib.errors import LiverUNetError
from LiverUNetPanel.sections.buttons import enableOrSayWhy
from LiverUNetPanel.sections.run import RunSection
from LiverUNetPanel.settings import DEVICES
from LiverUNetTrainLib.run.background import RunState
from LiverUNetTrainLib.run.folder import RunFolder
from LiverUNetTrainLib.run.options import NEW_MODEL_RECIPES

from ..choices import TrainingChoices
from ..logic import LiverUNetTrainLogic

__all__ = ["TrainSection"]

# The parts of a split, as the table of cases shows them.
PARTS = {"training": "training", "validation": "validation", "held_out": "held out"}
WORKING = ("starting", "running")
# Two states that `state_of` does not report: there is no run folder, or it cannot be read.
ABSENT = RunState("absent")
UNREADABLE = "unreadable"
WATCH_MILLISECONDS = 1000
OVERLAY_WIDTH = 320


class TrainSection:
    """Reads the run folder once a second; what it shows is the last state and nothing else.

    Args:
        ui: the widgets of the panel by name.
        onWatched: called when the state was read.
    """

    def __init__(
        self,
        ui: Any,
        logic: LiverUNetTrainLogic,
        run: RunSection,
        choices: TrainingChoices,
        *,
        onWatched: Callable[[], None],
    ) -> None:
        self._ui, self._logic, self._run, self._choices = ui, logic, run, choices
        self._onWatched = onWatched
        self._state = ABSENT
        self._charted = False  # whether charts follow the run
        ui.recipeSelector.addItems(list(NEW_MODEL_RECIPES))
        ui.trainDeviceSelector.addItems(list(DEVICES))
        ui.estimateButton.clicked.connect(self._onEstimate)
        ui.startButton.clicked.connect(self._onStart)
        ui.resumeButton.clicked.connect(self._onResume)
        ui.stopButton.clicked.connect(self._onStop)
        ui.curvesButton.clicked.connect(self._onCurves)
        ui.runPath.currentPathChanged.connect(self._onRunChosen)
        ui.overlayLabel.visible = ui.costLabel.visible = False
        self._timer = qt.QTimer()
        self._timer.interval = WATCH_MILLISECONDS
        self._timer.connect("timeout()", self.watch)

    def enter(self) -> None:
        """List the models that are installed now, and begin to watch."""
        selector = self._ui.startSelector
        chosen = selector.currentText
        selector.clear()
        selector.addItems([_("A new network"), *self._logic.usableModels()])
        selector.currentIndex = max(selector.findText(chosen), 0)
        self._timer.start()
        self.watch()

    def leave(self) -> None:
        """Stop watching; a training continues."""
        self._timer.stop()

    def forgetCharts(self) -> None:
        """Stop updating the charts: their nodes were removed with the scene."""
        self._charted = False

    def watch(self) -> None:
        """Show the state of the run."""
        run, before = self._choices.runFolder(), self._state
        self._state = self._readState(run)
        self._ui.runStateLabel.text = self._describe(run)
        if self._state.history and len(self._state.history) != len(before.history):
            self._showEpochs(run)
        self._onWatched()

    def parts(self) -> dict[str, str]:
        """The part of each case: in the split of a run that has begun, otherwise as far as it is chosen."""
        if not self._begun:
            return dict.fromkeys(self._choices.heldOut(), PARTS["held_out"])
        split = self._logic.settingsOf(self._choices.runFolder()).split
        return {name: title for part, title in PARTS.items() for name in getattr(split, part)}

    @property
    def _begun(self) -> bool:
        return self._state.epochs > 0

    @property
    def _working(self) -> bool:
        return self._state.phase in WORKING

    def _readState(self, run: Path | None) -> RunState:
        """A missing folder is an error only if it was there before."""
        if run is None or (self._state is ABSENT and not run.is_dir()):
            return ABSENT
        try:
            return self._logic.stateOf(run)
        except (LiverUNetError, OSError) as error:
            return RunState(UNREADABLE, message=str(error))

    def _describe(self, run: Path | None) -> str:
        state = self._state
        if state is ABSENT:
            return _("No run.")
        if state.phase == UNREADABLE:
            return state.message
        if state.phase == "none":
            return _("Nothing was trained in this folder yet.")
        done = _("{phase}, {done} of {all} epochs").format(
            phase=state.phase, done=len(state.history), all=state.epochs or "?"
        )
        validated = [log for log in state.history if log.validation_dice]
        if validated:
            done += _("; validation Dice {dice:.4f}").format(dice=validated[-1].mean_validation_dice)
        elif self._begun and self._working and (settings := self._logic.settingsOf(run)).split.validation:
            epoch = min(settings.training.validate_every, settings.training.epochs)
            done += _("; the first validation follows epoch {epoch}").format(epoch=epoch)
        return " ".join(filter(None, (f"{done}.", state.stage, state.message)))

    def _showEpochs(self, run: Path) -> None:
        """Show the curves, if they are charted, and the validation case that the training drew."""
        if self._charted:
            self._logic.showCurves(run.name, self._state.history)
        overlay = RunFolder(run).overlay
        self._ui.overlayLabel.visible = overlay.exists()
        if overlay.exists():
            picture = qt.QPixmap(str(overlay))
            self._ui.overlayLabel.pixmap = picture.scaledToWidth(OVERLAY_WIDTH, qt.Qt.SmoothTransformation)

    def updateButtons(self, busy: str) -> None:
        """Enable what is possible now."""
        ui, choices, working, begun = self._ui, self._choices, self._working, self._begun
        noCache = "" if choices.isPrepared() else _("Prepare the cases first.")
        noRun = "" if choices.runFolder() else _("Choose a run folder.")
        inUse = _("A training is running in this folder; stop it first.") if working else ""
        taken = _("This folder holds a run; resume it or choose another.") if begun and not working else ""
        resumable = begun and self._state.phase in ("stopped", "died")
        noEpoch = "" if self._state.history else _("There is no epoch yet.")
        fixed = _("Fine-tuning has its own recipe.") if choices.parent() else ""
        recipes = _("Accurate: a coarse and a fine look. Notebook: the baseline this project started from.")
        curves = _("Show Dice by epoch in a plot view, where loss and accuracy can be chosen too.")
        enableOrSayWhy(ui.recipeSelector, fixed, recipes)
        enableOrSayWhy(ui.estimateButton, busy or noCache, _("Estimate time and memory from a few steps."))
        enableOrSayWhy(
            ui.startButton, busy or noCache or noRun or inUse or taken, _("The training outlives this panel.")
        )
        noRunToResume = "" if resumable else _("There is no run to resume.")
        enableOrSayWhy(ui.resumeButton, busy or inUse or noRunToResume, _("Resume after the last complete epoch."))
        enableOrSayWhy(ui.curvesButton, noEpoch, curves)
        idle = "" if working else _("No training is running in this folder.")
        enableOrSayWhy(ui.stopButton, idle, _("Stop after the current batch; the checkpoint is kept."))

    def _onEstimate(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("Nothing was estimated.")):
            options = self._choices.options()
        self._run.start(self._logic.estimateSteps(options), self._onEstimated)

    def _onEstimated(self, cost: str) -> None:
        self._ui.costLabel.text = cost
        self._ui.costLabel.visible = True

    def _onStart(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The training was not started.")):
            options = self._choices.options()
            if self._run.ensureInstalled():
                self._logic.launch(options)
                self._charted = True
                self.watch()

    def _onResume(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The training was not resumed.")):
            if self._run.ensureInstalled():
                self._logic.resume(self._choices.runFolder())
                self._charted = True
                self.watch()

    def _onStop(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The training was not stopped.")):
            self._logic.requestStop(self._choices.runFolder())

    def _onCurves(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The curves cannot be shown.")):
            self._logic.showCurves(self._choices.runFolder().name, self._state.history, inLayout=True)
            self._charted = True

    def _onRunChosen(self, _path: str) -> None:
        self._state, self._charted = ABSENT, False
        self._ui.overlayLabel.visible = False
        self.watch()
