"""Reasons to check a result: what is unusual about the scan, the body and the liver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from ..models.calibration import Calibration
from ..models.spec import Rules
from ..scan.volume import CTVolume
from .anatomy import Anatomy
from .grid import Grid
from .measurement import Measurement
from .signals import Signals

__all__ = [
    "Reason",
    "Severity",
    "about_the_body",
    "about_the_liver",
    "about_the_looks",
    "about_the_rest",
    "about_the_scan",
    "about_the_usual",
    "cut_off",
]

# With less, a model lacks the context that it was trained with.
FEWEST_SLICES = 4
THINNEST_STACK_MM = 40.0
# Wider distances leave gaps; training data have 0.5 to 5 mm.
WIDEST_SLICE_MM = 7.5
# Larger tilts do not occur in augmentation by rotation.
LARGEST_TILT_DEGREES = 20.0
# A fifth of an adult's mean of 1.5 l, which resections seldom leave, and three times as much.
ADULT_ML = (300.0, 4500.0)
# Fatty livers without contrast medium go down to -20 HU, the brightest with it seldom exceed 180.
LIVER_HU = (-30.0, 220.0)
# A part of another organ that was cut away is small beside the liver.
CUT_AWAY_SHARE, CUT_AWAY_ML = 0.1, 50.0
# Of the 20 patients of 3D-IRCADb-01 none has less than 0.82.
LOOKS_AGREE = 0.5
# In radii of the body, and in shares of it: far from what `Anatomy` reports of real patients.
LEFT, BEHIND, ABOVE = 0.1, -0.1, -0.04
FAT_BELOW_HU, SOFT_ABOVE_HU = -60.0, 0.0
# The values that a calibration has limits for, as a sentence begins with them.
USUAL = {"noise_hu": "Noise"}


class Severity(IntEnum):
    """How much a reason weighs."""

    LOOK = 1
    UNUSABLE = 2


@dataclass(frozen=True)
class Reason:
    """Why a result should be checked, as a sentence."""

    sentence: str
    severity: Severity = Severity.LOOK


def about_the_scan(volume: CTVolume, scan: Grid) -> list[Reason]:
    """Reasons to check that lie in the scan.

    Args:
        scan: the canonical grid of the part that shows the body.
    """
    found = []
    slices, spacing = scan.slices.size, scan.slices.step_mm
    if slices < FEWEST_SLICES or slices * spacing < THINNEST_STACK_MM:
        found.append(
            f"The scan shows the body in {slices} slice{'s' if slices > 1 else ''} ({slices * spacing:.0f} mm): "
            "with so little context the model is less reliable; check the result."
        )
    elif spacing > WIDEST_SLICE_MM:
        found.append(
            f"The slices are {spacing:.1f} mm apart, and the anatomy between them is unknown; check shape and volume."
        )
    tilt = np.degrees(np.arccos(min(_largest_cosines(volume.affine)[2], 1.0)))
    if tilt > LARGEST_TILT_DEGREES:
        found.append(
            f"The slices are tilted by {tilt:.0f} degrees from the patient's axial plane; "
            "models are trained on axial scans."
        )
    return [Reason(sentence) for sentence in found]


def about_the_liver(measurement: Measurement, found_ml: float, rules: Rules) -> list[Reason]:
    """Reasons that lie in the liver; `found_ml` is the volume before a liver that is too small was discarded."""
    if measurement.volume_ml == 0 and found_ml >= rules.minimum_ml:
        return [
            Reason(
                f"No liver was found; the mask is empty. What looked most like one, {found_ml:.0f} ml, is too "
                f"doubtful: less than {rules.doubtful_ml:.0f} ml with a mean probability below "
                f"{rules.doubtful_probability:g}.",
                Severity.UNUSABLE,
            )
        ]
    if measurement.volume_ml == 0:
        return [Reason("No liver was found; the mask is empty.", Severity.UNUSABLE)]
    found = []
    volume_ml, mean_hu = measurement.volume_ml, measurement.mean_hu
    if measurement.cut_off:
        found.append(cut_off(measurement.cut_off).sentence)
    smallest, largest = ADULT_ML
    if volume_ml > largest or (volume_ml < smallest and not measurement.cut_off):
        found.append(f"A liver of {volume_ml:.0f} ml is unusual: adults have {smallest:.0f} to {largest:.0f} ml.")
    darkest, brightest = LIVER_HU
    if mean_hu is not None and not darkest <= mean_hu <= brightest:
        found.append(
            f"A liver of {mean_hu:.0f} HU is unusual: it has {darkest:.0f} to {brightest:.0f} HU. "
            "Was the rescale of the scan applied?"
        )
    return [Reason(sentence) for sentence in found]


def cut_off(edges: Sequence[str]) -> Reason:
    """The reason that the liver reaches these edges."""
    reached = " and ".join(edges)
    return Reason(f"The liver reaches the {reached} edge of the image and may be cut off; its volume is a lower bound.")


def about_the_looks(coarse_dice: float | None) -> list[Reason]:
    """The reason that both looks found different things."""
    if coarse_dice is None or coarse_dice >= LOOKS_AGREE:
        return []
    return [
        Reason(
            f"The coarse look and the fine one found different things (Dice {coarse_dice:.2f} between them): is it the "
            "liver that was outlined?"
        )
    ]


def about_the_rest(signals: Signals, volume_ml: float) -> list[Reason]:
    """The reason that much was found besides the liver."""
    if signals.cut_away_ml < max(CUT_AWAY_SHARE * volume_ml, CUT_AWAY_ML):
        return []
    return [
        Reason(
            f"Besides the liver, {signals.cut_away_ml:.0f} ml looked like one, in {signals.parts_cut_away} parts of "
            "1 ml or more, and were left out, since a liver is in one piece: check that the right one was kept."
        )
    ]


def about_the_body(anatomy: Anatomy) -> list[Reason]:
    """Reasons that lie in the body around the liver: sides that are exchanged, fat with other HU than in every CT."""
    found = []
    if anatomy.to_the_left > LEFT:
        found.append(
            "The liver lies on the left of the body: a situs inversus, or the scan is stored mirrored or upside down."
        )
    if anatomy.spine_behind < BEHIND:
        found.append("The spine lies before the liver: the scan seems to be stored with front and back exchanged.")
    if anatomy.lungs_above < ABOVE:
        found.append("The lungs lie below the liver: the scan seems to be stored upside down.")
    fat, soft = anatomy.fat_hu, anatomy.soft_hu
    if fat is not None and soft is not None and not (fat < FAT_BELOW_HU and soft > SOFT_ABOVE_HU):
        found.append(
            f"Fat has about {fat:.0f} HU in this scan and soft tissue {soft:.0f}, in a CT about -100 and 50: the HU "
            "are shifted or scaled, or it is not a CT."
        )
    return [Reason(sentence) for sentence in found]


def about_the_usual(calibration: Calibration, values: Mapping[str, float | None]) -> list[Reason]:
    """The reason that the scan is unlike those that the model was calibrated on."""
    return [
        Reason(
            f"{USUAL.get(name, name)} of {value:.0f} HU is unlike that of the patients that the model was calibrated "
            f"on, {low:.0f} to {high:.0f} HU."
        )
        for name, (value, low, high) in calibration.unusual(values).items()
    ]


def _largest_cosines(affine: np.ndarray) -> np.ndarray:
    """The cosine of the angle between each of the patient's axes R, A, S and the nearest axis of the scan."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines: np.ndarray = np.abs(directions).max(axis=1)
    return cosines
