"""Check that a volume can be a CT in HU: by its size, its range and its soft tissue."""

from __future__ import annotations

import numpy as np

from ..errors import ScanError
from .volume import CTVolume

__all__ = ["VOXEL_MM", "check_ct"]

# The finest CT of a body has pixels of 0.15 mm (2048 in 320 mm), micro-CT far smaller ones; the thickest slices,
# of a plan or of a whole-body scan before helical CT, were 10 to 20 mm.
VOXEL_MM = (0.1, 30.0)
# Tables of scanners move by at most 2 m; lengths in cm or without their decimal point exceed both limits.
LONGEST_MM, NARROWEST_MM = 3000.0, 20.0

# Soft tissue, fat and contrast-enhanced organs.
SOFT_TISSUE_HU = (-160, 240)
# Minimum share of soft tissue in what is neither air nor padding. In the 30 scans of IRCAD and LiTS it was at least
# 84 %; a chest has less.
MINIMUM_SOFT_TISSUE = 0.05
# Minimum share of it in all voxels. Low, because the grid of a PET or a plan is mostly air. After a rescale that was
# applied twice it is bone, at most 0.2 % in those scans.
MINIMUM_OF_ALL = 0.01
# From above air and its noise to the largest value of 12 bits (4095 - 1024); beyond it are metal and padding.
TISSUE_HU = (-900, 3071)
# Minimum share of padding in all voxels; in pure noise fewer voxels have the lowest value.
MINIMUM_PADDING = 0.001
# Soft tissue of a CT whose intercept (-1024 or -1000 in nearly every CT) was not applied. In HU this range is bone, at
# most 0.3 % of the voxels besides air in those scans. LUNG_AND_FAT_HU then holds only interpolated edges of padding.
SHIFTED = (840, 1264)
MAXIMUM_SHIFTED = 0.10
LUNG_AND_FAT_HU = (-900, -50)
MINIMUM_LUNG_AND_FAT = 0.05
# A CT scaled to [-1, 1], by its standard deviation, by 1000 or by 100 lies within this, except for metal. In HU it is
# water: 5 to 12 % of those scans.
NORMALIZED = 20
MAXIMUM_NORMALIZED = 0.99
# A mask or a thresholded image holds two values; a CT clipped to a narrow window still holds many.
MAXIMUM_SHARE_OF_TWO_VALUES = 0.995
CHECKED_VOXELS = 4_000_000
NEVER_BELOW_ZERO = (
    "is not in HU: it holds no value below 0{besides}, but fat and air are below; "
    "is it a mask, an MR, or a CT whose rescale was not applied?"
)


