"""CTVolume: a CT scan as an array of HU with its place in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ScanError
from ..types import Spacing

if TYPE_CHECKING:
    import nibabel

__all__ = ["CTVolume", "compact"]

# A cube of 0.01 mm; with a smaller voxel two axes of the affine coincide.
SMALLEST_VOXEL_ML = 1e-9


@dataclass(frozen=True)
class CTVolume:
    """A CT scan.

    Attributes:
        hu_kji: HU, shape (slices, rows, columns) as stored; k need not be axial.
        affine: 4x4, maps (i, j, k, 1) to patient RAS in mm, as `GetIJKToRASMatrix` of Slicer does.
        name: as used in messages.
        notes: what its reader had to change, in full sentences.
        nifti_header: of the NIfTI file that it was read from; masks copy the geometry from it.
    """

    hu_kji: np.ndarray
    affine: np.ndarray
    name: str = "The scan"
    notes: tuple[str, ...] = ()
    nifti_header: nibabel.Nifti1Header | None = None

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
    def spacing_kji_mm(self) -> Spacing:
        """Distance of neighboring voxels along k, j and i in mm."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(k), float(j), float(i)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml (1 ml = 1000 mm3)."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000


def compact(voxels: np.ndarray) -> np.ndarray:
    """The voxels, as float32 if they take 8 bytes each: no CT needs these, and some formats cannot hold them."""
    return voxels.astype(np.float32) if voxels.dtype.itemsize > 4 else voxels
