"""The scores of an evaluated model, as stored in its card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Evaluation", "EvaluationSummary", "Figures", "evaluation_from_json"]


@dataclass(frozen=True)
class Figures:
    """One measure over the patients of an evaluation.

    Attributes:
        worst: the lowest Dice, the largest distance, the error farthest from zero; None for a volume.
        mean_absolute: of errors, the mean of their sizes; None for other measures.
    """

    mean: float
    sd: float
    median: float
    worst: float | None = None
    mean_absolute: float | None = None


# By the names of the measures, such as "dice" and "hd95_mm".
EvaluationSummary = dict[str, Figures]


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of a model.

    Attributes:
        command: the command line that repeats it.
        cases: a row of figures for each patient.
    """

    command: str
    summary: EvaluationSummary
    cases: tuple[dict[str, Any], ...]

    def check(self) -> None:
        """Raise ValueError or KeyError unless the Dice of at least one patient is there."""
        if self.summary["dice"].worst is None or not self.cases:
            raise ValueError("unusable scores")


def evaluation_from_json(content: dict[str, Any]) -> Evaluation | None:
    """Make an Evaluation from the JSON of its `dataclasses.asdict`; None if it is empty.

    Raises:
        KeyError, TypeError: something is missing or unknown.
    """
    if not content:
        return None
    summary = {name: Figures(**figures) for name, figures in content["summary"].items()}
    return Evaluation(content["command"], summary, tuple(content["cases"]))
