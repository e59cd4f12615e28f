"""Augmentation of whole batches on the device: image and mask move together, intensities change in the image alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import conv2d, grid_sample, interpolate, pad

__all__ = ["AugmentationSettings", "augment"]

# Normalised images lie in [-1, 1]; what is at the lower end is air, which no change of contrast moves.
AIR = -1.0


@dataclass(frozen=True)
class AugmentationSettings:
    """Probabilities (`p_…`, per slice) and ranges of every change; p = 0 switches one off.

    Attributes:
        p_flip_left_right, p_flip_top_bottom: mirror a slice. Off by default: the liver lies on the right.
        rotation_degrees, scaling, shift: of one affine map; scaling in factors around 1, shift in shares of the side.
        blur_px: standard deviation of the Gaussian, in pixels of the model grid.
        noise: standard deviation, in units of the window's half width (0.05 is 10 HU of [-160, 240]).
        contrast, gamma: factors are drawn from [1 / (1 + x), 1 + x].
        shift_hu: of all but air, in units of the window's half width.
        liver_shift: the same, of the liver alone: fatty livers, and other phases of contrast.
        low_resolution: pixels are enlarged by up to this factor and interpolated back.
        p_context_dropout: all context slices are replaced by the middle one, as in thick or single slice scans.
    """

    p_flip_left_right: float = 0.0
    p_flip_top_bottom: float = 0.0
    p_affine: float = 0.8
    rotation_degrees: float = 20.0
    scaling: float = 0.25
    shift: float = 0.08
    p_blur: float = 0.15
    blur_px: float = 1.2
    p_noise: float = 0.3
    noise: float = 0.12
    p_contrast: float = 0.5
    contrast: float = 0.3
    p_gamma: float = 0.35
    gamma: float = 0.35
    p_shift: float = 0.5
    shift_hu: float = 0.2
    p_liver_shift: float = 0.35
    liver_shift: float = 0.4
    p_low_resolution: float = 0.1
    low_resolution: float = 2.5
    p_context_dropout: float = 0.1


def augment(
    image: torch.Tensor, mask: torch.Tensor, settings: AugmentationSettings, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Change a batch at random; the same generator state gives the same result.

    Args:
        image: normalised to [-1, 1], float32 (batch, channels, rows, columns).
        mask: share of liver, float32 (batch, 1, rows, columns).

    Returns:
        The changed image, again in [-1, 1], and mask.
    """
    draw = _Draw(len(image), generator, image.device)
    image, mask = _move(image, mask, settings, draw)
    image = _change_contrast(image, mask, settings, draw)
    image = _degrade(image, settings, draw)
    middle = image.shape[1] // 2
    alone = draw.happens(settings.p_context_dropout)
    image = torch.where(alone, image[:, middle : middle + 1], image)
    return image, mask


class _Draw:
    """Random numbers, one a slice, shaped (batch, 1, 1, 1)."""

    def __init__(self, batch: int, generator: torch.Generator, device: torch.device) -> None:
        self._batch, self._generator, self._device = batch, generator, device

    def uniform(self, low: float, high: float) -> torch.Tensor:
        numbers = torch.rand(self._batch, 1, 1, 1, generator=self._generator).to(self._device)
        return low + (high - low) * numbers

    def happens(self, probability: float) -> torch.Tensor:
        return self.uniform(0, 1) < probability

    def factor(self, probability: float, most: float) -> torch.Tensor:
        """1 where nothing happens, else log-uniform in [1 / (1 + most), 1 + most]."""
        exponent = self.uniform(-1, 1) * math.log1p(most)
        return torch.where(self.happens(probability), exponent, 0.0).exp()

    def amount(self, probability: float, most: float) -> torch.Tensor:
        """0 where nothing happens, else uniform in [-most, most]."""
        return torch.where(self.happens(probability), self.uniform(-most, most), 0.0)

    def noise(self, like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=self._generator).to(self._device)


def _move(
    image: torch.Tensor, mask: torch.Tensor, settings: AugmentationSettings, draw: _Draw
) -> tuple[torch.Tensor, torch.Tensor]:
    """One affine map: flips, rotation, scaling, shift. What comes from outside is air."""
    angle = draw.amount(settings.p_affine, math.radians(settings.rotation_degrees)).flatten()
    scale_x, scale_y = (draw.factor(settings.p_affine, settings.scaling).flatten() for _ in "xy")
    shift_x, shift_y = (draw.amount(settings.p_affine, 2 * settings.shift).flatten() for _ in "xy")
    mirror_x = 1 - 2 * draw.happens(settings.p_flip_left_right).flatten().float()
    mirror_y = 1 - 2 * draw.happens(settings.p_flip_top_bottom).flatten().float()
    cosine, sine = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack([mirror_x * scale_x * cosine, -mirror_x * scale_x * sine, shift_x], dim=1),
            torch.stack([mirror_y * scale_y * sine, mirror_y * scale_y * cosine, shift_y], dim=1),
        ],
        dim=1,
    )
    both = torch.cat([image - AIR, mask], dim=1)  # air is 0, as grid_sample pads
    where = torch.nn.functional.affine_grid(theta, list(both.shape), align_corners=False)
    both = grid_sample(both, where, mode="bilinear", padding_mode="zeros", align_corners=False)
    return both[:, :-1] + AIR, both[:, -1:]


def _change_contrast(
    image: torch.Tensor, mask: torch.Tensor, settings: AugmentationSettings, draw: _Draw
) -> torch.Tensor:
    """Contrast, gamma and shifts of everything but air."""
    # The liver's own shift fades over the border, so that no artificial edge gives the mask away.
    liver = _blur(mask, torch.full((len(mask), 1, 1, 1), 1.5, device=mask.device))
    changed = image + draw.amount(settings.p_liver_shift, settings.liver_shift) * liver
    changed = changed * draw.factor(settings.p_contrast, settings.contrast)
    changed = changed + draw.amount(settings.p_shift, settings.shift_hu)
    share = ((changed + 1) / 2).clamp(0, 1)
    changed = 2 * share.pow(draw.factor(settings.p_gamma, settings.gamma)) - 1
    return torch.where(image > AIR + 0.01, changed, image)


def _degrade(image: torch.Tensor, settings: AugmentationSettings, draw: _Draw) -> torch.Tensor:
    """Blur, low resolution and noise."""
    blurred = _blur(image, draw.uniform(0.3, settings.blur_px))
    image = torch.where(draw.happens(settings.p_blur), blurred, image)
    coarse = draw.happens(settings.p_low_resolution)
    if coarse.any():
        factor = 1 / (1 + (settings.low_resolution - 1) * float(draw.uniform(0, 1)[0]))
        small = interpolate(image, scale_factor=factor, mode="bilinear", antialias=True)
        image = torch.where(coarse, interpolate(small, size=image.shape[2:], mode="bilinear"), image)
    deviation = draw.uniform(0, settings.noise) * draw.happens(settings.p_noise)
    if deviation.any():
        image = image + deviation * draw.noise(image)
    return image.clamp(-1, 1)


def _blur(image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian of a standard deviation of its own for each slice of the batch, in pixels."""
    radius = math.ceil(2.5 * float(sigma.max()))
    distance = torch.arange(-radius, radius + 1, device=image.device)
    kernel = torch.exp(-0.5 * (distance / sigma.view(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(image.shape[1], dim=0)
    slices = pad(image, [radius] * 4, mode="replicate").flatten(0, 1)[None]
    slices = conv2d(slices, kernel[:, None, None, :], groups=len(kernel))
    return conv2d(slices, kernel[:, None, :, None], groups=len(kernel)).view_as(image)
