"""Measure a segmented liver: volume, attenuation, extent, and whether the scan cuts it off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..types import Box, Spacing, triple
from .grid import Grid

__all__ = ["Measurement", "bounding_box", "measure"]

# The first and last index of each canonical (LPS) axis, slices first.
FACES = (("inferior", "superior"), ("anterior", "posterior"), ("right", "left"))


@dataclass(frozen=True)
class Measurement:
    """The measurements; of an empty mask, the volume is 0 and the others are None.

    Attributes:
        volume_ml: a lower bound if `cut_off` is not empty.
        mean_hu, sd_hu: attenuation in the whole mask, including tumors and vessels.
        extent_mm: cranio-caudal, antero-posterior, left-right.
        cut_off: the ends of the scan that the liver touches.
    """

    volume_ml: float = 0.0
    mean_hu: float | None = None
    sd_hu: float | None = None
    extent_mm: Spacing | None = None
    cut_off: tuple[str, ...] = ()


def bounding_box(mask: np.ndarray) -> Box | None:
    """The smallest box around the non-zero voxels of a 3D mask; None if there are none."""
    box = []  # 54 ms for 300 x 512 x 512 voxels; scipy.ndimage.find_objects takes 690 ms
    for axis in range(3):
        found = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        if not found.size:
            return None
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return triple(box)


def measure(mask: np.ndarray, hu: np.ndarray, scan: Grid, part: Box, voxel_ml: float) -> Measurement:
    """Measure a mask.

    Args:
        mask: bool, on a part of the scan.
        hu: the scan in HU, canonical (slices, rows, columns), on `scan`.
    """
    box = bounding_box(mask)
    if box is None:
        return Measurement()
    values = hu[part][box][mask[box]]
    touched = [
        face
        for faces, cells, found, size in zip(FACES, part, box, scan.shape, strict=True)
        for face, touches in zip(faces, (cells.start + found.start == 0, cells.start + found.stop == size), strict=True)
        if touches
    ]
    return Measurement(
        volume_ml=values.size * voxel_ml,
        mean_hu=float(values.mean(dtype=np.float64)),
        sd_hu=float(values.std(dtype=np.float64)),
        extent_mm=triple((cells.stop - cells.start) * mm for cells, mm in zip(box, scan.spacing_mm, strict=True)),
        cut_off=tuple(touched),
    )
