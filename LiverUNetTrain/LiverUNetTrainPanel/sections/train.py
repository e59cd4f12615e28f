"""The part of the panel that orders a training, watches it through its run folder, stops and resumes it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from LiverUNetLib.errors import LiverUNetError, TrainingError
from LiverUNetLib.models.store import list_models
from LiverUNetPanel.sections.buttons import enableOrSayWhy
from LiverUNetTrainLib.run.folder import RunFolder
from LiverUNetTrainLib.run.options import RECIPE_NAMES, TrainingOptions

__all__ = ["DEVICES", "TrainSection"]

DEVICES = ("auto", "cpu", "cuda", "mps")
# What the user reads of the parts of a split.
PARTS = {"training": "trains", "validation": "validates", "held_out": "held out"}
WATCH_MILLISECONDS = 1000
OVERLAY_WIDTH = 320


class TrainSection:
    """Looks at the run folder once a second; that is all it knows of a training."""

    def __init__(self, panel: Any) -> None:
        self._panel, self._ui = panel, panel.ui
        self._process: subprocess.Popen | None = None
        self._epochsShown, self._seen, self._charted = -1, False, False
        self._phase, self._begun = "", False
        self._ui.recipeSelector.addItems(list(RECIPE_NAMES[:-1]))
        self._ui.trainDeviceSelector.addItems(list(DEVICES))
        self._ui.estimateButton.clicked.connect(self._onEstimate)
        self._ui.startButton.clicked.connect(self._onStart)
        self._ui.resumeButton.clicked.connect(self._onResume)
        self._ui.stopButton.clicked.connect(self._onStop)
        self._ui.curvesButton.clicked.connect(self._onCurves)
        self._ui.runPath.currentPathChanged.connect(self._onRunChosen)
        self._ui.overlayLabel.visible = self._ui.costLabel.visible = False
        self._timer = qt.QTimer()
        self._timer.interval = WATCH_MILLISECONDS
        self._timer.connect("timeout()", self.watch)

    def run(self) -> Path | None:
        """The run folder, if one is chosen."""
        return Path(self._ui.runPath.currentPath) if self._ui.runPath.currentPath else None

    def parent(self) -> str | None:
        """The model that is to learn from new cases; None for a new network."""
        selector = self._ui.startSelector
        return selector.currentText if selector.currentIndex > 0 else None

    def options(self) -> TrainingOptions:
        """What is chosen.

        Raises:
            TrainingError: the learning rate is no positive number.
        """
        ui = self._ui
        rate = None
        if ui.rateEdit.text.strip():
            try:
                rate = float(ui.rateEdit.text)
            except ValueError:
                rate = -1.0
            if not 0 < rate < 1:
                raise TrainingError(f"The learning rate must be a number between 0 and 1, not {ui.rateEdit.text}.")
        return TrainingOptions(
            self._panel.data.cache(),
            self.run(),
            recipe=RECIPE_NAMES[-1] if self.parent() else ui.recipeSelector.currentText,
            parent=self.parent(),
            epochs=ui.epochsSpin.value or None,
            minutes=ui.minutesSpin.value or None,
            batch_size=ui.batchSpin.value or None,
            learning_rate=rate,
            validation=ui.validationSpin.value / 100 or None,
            patience=ui.patienceSpin.value or None,
            held_out=self._heldOut(),
            device=ui.trainDeviceSelector.currentText,
        )

    def _heldOut(self) -> tuple[str, ...]:
        """Names of cases; they may hold spaces."""
        return tuple(filter(None, map(str.strip, self._ui.heldEdit.text.split(","))))

    def enter(self) -> None:
        """List the models that are installed now, and begin to watch."""
        chosen = self._ui.startSelector.currentText
        self._ui.startSelector.clear()
        self._ui.startSelector.addItem(_("A new network"))
        for name, model in list_models().items():
            if not isinstance(model, LiverUNetError):
                self._ui.startSelector.addItem(name)
        self._ui.startSelector.currentIndex = max(self._ui.startSelector.findText(chosen), 0)
        self._timer.start()
        self.watch()

    def leave(self) -> None:
        """Stop watching; the training continues."""
        self._timer.stop()

    def watch(self) -> None:
        """Show the state of the run, and its curves if there is a new epoch."""
        run = self.run()
        self._seen = run is not None and (self._seen or run.is_dir())
        if not self._seen:
            self._phase, self._begun = "", False
            self._ui.runStateLabel.text = _("No run.")
        else:
            self._show(run)
        self._panel.data.showParts(self._parts(run))
        self._panel.updateButtons()

    def _parts(self, run: Path | None) -> dict[str, str]:
        """What each case is for: in the run if it has begun, else as far as it is chosen."""
        if not self._begun:
            return dict.fromkeys(self._heldOut(), PARTS["held_out"])
        split = RunFolder(run).settings()["split"]
        return {name: word for part, word in PARTS.items() for name in split[part]}

    def forgetCurves(self) -> None:
        """Their nodes are gone, and come back when the user asks for them."""
        self._epochsShown, self._charted = -1, False

    def _show(self, run: Path) -> None:
        from LiverUNetTrainLib.run.background import state_of

        try:
            state = state_of(run, self._process)
        except (LiverUNetError, OSError) as error:
            self._phase, self._begun, self._ui.runStateLabel.text = "", False, str(error)
            return
        self._phase, self._begun = state.phase, bool(state.epochs)
        if state.phase == "none":
            self._ui.runStateLabel.text = _("Nothing was trained in this folder yet.")
            return
        done = _("{phase}, {done} of {all} epochs").format(
            phase=state.phase, done=len(state.history), all=state.epochs or "?"
        )
        validated = [log for log in state.history if log.validation_dice]
        if validated:
            done += _("; validation Dice {dice:.4f}").format(dice=validated[-1].mean_validation_dice)
        elif self._begun and state.phase in ("running", "starting"):
            done += self._firstValidation(RunFolder(run).settings())
        self._ui.runStateLabel.text = " ".join(filter(None, (f"{done}.", state.stage, state.words)))
        if state.history and len(state.history) != self._epochsShown:
            self._epochsShown = len(state.history)
            if self._charted:
                self._panel.logic.showCurves(run.name, state.history)
            overlay = run / "overlay.png"
            self._ui.overlayLabel.visible = overlay.exists()
            if overlay.exists():
                self._ui.overlayLabel.pixmap = qt.QPixmap(str(overlay)).scaledToWidth(
                    OVERLAY_WIDTH, qt.Qt.SmoothTransformation
                )

    def _firstValidation(self, settings: dict[str, Any]) -> str:
        """When the curve of validation begins, if it does."""
        if not settings["split"]["validation"]:
            return ""
        training = settings["training"]
        epoch = min(training["validate_every"], training["epochs"])
        return _("; the first validation comes after epoch {epoch}").format(epoch=epoch)

    def updateButtons(self, busy: str) -> None:
        """What can be pressed now."""
        ui, works = self._ui, self._phase in ("running", "starting")
        noCache = "" if (self._panel.data.cache() / "cache.json").exists() else _("Prepare the cases first.")
        noRun = "" if self.run() else _("Choose a run folder.")
        working = _("A training works in this run folder; stop it first.") if works else ""
        taken = _("This folder holds a run; resume it or choose another.") if self._begun and not works else ""
        resumable = "" if self._begun and self._phase in ("stopped", "died") else _("There is no run to resume.")
        idle = "" if works else _("No training works in this run folder.")
        fixed = _("A model that learns more has a recipe of its own, fine-tuning.") if self.parent() else ""
        recipes = _("Accurate: a coarse and a fine look. Notebook: what this began with.")
        enableOrSayWhy(ui.recipeSelector, fixed, recipes)
        enableOrSayWhy(ui.estimateButton, busy or noCache, _("Time and memory, from a few steps."))
        enableOrSayWhy(
            ui.startButton, busy or noCache or noRun or working or taken, _("The training outlives this panel.")
        )
        enableOrSayWhy(ui.resumeButton, busy or working or resumable, _("Resume after the last complete epoch."))
        noEpoch = "" if self._epochsShown > 0 else _("There is no epoch yet.")
        enableOrSayWhy(
            ui.curvesButton, noEpoch, _("Show Dice by epoch in a plot view, which offers loss and accuracy too.")
        )
        enableOrSayWhy(ui.stopButton, idle, _("End after the batch in hand; the checkpoint stays."))

    def _onEstimate(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("Nothing was estimated.")):
            options = self.options()
        self._panel.start(self._panel.logic.estimateSteps(options), self._onEstimated)

    def _onEstimated(self, words: str) -> None:
        self._ui.costLabel.text = words
        self._ui.costLabel.visible = True

    def _onStart(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The training was not started.")):
            options = self.options()
            if self._panel.ensureInstalled():
                self._process, self._charted = self._panel.logic.launch(options), True
                self.watch()

    def _onResume(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The training was not resumed.")):
            if self._panel.ensureInstalled():
                self._process, self._charted = self._panel.logic.resume(self.run()), True
                self.watch()

    def _onStop(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The training was not stopped.")):
            self._panel.logic.requestStop(self.run())

    def _onCurves(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The curves cannot be shown.")):
            run = self.run()
            self._panel.logic.showCurves(run.name, RunFolder(run).history(), inLayout=True)
            self._charted = True

    def _onRunChosen(self, _path: str) -> None:
        self._process, self._epochsShown, self._seen, self._charted = None, -1, False, False
        self.watch()
