"""Augmentation of whole batches on the device: image and mask move together, intensities change in the image alone.

Written here instead of taken from kornia or TorchIO, so that all random numbers follow from one seed per batch, on any
device, and rare changes are computed only for the slices that get them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import conv2d, grid_sample, interpolate, pad

from ..run.settings import AugmentationSettings

__all__ = ["augment"]

# Normalized images lie in [-1, 1]; what is at the lower end is air, which no change of contrast moves.
AIR = -1.0


def augment(
    image: torch.Tensor, mask: torch.Tensor, settings: AugmentationSettings, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Change a batch at random; the same generator state gives the same result.

    Volumes get no lesions, fluid, blur, low resolution or streaks, which a coarse grid hardly shows. They do get masses
    of other organs, which are large.

    Args:
        image: normalized to [-1, 1], float32 (batch, channels, rows, columns) or (batch, channels, slices, rows,
            columns).
        mask: share of liver, float32 (batch, 1, *sides).

    Returns:
        The changed image, again in [-1, 1], and mask.
    """
    draw = _Draw(image, generator)
    move = _move if image.ndim == 4 else _move_volumes
    image, mask = move(image, mask, settings, draw)
    image, mask = _add_mass(image, mask, settings, draw)
    if image.ndim == 4:
        image = _change_tissue(image, mask, settings, draw)
        return _degrade(_change_contrast(image, _softened(mask), settings, draw), settings, draw), mask
    image = _change_contrast(image, mask, settings, draw)
    deviation = draw.uniform(0, 1) ** 2 * settings.noise * draw.happens(settings.p_noise)
    return (image + deviation * draw.noise(image)).clamp(-1, 1), mask


class _Draw:
    """Random numbers, one for each image, shaped (batch, 1, 1, 1) or (batch, 1, 1, 1, 1)."""

    def __init__(self, image: torch.Tensor, generator: torch.Generator) -> None:
        self._shape, self._generator, self._device = (len(image), *[1] * (image.ndim - 1)), generator, image.device

    def uniform(self, low: float, high: float) -> torch.Tensor:
        numbers = torch.rand(self._shape, generator=self._generator, device=self._generator.device)
        return low + (high - low) * numbers.to(self._device)

    def happens(self, probability: float) -> torch.Tensor:
        return self.uniform(0, 1) < probability

    def factor(self, probability: float, most: float) -> torch.Tensor:
        """1 where nothing happens, else log-uniform in [1 / (1 + most), 1 + most]."""
        exponent = self.uniform(-1, 1) * math.log1p(most)
        return torch.where(self.happens(probability), exponent, 0.0).exp()

    def amount(self, probability: float, most: float) -> torch.Tensor:
        """0 where nothing happens, else uniform in [-most, most]."""
        return torch.where(self.happens(probability), self.uniform(-most, most), 0.0)

    def pixel(self, weight: torch.Tensor) -> torch.Tensor:
        """One pixel, drawn by weight (batch, 1, *sides): its place as (batch, sides)."""
        flat = (weight.flatten(1) + 1e-6).to(self._generator.device)
        index = torch.multinomial(flat, 1, generator=self._generator).to(self._device)[:, 0]
        return torch.stack(torch.unravel_index(index, weight.shape[2:]), dim=1)

    def normal(self, count: int) -> torch.Tensor:
        """So many normally distributed numbers for each image, (batch, count)."""
        return self._normal((self._shape[0], count))

    def noise(self, like: torch.Tensor) -> torch.Tensor:
        return self._normal(like.shape)

    def _normal(self, shape: Sequence[int]) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator, device=self._generator.device).to(self._device)


def _move(
    image: torch.Tensor, mask: torch.Tensor, settings: AugmentationSettings, draw: _Draw
) -> tuple[torch.Tensor, torch.Tensor]:
    """One affine map: flips, rotation, scaling, shift. Beyond the image there is air."""
    angle = draw.amount(settings.p_affine, math.radians(settings.rotation_degrees)).flatten()
    scale_x, scale_y = (draw.factor(settings.p_affine, settings.scaling).flatten() for _ in "xy")
    shift_x, shift_y = (draw.amount(settings.p_affine, 2 * settings.shift).flatten() for _ in "xy")
    mirror_x = 1 - 2 * draw.happens(settings.p_flip_left_right).flatten().float()
    mirror_y = 1 - 2 * draw.happens(settings.p_flip_top_bottom).flatten().float()
    rows, columns = image.shape[-2:]
    cosine, sine = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack([mirror_x * scale_x * cosine, -mirror_x * scale_x * sine * rows / columns, shift_x], dim=1),
            torch.stack([mirror_y * scale_y * sine * columns / rows, mirror_y * scale_y * cosine, shift_y], dim=1),
        ],
        dim=1,
    )
    return _sample(image, mask, theta)


