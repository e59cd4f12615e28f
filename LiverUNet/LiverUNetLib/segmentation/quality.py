"""Warnings about a scan and about its result, which the user should read before using the result."""

from __future__ import annotations

import numpy as np

from ..models.spec import Rules
from ..scan.volume import CTVolume
from .grid import Grid
from .measurement import Measurement

__all__ = ["cautions", "findings"]

# With less, a model lacks the context that it was trained with.
FEWEST_SLICES = 4
THINNEST_STACK_MM = 40.0
# Wider distances leave gaps; training data have 0.5 to 5 mm.
WIDEST_SLICE_MM = 7.5
# Larger tilts do not occur in augmentation by rotation.
LARGEST_TILT_DEGREES = 20.0


def cautions(volume: CTVolume, scan: Grid) -> list[str]:
    """Warnings about the scan.

    Args:
        scan: the canonical grid of the part that shows the body.
    """
    found = list(volume.notes)
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
    return found


def findings(measurement: Measurement, found_ml: float, rules: Rules) -> list[str]:
    """Warnings about the result; `found_ml` is the volume before a liver that is too small was discarded."""
    if measurement.volume_ml == 0 and found_ml >= rules.minimum_ml:
        return [
            f"No liver was found; the mask is empty. What looked most like one, {found_ml:.0f} ml, is too doubtful: "
            f"less than {rules.doubtful_ml:.0f} ml with a mean probability below {rules.doubtful_probability:g}."
        ]
    if measurement.volume_ml == 0:
        return ["No liver was found; the mask is empty."]
    if measurement.cut_off:
        edges = " and ".join(measurement.cut_off)
        return [f"The liver reaches the {edges} edge of the image and may be cut off; its volume is a lower bound."]
    return []


def _largest_cosines(affine: np.ndarray) -> np.ndarray:
    """The cosine of the angle between each of the patient's axes R, A, S and the nearest axis of the scan."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines: np.ndarray = np.abs(directions).max(axis=1)
    return cosines