def check_ct(volume: CTVolume) -> None:
    """Raise ScanError unless the volume can be a CT in HU that shows soft tissue.

    Padding (-2000, -3024, 30000), metal and data clipped to a window are accepted. Statistics are taken
    from at most about four million evenly spread voxels.
    """
    if not np.issubdtype(volume.hu_kji.dtype, np.integer) and not all(
        np.isfinite(slice_).all() for slice_ in volume.hu_kji
    ):
        raise ScanError(
            f"{volume.name} holds voxels that are not finite (NaN or infinity); repair or convert it again."
        )
    lowest, highest = volume.hu_kji.min(), volume.hu_kji.max()
    if lowest == highest:
        raise ScanError(f"{volume.name} is constant: every voxel is {lowest:g}; this is not a CT.")
    # An odd step, so that rows or columns of even length are not sampled at the same places.
    hu = volume.hu_kji.ravel()[:: (volume.hu_kji.size // CHECKED_VOXELS) | 1].astype(np.float32)
    for find_fault in (_never_below_zero, _normalized, _padded_above_zero, _shifted, _soft_tissue, _two_values):
        if fault := find_fault(hu, lowest):
            raise ScanError(f"{volume.name} {fault} (range {lowest:g} to {highest:g}).")
    _check_size(volume)


def _check_size(volume: CTVolume) -> None:
    """Raise ScanError unless voxels and extent have a size that is possible for a CT of a body."""
    spacing = volume.spacing_kji_mm
    extents = sorted(n * mm for n, mm in zip(volume.hu_kji.shape, spacing, strict=True))
    if not VOXEL_MM[0] <= min(spacing) <= max(spacing) <= VOXEL_MM[1]:
        found = " x ".join(f"{mm:.4g}" for mm in spacing[::-1])
        fault = f"voxels of {found} mm, a CT of a body has {VOXEL_MM[0]:g} to {VOXEL_MM[1]:g} mm"
    elif extents[-1] > LONGEST_MM:
        fault = f"a length of {extents[-1] / 1000:.1f} m, no CT is longer than {LONGEST_MM / 1000:g} m"
    elif extents[1] < NARROWEST_MM:  # the smallest extent may be that of one slice
        fault = f"a width of {extents[1]:.1f} mm, too little to show an organ"
    else:
        return
    raise ScanError(f"{volume.name} has {fault}; its spacing is wrong or not in mm: convert the scan again.")


def _never_below_zero(_hu: np.ndarray, lowest: float) -> str:
    return NEVER_BELOW_ZERO.format(besides="") if lowest >= 0 else ""


def _padded_above_zero(hu: np.ndarray, lowest: float) -> str:
    rest = hu[hu > lowest]
    padding = hu.size - rest.size >= MINIMUM_PADDING * hu.size
    if not (padding and rest.size) or rest.min() < 0 or rest.min() == rest.max():  # with one further value it is a mask
        return ""
    return NEVER_BELOW_ZERO.format(besides=f" besides padding of {lowest:g}")


def _shifted(hu: np.ndarray, lowest: float) -> str:
    rest = hu[hu > lowest]
    few = _share(rest, LUNG_AND_FAT_HU) < MINIMUM_LUNG_AND_FAT
    if not few or _share(rest, SHIFTED) < MAXIMUM_SHIFTED:
        return ""
    return (
        f"is not in HU: its soft tissue lies between {SHIFTED[0]} and {SHIFTED[1]}, where a CT has bone, "
        "and lung and fat are missing; apply its rescale intercept, mostly -1024"
    )


def _normalized(hu: np.ndarray, lowest: float) -> str:
    rest = hu[hu > lowest]
    if _share(rest, (-NORMALIZED, NORMALIZED)) < MAXIMUM_NORMALIZED:
        return ""
    return (
        f"is not in HU: nearly all of its values lie between -{NORMALIZED} and {NORMALIZED}; "
        "it looks normalized: use the CT as it was before"
    )


def _soft_tissue(hu: np.ndarray, lowest: float) -> str:
    low, high = SOFT_TISSUE_HU
    soft = np.count_nonzero((hu > low) & (hu < high))
    tissue = int(np.count_nonzero((hu > max(lowest, TISSUE_HU[0])) & (hu <= TISSUE_HU[1])))
    if soft >= MINIMUM_SOFT_TISSUE * tissue and soft >= MINIMUM_OF_ALL * hu.size:
        return ""
    return (
        f"does not look like HU: {soft / hu.size:.1%} of its voxels, and {soft / max(tissue, 1):.1%} of those that are "
        f"neither air nor padding, lie between {low} and {high} HU; at least {MINIMUM_OF_ALL:.0%} and "
        f"{MINIMUM_SOFT_TISSUE:.0%} should"
    )


def _two_values(hu: np.ndarray, _lowest: float) -> str:
    low, high = SOFT_TISSUE_HU
    counts = np.bincount((np.rint(np.clip(hu, low, high)) - low).astype(np.int64))
    if np.sort(counts)[-2:].sum() < MAXIMUM_SHARE_OF_TWO_VALUES * hu.size:
        return ""
    return "is not a CT: nearly all of its voxels hold one of two values; is it a mask?"


def _share(hu: np.ndarray, limits: tuple[float, float]) -> float:
    """The share of voxels strictly between two values."""
    return np.count_nonzero((hu > limits[0]) & (hu < limits[1])) / max(hu.size, 1)
