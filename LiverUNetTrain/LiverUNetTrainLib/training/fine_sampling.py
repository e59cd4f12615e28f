"""Training slices from simulated scanner stacks, for the fine look."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from LiverUNetLib.models.engines import Network
from LiverUNetLib.models.spec import ModelSpec
from LiverUNetLib.segmentation.looks import fine_probabilities
from LiverUNetLib.segmentation.measurement import bounding_box
from LiverUNetLib.steps import finish

from ..data.cache import CachedCase
from ..run.settings import AugmentationSettings, StackSettings, TrainingSettings
from .augmentation import augment

__all__ = ["FineSampler", "Slice"]

# How far the random canvas may move beyond positions that show the whole liver, or as much of it as fits.
JITTER_MM = 15.0


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice of a case; the stack around it is drawn at random."""

    case: CachedCase
    index: int


@dataclass(frozen=True)
class _Stack:
    """Blocks of slices of a case: block n begins at slice `first` + n * `block`; there are blocks `low` to `high`."""

    first: int
    block: int
    low: int
    high: int

    def slices(self, block: int) -> slice:
        start = self.first + block * self.block
        return slice(start, start + self.block)


class FineSampler:
    """Draws slices of cached cases; what it draws depends on its arguments alone.

    Args:
        replayed: cases of which only some slices are shown, `settings.replay` for each slice of the others.
    """

    def __init__(
        self,
        cases: Sequence[CachedCase],
        spec: ModelSpec,
        settings: TrainingSettings,
        *,
        replayed: Collection[str] = (),
    ) -> None:
        self._cases, self._spec, self._settings = cases, spec, settings
        self._replayed = replayed
        self._has_liver = {case.name: np.any(case.mask > 127, axis=(1, 2)) for case in cases}
        self._box = {case.name: _plane_box(case.mask) for case in cases}
        sides = (math.ceil(mm / case.grids.pixel_mm) for mm in settings.canvas_mm for case in cases[:1])
        multiple = spec.fine.network.multiple
        self._canvas = tuple(-(-side // multiple) * multiple for side in sides)

    def epoch(self, epoch: int) -> list[Slice]:
        """Slices with liver and a share of those without, in random order."""
        random = np.random.default_rng([self._settings.seed, epoch])
        new: list[Slice] = []
        old: list[Slice] = []
        for case in self._cases:
            has_liver = self._has_liver[case.name]
            chosen = has_liver | (random.random(len(has_liver)) < self._settings.empty_slices)
            part = old if case.name in self._replayed else new
            part += [Slice(case, int(index)) for index in np.flatnonzero(chosen)]
        random.shuffle(old)
        new += old[: round(self._settings.replay * len(new))]
        random.shuffle(new)
        return new

    def batch(
        self, slices: Sequence[Slice], seed: int, device: str, augmentation: AugmentationSettings | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Slices as the network learns from them.

        Returns:
            What the network takes, float32 (batch, context, *canvas), and share of liver (batch, 1, *canvas).
        """
        image, mask = self.read(slices, seed)
        image, mask = self._spec.normalize(image).to(device), mask.to(device)
        return augment(
            image, mask, augmentation or self._settings.augmentation, torch.Generator(device).manual_seed(seed)
        )

    def read(self, slices: Sequence[Slice], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """HU with context and share of liver, before augmentation; float32 (batch, …, *canvas)."""
        random = np.random.default_rng(seed)
        images, masks = zip(*(self._read(each, random) for each in slices), strict=True)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks))

    def probability(self, network: Network, case: CachedCase) -> np.ndarray:
        """What the network finds in the box of a perfect coarse look, or in a whole case without one; float32."""
        grid, coarse, liver = case.fine_grid, self._spec.coarse, bounding_box(case.mask > 127)
        box = grid.around(grid, liver, coarse.margin_mm) if coarse and liver else grid.whole
        probability = np.zeros(grid.shape, np.float32)
        image = case.image[box].astype(np.float32)
        probability[box] = finish(fine_probabilities(image, case.slice_mm, self._spec, network))
        return probability

    def image(self, case: CachedCase) -> np.ndarray:
        """The HU of a whole case."""
        return case.image

    def mask(self, case: CachedCase) -> np.ndarray:
        """The share of liver in a whole case, uint8."""
        return case.mask

    def _read(self, each: Slice, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        case, settings = each.case, self._settings
        stack = _stack(case, each.index, settings.stacks, random)
        steps = np.rint(np.array(self._spec.fine.context_mm) / (stack.block * case.slice_mm)).astype(int)
        context = steps.clip(stack.low, stack.high) if random.random() >= settings.stacks.p_alone else 0 * steps
        rows, columns = (
            _place(found, size, full, jitter=round(JITTER_MM / case.grids.pixel_mm), random=random)
            for found, size, full in zip(self._box[case.name], self._canvas, case.image.shape[1:], strict=True)
        )
        blocks = {n: _crop(case.image, stack.slices(n), (rows, columns), self._spec.window_hu[0]) for n in set(context)}
        mask = _crop(case.mask, stack.slices(0), (rows, columns), 0)[None] / 255
        return np.stack([blocks[n] for n in context]), mask


def _stack(case: CachedCase, index: int, settings: StackSettings, random: np.random.Generator) -> _Stack:
    """A stack that has this slice in its block 0."""
    length, block = len(case.image), 1
    if random.random() < settings.p_thick:
        thickness_mm = math.exp(random.uniform(math.log(settings.thinnest_mm), math.log(settings.thickest_mm)))
        block = min(max(round(thickness_mm / case.slice_mm), 1), length)
    first = min(max(index - int(random.integers(block)), 0), length - block)
    low, high = -(first // block), (length - first) // block - 1
    if random.random() < settings.p_short:
        count = int(random.integers(1, settings.longest_short + 1))
        below = int(random.integers(count))
        low, high = max(low, -below), min(high, count - 1 - below)
    return _Stack(first, block, low, high)


def _place(found: slice, size: int, full: int, *, jitter: int, random: np.random.Generator) -> slice:
    """A random place of a canvas along an axis, around the liver; it may reach a little beyond the image."""
    free = abs(size - (found.stop - found.start)) / 2 + jitter
    start = (found.start + found.stop - size) / 2 + random.uniform(-free, free)
    start = round(min(max(start, min(-jitter, full - size)), max(full - size + jitter, 0)))
    return slice(start, start + size)


def _crop(volume: np.ndarray, slices: slice, canvas_place: tuple[slice, slice], fill: float) -> np.ndarray:
    """The mean of some slices on a canvas of these rows and columns, float32; `fill` where there is no image."""
    canvas = np.full([part.stop - part.start for part in canvas_place], fill, dtype=np.float32)
    inside, there = [], []
    for part, full in zip(canvas_place, volume.shape[1:], strict=True):
        start, stop = max(part.start, 0), min(part.stop, full)
        inside.append(slice(start, stop))
        there.append(slice(start - part.start, stop - part.start))
    shown = volume[(slices, *inside)]
    canvas[tuple(there)] = shown[0] if len(shown) == 1 else shown.mean(axis=0, dtype=np.float32)
    return canvas


def _plane_box(mask: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns that show liver in any slice; all if none does."""
    found = np.logical_or.reduce(mask > 127)
    rows, columns = (np.flatnonzero(found.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return slice(0, found.shape[0]), slice(0, found.shape[1])
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
