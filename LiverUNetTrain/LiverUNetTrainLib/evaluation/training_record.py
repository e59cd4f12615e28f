"""What a model card records of the training, as far as its text tells it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

from LiverUNetLib.models.card import ModelCard

from ..run.settings import refined_epochs

__all__ = ["CoarseRecord", "RefinementRecord", "TrainingRecord"]

Record = TypeVar("Record")


@dataclass(frozen=True)
class CoarseRecord:
    """The training of the coarse look, see `run.settings.CoarseSettings`."""

    epochs: int
    shown: int
    batch_size: int


@dataclass(frozen=True)
class RefinementRecord:
    """The refinement, see `run.settings.Refinement`."""

    epochs: int
    rate: float
    share: float


@dataclass(frozen=True)
class TrainingRecord:
    """The training of a model; `ModelCard.training` holds all its settings as JSON.

    Attributes:
        weights: "best" or "last", see `export_run`.
        validated: names of the patients in validation.
        parent: name and version of the model that was fine-tuned.
        refinement, coarse: None if there was none.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    loss: str
    schedule: str
    ema_decay: float
    seed: int
    weights: str
    validated: list[str]
    parent: str | None
    refinement: RefinementRecord | None
    coarse: CoarseRecord | None

    @classmethod
    def of(cls, card: ModelCard) -> TrainingRecord:
        """Read the record of a card.

        Raises:
            KeyError: a setting is missing.
        """
        content = card.training
        refinement, coarse = content["refinement"], content.get("coarse")  # schema 2 had no coarse look
        parts = {
            "refinement": refinement and _chosen(RefinementRecord, refinement),
            "coarse": coarse and _chosen(CoarseRecord, coarse),
        }
        return _chosen(cls, content | parts)

    @property
    def refined_epochs(self) -> int:
        """The epochs of the refinement, the last ones of all."""
        return refined_epochs(self.epochs, self.refinement.epochs) if self.refinement else 0


def _chosen(cls: type[Record], content: dict[str, Any]) -> Record:
    """A record of the entries that it has a field for."""
    return cls(**{field.name: content[field.name] for field in fields(cls)})  # type: ignore[arg-type] # a dataclass
