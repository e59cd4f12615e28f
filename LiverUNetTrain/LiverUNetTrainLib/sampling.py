"""Which slices an epoch shows, in which order, and how a batch of them is read from the cache."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from LiverUNetLib.geometry import Canvas, context_indices
from LiverUNetLib.views import cut, usable_views

from .cache import Cache, CachedCase

__all__ = ["SliceSampler", "Stack"]


@dataclass(frozen=True, eq=False)
class Stack:
    """All slices of one view of one case.

    Attributes:
        image: int16 HU (slices, rows, columns), memory-mapped.
        mask: uint8 share of liver.
        context: which slices are the channels of each, int64 (slices, channels).
        canvas: what of a slice is shown, the same size for all stacks.
        has_liver: of each slice.
        share: of its slices, that an epoch shows; the views of a case share an epoch.
    """

    case: CachedCase
    image: np.ndarray
    mask: np.ndarray
    context: np.ndarray
    canvas: Canvas
    has_liver: np.ndarray
    share: float


Slice = tuple[Stack, int]


class SliceSampler:
    """Draws slices of cached cases; what it draws depends on its arguments alone.

    Attributes:
        stacks: of every case and view.
    """

    def __init__(self, cache: Cache, cases: Sequence[CachedCase]) -> None:
        self._preprocessing, self._canvas_px = cache.preprocessing, cache.canvas_px
        self.stacks = [stack for case in cases for stack in self._stacks(case)]

    def epoch(
        self, seed: int, epoch: int, *, empty_slices: float, replayed: Collection[str] = (), replay: float = 1.0
    ) -> list[Slice]:
        """Slices with liver and a share of those without, in random order.

        Of a case with one view all slices with liver are shown; with several, of each view its
        share, so that an epoch is as long.

        Args:
            replayed: cases of which only some slices are shown, `replay` for each slice of the others.
        """
        random = np.random.default_rng([seed, epoch])
        slices, old = [], []
        for stack in self.stacks:
            chosen = stack.has_liver | (random.random(len(stack.has_liver)) < empty_slices)
            if stack.share < 1:
                chosen &= random.random(len(chosen)) < stack.share
            part = old if stack.case.name in replayed else slices
            part += [(stack, int(index)) for index in np.flatnonzero(chosen)]
        random.shuffle(old)
        slices += old[: round(replay * len(slices))]
        random.shuffle(slices)
        return slices

    def batch(self, slices: Sequence[Slice]) -> tuple[torch.Tensor, torch.Tensor]:
        """Read slices with their context.

        Returns:
            Normalised image, float32 (batch, context, rows, columns), and share of liver (batch, 1, rows, columns).
        """
        air = int(self._preprocessing.window_hu[0])
        hu = np.stack([stack.canvas.crop(stack.image[stack.context[index]], fill=air) for stack, index in slices])
        mask = np.stack([stack.canvas.crop(stack.mask[index][None], fill=0) for stack, index in slices])
        return self._preprocessing.normalise(torch.from_numpy(hu).float()), torch.from_numpy(mask).float() / 255

    def _stacks(self, case: CachedCase) -> list[Stack]:
        views = usable_views(self._preprocessing.views, case.slice_mm)
        return [self._stack(case, view, 1 / len(views)) for view in views]

    def _stack(self, case: CachedCase, view: str, share: float) -> Stack:
        spec = self._preprocessing
        if view == "axial":
            image, mask, slice_mm = case.image, case.mask, case.slice_mm
        else:
            image, mask, slice_mm = cut(case.cube, view), cut(case.cube_mask, view), spec.pixel_mm
        context = context_indices(len(image), slice_mm, spec.context_mm)
        return Stack(case, image, mask, context, self._canvas(mask), (mask > 127).any(axis=(1, 2)), share)

    def _canvas(self, mask: np.ndarray) -> Canvas:
        """All of a slice; of one that is longer than the canvas, as much around the liver as there is room for."""
        rows, columns = mask.shape[1:]
        middle = rows / 2
        if rows > self._canvas_px:
            found = np.flatnonzero((mask > 127).any(axis=(0, 2)))
            middle = (found[0] + found[-1] + 1) / 2 if found.size else middle
            middle = min(max(middle, self._canvas_px / 2), rows - self._canvas_px / 2)
        return Canvas.around((middle, columns / 2), (self._canvas_px, self._canvas_px))
