"""Which slices an epoch shows, in which order, and how a batch of them is read from the cache."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch

from LiverUNetLib.geometry import context_indices

from .cache import Cache, CachedCase

__all__ = ["Slice", "SliceSampler"]

Slice = tuple[CachedCase, int]


class SliceSampler:
    """Draws slices of cached cases; what it draws depends on its arguments alone."""

    def __init__(self, cache: Cache, cases: Sequence[CachedCase]) -> None:
        self._preprocessing = cache.preprocessing
        self._cases = cases
        self._has_liver = [(case.mask > 127).any(axis=(1, 2)) for case in cases]
        self._context = {
            case.name: context_indices(len(case.image), case.slice_mm, cache.preprocessing.context_mm) for case in cases
        }

    def epoch(
        self, seed: int, epoch: int, *, empty_slices: float, replayed: Collection[str] = (), replay: float = 1.0
    ) -> list[Slice]:
        """All slices with liver and a share of those without, in random order.

        Args:
            replayed: cases of which only some slices are shown, `replay` for each slice of the others.
        """
        random = np.random.default_rng([seed, epoch])
        slices, old = [], []
        for case, has_liver in zip(self._cases, self._has_liver, strict=True):
            chosen = has_liver | (random.random(len(has_liver)) < empty_slices)
            part = old if case.name in replayed else slices
            part += [(case, int(index)) for index in np.flatnonzero(chosen)]
        random.shuffle(old)
        slices += old[: round(replay * len(slices))]
        random.shuffle(slices)
        return slices

    def batch(self, slices: Sequence[Slice]) -> tuple[torch.Tensor, torch.Tensor]:
        """Read slices with their context.

        Returns:
            Normalised image, float32 (batch, context, rows, columns), and share of liver (batch, 1, rows, columns).
        """
        hu = np.stack([case.image[self._context[case.name][index]] for case, index in slices])
        mask = np.stack([case.mask[index][None] for case, index in slices])
        return self._preprocessing.normalise(torch.from_numpy(hu).float()), torch.from_numpy(mask).float() / 255

    def whole(self, case: CachedCase) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
        """A whole case: normalised slices, their context indices, and share of liver, all (slices, …)."""
        image = self._preprocessing.normalise(case.image.astype(np.float32))
        return image, self._context[case.name], torch.from_numpy(case.mask.astype(np.float32) / 255)
