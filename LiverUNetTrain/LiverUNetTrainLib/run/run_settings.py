"""What a training was asked for, as its run folder keeps it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from LiverUNetLib.models.card import Lineage
from LiverUNetLib.models.spec import ModelSpec, spec_from_json
from LiverUNetLib.system.files import from_json

from .settings import TrainingSettings, training_settings_from_json

__all__ = ["ParentModel", "RunSettings", "SplitHashes"]


@dataclass(frozen=True)
class SplitHashes:
    """The cases of a split: name -> content hash of the scan."""

    training: dict[str, str]
    validation: dict[str, str]
    held_out: dict[str, str]


@dataclass(frozen=True)
class ParentModel:
    """The model that a fine-tuning starts from."""

    name: str
    version: str
    checksum: str
    license: str
    lineage: Lineage


@dataclass(frozen=True)
class RunSettings:
    """What a training was asked for.

    Attributes:
        masks: name -> content hash of the mask, of all cases in `split`.
        parent: None for a training from fresh weights.
        replayed: training cases that the parent knows.
    """

    spec: ModelSpec
    training: TrainingSettings
    split: SplitHashes
    masks: dict[str, str]
    parent: ParentModel | None
    replayed: tuple[str, ...]

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> RunSettings:
        """The settings from what `dataclasses.asdict` made of them, and JSON of that.

        Raises:
            KeyError, TypeError: something is missing or unknown.
        """
        parent = content["parent"]
        return cls(
            spec=spec_from_json(content["spec"]),
            training=training_settings_from_json(content["training"]),
            split=from_json(SplitHashes, content["split"]),
            masks=content["masks"],
            parent=parent and ParentModel(**parent | {"lineage": from_json(Lineage, parent["lineage"])}),
            replayed=tuple(content["replayed"]),
        )

    def changes(self, other: RunSettings) -> list[str]:
        """The names of the fields in which two of them differ."""
        return [each.name for each in fields(self) if getattr(self, each.name) != getattr(other, each.name)]

    def contents(self) -> set[tuple[str, str, str, str]]:
        """Each case of the split with its part and the content hashes of scan and mask."""
        parts = {each.name: getattr(self.split, each.name) for each in fields(self.split)}
        return {(name, part, hash_, self.masks[name]) for part, cases in parts.items() for name, hash_ in cases.items()}