def _move_volumes(
    image: torch.Tensor, mask: torch.Tensor, settings: AugmentationSettings, draw: _Draw
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for volumes, which are rotated in the axial plane alone; they are never mirrored."""
    angle = draw.amount(settings.p_affine, math.radians(settings.rotation_degrees)).flatten()
    scale_x, scale_y, scale_z = (draw.factor(settings.p_affine, settings.scaling).flatten() for _ in "xyz")
    shift_x, shift_y, shift_z = (draw.amount(settings.p_affine, 2 * settings.shift).flatten() for _ in "xyz")
    rows, columns = image.shape[-2:]
    cosine, sine, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
    theta = torch.stack(
        [
            torch.stack([scale_x * cosine, -scale_x * sine * rows / columns, none, shift_x], dim=1),
            torch.stack([scale_y * sine * columns / rows, scale_y * cosine, none, shift_y], dim=1),
            torch.stack([none, none, scale_z, shift_z], dim=1),
        ],
        dim=1,
    )
    return _sample(image, mask, theta)


def _sample(image: torch.Tensor, mask: torch.Tensor, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample image and mask through an affine map."""
    both = torch.cat([image - AIR, mask], dim=1)  # air is 0, as grid_sample pads
    where = torch.nn.functional.affine_grid(theta, list(both.shape), align_corners=False)
    both = grid_sample(both, where, mode="bilinear", padding_mode="zeros", align_corners=False)
    return both[:, :-1] + AIR, both[:, -1:]


def _add_mass(
    image: torch.Tensor, mask: torch.Tensor, settings: AugmentationSettings, draw: _Draw
) -> tuple[torch.Tensor, torch.Tensor]:
    """A round mass of another organ that pushes the liver aside; its middle lies outside of the liver.

    Without it a network mistakes what is large, round and dark beside a liver for a tumor in it.
    """
    start = draw.pixel((mask > 0.5).float()).float()
    radius = draw.uniform(0.2, 1) * settings.mass * image.shape[-1]
    radii = torch.cat([radius * draw.factor(1.0, 0.4) for _ in image.shape[2:]], dim=1).flatten(1)
    direction = torch.nn.functional.normalize(draw.normal(radii.shape[1]), dim=1)
    center = start + direction * radii * draw.uniform(0.6, 1.2).flatten(1)
    last = torch.tensor(image.shape[2:], device=image.device) - 1
    places = center.round().long().clamp(torch.zeros_like(last), last)
    outside = mask[(torch.arange(len(mask), device=mask.device), 0, *places.T)] < 0.5
    density, body = draw.uniform(-0.3, 0.4), image[:, image.shape[1] // 2, None] > AIR + 0.1

    def add(both: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        shape = (-1, *[1] * (both.ndim - 1))
        axes = zip(_from(center[chosen], both), radii[chosen].T, strict=True)
        distance = sum((axis / radius.view(shape)) ** 2 for axis, radius in axes)
        share = body[chosen] * ((1.1 - distance) / 0.1).clamp(0, 1)
        image, mask = both[:, :-1], both[:, -1:]
        return torch.cat([image + (density[chosen] - image) * share, mask * (1 - share)], dim=1)

    shown = (outside & (mask > 0.5).flatten(1).any(dim=1)).view(density.shape)
    both = _sometimes(torch.cat([image, mask], dim=1), draw.happens(settings.p_mass) & shown, add)
    return both[:, :-1], both[:, -1:]


def _change_tissue(
    image: torch.Tensor, mask: torch.Tensor, settings: AugmentationSettings, draw: _Draw
) -> torch.Tensor:
    """A lesion or a mass, and fluid around the liver; the mask stays as it is."""
    body = (image[:, image.shape[1] // 2, None] > AIR + 0.2).float()
    where = torch.where(draw.happens(0.5), mask, body * (1 - mask))
    center, density = draw.pixel(where), draw.uniform(-0.25, 0.35)
    radius_row, radius_column = (draw.uniform(0.1, 1) * settings.lesion * image.shape[2] for _ in "rc")

    def lesion(part: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        row, column = _from(center[chosen], part)
        distance = (row / radius_row[chosen]) ** 2 + (column / radius_column[chosen]) ** 2
        share = 0.8 * where[chosen] * ((1.2 - distance).clamp(0, 0.2) / 0.2)
        return part + (density[chosen] - part) * share

    def fluid(part: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        liver = mask[chosen]
        around = (_blur(liver, torch.full((len(liver), 1, 1, 1), 5.0, device=liver.device)) > 0.05) & (liver < 0.5)
        fat = (part > AIR + 0.05) & (part < -0.35)
        return torch.where(around & fat, part * 0.2 - 0.12, part)

    image = _sometimes(image, draw.happens(settings.p_lesion), lesion)
    return _sometimes(image, draw.happens(settings.p_fluid), fluid)


def _sometimes(
    image: torch.Tensor, happens: torch.Tensor, change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Change only the slices that are drawn; most changes are rare, and cost more than the selection."""
    chosen = happens.flatten()
    if not chosen.any():
        return image
    image = image.clone()
    image[chosen] = change(image[chosen], chosen)
    return image


def _from(pixel: torch.Tensor, image: torch.Tensor) -> list[torch.Tensor]:
    """Coordinates relative to a pixel of each image, along each axis, all (batch, 1, *sides)."""
    axes = torch.meshgrid(*(torch.arange(size, device=image.device) for size in image.shape[2:]), indexing="ij")
    shape = (-1, *[1] * (image.ndim - 1))
    return [(axis - pixel[:, n].view(shape)).float() for n, axis in enumerate(axes)]


def _softened(mask: torch.Tensor) -> torch.Tensor:
    """The mask with a soft border, so that a change of the liver alone leaves no edge that gives it away."""
    return _blur(mask, torch.full((len(mask), 1, 1, 1), 1.5, device=mask.device))


def _change_contrast(
    image: torch.Tensor, liver: torch.Tensor, settings: AugmentationSettings, draw: _Draw
) -> torch.Tensor:
    """Contrast, gamma and brightness of everything but air, and brightness of the liver alone."""
    changed = image + draw.amount(settings.p_liver_brightness, settings.liver_brightness) * liver
    changed = changed * draw.factor(settings.p_contrast, settings.contrast)
    changed = changed + draw.amount(settings.p_brightness, settings.brightness)
    share = ((changed + 1) / 2).clamp(0, 1)
    changed = 2 * share.pow(draw.factor(settings.p_gamma, settings.gamma)) - 1
    return torch.where(image > AIR + 0.01, changed, image)


def _degrade(image: torch.Tensor, settings: AugmentationSettings, draw: _Draw) -> torch.Tensor:
    """Blur, low resolution, streaks and noise."""
    sigma = draw.uniform(0.3, settings.blur_px)
    factor = 1 / (1 + (settings.low_resolution - 1) * float(draw.uniform(0, 1)[0]))
    source, rays, amplitude = draw.pixel(torch.ones_like(image[:, :1])), draw.uniform(5, 15), draw.uniform(0, 1)
    deviation, correlation = draw.uniform(0, 1) * settings.noise, draw.uniform(0.2, 1.0)

    def blur(part: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        return _blur(part, sigma[chosen])

    def coarsen(part: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        small = interpolate(part, scale_factor=factor, mode="bilinear", antialias=True)
        return interpolate(small, size=part.shape[2:], mode="bilinear")

    def streak(part: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        row, column = _from(source[chosen], part)
        pattern = torch.sin(torch.round(rays[chosen]) * torch.atan2(row, column)) ** 3
        return part + pattern * settings.streaks * amplitude[chosen] * (part > AIR + 0.01)

    def grain(part: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        noise = _blur(draw.noise(part), correlation[chosen])
        return part + deviation[chosen] * noise / noise.std(dim=(2, 3), keepdim=True)

    image = _sometimes(image, draw.happens(settings.p_blur), blur)
    image = _sometimes(image, draw.happens(settings.p_low_resolution), coarsen)
    image = _sometimes(image, draw.happens(settings.p_streaks), streak)
    image = _sometimes(image, draw.happens(settings.p_noise), grain)
    return image.clamp(-1, 1)


def _blur(image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur; `sigma` has a standard deviation in pixels for each slice of the batch."""
    radius = math.ceil(2.5 * float(sigma.max()))
    distance = torch.arange(-radius, radius + 1, device=image.device)
    kernel = torch.exp(-0.5 * (distance / sigma.view(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(image.shape[1], dim=0)
    slices = pad(image, [radius] * 4, mode="replicate").flatten(0, 1)[None]
    slices = conv2d(slices, kernel[:, None, None, :], groups=len(kernel))
    return conv2d(slices, kernel[:, None, :, None], groups=len(kernel)).view_as(image)
