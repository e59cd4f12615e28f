"""Results and models as sentences and table rows, for the command line, for Slicer and for tables."""

from __future__ import annotations

from typing import Any

from ..models.folder import LiverModel
from .result import Report
from .verdict import HOW_TO_CALIBRATE, UNKNOWN, Verdict

__all__ = ["COLUMNS", "model_score", "sentence", "table_row", "verdict_lines"]

# The columns of a table of measurements, in order.
COLUMNS = (
    "scan",
    "volume_ml",
    "mean_hu",
    "sd_hu",
    "width_mm",
    "depth_mm",
    "height_mm",
    "verdict",
    "estimated_dice",
    "dice_low",
    "dice_high",
    "warnings",
    "model",
    "device",
    "seconds",
)


def sentence(result: Report) -> str:
    """The measurements of a liver in one line."""
    measured = result.measurement
    if measured.extent_mm is None:
        return "Liver: none found (0 ml)"
    height, depth, width = measured.extent_mm
    bound = "at least " if measured.cut_off else ""
    return (
        f"Liver: {bound}{measured.volume_ml:.0f} ml, "
        f"{measured.mean_hu:.0f} HU (standard deviation {measured.sd_hu:.0f}), "
        f"{width:.0f} mm wide, {depth:.0f} mm deep, {height:.0f} mm high; "
        f"{result.provenance.seconds:.1f} s on {result.provenance.device}"
    )


def verdict_lines(verdict: Verdict) -> list[str]:
    """The verdict in a line, and the slices that are worth a look in another; its reasons are warnings."""
    line = f"Verdict: {verdict.word}"
    if verdict.estimated_dice is not None and verdict.dice_interval and verdict.volume_interval_ml:
        low, high = verdict.dice_interval
        smallest, largest = verdict.volume_interval_ml
        line += (
            f"; Dice estimated at {verdict.estimated_dice:.2f}, {verdict.coverage:.0%} of such results have "
            f"{low:.2f} to {high:.2f} and a volume of {smallest:.0f} to {largest:.0f} ml"
        )
    elif verdict.word == UNKNOWN:
        line += f". {HOW_TO_CALIBRATE}"
    slices = ", ".join(str(each.number) for each in verdict.slices)
    return [line, f"Slices worth a look, the first one most: {slices}"] if slices else [line]


def table_row(result: Report) -> dict[str, Any]:
    """The measurements as a row of COLUMNS; missing values are None."""
    measured, made = result.measurement, result.provenance
    height, depth, width = measured.extent_mm or (None, None, None)
    figures = {
        "volume_ml": measured.volume_ml,
        "mean_hu": measured.mean_hu,
        "sd_hu": measured.sd_hu,
        "width_mm": width,
        "depth_mm": depth,
        "height_mm": height,
    }
    verdict = result.verdict
    dice_low, dice_high = verdict.dice_interval or (None, None)
    shares = {"estimated_dice": verdict.estimated_dice, "dice_low": dice_low, "dice_high": dice_high}
    rounded = {name: None if figure is None else round(figure, 1) for name, figure in figures.items()}
    return {
        "scan": made.scan,
        **rounded,
        "verdict": verdict.word,
        **{name: None if share is None else round(share, 3) for name, share in shares.items()},
        "warnings": " ".join(result.warnings),
        "model": f"{made.model} {made.model_version}",
        "device": made.device,
        "seconds": made.seconds,
    }


def model_score(model: LiverModel) -> str:
    """The Dice of a model, and the number of patients on which it was measured."""
    scores = model.card.scores
    if not scores:
        return "not evaluated"
    dice = scores.summary["dice"]
    return f"Dice {dice.mean:.3f} on {len(scores.cases)} patients, worst {dice.worst:.3f}"
