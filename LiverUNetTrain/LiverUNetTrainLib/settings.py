"""The settings of a training: how long, how fast, on what."""

from __future__ import annotations

from dataclasses import dataclass, field

from LiverUNetLib.errors import TrainingError

from .augmentation import AugmentationSettings

__all__ = ["TrainingSettings"]

LEAST = {"epochs": 1, "batch_size": 1, "validate_every": 1, "patience": 0}


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        loss: one of `learner.LOSSES`.
        empty_slices: share of the slices without liver that an epoch shows; all others are shown once.
        warmup_epochs: the learning rate rises linearly to its highest, for a fifth of the training at most.
        schedule: then it falls to zero along a "cosine", or stays "constant".
        ema_decay: of the averaged weights, which are the ones validated and kept.
        replay: in fine-tuning, slices of known cases for each slice of a new one.
        parent_share: in fine-tuning, share of the parent's weights in the averaged ones.
        validate_every: epochs between validations; the last one is always validated.
        patience: stop after so many validations without a better one; 0 for never.

    Raises:
        TrainingError: one of LEAST is smaller, or the learning rate is not positive.
    """

    epochs: int = 50
    batch_size: int = 16
    loss: str = "dice+cross-entropy"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup_epochs: float = 1.0
    schedule: str = "cosine"
    gradient_norm: float = 5.0
    ema_decay: float = 0.999
    empty_slices: float = 0.25
    replay: float = 1.0
    parent_share: float = 0.0
    validate_every: int = 4
    patience: int = 0
    seed: int = 0
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise TrainingError(f"The setting {name} must be at least {least}, not {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise TrainingError(f"The setting learning_rate must be positive, not {self.learning_rate:g}.")
