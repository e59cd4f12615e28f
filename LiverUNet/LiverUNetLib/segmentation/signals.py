"""Signals of the quality of a run, without a reference: how far its looks agree, how sure it is, how noisy the scan is.

All agreements are Dice between two masks of one run, 1 if they are equal. None of them needs a reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..models.engines import Network
from ..models.spec import ModelSpec
from ..steps import Steps, finish, stage
from ..types import triple
from .grid import Axis, Grid, resample
from .looks import CoarseLooked, Looked, fine_probabilities
from .measurement import bounding_box

__all__ = ["Signals", "coarse_dice", "dice", "expected_dice", "gather", "noise_hu"]

# The second look sees every eighth slice of the liver, moved by so many pixels: no multiple of a stride, so that every
# voxel meets other cells of the network's lower levels.
REPEATED_SLICES, SHIFT_PIXELS = 8, 11
# What is smaller is counted in the volume that was cut away, but not as a part.
SMALLEST_PART_ML = 1.0
# Median absolute difference of two neighbors -> standard deviation of their noise, if it is normal.
TO_SD = 1 / (0.6745 * 2**0.5)


@dataclass(frozen=True)
class Signals:
    """How far the looks of one run agree, and what the liver they found looks like.

    Attributes:
        expected_dice: of the mask, if the probabilities are right.
        repeated_dice: of the mask and of a second fine look, moved by a few pixels, in every eighth slice.
        coarse_dice: of the mask and of the coarse look; None if there was none.
        noise_hu: standard deviation of the noise in the liver, from the differences of neighboring pixels.
        cut_away_ml, parts_cut_away: what was found besides the liver and left out, and in how many parts of 1 ml or
            more.
    """

    expected_dice: float
    repeated_dice: float
    coarse_dice: float | None
    noise_hu: float
    cut_away_ml: float
    parts_cut_away: int


def gather(looked: Looked, spec: ModelSpec, network: Network) -> Steps[Signals]:
    """Gather the signals of a run that has found a liver; this looks again at some slices.

    Args:
        network: of the fine look.
    """
    fine, threshold = looked.fine, spec.rules.threshold
    found, mask = fine.probability > threshold, looked.liver > threshold
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    repeated = slices[(len(slices) % REPEATED_SLICES) // 2 :: REPEATED_SLICES]
    moved = np.pad(fine.image, ((0, 0), (SHIFT_PIXELS, 0), (SHIFT_PIXELS, 0)), constant_values=spec.window_hu[0])
    steps = fine_probabilities(moved, fine.grid.slices.step_mm, spec, network, only=repeated)
    again = (yield from stage("Checking", steps))[:, SHIFT_PIXELS:, SHIFT_PIXELS:] > threshold
    sizes = _parts_ml(found & ~mask, fine.grid.voxel_ml)
    return Signals(
        expected_dice=expected_dice(fine.probability, mask),
        repeated_dice=dice(found[repeated], again),
        coarse_dice=coarse_dice(mask, fine.grid, looked.coarse, spec),
        noise_hu=noise_hu(fine.image, _inner(mask)),
        cut_away_ml=float(sizes.sum()),
        parts_cut_away=int(np.count_nonzero(sizes >= SMALLEST_PART_ML)),
    )


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|) of two masks; 1 if both are empty."""
    both = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * int(np.count_nonzero(one & other)) / int(both) if both else 1.0


def expected_dice(probability: np.ndarray, mask: np.ndarray) -> float:
    """The Dice of the mask with a reference whose voxels are liver with these probabilities: of the expected sizes.

    Args:
        mask: not empty.
    """
    inside = probability[mask].sum(dtype=np.float64)
    return float(2 * inside / (np.count_nonzero(mask) + probability.sum(dtype=np.float64)))


def coarse_dice(mask: np.ndarray, grid: Grid, coarse: CoarseLooked, spec: ModelSpec) -> float | None:
    """The Dice of the mask and of the coarse look, in its cubes and as far as the mask's grid goes."""
    if coarse.grid is None or coarse.probability is None:
        return None
    # The cubes whose middles lie on the grid of the fine look.
    box = triple(
        slice(*np.searchsorted(_middles(cubes), (cells.start_mm, cells.stop_mm)))
        for cubes, cells in zip(coarse.grid.axes, grid.axes, strict=True)
    )
    steps = resample(mask, grid, coarse.grid.part(box), finish=lambda slab: slab > 0.5)
    return dice(finish(steps), coarse.probability[box] > spec.rules.threshold)


def noise_hu(image: np.ndarray, inside: np.ndarray) -> float:
    """The standard deviation of the noise, from the differences of neighbors along the rows; 0 if there are none."""
    pairs = inside[..., 1:] & inside[..., :-1]
    differences = np.diff(image, axis=2)[pairs]
    return float(np.median(abs(differences)) * TO_SD) if differences.size else 0.0


def _middles(axis: Axis) -> np.ndarray:
    return axis.start_mm + (np.arange(axis.size) + 0.5) * axis.step_mm


def _inner(mask: np.ndarray) -> np.ndarray:
    """The mask without its border in the slices; all of it if nothing else is left."""
    box = bounding_box(mask)
    inner = np.zeros_like(mask)
    inner[box] = ndimage.binary_erosion(mask[box], np.ones((1, 3, 3), bool))
    return inner if inner.any() else mask


def _parts_ml(mask: np.ndarray, voxel_ml: float) -> np.ndarray:
    """The volumes of the parts of a mask."""
    box = bounding_box(mask)
    if box is None:
        return np.zeros(0)
    labels, _ = ndimage.label(mask[box])
    return np.bincount(labels.ravel())[1:] * voxel_ml
