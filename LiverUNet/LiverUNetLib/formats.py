"""Which file is read and written by what: the ending decides, and DICOM knows itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .dicom import is_dicom, read_dicom
from .errors import OutputError, ScanError
from .itk import read_itk, write_nrrd, write_segmentation
from .nifti import read_nifti, write_nifti
from .volume import CTVolume

__all__ = ["check_output_name", "read_mask", "read_volume", "scan_stem", "write_probability", "write_volume"]

READERS = {
    ".nii.gz": read_nifti,
    ".nii": read_nifti,
    ".nrrd": read_itk,
    ".nhdr": read_itk,
    ".mha": read_itk,
    ".mhd": read_itk,
}
# The longest ending comes first: a segmentation is a NRRD file too.
WRITERS = {
    ".nii.gz": write_nifti,
    ".nii": write_nifti,
    ".seg.nrrd": write_segmentation,
    ".nrrd": write_nrrd,
}


def read_volume(path: Path, *, series: str | None = None) -> CTVolume:
    """Read a CT: NIfTI, NRRD, MetaImage, or a DICOM series in a folder, a zip or a file.

    Args:
        series: which DICOM series, by number, description or UID.

    Raises:
        ScanError: missing, unreadable, of no known format, or no single 3D scan.
    """
    if not path.exists():
        raise ScanError(f"{path} does not exist.")
    ending = _ending(path, READERS)
    if ending and path.is_file():
        return READERS[ending](path)
    if is_dicom(path):
        return read_dicom(path, series=series)
    raise ScanError(f"{path} is of no known format: neither DICOM nor {', '.join(READERS)}.")


def read_mask(path: Path, *, labels: tuple[int, ...] | None = None, folder: str | None = None) -> CTVolume:
    """Read a mask: 1 in the uint8 array of the volume that is returned.

    Args:
        labels: the values that count; None for all but 0.
        folder: read DICOM in the folder of that name below `path`, of any modality.

    Raises:
        ScanError: as `read_volume`.
    """
    volume = read_dicom(path, folder=folder) if folder else read_volume(path)
    inside = volume.hu_kji != 0 if labels is None else np.isin(volume.hu_kji, labels)
    return CTVolume(inside.astype(np.uint8), volume.affine, volume.name)


def check_output_name(path: Path) -> None:
    """Raise OutputError unless the ending of `path` says how to write it."""
    if not _ending(path, WRITERS):
        raise OutputError(f"{path} cannot be written: its name must end in {', '.join(WRITERS)}.")


def write_volume(path: Path, array_kji: np.ndarray, affine: np.ndarray) -> None:
    """Write a scan or a mask (slices, rows, columns), whole or not at all; a mask as `.seg.nrrd` for 3D Slicer."""
    WRITERS[_ending(path, WRITERS)](path, array_kji, affine)


def write_probability(path: Path, probability_kji: np.ndarray, affine: np.ndarray) -> None:
    """Write a probability in steps of 1/255 (uint8) so that readers see fractions of 1."""
    if _ending(path, WRITERS) in (".nii.gz", ".nii"):
        write_nifti(path, probability_kji, affine, scale=1 / 255)
    else:
        write_nrrd(path, (probability_kji / np.float32(255)).astype(np.float32), affine)


def scan_stem(path: Path) -> str:
    """The name of a scan without the ending of its format; a folder's name as it is."""
    ending = _ending(path, READERS) or (path.suffix if path.is_file() else "")
    return path.name[: -len(ending)] if ending else path.name


def _ending(path: Path, table: dict[str, object]) -> str:
    return next((ending for ending in table if path.name.lower().endswith(ending)), "")
