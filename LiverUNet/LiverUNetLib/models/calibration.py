"""What the signals of a run are worth: an estimate of its Dice, with an interval; measured with one model.

The estimate is a line: the logit of Dice is a sum of the logits of agreements, each with a weight. Its interval, and
that of the volume, have a number each. `liver-unet-train calibrate` makes all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["SMALLEST_DOUBT", "Calibration", "Estimate", "calibration_from_json", "logit"]

# A Dice of 1 or of 0 is not infinitely good or bad.
SMALLEST_DOUBT = 0.005
SCHEMA_VERSION = 1
# Beyond this exp leaves the numbers of a computer; the volume then is unknown anyway.
LARGEST_EXPONENT = 30.0


@dataclass(frozen=True)
class Estimate:
    """What is thought of a result.

    Attributes:
        dice: the most likely one.
        dice_interval: holds the true one as often as the coverage says.
        volume_factors: the true volume lies between these times the measured one, as often.
        coverage: how often, a share.
    """

    dice: float
    dice_interval: tuple[float, float]
    volume_factors: tuple[float, float]
    coverage: float


@dataclass(frozen=True)
class Calibration:
    """How signals become an estimate, for one model.

    Attributes:
        weights: of the logit of each signal, by its name in `segmentation.signals.Signals`.
        intercept: of their sum.
        coverage: how often an interval holds the truth.
        logit_margin: the interval of Dice goes so far to both sides of the estimated logit.
        volume_exponent: the interval of the volume ends at the measured one times, and through, exp(this times
            (1 - estimated Dice)).
        usual: for values that depend on the scanner and the patient: the least and the largest that are like those
            of the calibration.
        patients, runs: how many it was made of.
        command: what made it.
        measured: how good it was on patients left out, for the card.
    """

    weights: dict[str, float]
    intercept: float
    coverage: float
    logit_margin: float
    volume_exponent: float
    usual: dict[str, tuple[float, float]]
    patients: int
    runs: int
    command: str
    measured: dict[str, Any] = field(default_factory=dict)

    def estimate(self, signals: Mapping[str, float | None]) -> Estimate | None:
        """Estimate the Dice of a run; None if it lacks a signal."""
        center = self.intercept
        for name, weight in self.weights.items():
            value = signals[name]
            if value is None:
                return None
            center += weight * logit(value)
        dice = _sigmoid(center)
        interval = _sigmoid(center - self.logit_margin), _sigmoid(center + self.logit_margin)
        factor = math.exp(min(self.volume_exponent * (1 - dice), LARGEST_EXPONENT))
        return Estimate(dice, interval, (1 / factor, factor), self.coverage)

    def unusual(self, values: Mapping[str, float | None]) -> dict[str, tuple[float, float, float]]:
        """The values beyond the usual ones: name -> value, least, largest."""
        return {
            name: (value, *limits)
            for name, limits in self.usual.items()
            if (value := values.get(name)) is not None and not limits[0] <= value <= limits[1]
        }

    def to_json(self) -> dict[str, Any]:
        """What `calibration_from_json` takes."""
        return {"schema_version": SCHEMA_VERSION} | asdict(self)


def calibration_from_json(content: dict[str, Any]) -> Calibration:
    """What `Calibration.to_json` wrote.

    Raises:
        KeyError, TypeError, ValueError: something is missing, unknown or not a number.
    """
    if content["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"its schema version is {content['schema_version']}, not {SCHEMA_VERSION}")
    known = {name: value for name, value in content.items() if name != "schema_version"}
    usual = {name: (float(low), float(high)) for name, (low, high) in known["usual"].items()}
    made = Calibration(**known | {"usual": usual})
    numbers = (*made.weights.values(), made.intercept, made.coverage, made.logit_margin, made.volume_exponent)
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("its numbers are not finite")
    return made


def logit(share: float) -> float:
    """log(p / (1 - p)), with p kept away from 0 and 1."""
    share = min(max(share, SMALLEST_DOUBT), 1 - SMALLEST_DOUBT)
    return math.log(share / (1 - share))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-min(max(value, -30.0), 30.0)))
