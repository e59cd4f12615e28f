"""The card of a model: all facts about it, and the numbers that it computes with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from .scores import Evaluation
from .spec import ModelSpec

__all__ = ["COARSE", "FINE", "PERMISSIVE_LICENSES", "WEIGHT_FILES", "Lineage", "ModelCard", "onnx_file", "weights_file"]

PERMISSIVE_LICENSES = ("Apache-2.0", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0", "MIT")
# The two looks, named as their files.
FINE, COARSE = "model", "coarse"


def weights_file(look: str) -> str:
    """The file of a look's weights in a model folder."""
    return f"models/{look}.pt"


def onnx_file(look: str) -> str:
    """The file of a look's ONNX form in a model folder."""
    return f"models/{look}.onnx"


WEIGHT_FILES = tuple(file(look) for look in (FINE, COARSE) for file in (weights_file, onnx_file))


@dataclass(frozen=True)
class Lineage:
    """The cases that a model and its ancestors used, and those that are held out: name -> content hash.

    Attributes:
        masks: content hash of a used scan -> content hash of its mask, by which a corrected mask is recognized.
    """

    training: dict[str, str] = field(default_factory=dict)
    validation: dict[str, str] = field(default_factory=dict)
    held_out: dict[str, str] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)

    def roles(self) -> dict[str, str]:
        """Content hash -> "held out", "training" or "validation"; the first of these that applies."""
        parts = {"validation": self.validation, "training": self.training, "held out": self.held_out}
        return {hash_: role for role, cases in parts.items() for hash_ in cases.values()}


@dataclass(frozen=True)
class ModelCard:
    """All facts about a model.

    Attributes:
        spec: the numbers that it computes with.
        training: the settings of its training as JSON, for the record; nothing computes with them.
        scores: None if it was not evaluated.
        notes: further information for users, Markdown.
        checksums: SHA-256 of every file of weights.
    """

    name: str
    version: str
    description: str
    license: str
    spec: ModelSpec
    lineage: Lineage = field(default_factory=Lineage)
    training: dict[str, Any] = field(default_factory=dict)
    scores: Evaluation | None = None
    notes: str = ""
    checksums: dict[str, str] = field(default_factory=dict)

    @property
    def checksum(self) -> str:
        """Identifies a model: SHA-256 of its weights' checksums and its numbers; empty without weights.

        It does not depend on the weights' ONNX form.
        """
        weights = {name: checksum for name, checksum in self.checksums.items() if name.endswith(".pt")}
        if not weights:
            return ""
        known = json.dumps([weights, asdict(self.spec)], sort_keys=True)
        return hashlib.sha256(known.encode()).hexdigest()

    @property
    def needs_consent(self) -> bool:
        """Whether users have to accept the license before the weights are used: not if it permits all uses."""
        return self.license not in PERMISSIVE_LICENSES

    def check(self) -> None:
        """Raise ValueError, KeyError or TypeError unless every value used in computation is valid."""
        self.spec.check()
        if self.scores:
            self.scores.check()
        if not all(isinstance(checksum, str) for checksum in self.checksums.values()):
            raise ValueError("unusable checksums")
        if unknown := self.checksums.keys() - set(WEIGHT_FILES):
            raise ValueError(f"not a file of a model: {', '.join(sorted(unknown))}")
