"""What the user has chosen in the training panel: folders, the model to start from, and the options of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from LiverUNetLib.errors import TrainingError
from LiverUNetTrainLib.data.cache import is_cache
from LiverUNetTrainLib.data.layouts import SCAN_ENDING
from LiverUNetTrainLib.run.options import FINE_TUNING, TrainingOptions

__all__ = ["TrainingChoices"]


class TrainingChoices:
    """The choices that several sections need, as the widgets hold them now.

    Args:
        ui: the widgets of the panel by name.
    """

    def __init__(self, ui: Any) -> None:
        self._ui = ui

    def folders(self) -> list[Path]:
        """The folders that hold cases."""
        data, own = self._ui.dataPath.currentPath, self._ui.ownPath.currentPath
        chosen = [Path(data)] if data else []
        # The user's own training set may still be empty, and it may be the only folder.
        if own and Path(own) not in chosen and any(Path(own).glob(f"*{SCAN_ENDING}")):
            chosen.append(Path(own))
        return chosen

    def cache(self) -> Path:
        """The folder of the prepared slices."""
        return Path(self._ui.cachePath.currentPath)

    def isPrepared(self) -> bool:
        """Whether that folder holds prepared cases."""
        return is_cache(self.cache())

    def runFolder(self) -> Path | None:
        """The run folder; None if none is chosen."""
        return Path(self._ui.runPath.currentPath) if self._ui.runPath.currentPath else None

    def parent(self) -> str | None:
        """The model to fine-tune; None for a new network."""
        selector = self._ui.startSelector
        return selector.currentText if selector.currentIndex > 0 else None

    def recipe(self) -> str:
        """The chosen recipe; fine-tuning has a fixed one."""
        return FINE_TUNING if self.parent() else self._ui.recipeSelector.currentText

    def heldOut(self) -> tuple[str, ...]:
        """Names of the cases to hold out; they may contain spaces."""
        return tuple(filter(None, map(str.strip, self._ui.heldEdit.text.split(","))))

    def options(self) -> TrainingOptions:
        """The options of the training. The path of its run is empty if none is chosen; an estimate needs none.

        Raises:
            TrainingError: the learning rate is not a number between 0 and 1.
        """
        ui = self._ui
        return TrainingOptions(
            self.cache(),
            Path(ui.runPath.currentPath),
            recipe=self.recipe(),
            parent=self.parent(),
            epochs=ui.epochsSpin.value or None,
            minutes=ui.minutesSpin.value or None,
            batch_size=ui.batchSpin.value or None,
            learning_rate=self._learningRate(),
            validation=ui.validationSpin.value / 100 or None,
            patience=ui.patienceSpin.value or None,
            held_out=self.heldOut(),
            device=ui.trainDeviceSelector.currentText,
        )

    def _learningRate(self) -> float | None:
        text = self._ui.rateEdit.text.strip()
        if not text:
            return None
        try:
            rate = float(text)
        except ValueError:
            rate = -1.0
        if not 0 < rate < 1:
            raise TrainingError(f"The learning rate must be a number between 0 and 1, not {text}.")
        return rate
