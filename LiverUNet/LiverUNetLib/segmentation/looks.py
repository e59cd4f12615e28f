"""The two looks at a scan: the coarse look finds the region of the liver, the fine look outlines it there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..models.engines import Network
from ..models.spec import ModelSpec
from ..steps import Counts, Steps, stage
from ..types import Box, Shape
from .grid import Grid, resample
from .postprocessing import likeliest_box

__all__ = [
    "CoarseLooked",
    "FineLooked",
    "Looked",
    "coarse_probabilities",
    "context_indices",
    "fine_probabilities",
    "look_coarsely",
    "look_finely",
]

# Height of a window in cubes, which limits memory, and how many cubes at each of its ends are only context.
WINDOW, OVERLAP = 96, 16
# Beyond these the exponential function exceeds float32, and the probability is 0 or 1 anyway.
SAFE_LOGITS = (-80.0, 80.0)


@dataclass(frozen=True, eq=False)
class CoarseLooked:
    """What the coarse look has found.

    Attributes:
        box: the part of the scan where the liver is; all of it if there was no coarse look.
        grid, probability: of liver in cubes, float32; None if there was no coarse look.
    """

    box: Box
    grid: Grid | None = None
    probability: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class FineLooked:
    """What the fine look has seen and found.

    Attributes:
        grid: of both arrays.
        image: HU, clipped to the window, float32.
        probability: of liver, float32.
    """

    grid: Grid
    image: np.ndarray
    probability: np.ndarray


@dataclass(frozen=True, eq=False)
class Looked:
    """What both looks have found.

    Attributes:
        box: the part of the scan that was seen finely.
        liver: the probability of liver, without all but one liver, on the grid of the fine look.
        least_ml: the smallest volume that is a liver, found with these probabilities.
    """

    box: Box
    coarse: CoarseLooked
    fine: FineLooked
    liver: np.ndarray
    least_ml: float


def look_coarsely(hu: np.ndarray, scan: Grid, spec: ModelSpec, network: Network | None) -> Steps[CoarseLooked]:
    """Find the box around the liver; the whole scan if it is short or the model has no coarse look.

    Args:
        hu: canonical (slices, rows, columns), on `scan`.
    """
    look = spec.coarse
    if look is None or network is None or scan.slices.stop_mm - scan.slices.start_mm < look.shortest_mm:
        return CoarseLooked(scan.whole)
    grid = scan.cubes(look.voxel_mm)
    image = yield from stage("Preparing", resample(hu, scan, grid, clip=spec.window_hu))
    probability = yield from stage("Finding the liver", coarse_probabilities(image, spec, network))
    box = scan.around(grid, likeliest_box(probability, look.threshold), look.margin_mm)
    return CoarseLooked(box, grid, probability)


def coarse_probabilities(image: np.ndarray, spec: ModelSpec, network: Network) -> Counts[np.ndarray]:
    """The probability of liver on the coarse grid, float32; count slices.

    Args:
        image: HU in coarse cubes, clipped to the window, float32.
        spec: of a model with a coarse look.
    """
    if spec.coarse is None:
        raise ValueError("the model has no coarse look")
    multiple = spec.coarse.network.multiple
    probability = np.empty(image.shape, dtype=np.float32)
    yield 0, len(image)
    for first, last in _windows(len(image)):
        start, stop = max(first - OVERLAP, 0), min(last + OVERLAP, len(image))
        seen = _padded(image[start:stop], spec, (multiple, multiple, multiple))
        found = _probability(network(spec.normalize(seen[None, None])))[0]
        probability[first:last] = found[first - start : last - start, : image.shape[1], : image.shape[2]]
        yield last, len(image)
    return probability


def look_finely(hu: np.ndarray, scan: Grid, grid: Grid, spec: ModelSpec, network: Network) -> Steps[FineLooked]:
    """Find the probability of liver in a part of the scan.

    Args:
        hu: canonical (slices, rows, columns), on `scan`.
        grid: of the part, in the pixels of the fine look.
    """
    image = yield from stage("Preparing", resample(hu, scan, grid, clip=spec.window_hu))
    probability = yield from stage("Segmenting", fine_probabilities(image, grid.slices.step_mm, spec, network))
    return FineLooked(grid, image, probability)


def fine_probabilities(
    image: np.ndarray, slice_mm: float, spec: ModelSpec, network: Network, *, only: np.ndarray | None = None
) -> Counts[np.ndarray]:
    """The probability of liver in fine pixels, float32; count slices.

    Args:
        image: HU in fine pixels, clipped to the window, float32 (slices, rows, columns).
        slice_mm: distance of the slices.
        only: the indices of the slices that are looked at, all by default; the others are their context.
    """
    context = context_indices(len(image), slice_mm, spec.fine.context_mm)
    context = context if only is None else context[only]
    probability = np.empty((len(context), *image.shape[1:]), dtype=np.float32)
    multiple = spec.fine.network.multiple
    padded = _padded(image, spec, (1, multiple, multiple))
    done = 0
    yield done, len(context)
    while done < len(context):
        part = slice(done, min(done + network.batch_size, len(context)))
        found = _probability(network(spec.normalize(padded[context[part]])))
        probability[part] = found[:, : image.shape[1], : image.shape[2]]
        done = part.stop
        yield done, len(context)
    return probability


def _padded(image: np.ndarray, spec: ModelSpec, multiples: Shape) -> np.ndarray:
    """Append air to the image so that its sides are multiples of these."""
    padding = [(0, -side % multiple) for side, multiple in zip(image.shape, multiples, strict=True)]
    return np.pad(image, padding, constant_values=spec.window_hu[0])


def _probability(logits: np.ndarray) -> np.ndarray:
    """Logits (batch, 1, *sides) as probabilities (batch, *sides)."""
    probability: np.ndarray = 1 / (1 + np.exp(-logits[:, 0].clip(*SAFE_LOGITS)))
    return probability


def context_indices(slices: int, slice_mm: float, context_mm: tuple[float, ...]) -> np.ndarray:
    """Indices of the slices that are the channels of each slice: nearest to each distance, at the ends the last one.

    Returns:
        int64, shape (slices, len(context_mm)). If slices are thick, or there is only one, a slice is its own context.
    """
    steps = np.rint(np.asarray(context_mm) / slice_mm).astype(np.int64)
    indices: np.ndarray = np.clip(np.arange(slices)[:, None] + steps[None, :], 0, slices - 1)
    return indices


def _windows(length: int) -> list[tuple[int, int]]:
    """First and last (exclusive) cube of the windows over `length` cubes; a single window if they are few."""
    if length <= WINDOW:
        return [(0, length)]
    size = WINDOW - 2 * OVERLAP
    return [(first, min(first + size, length)) for first in range(0, length, size)]
