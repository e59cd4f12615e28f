"""CTVolume: a CT scan as an array of HU with its place in the patient; read from and written to NIfTI."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import ScanError
from .files import staged

if TYPE_CHECKING:
    import nibabel

__all__ = ["CTVolume", "check_ct", "read_mask", "read_volume", "scan_stem", "write_volume"]

OUTPUT_SUFFIXES = SUFFIXES = (".nii.gz", ".nii")

# Soft tissue, fat and contrast-enhanced organs; what a scan must show to be worth segmenting.
SOFT_TISSUE_HU = (-160, 240)
MINIMUM_SOFT_TISSUE = 0.05
# A mask or a thresholded image holds two values; a CT clipped to a narrow window still holds many.
MAXIMUM_SHARE_OF_TWO_VALUES = 0.995
CHECKED_VOXELS = 4_000_000


@dataclass(frozen=True)
class CTVolume:
    """A CT scan.

    Attributes:
        hu_kji: HU, shape (slices, rows, columns) as stored; k need not be axial.
        affine: 4x4, maps (i, j, k, 1) to patient RAS in mm, as `GetIJKToRASMatrix` of Slicer does.
        name: how messages call it.
    """

    hu_kji: np.ndarray
    affine: np.ndarray
    name: str = "The scan"

    def __post_init__(self) -> None:
        if self.hu_kji.ndim != 3:
            raise ScanError(
                f"{self.name} has {self.hu_kji.ndim} dimensions {self.hu_kji.shape}; "
                "one CT scan has 3 (columns, rows, slices)."
            )
        if not self.hu_kji.size:
            raise ScanError(f"{self.name} is empty: its shape is {self.hu_kji.shape}.")
        if not np.isfinite(self.affine).all() or not self.voxel_ml > 0:
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


def read_volume(path: Path) -> CTVolume:
    """Read a CT from NIfTI (.nii, .nii.gz). Integers stay integers; nothing becomes float64.

    Raises:
        ScanError: missing, not NIfTI, truncated, 2D, 4D, RGB, or without a usable affine.
    """
    array_kji, affine = _read_nifti(path)
    return CTVolume(array_kji, affine, name=path.name)


def read_mask(path: Path) -> CTVolume:
    """Read a mask: non-zero voxels are 1 in the uint8 array of the volume that is returned.

    Raises:
        ScanError: as `read_volume`.
    """
    volume = read_volume(path)
    return CTVolume((volume.hu_kji != 0).astype(np.uint8), volume.affine, volume.name)


def write_volume(path: Path, array_kji: np.ndarray, affine: np.ndarray, *, scale: float = 1.0) -> None:
    """Write an array (slices, rows, columns) as NIfTI, whole or not at all.

    Args:
        scale: what a stored value is multiplied with by readers (`scl_slope`), for fractions as uint8.
    """
    import nibabel

    image = nibabel.Nifti1Image(array_kji.T, affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner", strip_shears=True)
    image.header.set_xyzt_units("mm")
    if scale != 1.0:
        image.header.set_slope_inter(scale, 0.0)
    with staged(path) as temporary:
        nibabel.save(image, temporary)


def scan_stem(path: Path) -> str:
    """The file's name without the ending of its format."""
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import nibabel

    if not path.is_file():
        raise ScanError(f"{path} does not exist." if not path.exists() else f"{path} is a folder, not a NIfTI file.")
    if not path.name.lower().endswith(SUFFIXES):
        raise ScanError(f"{path} is not a NIfTI file ({', '.join(SUFFIXES)}); convert the scan first.")
    try:
        image = nibabel.load(path)
        if image.header.get_data_dtype().fields or image.header.get_data_dtype().kind == "c":
            raise ScanError(f"{path} holds colours or complex numbers; a CT has one real value a voxel.")
        shape = image.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) != 3:
            raise ScanError(f"{path} has {len(shape)} dimensions {shape}; one CT scan has 3 (columns, rows, slices).")
        return _voxels(image).reshape(shape, order="F").T, np.asarray(image.affine, dtype=np.float64)
    except (
        OSError,
        EOFError,
        ValueError,
        zlib.error,
        nibabel.spatialimages.HeaderDataError,
        nibabel.filebasedimages.ImageFileError,
    ) as error:
        reason = " ".join(str(error).split()) or "it is truncated"
        raise ScanError(f"{path} is not a readable NIfTI file ({reason}).") from error


def _voxels(image: nibabel.Nifti1Image) -> np.ndarray:
    """The scaled values in int16 or float32: nibabel alone would make float64 of any rescaled CT."""
    stored = image.dataobj.get_unscaled()
    slope, inter = image.dataobj.slope, image.dataobj.inter
    if (slope, inter) == (1, 0):
        return np.asarray(stored, dtype=np.float32) if stored.dtype == np.float64 else np.asarray(stored)
    scaled = stored.astype(np.float32)
    scaled *= np.float32(slope)
    scaled += np.float32(inter)
    return scaled
