"""What the coarse look learns from: parts of scans on the coarse grid, long and short ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from LiverUNetLib.models.engines import Network
from LiverUNetLib.models.spec import ModelSpec
from LiverUNetLib.segmentation.looks import coarse_probabilities
from LiverUNetLib.steps import finish

from ..data.cache import CachedCase
from ..run.settings import AugmentationSettings, TrainingSettings
from .augmentation import augment

__all__ = ["CoarseSampler", "Part"]


@dataclass(frozen=True, eq=False)
class Part:
    """Some slices of a case on the coarse grid."""

    case: CachedCase
    slices: slice


class CoarseSampler:
    """Draws parts of cached cases; what it draws depends on its arguments alone.

    Args:
        spec: of a model with a coarse look.
    """

    def __init__(self, cases: Sequence[CachedCase], spec: ModelSpec, settings: TrainingSettings) -> None:
        if spec.coarse is None:
            raise ValueError("spec must have a coarse look.")
        self._cases, self._spec, self._settings = cases, spec, settings
        multiple = spec.coarse.network.multiple
        cubes = (round(mm / spec.coarse.voxel_mm) for mm in settings.coarse.size_mm)
        self._size = tuple(-(-side // multiple) * multiple for side in cubes)

    def epoch(self, epoch: int) -> list[Part]:
        """Parts of every case in random order, `shown` of each."""
        random = np.random.default_rng([self._settings.seed, epoch])
        parts = [self._part(case, random) for case in self._cases for _ in range(self._settings.coarse.shown)]
        random.shuffle(parts)
        return parts

    def batch(
        self, parts: Sequence[Part], seed: int, device: str, augmentation: AugmentationSettings | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Parts as the network learns from them: what it takes and share of liver, float32 (batch, 1, *size)."""
        image, mask = (
            torch.from_numpy(np.stack([self._padded(array[part.slices], fill) for part, array in arrays])[:, None])
            for arrays, fill in (
                ([(part, part.case.coarse) for part in parts], self._spec.window_hu[0]),
                ([(part, part.case.coarse_mask) for part in parts], 0),
            )
        )
        image, mask = self._spec.normalize(image).to(device), (mask / 255).to(device)
        return augment(
            image, mask, augmentation or self._settings.augmentation, torch.Generator(device).manual_seed(seed)
        )

    def probability(self, network: Network, case: CachedCase) -> np.ndarray:
        """What the network finds in a whole case, float32 on its coarse grid."""
        return finish(coarse_probabilities(case.coarse.astype(np.float32), self._spec, network))

    def image(self, case: CachedCase) -> np.ndarray:
        """The HU of a whole case."""
        return case.coarse

    def mask(self, case: CachedCase) -> np.ndarray:
        """The share of liver in a whole case, uint8."""
        return case.coarse_mask

    def _part(self, case: CachedCase, random: np.random.Generator) -> Part:
        settings, length, longest = self._settings.coarse, len(case.coarse), self._size[0]
        if random.random() < settings.p_short:
            few = [round(mm / case.grids.voxel_mm) for mm in (settings.shortest_mm, settings.longest_short_mm)]
            longest = int(random.integers(few[0], few[1] + 1))
        count = min(length, longest)
        start = int(random.integers(length - count + 1))
        return Part(case, slice(start, start + count))

    def _padded(self, part: np.ndarray, fill: float) -> np.ndarray:
        """The middle of a part, with `fill` around it, in the size of a batch."""
        result = np.full(self._size, fill, dtype=np.float32)
        there, here = [], []
        for size, length in zip(self._size, part.shape, strict=True):
            count = min(size, length)
            there.append(slice((size - count) // 2, (size - count) // 2 + count))
            here.append(slice((length - count) // 2, (length - count) // 2 + count))
        result[tuple(there)] = part[tuple(here)]
        return result
