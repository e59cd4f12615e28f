"""Real cases, altered in one way at a time, as other hospitals and patients would.

What each imitation is stands in its docstring. All of them give the same voxels on every run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import ndimage

from LiverUNetLib.scan.volume import CTVolume
from LiverUNetLib.segmentation.measurement import bounding_box

__all__ = [
    "Alteration",
    "ascites",
    "contrast",
    "drift",
    "half_a_liver",
    "inverted",
    "lesions",
    "like_mr",
    "liver_by",
    "metal",
    "mirrored",
    "noise",
    "offset",
    "padded",
    "part_of_the_liver",
    "resected",
    "sharp",
    "short_stack",
    "sized",
    "slices",
    "small_field_of_view",
    "smooth",
    "texture",
    "unaltered",
    "unenhanced",
    "windowed",
    "without_liver",
]

FAT, WATER = -90, 10
# Above it there is body, below air and lung.
BODY_HU = -300

Case = tuple[CTVolume, np.ndarray]
# Of a scan and its mask; None where a case does not allow for it.
Alteration = Callable[[CTVolume, np.ndarray], Case | None]
Spacing = tuple[float, float, float]


def unaltered(scan: CTVolume, mask: np.ndarray) -> Case:
    """The case as it is."""
    return scan, mask


def on_voxels(change: Callable[[np.ndarray, np.ndarray, Spacing], np.ndarray]) -> Alteration:
    """An alteration of HU alone, given HU as float32, mask and spacing."""

    def alter(scan: CTVolume, mask: np.ndarray) -> Case:
        hu = change(scan.hu_kji.astype(np.float32), mask != 0, scan.spacing_kji_mm)
        return replace(scan, hu_kji=np.rint(np.clip(hu, -3024, 3071)).astype(np.int16)), mask

    return alter


def noise(sigma_hu: float) -> Alteration:
    """Noise of low dose, correlated over neighboring pixels as in a reconstruction, of this standard deviation."""

    def change(hu: np.ndarray, _mask: np.ndarray, _spacing: Spacing) -> np.ndarray:
        grain = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=hu.shape), (0, 0.6, 0.6))
        return np.asarray(hu + sigma_hu * (grain / grain.std()).astype(np.float32))

    return on_voxels(change)


def smooth(sigma_mm: float) -> Alteration:
    """A soft kernel: Gaussian in plane."""
    return on_voxels(lambda hu, _mask, mm: ndimage.gaussian_filter(hu, (0, sigma_mm / mm[1], sigma_mm / mm[2])))


def sharp(strength: float) -> Alteration:
    """A sharp kernel: edges enhanced, and noise of 25 HU with them."""

    def change(hu: np.ndarray, _mask: np.ndarray, _spacing: Spacing) -> np.ndarray:
        noisy = hu + np.random.default_rng(0).normal(0, 25, hu.shape).astype(np.float32)
        return np.asarray(noisy + strength * (noisy - ndimage.gaussian_filter(noisy, (0, 1, 1))))

    return on_voxels(change)


def texture(sigma_hu: float, grain_mm: float) -> Alteration:
    """A smooth random pattern, as of beam hardening and uneven contrast."""

    def change(hu: np.ndarray, _mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        pattern = np.random.default_rng(3).normal(size=hu.shape).astype(np.float32)
        pattern = ndimage.gaussian_filter(pattern, [grain_mm / mm for mm in spacing])
        return np.where(hu > BODY_HU, hu + sigma_hu * pattern / pattern.std(), hu)

    return on_voxels(change)


def offset(shift_hu: float) -> Alteration:
    """All but air brighter or darker: a scanner out of calibration, or a wrong rescale."""
    return on_voxels(lambda hu, _mask, _spacing: np.where(hu > -500, hu + shift_hu, hu))


def contrast(factor: float) -> Alteration:
    """All differences from 40 HU between fat and bone larger or smaller."""
    return on_voxels(
        lambda hu, _mask, _spacing: np.where((hu > BODY_HU) & (hu < 250), 40 + (hu - 40) * factor, hu),
    )


def drift(shift_hu: float) -> Alteration:
    """One side of the body brighter, the other darker by this."""

    def change(hu: np.ndarray, _mask: np.ndarray, _spacing: Spacing) -> np.ndarray:
        return np.where(hu > -500, hu + shift_hu * np.linspace(-1, 1, hu.shape[2]), hu)

    return on_voxels(change)


def slices(millimeters: float) -> Alteration:
    """Slices of this thickness: averaged, or interpolated where they are thinner than the scan's."""

    def alter(scan: CTVolume, mask: np.ndarray) -> Case | None:
        step = scan.spacing_kji_mm[0]
        if millimeters > step:
            block = round(millimeters / step)
            count = len(mask) // block
            hu, share = (
                array[: count * block].reshape(count, block, *array.shape[1:]).mean(axis=1, dtype=np.float32)
                for array in (scan.hu_kji, mask != 0)
            )
            factor = float(block)
        else:
            factor = millimeters / step
            hu, share = (
                ndimage.zoom(array.astype(np.float32), (1 / factor, 1, 1), order=1, grid_mode=True, mode="nearest")
                for array in (scan.hu_kji, mask != 0)
            )
        to_center = np.eye(4)
        to_center[2, 2], to_center[2, 3] = factor, (factor - 1) / 2
        return CTVolume(np.rint(hu).astype(np.int16), scan.affine @ to_center, scan.name), share > 0.5

    return alter


