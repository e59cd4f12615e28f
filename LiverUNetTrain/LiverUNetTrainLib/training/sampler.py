"""The interface of both samplers, `fine_sampling` and `coarse_sampling`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from LiverUNetLib.models.engines import Network

from ..data.cache import CachedCase
from ..run.settings import AugmentationSettings

__all__ = ["Sampler"]


class Sampler(Protocol):
    """Draws what a look learns from, and applies its network to whole cases."""

    def epoch(self, epoch: int) -> list[Any]:
        """What an epoch shows, in its order."""
        ...

    def batch(
        self, shown: Sequence[Any], seed: int, device: str, augmentation: AugmentationSettings | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch: network input, and liver fraction per voxel.

        Args:
            augmentation: None for that of the settings.
        """
        ...

    def probability(self, network: Network, case: CachedCase) -> np.ndarray:
        """What the network finds in a whole case, float32."""
        ...

    def image(self, case: CachedCase) -> np.ndarray:
        """The HU of a whole case, on the grid of `probability`."""
        ...

    def mask(self, case: CachedCase) -> np.ndarray:
        """The share of liver in a whole case, uint8, on the same grid."""
        ...
