"""CTVolume: a CT scan as an array of HU with its place in the patient, and what makes it a CT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import ScanError

__all__ = ["CTVolume", "check_ct", "compact"]

# Soft tissue, fat and contrast-enhanced organs; what a scan must show to be worth segmenting.
SOFT_TISSUE_HU = (-160, 240)
MINIMUM_SOFT_TISSUE = 0.05
# A mask or a thresholded image holds two values; a CT clipped to a narrow window still holds many.
MAXIMUM_SHARE_OF_TWO_VALUES = 0.995
CHECKED_VOXELS = 4_000_000
# A cube of 0.01 mm; less means that two axes of the affine coincide.
SMALLEST_VOXEL_ML = 1e-9


@dataclass(frozen=True)
class CTVolume:
    """A CT scan.

    Attributes:
        hu_kji: HU, shape (slices, rows, columns) as stored; k need not be axial.
        affine: 4x4, maps (i, j, k, 1) to patient RAS in mm, as `GetIJKToRASMatrix` of Slicer does.
        name: how messages call it.
        notes: what its reader had to change, in whole sentences.
    """

    hu_kji: np.ndarray
    affine: np.ndarray
    name: str = "The scan"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.hu_kji.ndim != 3:
            raise ScanError(
                f"{self.name} has {self.hu_kji.ndim} dimensions {self.hu_kji.shape}; "
                "one CT scan has 3 (columns, rows, slices)."
            )
        if not self.hu_kji.size:
            raise ScanError(f"{self.name} is empty: its shape is {self.hu_kji.shape}.")
        if not np.isfinite(self.affine).all() or self.voxel_ml < SMALLEST_VOXEL_ML:
            raise ScanError(
                f"{self.name} has no usable geometry: its affine is singular or not finite; convert the scan again."
            )

    @property
    def spacing_kji_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels along k, j and i in mm."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(k), float(j), float(i)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml (1 ml = 1000 mm3)."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000


def compact(voxels: np.ndarray) -> np.ndarray:
    """The voxels as float32 if they take 8 bytes each, which no CT needs and not every format can hold."""
    return voxels.astype(np.float32) if voxels.dtype.itemsize > 4 else voxels


def check_ct(volume: CTVolume) -> None:
    """Raise ScanError unless the voxels can be the HU of a CT that shows soft tissue.

    Padding (-2000, -3024), metal and data already clipped to a window pass. Statistics are taken
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
    found = f"(range {lowest:g} to {highest:g})"
    if lowest >= 0:
        raise ScanError(
            f"{volume.name} is not in HU: it holds no value below 0 {found}, but fat and air are below; "
            "is it a mask, an MR, or a CT whose rescale was not applied?"
        )
    # The step is odd, so that it does not follow rows or columns of even length.
    low, high = SOFT_TISSUE_HU
    hu = np.rint(np.clip(volume.hu_kji.ravel()[:: (volume.hu_kji.size // CHECKED_VOXELS) | 1], low, high)).astype(
        np.int64
    )
    counts = np.bincount(hu - low, minlength=high - low + 1)
    inside = counts[1:-1].sum() / hu.size
    if inside < MINIMUM_SOFT_TISSUE:
        raise ScanError(
            f"{volume.name} does not look like HU: {inside:.1%} of its voxels lie between {low} and {high} HU {found}, "
            f"at least {MINIMUM_SOFT_TISSUE:.0%} should."
        )
    if np.sort(counts)[-2:].sum() >= MAXIMUM_SHARE_OF_TWO_VALUES * hu.size:
        raise ScanError(
            f"{volume.name} is not a CT: nearly all of its voxels hold one of two values {found}; is it a mask?"
        )
