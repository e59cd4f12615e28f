"""Read and write NIfTI."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import ScanError
from .files import staged
from .itk import LPS_TO_RAS
from .volume import CTVolume, compact

if TYPE_CHECKING:
    import nibabel

__all__ = ["read_nifti", "write_nifti"]


def read_nifti(path: Path) -> CTVolume:
    """Read a scan. Integers stay integers; nothing becomes float64.

    Raises:
        ScanError: not NIfTI, truncated, 2D, 4D, RGB, or without a usable affine.
    """
    import nibabel

    try:
        image = nibabel.load(path)
        if image.header.get_data_dtype().fields or image.header.get_data_dtype().kind == "c":
            raise ScanError(f"{path} holds colours or complex numbers; a CT has one real value a voxel.")
        shape = image.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) != 3:
            raise ScanError(f"{path} has {len(shape)} dimensions {shape}; one CT scan has 3 (columns, rows, slices).")
        hu_kji = _voxels(image).reshape(shape, order="F").T
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
    if not isinstance(image, nibabel.Nifti1Image) or image.header["sform_code"] or image.header["qform_code"]:
        return CTVolume(hu_kji, np.asarray(image.affine, dtype=np.float64), path.name)
    affine = LPS_TO_RAS @ np.diag([*image.header.get_zooms()[:3], 1.0])
    note = f"{path.name} does not say how it lies in the patient; it is read as 3D Slicer does, i to left, j to back."
    return CTVolume(hu_kji, affine, path.name, (note,))


def write_nifti(path: Path, array_kji: np.ndarray, affine: np.ndarray, *, scale: float = 1.0) -> None:
    """Write an array (slices, rows, columns), whole or not at all.

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


def _voxels(image: nibabel.Nifti1Image) -> np.ndarray:
    """The scaled values in float32 unless they are stored in HU: nibabel would make float64 of any rescaled CT."""
    stored = image.dataobj.get_unscaled()
    slope, inter = image.dataobj.slope, image.dataobj.inter
    if (slope, inter) == (1, 0):
        return compact(np.asarray(stored))
    scaled = stored.astype(np.float32)
    scaled *= np.float32(slope)
    scaled += np.float32(inter)
    return scaled
