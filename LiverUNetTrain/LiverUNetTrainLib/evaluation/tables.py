"""The scores of an evaluation as text, CSV and JSON, and two evaluations side by side."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from LiverUNetLib.errors import TrainingError
from LiverUNetLib.system.files import read_json, staged

from .metrics import CaseScores, MaskScores

__all__ = ["TABLE_HEAD", "comparison", "paired", "read_scores", "table_row", "write_csv"]

COLUMNS = {
    "Dice": ("dice", ".4f"),
    "HD95 mm": ("hd95_mm", ".2f"),
    "ASSD mm": ("assd_mm", ".2f"),
    "SD 1 mm": ("surface_dice_1mm", ".3f"),
    "SD 3 mm": ("surface_dice_3mm", ".3f"),
    "ml": ("volume_ml", ".0f"),
    "error ml": ("volume_error_ml", "+.0f"),
    "error %": ("volume_error_percent", "+.1f"),
    "s": ("seconds", ".1f"),
}
TABLE_HEAD = f"{'patient':<24}" + "".join(f"{title:>10}" for title in COLUMNS)
COMPARED = ("dice", "hd95_mm", "assd_mm", "surface_dice_3mm", "volume_error_percent")


def table_row(title: str, figures: dict[str, Any]) -> str:
    """A line under TABLE_HEAD; figures that are missing stay blank."""
    cells = [(figures.get(name), form) for name, form in COLUMNS.values()]
    return f"{title:<24}" + "".join(f"{'' if cell is None else format(cell, form):>10}" for cell, form in cells)


def write_csv(path: Path, cases: Sequence[CaseScores]) -> None:
    """One line a case, all figures, whole or not at all."""
    rows = [case.row() for case in cases]
    with staged(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def comparison(first: Path, second: Path) -> list[str]:
    """Compare two evaluations (JSON) case by case: the differences, their mean, and Wilcoxon's signed-rank test.

    Only cases in both count. The p-value is two-sided, from scipy; it is not given for fewer than
    six differing cases, which cannot reach 0.05. Errors of volume are compared by their size.

    Raises:
        TrainingError: a file is no evaluation, or the two share no case.
    """
    return paired(read_scores(first), read_scores(second), names=(first.name, second.name))


def paired(first: Sequence[CaseScores], second: Sequence[CaseScores], *, names: tuple[str, str]) -> list[str]:
    """The lines of `comparison` for scores in memory; `names` says what the two are called."""
    one, other = ({case.case: case.row() for case in cases} for cases in (first, second))
    shared = [name for name in one if name in other]
    if not shared:
        raise TrainingError(f"{names[0]} and {names[1]} share no case.")
    lines = [f"{len(shared)} cases in both; differences are {names[1]} minus {names[0]}"]
    differences = {}
    for measure in COMPARED:
        pairs = np.array([[one[name][measure], other[name][measure]] for name in shared])
        pairs = np.abs(pairs) if "error" in measure else pairs
        differences[measure] = pairs[:, 1] - pairs[:, 0]
        lines.append(
            f"{measure:<24}{pairs[:, 0].mean():>10.4f}{pairs[:, 1].mean():>10.4f}  {_test(differences[measure])}"
        )
    lines.append(f"{'case':<24}" + "".join(f"{measure:>22}" for measure in COMPARED))
    for n, name in enumerate(shared):
        lines.append(f"{name:<24}" + "".join(f"{differences[measure][n]:>+22.4f}" for measure in COMPARED))
    return lines


def read_scores(path: Path) -> list[CaseScores]:
    """What `evaluate --json` wrote.

    Raises:
        TrainingError: the file is no such thing.
    """
    content = read_json(path, TrainingError)
    try:
        names = [each.name for each in fields(MaskScores)]
        return [
            CaseScores(
                row["case"], row["role"], MaskScores(*(float(row[name]) for name in names)), float(row["seconds"])
            )
            for row in content["cases"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} is not what `evaluate --json` writes ({error}).") from error


def _test(differences: np.ndarray) -> str:
    from scipy.stats import wilcoxon

    changed = np.count_nonzero(differences)
    mean = f"mean difference {differences.mean():+.4f}"
    if changed < 6:
        return f"{mean}, {changed} cases differ: too few for a test"
    return f"{mean}, Wilcoxon p = {wilcoxon(differences).pvalue:.4f}"
