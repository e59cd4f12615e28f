"""What a user has to know before using a result: what about the scan and about the liver asks for care."""

from __future__ import annotations

import numpy as np

from ..models.spec import Rules
from ..scan.volume import CTVolume
from .grid import Grid
from .measurement import Measurement

__all__ = ["cautions", "findings"]

# Below these a model lacks the context that it was trained with.
FEWEST_SLICES = 4
THINNEST_STACK_MM = 40.0
# Slices farther apart leave gaps; the data sets that models are trained on have 0.5 to 5 mm.
WIDEST_SLICE_MM = 7.5
# Tilts beyond what augmentation by rotation shows a model.
LARGEST_TILT_DEGREES = 20.0


def cautions(volume: CTVolume, scan: Grid) -> list[str]:
    """What about the scan itself asks for care.

    Args:
        scan: its canonical grid, as far as it shows the body.
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
            f"The slices are {spacing:.1f} mm apart: what lies between them is not seen; check shape and volume."
        )
    tilt = np.degrees(np.arccos(min(_largest_cosines(volume.affine)[2], 1.0)))
    if tilt > LARGEST_TILT_DEGREES:
        found.append(
            f"The slices are tilted by {tilt:.0f} degrees from the patient's axial plane; "
            "models are trained on axial scans."
        )
    return found


def findings(measurement: Measurement, found_ml: float, rules: Rules) -> list[str]:
    """What about the result asks for care; `found_ml` is the volume before what is too small was taken out."""
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
    """For the patient's axes R, A, S: the cosine of the angle to the nearest axis of the scan."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines: np.ndarray = np.abs(directions).max(axis=1)
    return cosines
