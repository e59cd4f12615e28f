"""Whether what surrounds the liver is a body as in nearly all scans: on which sides what lies, and what HU fat has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..types import triple
from .grid import BODY_HU, Grid

__all__ = ["Anatomy", "look_around", "tissue_hu"]

# Every voxel of so many mm tells enough.
STEP_MM = 5.0
# What is denser is bone, in a scan with contrast medium some vessels too; it is soft tissue no more in any.
BONE_HU = 220.0
# Air and lung, also in data that were clipped at -160 HU.
AIR_HU = -150.0
# The histogram of fat and soft tissue: its range and bins, how far both lie apart at least, and where fat may begin.
# Where values were clipped at -200 HU, noise makes a peak of them that is no fat.
RANGE_HU, BIN_HU, APART_HU, LOWEST_HU = (-400, 400), 10, 100, -180
# A peak has at least this share of the highest one, and is so many times as high as the valley between two of them.
LOWEST_PEAK, VALLEY = 0.15, 1.1


@dataclass(frozen=True)
class Anatomy:
    """Where the liver lies, in radii of a circle with the area of the body's slice, and the HU of fat.

    In the 20 patients of 3D-IRCADb-01 `to_the_left` is -0.54 to -0.33, `spine_behind` 0.16 to 0.54, `lungs_above` 0.06
    to 0.29, and `fat_hu` -115 to -75, but in one -165, where its values were restored.

    Attributes:
        to_the_left: how far the liver lies left of the middle of the body; negative on the right, where a liver is.
        spine_behind: how far the bone near the middle of the body lies behind it.
        lungs_above: the share of air in the body above the middle of the liver, less that below it.
        fat_hu, soft_hu: the most frequent values of fat and of soft tissue; None if they make no two peaks.
    """

    to_the_left: float = 0.0
    spine_behind: float = 0.0
    lungs_above: float = 0.0
    fat_hu: float | None = None
    soft_hu: float | None = None


def look_around(hu: np.ndarray, mask: np.ndarray, scan: Grid) -> Anatomy:
    """Look at what surrounds the liver; without a body, and without bone in it, there is nothing to tell sides by.

    Args:
        hu: canonical (slices, rows, columns), on `scan`.
        mask: of the liver, likewise, not empty.
    """
    coarse = tuple(slice(None, None, max(round(STEP_MM / mm), 1)) for mm in scan.spacing_mm)
    hu, mask = hu[coarse], mask[coarse]
    fat, soft = tissue_hu(hu) or (None, None)
    body = hu > BODY_HU
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if not slices.size or not body[slices].any():
        return Anatomy(fat_hu=fat, soft_hu=soft)
    liver, middle = _middle(mask), _middle(body[slices])
    radius = float(np.sqrt(body[slices].sum() / len(slices) / np.pi))
    central = abs(np.arange(hu.shape[2]) - middle[2]) < radius / 2
    bone = (hu[slices] > BONE_HU) & ~mask[slices] & central
    if not bone.any():
        return Anatomy(fat_hu=fat, soft_hu=soft)
    air = np.array([_air(plane, inside) for plane, inside in zip(hu, body, strict=True)])
    above = np.arange(len(hu)) > liver[0]
    return Anatomy(
        to_the_left=(liver[2] - middle[2]) / radius,
        spine_behind=(_middle(bone)[1] - middle[1]) / radius,
        lungs_above=_mean(air[above]) - _mean(air[~above]),
        fat_hu=fat,
        soft_hu=soft,
    )


def tissue_hu(hu: np.ndarray) -> tuple[float, float] | None:
    """The most frequent values of fat and of soft tissue: the lowest two high peaks at least 100 HU apart, if any.

    The lowest value of the scan, to which it may have been clipped, and those near it do not count.
    """
    edges = np.arange(RANGE_HU[0], RANGE_HU[1] + 1, BIN_HU)
    counts, _ = np.histogram(hu[hu >= hu.min() + 2 * BIN_HU], edges)
    smooth = ndimage.gaussian_filter1d(counts.astype(float), 1, mode="constant")
    inner = smooth[1:-1]
    peaks = 1 + np.flatnonzero((inner >= smooth[:-2]) & (inner > smooth[2:]) & (inner > LOWEST_PEAK * smooth.max()))
    for fat in peaks[edges[peaks] >= LOWEST_HU]:
        for soft in peaks[peaks >= fat + APART_HU // BIN_HU]:
            if smooth[fat : soft + 1].min() * VALLEY < min(smooth[fat], smooth[soft]):
                return float(edges[fat] + BIN_HU / 2), float(edges[soft] + BIN_HU / 2)
    return None


def _middle(mask: np.ndarray) -> tuple[float, float, float]:
    """The center of gravity, in cells."""
    return triple(float(axis.mean()) for axis in np.nonzero(mask))


def _air(plane: np.ndarray, body: np.ndarray) -> float:
    """The share of air in what the body encloses in a slice."""
    filled = ndimage.binary_fill_holes(body)
    return int(np.count_nonzero(filled & (plane < AIR_HU))) / max(int(np.count_nonzero(filled)), 1)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0