def unenhanced() -> Alteration:
    """No contrast medium: what is above 45 HU comes down to a third of its distance, bone stays."""
    return on_voxels(lambda hu, _mask, _spacing: np.where((hu > 45) & (hu < 250), 45 + (hu - 45) / 3, hu))


def liver_by(shift_hu: float) -> Alteration:
    """The liver alone brighter or darker: an early phase, fat, or iron."""

    def change(hu: np.ndarray, mask: np.ndarray, _spacing: Spacing) -> np.ndarray:
        return np.asarray(hu + shift_hu * ndimage.gaussian_filter(mask.astype(np.float32), 1))

    return on_voxels(change)


def lesions(hu_inside: float, diameters_mm: tuple[float, ...]) -> Alteration:
    """Spheres of one density deep in the liver, soft at their edge; they belong to the liver."""

    def change(hu: np.ndarray, mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        depth = ndimage.distance_transform_edt(mask, sampling=spacing)
        random = np.random.default_rng(1)
        for diameter in diameters_mm:
            candidates = np.argwhere(depth > min(diameter / 3, 0.9 * depth.max()))
            center = candidates[random.integers(len(candidates))]
            grid = np.ogrid[tuple(slice(0, size) for size in hu.shape)]
            distance = np.sqrt(sum(((axis - c) * mm) ** 2 for axis, c, mm in zip(grid, center, spacing, strict=True)))
            weight = np.clip((diameter / 2 - distance) / 3, 0, 1) * mask
            hu = hu * (1 - weight) + (hu_inside + random.normal(0, 12, hu.shape)) * weight
        return hu

    return on_voxels(change)


def ascites(thickness_mm: float) -> Alteration:
    """Fluid around the liver: fat so near to it becomes water."""

    def change(hu: np.ndarray, mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        distance = ndimage.distance_transform_edt(~mask, sampling=spacing)
        fluid = (distance > 0) & (distance < thickness_mm) & (hu > -160) & (hu < -30)
        return np.where(fluid, WATER + np.random.default_rng(0).normal(0, 12, hu.shape), hu)

    return on_voxels(change)


def resected(scan: CTVolume, mask: np.ndarray) -> Case:
    """The left third of the liver taken out, fat in its place."""
    column = np.flatnonzero(mask.any(axis=(0, 1)))
    left_is_high = scan.affine[0, 0] < 0
    cut = np.quantile(column, 2 / 3 if left_is_high else 1 / 3)
    gone = np.arange(mask.shape[2]) > cut if left_is_high else np.arange(mask.shape[2]) < cut
    removed = (mask != 0) & gone
    grain = np.random.default_rng(0).normal(FAT, 12, mask.shape)
    return replace(scan, hu_kji=np.where(removed, grain, scan.hu_kji).astype(np.int16)), mask * ~gone


def sized(factor: float) -> Alteration:
    """The whole patient larger or smaller."""
    return lambda scan, mask: (replace(scan, affine=scan.affine @ np.diag([factor, factor, factor, 1])), mask)


def small_field_of_view(scan: CTVolume, mask: np.ndarray) -> Case:
    """Only the liver and 15 mm around it in plane, as in a targeted reconstruction."""
    liver = bounding_box(mask)
    if liver is None:
        return scan, mask
    _, rows, columns = liver
    part = [slice(None)]
    for box, mm in ((rows, scan.spacing_kji_mm[1]), (columns, scan.spacing_kji_mm[2])):
        margin = math.ceil(15 / mm)
        part.append(slice(max(box.start - margin, 0), box.stop + margin))
    shift = np.eye(4)
    shift[:2, 3] = part[2].start, part[1].start
    return CTVolume(scan.hu_kji[tuple(part)], scan.affine @ shift, scan.name), mask[tuple(part)]


def padded() -> Alteration:
    """A circle of data in a square of -2000, as some scanners write."""

    def change(hu: np.ndarray, _mask: np.ndarray, _spacing: Spacing) -> np.ndarray:
        rows, columns = np.ogrid[: hu.shape[1], : hu.shape[2]]
        radius = (np.array(hu.shape[1:]) - 1) / 2
        outside = ((rows - radius[0]) / radius[0]) ** 2 + ((columns - radius[1]) / radius[1]) ** 2 > 1
        return np.where(outside, -2000, hu)

    return on_voxels(change)


def windowed() -> Alteration:
    """What an export with a soft-tissue window keeps."""
    return on_voxels(lambda hu, _mask, _spacing: np.clip(hu, -160, 240))


def metal(streaks_hu: float) -> Alteration:
    """A metal rod in the spine, with bright and dark streaks across the slices."""

    def change(hu: np.ndarray, _mask: np.ndarray, spacing: Spacing) -> np.ndarray:
        body = ndimage.center_of_mass(hu.mean(axis=0) > BODY_HU)
        row, column = int(body[0] + 50 / spacing[1]), int(body[1])
        angle = np.arctan2(np.arange(hu.shape[1])[:, None] - row, np.arange(hu.shape[2]) - column)
        hu = hu + streaks_hu * np.sin(9 * angle) ** 3
        hu[:, row - 3 : row + 3, column - 3 : column + 3] = 3071
        return hu

    return on_voxels(change)


def mirrored(*axes: int) -> Alteration:
    """The array flipped along axes of (k, j, i), its geometry not."""

    def alter(scan: CTVolume, mask: np.ndarray) -> Case:
        return replace(scan, hu_kji=np.ascontiguousarray(np.flip(scan.hu_kji, axes))), np.flip(mask, axes)

    return alter


def inverted() -> Alteration:
    """Bright and dark exchanged."""
    return on_voxels(lambda hu, _mask, _spacing: np.clip(80 - hu, -1000, 1500))


def like_mr(scale: float, lowest: float) -> Alteration:
    """Like a T1-weighted MR: fat bright, bone and air dark, uneven from side to side; stored with this scale."""

    def change(hu: np.ndarray, _mask: np.ndarray, _spacing: Spacing) -> np.ndarray:
        soft = 300 + 350 * (np.clip((hu + 160) / 400, 0, 1) - 0.35)
        signal = np.select([hu < -250, hu < -30, hu > 200], [0, 900, 150], soft)
        signal = ndimage.gaussian_filter(signal, (0, 0.7, 0.7)) + np.random.default_rng(0).normal(0, 25, hu.shape)
        signal *= 1 + 0.3 * np.linspace(-1, 1, hu.shape[2])
        return np.asarray(np.clip(signal, 0, 3000) * scale + lowest)

    return on_voxels(change)


def half_a_liver() -> Alteration:
    """The scan ends at half of the liver's height; its upper half is there."""

    def alter(scan: CTVolume, mask: np.ndarray) -> Case:
        found = np.flatnonzero(mask.any(axis=(1, 2)))
        middle = int(found[0] + found[-1]) // 2
        part = slice(middle, None) if scan.affine[2, 2] > 0 else slice(0, middle)
        shift = np.eye(4)
        shift[2, 3] = part.start
        return replace(scan, hu_kji=scan.hu_kji[part], affine=scan.affine @ shift), mask[part]

    return alter


def part_of_the_liver(millimeters: float, *, upper: bool) -> Alteration:
    """The scan ends inside the liver: a thorax with its uppermost part, or a pelvis with its lowest."""

    def alter(scan: CTVolume, mask: np.ndarray) -> Case:
        found = np.flatnonzero(mask.any(axis=(1, 2)))
        count = round(millimeters / scan.spacing_kji_mm[0])
        towards_head = scan.affine[2, 2] > 0
        part = slice(found[-1] - count + 1, None) if upper == towards_head else slice(0, found[0] + count)
        return replace(scan, hu_kji=scan.hu_kji[part]), mask[part]

    return alter


def short_stack(height: float) -> Alteration:
    """Three slices of about 5 mm, and nothing else, at this share of the liver's height, counted from its tip."""

    def alter(scan: CTVolume, mask: np.ndarray) -> Case | None:
        found = np.flatnonzero(mask.any(axis=(1, 2)))
        block = max(round(5 / scan.spacing_kji_mm[0]), 1)
        share = height if scan.affine[2, 2] > 0 else 1 - height
        first = round(found[0] + share * (found[-1] - found[0]) - 1.5 * block)
        first = min(max(first, 0), len(mask) - 3 * block)
        part = slice(first, first + 3 * block)
        return slices(5)(replace(scan, hu_kji=scan.hu_kji[part]), mask[part])

    return alter


def without_liver(*, above: bool) -> Alteration:
    """Only the slices at least 15 mm above, or below, the liver; none where there are fewer than ten."""

    def alter(scan: CTVolume, mask: np.ndarray) -> Case | None:
        found = np.flatnonzero(mask.any(axis=(1, 2)))
        margin = math.ceil(15 / scan.spacing_kji_mm[0])
        towards_head = scan.affine[2, 2] > 0
        part = slice(found[-1] + margin, None) if above == towards_head else slice(0, max(found[0] - margin, 0))
        if len(mask[part]) < 10:
            return None
        return replace(scan, hu_kji=scan.hu_kji[part]), mask[part]

    return alter
