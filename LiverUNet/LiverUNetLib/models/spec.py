"""The numbers of a model: its grids, its networks, and the rules by which a liver is accepted.

They are stored in the model's card and nowhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..system.files import from_json

__all__ = ["CoarseLook", "FineLook", "ModelSpec", "NetworkSpec", "Rules", "spec_from_json"]

if TYPE_CHECKING:
    import torch

Values = TypeVar("Values", float, np.ndarray, "torch.Tensor")


@dataclass(frozen=True)
class NetworkSpec:
    """A `monai.networks.nets.UNet` and a convolution of one voxel that gives one logit: "liver".

    MONAI's U-Net alone would end in one normalized and rectified channel; training would then need over
    a thousand steps before the logits of the background fall below zero.

    Attributes:
        in_channels: for the fine look, one for each context slice.
        channels: feature maps at each level; the first level comes after the first stride.
        strides: between the levels; one fewer than `channels`.
        features: feature maps at full resolution, before the last convolution.
        residual_units: convolutions in each block; 0 means a plain convolution.
        norm: "batch" or "instance".
        spatial_dims: 2 for slices, 3 for volumes.
    """

    in_channels: int = 5
    channels: tuple[int, ...] = (16, 32, 64, 128, 160, 160)
    strides: tuple[int, ...] = (2, 2, 2, 2, 2)
    features: int = 8
    residual_units: int = 2
    kernel_size: int = 3
    norm: str = "batch"
    spatial_dims: int = 2

    @property
    def multiple(self) -> int:
        """The sides of an input must be multiples of this."""
        return math.prod(self.strides)


@dataclass(frozen=True)
class CoarseLook:
    """The coarse look, which finds the liver in the body: a 3D network on a grid of cubes over the whole scan.

    Attributes:
        voxel_mm: the side of a cube.
        threshold: a higher probability may be liver; low, so that nothing is missed.
        margin_mm: added around it for the fine look.
        shortest_mm: scans that show less of the body have only the fine look.
    """

    voxel_mm: float = 4.0
    network: NetworkSpec = field(
        default_factory=lambda: NetworkSpec(1, channels=(12, 24, 48, 96), strides=(2, 2, 2), spatial_dims=3)
    )
    threshold: float = 0.1
    margin_mm: float = 16.0
    shortest_mm: float = 40.0


@dataclass(frozen=True)
class FineLook:
    """The fine look, which outlines the liver: a 2D network on axial slices with their neighbors.

    Attributes:
        pixel_mm: the side of a pixel.
        slice_mm: closer slices are averaged in blocks of at most this thickness.
        context_mm: distances from a slice to the slices that form its channels.
    """

    pixel_mm: float = 1.25
    slice_mm: float = 2.0
    context_mm: tuple[float, ...] = (-8.0, -4.0, 0.0, 4.0, 8.0)
    network: NetworkSpec = field(default_factory=NetworkSpec)


@dataclass(frozen=True)
class Rules:
    """The rules by which a liver is accepted.

    Attributes:
        threshold: voxels with a higher probability are liver.
        minimum_ml: a smaller volume is noise, not the tip of a liver.
        doubtful_ml, doubtful_probability: a smaller volume with a smaller mean probability is discarded: in scans
            without a liver, false findings are small and doubtful.
    """

    threshold: float = 0.5
    minimum_ml: float = 1.0
    doubtful_ml: float = 200.0
    doubtful_probability: float = 0.87

    def least_ml(self, mean_probability: float) -> float:
        """The smallest volume that is accepted as a liver with this mean probability."""
        return self.doubtful_ml if mean_probability < self.doubtful_probability else self.minimum_ml


@dataclass(frozen=True)
class ModelSpec:
    """All numbers of a model.

    Attributes:
        window_hu: HU are clipped to it, and mapped to [-1, 1] for the networks.
        coarse: None for a model without a coarse look.
    """

    fine: FineLook = field(default_factory=FineLook)
    coarse: CoarseLook | None = None
    rules: Rules = field(default_factory=Rules)
    window_hu: tuple[float, float] = (-160.0, 240.0)

    def normalize(self, hu: Values) -> Values:
        """Map HU to the input of a network; air becomes -1."""
        low, high = self.window_hu
        normalized: Values = 2 * (hu - low) / (high - low) - 1
        return normalized

    def _window_is_usable(self) -> bool:
        return len(self.window_hu) == 2 and all(map(_finite, self.window_hu)) and self.window_hu[0] < self.window_hu[1]

    def check(self) -> None:
        """Raise ValueError, with the names of faulty values, unless all values are valid."""
        fine, coarse, rules = self.fine, self.coarse, self.rules
        sound = {
            "window_hu": self._window_is_usable(),
            "fine.context_mm": all(map(_finite, fine.context_mm)) and len(fine.context_mm) == fine.network.in_channels,
            "fine.network": fine.network.spatial_dims == 2 and _computable(fine.network),
            "fine.pixel_mm": _positive(fine.pixel_mm),
            "fine.slice_mm": _positive(fine.slice_mm),
            "rules.threshold": _probability(rules.threshold),
            "rules.minimum_ml": _finite(rules.minimum_ml) and rules.minimum_ml >= 0,
            "rules.doubtful_ml": _finite(rules.doubtful_ml) and rules.doubtful_ml >= 0,
            "rules.doubtful_probability": _finite(rules.doubtful_probability),
        }
        if coarse:
            sound |= {
                "coarse.voxel_mm": _positive(coarse.voxel_mm),
                "coarse.network": (coarse.network.in_channels, coarse.network.spatial_dims) == (1, 3)
                and _computable(coarse.network),
                "coarse.threshold": _probability(coarse.threshold),
                "coarse.margin_mm": _positive(coarse.margin_mm),
                "coarse.shortest_mm": _finite(coarse.shortest_mm),
            }
        faulty = [name for name, good in sound.items() if not good]
        if faulty:
            raise ValueError(f"unusable {', '.join(faulty)}")


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _finite(value) and value > 0


def _probability(value: Any) -> bool:
    return _finite(value) and 0 < value < 1


def _computable(network: NetworkSpec) -> bool:
    return all(isinstance(stride, int) and stride > 0 for stride in network.strides)


def spec_from_json(content: dict[str, Any]) -> ModelSpec:
    """Make a ModelSpec from the JSON of its `dataclasses.asdict`.

    Raises:
        KeyError, TypeError: something is missing or unknown.
    """

    def look(part: dict[str, Any]) -> dict[str, Any]:
        return part | {"network": from_json(NetworkSpec, part["network"])}

    return ModelSpec(
        fine=from_json(FineLook, look(content["fine"])),
        coarse=from_json(CoarseLook, look(content["coarse"])) if content["coarse"] else None,
        rules=from_json(Rules, content["rules"]),
        window_hu=tuple(content["window_hu"]),
    )
