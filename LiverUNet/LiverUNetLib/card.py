"""The card of a model: all that there is to know about it, and to compute with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .geometry import PreprocessingSpec
from .network import NetworkSpec
from .views import VIEWS

__all__ = ["ONNX", "PERMISSIVE_LICENSES", "THRESHOLD", "WEIGHTS", "Lineage", "ModelCard", "check_usable"]

# Probability of liver; the mean of three views is low where one of them misses a part. Chosen on the folds of a
# cross-validation, see Testing/benchmarks/inference_choices.md.
THRESHOLD = 0.4
PERMISSIVE_LICENSES = ("Apache-2.0", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0", "MIT")
# The forms of the weights, by their places in a model folder.
WEIGHTS, ONNX = "models/model.pt", "models/model.onnx"


@dataclass(frozen=True)
class Lineage:
    """What a model and its teachers have seen, and what none of them may ever train on: name -> content hash.

    Attributes:
        masks: of what was seen, content hash of the scan -> that of its mask; a corrected mask is told by it.
    """

    training: dict[str, str] = field(default_factory=dict)
    validation: dict[str, str] = field(default_factory=dict)
    held_out: dict[str, str] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)

    def roles(self) -> dict[str, str]:
        """Content hash -> "training", "validation" or "held out", whichever of them binds most."""
        parts = {"validation": self.validation, "training": self.training, "held out": self.held_out}
        return {hash_: role for role, cases in parts.items() for hash_ in cases.values()}


@dataclass(frozen=True)
class ModelCard:
    """What there is to know about a model.

    Attributes:
        preprocessing, threshold: how its input is made and its probability is cut.
        training: the settings of its training, for the record.
        scores: the command that measured it, its summary and cases; empty if not measured.
        notes: what else a person has to know, Markdown.
        checksums: SHA-256 of each form of the weights that the folder holds.
    """

    name: str
    version: str
    description: str
    license: str
    network: NetworkSpec
    preprocessing: PreprocessingSpec
    threshold: float = THRESHOLD
    lineage: Lineage = field(default_factory=Lineage)
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    notes: str = ""
    checksums: dict[str, str] = field(default_factory=dict)

    @property
    def checksum(self) -> str:
        """That of the weights themselves, by which a model is known; empty if there are none."""
        return self.checksums.get(WEIGHTS, "")

    @property
    def needs_consent(self) -> bool:
        """Whether a person has to agree to the licence before the weights are used: unless it permits all uses."""
        return self.license not in PERMISSIVE_LICENSES


def check_usable(card: ModelCard) -> None:
    """Raise ValueError, KeyError or TypeError unless everything that is computed with has a sense."""
    spec = card.preprocessing
    low, high = spec.window_hu
    sound = {
        "views": bool(spec.views) and set(spec.views) <= set(VIEWS),
        "context_mm": len(spec.context_mm) == card.network.in_channels,
        "pixel_mm": spec.pixel_mm > 0,
        "slice_mm": spec.slice_mm > 0,
        "window_hu": low < high,
        "threshold": 0 < card.threshold < 1,
        "scores": not card.scores or card.scores["summary"]["dice"].keys() >= {"mean", "worst"},
        "cases": not card.scores or bool(card.scores["cases"]),
    }
    faulty = [name for name, good in sound.items() if not good]
    if faulty:
        raise ValueError(f"unusable {', '.join(faulty)}")
