"""The scores of an evaluation as text, CSV and JSON, and two evaluations side by side."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from LiverUNetLib.errors import TrainingError
from LiverUNetLib.models.scores import EvaluationSummary
from LiverUNetLib.system.files import read_json, staged, write_json

from .measures import MAIN_MEASURES, MEASURES
from .metrics import CaseScores, has_measure, summarize

__all__ = [
    "SUMMARY_ROWS",
    "TABLE_HEAD",
    "case_line",
    "comparison",
    "paired",
    "read_scores",
    "summary_lines",
    "write_csv",
    "write_evaluation",
]

NARROW = tuple(measure for measure in MEASURES if measure.short_heading)
TABLE_HEAD = f"{'patient':<24}" + "".join(f"{measure.short_heading:>10}" for measure in NARROW) + f"{'s':>10}"
SUMMARY_ROWS = ("mean", "sd", "median", "worst")


def case_line(case: CaseScores, title: str = "") -> str:
    """A case as a line under TABLE_HEAD, called `title` instead of by its name."""
    numbers = (measure.number(getattr(case.scores, measure.name)) for measure in NARROW)
    return _line(title or case.case, [*numbers, f"{case.seconds:.1f}"])


def summary_lines(summary: EvaluationSummary) -> list[str]:
    """The last lines of the table; missing figures stay blank."""
    figures = [(measure, summary.get(measure.name)) for measure in NARROW]
    return [_line(row, [measure.number(getattr(each, row, None)) for measure, each in figures]) for row in SUMMARY_ROWS]


def _line(title: str, cells: Sequence[str]) -> str:
    return f"{title:<24}" + "".join(f"{cell:>10}" for cell in cells)


def write_csv(path: Path, cases: Sequence[CaseScores]) -> None:
    """One line a case, all figures, whole or not at all."""
    rows = [case.row() for case in cases]
    with staged(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def write_evaluation(path: Path, cases: Sequence[CaseScores], command: str, **more: Any) -> None:
    """Write the summary and all figures of an evaluation as JSON, with the command that measured it.

    Args:
        more: further entries.
    """
    summary = {name: asdict(figures) for name, figures in summarize(cases).items()}
    rows = [case.row() for case in cases]
    write_json(path, {"schema_version": 1, "command": command, **more, "summary": summary, "cases": rows})


def comparison(first: Path, second: Path) -> list[str]:
    """Compare two evaluations (JSON) case by case: the differences, their mean, and Wilcoxon's signed-rank test.

    Only cases in both count. The p-value is two-sided, from scipy; it is not given for fewer than
    six differing cases, which cannot reach 0.05. Errors of volume are compared by their size. A measure that
    one of the files lacks is left out.

    Raises:
        TrainingError: a file is no evaluation, or the two share no case.
    """
    return paired(read_scores(first), read_scores(second), names=(first.name, second.name))


def paired(first: Sequence[CaseScores], second: Sequence[CaseScores], *, names: tuple[str, str]) -> list[str]:
    """The lines of `comparison` for scores in memory; `names` are those of the two."""
    one, other = ({case.case: case.scores for case in cases} for cases in (first, second))
    shared = [name for name in one if name in other]
    if not shared:
        raise TrainingError(f"{names[0]} and {names[1]} share no case.")
    lines = [f"{len(shared)} cases in both; differences are {names[1]} minus {names[0]}"]
    differences = []
    measures = [measure for measure in MAIN_MEASURES if has_measure([*first, *second], measure)]
    for measure in measures:
        pairs = np.array([[getattr(scores[name], measure.name) for scores in (one, other)] for name in shared])
        pairs = np.abs(pairs) if measure.better == "zero" else pairs
        differences.append(pairs[:, 1] - pairs[:, 0])
        means = "".join(f"{mean:>10.4f}" for mean in pairs.mean(axis=0))
        lines.append(f"{measure.name:<24}{means}  {_test(differences[-1])}")
    lines.append(f"{'case':<24}" + "".join(f"{measure.name:>22}" for measure in measures))
    for name, of_case in zip(shared, np.transpose(differences), strict=True):
        lines.append(f"{name:<24}" + "".join(f"{difference:>+22.4f}" for difference in of_case))
    return lines


def read_scores(path: Path) -> list[CaseScores]:
    """The scores that `write_evaluation` wrote, for `evaluate` or `crossval`.

    Raises:
        TrainingError: the file holds something else.
    """
    content = read_json(path, TrainingError)
    try:
        return [CaseScores.from_row(row) for row in content["cases"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{path} holds no scores as `evaluate --json` writes them ({error}); delete it and evaluate again."
        ) from error


def _test(differences: np.ndarray) -> str:
    from scipy.stats import wilcoxon

    changed = np.count_nonzero(differences)
    mean = f"mean difference {differences.mean():+.4f}"
    if changed < 6:
        return f"{mean}, {changed} cases differ: too few for a test"
    return f"{mean}, Wilcoxon p = {wilcoxon(differences).pvalue:.4f}"
