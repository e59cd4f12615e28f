"""The two looks at a scan: a coarse one that finds the part of the body with the liver, a fine one at that part."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .engines import Network
from .grid import Box, Grid, resample
from .postprocessing import likeliest_box
from .spec import ModelSpec
from .steps import Progress, finish, stage

__all__ = [
    "UNKNOWN",
    "Prior",
    "coarse_probabilities",
    "context_indices",
    "fine_input",
    "fine_probabilities",
    "look_coarsely",
    "look_finely",
    "prior_channel",
]

Values = TypeVar("Values")

# A whole body at once would need too much memory: so many cubes of its height, of which the outer ones only help.
WINDOW, OVERLAP = 96, 16
# Beyond these the exponential function leaves float32, and the probability is 0 or 1 anyway.
SAFE_LOGITS = (-80.0, 80.0)
# What the fine look is told where there was no coarse one.
UNKNOWN = 0.5


@dataclass(frozen=True, eq=False)
class Prior:
    """What the coarse look has found: the probability of liver, float32 on its grid."""

    grid: Grid
    probability: np.ndarray

    def box(self, scan: Grid, spec: ModelSpec) -> Box:
        """The part of the scan at which to look finely."""
        found = likeliest_box(self.probability, spec.coarse.threshold)
        return scan.around(self.grid, found, spec.coarse.margin_mm)


def look_coarsely(
    hu: np.ndarray, scan: Grid, spec: ModelSpec, network: Network | None
) -> Generator[Progress, None, Prior | None]:
    """Where the liver may be; None if the model does not look coarsely, or not at a scan as short as this.

    Args:
        hu: canonical (slices, rows, columns), on `scan`.
    """
    look = spec.coarse
    if look is None or network is None or scan.slices.stop_mm - scan.slices.start_mm < look.shortest_mm:
        return None
    grid = scan.cubes(look.voxel_mm)
    image = yield from stage("Preparing", resample(hu, scan, grid, clip=spec.window_hu))
    probability = yield from stage("Finding the liver", coarse_probabilities(image, spec, network))
    return Prior(grid, probability)


def coarse_probabilities(
    image: np.ndarray, spec: ModelSpec, network: Network
) -> Generator[tuple[int, int], None, np.ndarray]:
    """The probability of liver on the coarse grid, float32; yields slices done and in all.

    Args:
        image: HU in coarse cubes, clipped to the window, float32.
    """
    probability = np.empty(image.shape, dtype=np.float32)
    yield 0, len(image)
    for first, last in _windows(len(image)):
        start, stop = max(first - OVERLAP, 0), min(last + OVERLAP, len(image))
        seen = image[start:stop]
        padding = [(0, -side % spec.coarse.network.multiple) for side in seen.shape]
        seen = np.pad(seen, padding, constant_values=spec.window_hu[0])
        found = _probability(network(spec.normalise(seen[None, None])))[0]
        probability[first:last] = found[first - start : last - start, : image.shape[1], : image.shape[2]]
        yield last, len(image)
    return probability


def look_finely(
    hu: np.ndarray, scan: Grid, grid: Grid, spec: ModelSpec, network: Network, prior: Prior | None
) -> Generator[Progress, None, np.ndarray]:
    """Where in a part of the scan the liver is.

    Args:
        hu: canonical (slices, rows, columns), on `scan`.
        grid: of the part, in the pixels of the fine look.
        prior: what the coarse look has found, if there was one.

    Returns:
        The probability of liver, float32 on `grid`.
    """
    image = yield from stage("Preparing", resample(hu, scan, grid, clip=spec.window_hu))
    return (yield from stage("Segmenting", fine_probabilities(image, grid, spec, network, prior)))


def fine_probabilities(
    image: np.ndarray, grid: Grid, spec: ModelSpec, network: Network, prior: Prior | None
) -> Generator[tuple[int, int], None, np.ndarray]:
    """The probability of liver in fine pixels, float32; yields slices done and in all.

    Args:
        image: HU on `grid`, clipped to the window, float32.
    """
    context = context_indices(len(image), grid.slices.step_mm, spec.fine.context_mm)
    if prior is None:
        told = np.full(grid.shape, UNKNOWN, np.float32)
    else:
        told = finish(resample(prior.probability, prior.grid, grid))
    rows, columns = grid.shape[1:]
    padding = ((0, 0), *((0, -side % spec.fine.network.multiple) for side in (rows, columns)))
    image = np.pad(image, padding, constant_values=spec.window_hu[0])
    told = np.pad(told, padding, mode="edge")
    probability = np.empty(grid.shape, dtype=np.float32)
    done = 0
    yield done, len(image)
    while done < len(image):
        part = slice(done, min(done + network.batch_size, len(image)))
        logits = network(fine_input(spec, image[context[part]], told[part]))
        probability[part] = _probability(logits)[:, :rows, :columns]
        done = part.stop
        yield done, len(image)
    return probability


def fine_input(spec: ModelSpec, hu: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """What the fine network takes: its slices, and the prior if the model looks coarsely; all in [-1, 1].

    Args:
        hu: (batch, context, rows, columns), clipped to the window.
        prior: probability (batch, rows, columns).
    """
    image = spec.normalise(hu)
    return image if spec.coarse is None else np.concatenate([image, prior_channel(prior[:, None])], axis=1)


def prior_channel(prior: Values) -> Values:
    """A probability, array or tensor, as a channel of the fine network: in [-1, 1], and 0 where nothing is known."""
    return 2 * prior - 1


def _probability(logits: np.ndarray) -> np.ndarray:
    """Of liver, without the only channel."""
    return 1 / (1 + np.exp(-logits[:, 0].clip(*SAFE_LOGITS)))


def context_indices(slices: int, slice_mm: float, context_mm: tuple[float, ...]) -> np.ndarray:
    """Which slices are the channels of each slice: the nearest to each distance, at the ends the last one.

    Returns:
        int64, shape (slices, len(context_mm)). In a thick or single slice scan a slice is its own context.
    """
    steps = np.rint(np.asarray(context_mm) / slice_mm).astype(np.int64)
    return np.clip(np.arange(slices)[:, None] + steps[None, :], 0, slices - 1)


def _windows(length: int) -> list[tuple[int, int]]:
    """First and last (exclusive) of the windows over so many cubes; all at once if they are few."""
    if length <= WINDOW:
        return [(0, length)]
    size = WINDOW - 2 * OVERLAP
    return [(first, min(first + size, length)) for first in range(0, length, size)]
