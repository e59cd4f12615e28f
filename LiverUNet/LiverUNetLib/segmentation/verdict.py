"""The verdict on a result: one word, its reasons, an estimate of its Dice, and the slices to look at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..models.calibration import Estimate
from ..system.files import from_json
from .plausibility import Reason, Severity

__all__ = [
    "GOOD",
    "HOW_TO_CALIBRATE",
    "LOOK",
    "UNKNOWN",
    "UNUSABLE",
    "SliceToCheck",
    "Verdict",
    "judge",
    "verdict_from_json",
    "with_reason",
]

GOOD, LOOK, UNUSABLE, UNKNOWN = "good", "look at it", "do not use", "not estimated"

# Below the first a mask needs corrections that are worth their time, below the second it is quicker drawn anew.
GOOD_DICE, USABLE_DICE = 0.90, 0.70
# What a verdict without an estimate ends with.
HOW_TO_CALIBRATE = "No Dice is estimated: the model has no calibration, `liver-unet-train calibrate` makes one."


@dataclass(frozen=True)
class SliceToCheck:
    """A slice that is worth a look.

    Attributes:
        number: counted from 1, in the order in which the scan is stored.
        point_ras_mm: the point of this slice with the most doubt.
        doubtful_cm2: the expected area of what is wrong, if the probabilities are right.
    """

    number: int
    point_ras_mm: tuple[float, float, float]
    doubtful_cm2: float


@dataclass(frozen=True)
class Verdict:
    """The judgment on a result.

    Attributes:
        word: GOOD, LOOK or UNUSABLE; UNKNOWN if there is no estimate and no other reason.
        reasons: for any word but GOOD, in whole sentences.
        estimated_dice: None if the model has no calibration or the run lacks a signal for it.
        dice_interval: holds the true Dice in `coverage` of the cases like those of the calibration.
        volume_interval_ml: the same of the volume.
        coverage: a share; None without an estimate.
        slices: worth a look, the first one most.
    """

    word: str
    reasons: tuple[str, ...] = ()
    estimated_dice: float | None = None
    dice_interval: tuple[float, float] | None = None
    volume_interval_ml: tuple[float, float] | None = None
    coverage: float | None = None
    slices: tuple[SliceToCheck, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What `verdict_from_json` takes."""
        return asdict(self)


def verdict_from_json(content: dict[str, Any]) -> Verdict:
    """What `Verdict.to_json` wrote.

    Raises:
        KeyError, TypeError: something is missing or unknown.
    """
    return from_json(Verdict, content | {"slices": tuple(from_json(SliceToCheck, each) for each in content["slices"])})


def with_reason(verdict: Verdict, reason: Reason) -> Verdict:
    """The verdict with one more reason; it does not get better."""
    unusable = verdict.word == UNUSABLE or reason.severity is Severity.UNUSABLE
    return replace(verdict, word=UNUSABLE if unusable else LOOK, reasons=(*verdict.reasons, reason.sentence))


def judge(
    reasons: Sequence[Reason],
    volume_ml: float,
    estimate: Estimate | None = None,
    slices: Sequence[SliceToCheck] = (),
) -> Verdict:
    """Draw the verdict: as bad as the worst reason."""
    if estimate and estimate.dice < GOOD_DICE:
        low, high = estimate.dice_interval
        sentence = (
            f"The Dice is estimated at {estimate.dice:.2f} ({estimate.coverage:.0%} interval {low:.2f} to {high:.2f}): "
            "check the outline."
        )
        severity = Severity.UNUSABLE if estimate.dice < USABLE_DICE else Severity.LOOK
        reasons = [Reason(sentence, severity), *reasons]
    worst = max((reason.severity for reason in reasons), default=None)
    verdict = Verdict(
        {None: GOOD if estimate else UNKNOWN, Severity.LOOK: LOOK, Severity.UNUSABLE: UNUSABLE}[worst],
        tuple(reason.sentence for reason in reasons),
        slices=tuple(slices),
    )
    if not estimate:
        return verdict
    smallest, largest = estimate.volume_factors
    return replace(
        verdict,
        estimated_dice=estimate.dice,
        dice_interval=estimate.dice_interval,
        volume_interval_ml=(smallest * volume_ml, largest * volume_ml),
        coverage=estimate.coverage,
    )
