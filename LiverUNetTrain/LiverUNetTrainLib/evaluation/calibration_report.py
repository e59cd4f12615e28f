"""How good the verdicts of a calibration are: figures, their table, and their section of the model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from LiverUNetLib.models.calibration import Calibration
from LiverUNetLib.segmentation.verdict import GOOD, GOOD_DICE, LOOK, UNUSABLE

from .altered_runs import SPOILT, UNALTERED
from .calibration import JudgedRun

__all__ = ["calibration_section", "figure_lines", "measure"]

GROUPS = ("unaltered", "altered", "all", "other_kinds")
FIGURES = {
    "runs": "runs",
    "without_estimate": "without an estimate",
    "below_good": "Dice below 0.90",
    "missed": "of these called good",
    "false_alarms": "others not called good",
    "correlation": "correlation",
    "mean_absolute_error": "mean absolute error",
    "auroc": "AUROC, Dice below 0.90",
    "aurc_ratio": "AURC to a random order",
    "aurc_ratio_best": "the same, at best",
    "aurc_ratio_below_good": "AURC of Dice below 0.90",
    "coverage": "coverage of Dice",
    "interval_width": "mean width",
    "volume_coverage": "coverage of volume",
    "errors_in_slices": "errors in slices",
}


def measure(judged: Sequence[JudgedRun]) -> dict[str, Any]:
    """How good the verdicts are: of unaltered runs, of altered ones, and the words of spoilt ones."""
    unaltered = [each for each in judged if each.run.alteration == UNALTERED]
    spoilt = [each for each in judged if each.run.alteration in SPOILT]
    altered = [each for each in judged if each not in unaltered and each not in spoilt]
    return {
        "unaltered": _figures(unaltered),
        "altered": _figures(altered),
        "all": _figures([*unaltered, *altered]),
        "spoilt": {name: _words(spoilt, name) for name in SPOILT if _words(spoilt, name)},
    }


def figure_lines(calibration: Calibration) -> list[str]:
    """The figures of a calibration, a line each."""
    measured = calibration.measured
    lines = [
        f"{calibration.patients} patients, {calibration.runs} runs; each judged by the other patients",
        f"{'':24}" + "".join(f"{group:>12}" for group in GROUPS),
    ]
    for name, words in FIGURES.items():
        cells = [_cell(measured[group].get(name)) for group in GROUPS]
        lines.append(f"{words:24}" + "".join(f"{cell:>12}" for cell in cells))
    for alteration, counts in measured["spoilt"].items():
        lines.append(f"{alteration}: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
    return lines


def calibration_section(calibration: Calibration) -> str:
    """What the card says of it, in Markdown."""
    rows = [
        f"| {words} | " + " | ".join(_cell(calibration.measured[group].get(name)) for group in GROUPS) + " |"
        for name, words in FIGURES.items()
    ]
    spoilt = [
        f"| {alteration} | " + ", ".join(f"{word} {count}" for word, count in counts.items()) + " |"
        for alteration, counts in calibration.measured["spoilt"].items()
    ]
    weights = ", ".join(f"{weight:.2f} for `{name}`" for name, weight in calibration.weights.items())
    return "\n".join(
        [
            "## Verdict",
            "",
            f"Calibrated on {calibration.runs} runs of {calibration.patients} patients, each held out by the model "
            f"that ran it. The logit of Dice is estimated as {calibration.intercept:.2f} and the sum of the logits of "
            f"the signals, times {weights}; the interval that holds {calibration.coverage:.0%} reaches "
            f"{calibration.logit_margin:.2f} to both sides. In the table each patient is judged by the others; in the "
            "last column all alterations of the same kind are left out as well.",
            "",
            "| | unaltered | altered | all | unseen kinds |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "What must not be called good, and what it was called:",
            "",
            "| spoilt | verdicts |",
            "|---|---|",
            *spoilt,
            "",
            f"Measured with `{calibration.command}`.",
        ]
    )


def _cell(figure: float | None) -> str:
    if figure is None:
        return "-"
    return str(figure) if isinstance(figure, int) else f"{figure:.3f}"


def _words(judged: Sequence[JudgedRun], alteration: str) -> dict[str, int]:
    """How many runs of an alteration have which word."""
    words = [each.word for each in judged if each.run.alteration == alteration]
    return {word: words.count(word) for word in (GOOD, LOOK, UNUSABLE) if word in words}


def _figures(judged: Sequence[JudgedRun]) -> dict[str, Any]:
    if not judged:
        return {}
    true = np.array([each.run.dice for each in judged])
    # Where nothing was found, that is what users are told.
    estimated = np.array([each.estimate.dice if each.estimate else 0.0 for each in judged])
    good = np.array([each.word == GOOD for each in judged])
    known = [(each.run, each.estimate) for each in judged if each.estimate]
    dice = np.array([run.dice for run, _ in known])
    likeliest = np.array([estimate.dice for _, estimate in known])
    limits = np.array([estimate.dice_interval for _, estimate in known]).reshape(-1, 2)
    volumes = [(run.reference_ml / run.volume_ml, *estimate.volume_factors) for run, estimate in known]
    lifts = [each.run.errors_in_slices for each in judged if each.run.errors_in_slices is not None]
    bad = true < GOOD_DICE
    return {
        "runs": len(judged),
        "without_estimate": len(judged) - len(known),
        "below_good": int(bad.sum()),
        "correlation": _correlation(dice, likeliest),
        "mean_absolute_error": float(abs(likeliest - dice).mean()),
        "auroc": _auroc(estimated, bad),
        "aurc_ratio": _risk_coverage_ratio(estimated, 1 - true),
        "aurc_ratio_best": _risk_coverage_ratio(true, 1 - true),
        "aurc_ratio_below_good": _risk_coverage_ratio(estimated, bad),
        "false_alarms": int((~good & ~bad).sum()),
        "missed": int((good & bad).sum()),
        "coverage": float(np.mean((limits[:, 0] <= dice) & (dice <= limits[:, 1]))),
        "interval_width": float(np.mean(limits[:, 1] - limits[:, 0])),
        "volume_coverage": float(np.mean([low <= truth <= high for truth, low, high in volumes])),
        "errors_in_slices": float(np.mean(lifts)) if lifts else None,
    }


def _correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    if len(one) < 3 or not (one.std() and other.std()):
        return None
    return float(np.corrcoef(one, other)[0, 1])


def _auroc(estimated: np.ndarray, bad: np.ndarray) -> float | None:
    """How often a bad run has a lower estimate than a good one; half for equal ones. None without both."""
    if not bad.any() or bad.all():
        return None
    low, high = estimated[bad][:, None], estimated[~bad]
    return float(np.mean((low < high) + 0.5 * (low == high)))


def _risk_coverage_ratio(confidence: np.ndarray, risk: np.ndarray) -> float | None:
    """The area under the mean risk of the most confident runs, as a share of that in a random order."""
    if not risk.mean():
        return None
    ordered = risk[np.argsort(-confidence, kind="stable")]
    return float(np.mean(np.cumsum(ordered) / np.arange(1, len(ordered) + 1)) / risk.mean())
