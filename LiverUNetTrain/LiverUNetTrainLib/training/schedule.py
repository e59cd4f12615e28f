"""The schedule of one look's training: its learning rate, which epochs are validated, and when it has ended.

All of it follows from the settings and the log alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..run.folder import Ending, EpochLog
from ..run.settings import TrainingSettings

__all__ = ["best_epoch", "ending_of", "is_validated", "learning_rate"]


def learning_rate(settings: TrainingSettings, epoch: float) -> float:
    """The learning rate after so many epochs, fractions included: it rises and falls in each of the two courses."""
    highest, warmup, length = settings.learning_rate, settings.warmup_epochs, settings.first_epochs
    if epoch >= length and settings.refinement:
        highest, warmup = (settings.refinement.rate * figure for figure in (highest, warmup))
        epoch, length = epoch - length, settings.epochs - length
    warmup = min(warmup, length / 5)
    if epoch < warmup:
        return highest * max(epoch / warmup, 0.01)
    if settings.schedule == "constant":
        return highest
    return highest * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (length - warmup)))


def is_validated(settings: TrainingSettings, epoch: int) -> bool:
    """Whether an epoch, counted from 1, ends with a validation."""
    return epoch == settings.epochs or epoch % settings.validate_every == 0


def best_epoch(history: Sequence[EpochLog]) -> EpochLog | None:
    """The epoch with the highest mean Dice in validation, the first of several; None before the first validation."""
    validated = [log for log in history if log.validation_dice]
    return max(validated, key=lambda log: (log.mean_validation_dice, -log.epoch), default=None)


def ending_of(settings: TrainingSettings, history: Sequence[EpochLog]) -> Ending | None:
    """Why no further epoch is due; None if one is."""
    if len(history) >= settings.epochs:
        return Ending(f"all {len(history)} epochs are done")
    best = best_epoch(history)
    since = sum(log.epoch > best.epoch for log in history if log.validation_dice) if best else 0
    if best and settings.patience and since >= settings.patience:
        return Ending(
            f"the validation has not improved since epoch {best.epoch} "
            f"(3D Dice {best.mean_validation_dice:.4f}, patience {settings.patience})"
        )
    return None
