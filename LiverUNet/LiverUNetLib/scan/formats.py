"""Read and write scans and masks. A file's ending tells its format; DICOM is recognized by its content."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ..errors import OutputError, ScanError
from ..system.files import exists
from .dicom.reader import is_dicom, read_dicom
from .itk import check_perpendicular, read_itk, write_nrrd, write_segmentation
from .masks import inside
from .nifti import is_nifti, read_nifti, write_nifti
from .volume import CTVolume

__all__ = [
    "READERS",
    "check_output",
    "check_output_name",
    "read_mask",
    "read_volume",
    "scan_stem",
    "write_mask",
    "write_probability",
    "write_volume",
]

READERS: dict[str, Callable[[Path], CTVolume]] = {
    ".nii.gz": read_nifti,
    ".nii": read_nifti,
    ".hdr": read_nifti,
    ".nrrd": read_itk,
    ".nhdr": read_itk,
    ".mha": read_itk,
    ".mhd": read_itk,
}
# The second file of a .hdr; a folder is not searched for it, or every pair would count as two scans.
HALVES = (".img", ".img.gz", ".hdr.gz")
# The longest ending comes first: a segmentation is also a NRRD file.
WRITERS: dict[str, Callable[[Path, np.ndarray, np.ndarray], None]] = {
    ".nii.gz": write_nifti,
    ".nii": write_nifti,
    ".seg.nrrd": write_segmentation,
    ".nrrd": write_nrrd,
}


def read_volume(path: Path, *, series: str | None = None) -> CTVolume:
    """Read a CT: NIfTI, NRRD, MetaImage, or a DICOM series in a folder, a zip or a file.

    NIfTI with another ending is recognized by its content.

    Args:
        series: which DICOM series, see `cli.main.SERIES_HELP`.

    Raises:
        ScanError: the scan is missing, unreadable, of an unknown format, or not a single 3D scan.
    """
    if not exists(path, ScanError):
        raise ScanError(f"{path} does not exist.")
    ending = _ending(path, READERS)
    if ending and path.is_file():
        return READERS[ending](path)
    if is_dicom(path):
        return read_dicom(path, series=series)
    if path.is_file() and (path.name.lower().endswith(HALVES) or is_nifti(path)):
        return read_nifti(path)
    raise ScanError(
        f"{path} has an unknown format: neither DICOM nor {', '.join(READERS)}; convert it, for example with 3D Slicer."
    )


def read_mask(path: Path, *, labels: tuple[int, ...] | None = None, folder: str | None = None) -> CTVolume:
    """Read a mask as a volume whose array is uint8, 1 inside the mask.

    Args:
        labels: the values inside the mask; None for all but 0.
        folder: name of a folder below `path` from which DICOM of any modality is read.

    Raises:
        ScanError: as `read_volume`.
    """
    volume = read_dicom(path, folder=folder) if folder else read_volume(path)
    voxels, note = inside(volume.hu_kji, labels, volume.name)
    if note:
        logging.getLogger(__name__).warning(note)
    return CTVolume(voxels.astype(np.uint8), volume.affine, volume.name, (*volume.notes, *filter(None, (note,))))


def check_output_name(path: Path) -> None:
    """Raise OutputError unless `path` ends in a format that can be written."""
    if not _ending(path, WRITERS):
        raise OutputError(f"{path} cannot be written: its name must end in {', '.join(WRITERS)}.")


def check_output(path: Path, affine: np.ndarray) -> None:
    """Raise OutputError unless `path` ends in a format that can hold a grid with this affine."""
    check_output_name(path)
    if WRITERS[_ending(path, WRITERS)] is not write_nifti:
        check_perpendicular(path, affine)


def write_volume(path: Path, array_kji: np.ndarray, affine: np.ndarray) -> None:
    """Write a scan or a mask (slices, rows, columns), completely or not at all; `.seg.nrrd` takes a mask only."""
    WRITERS[_ending(path, WRITERS)](path, array_kji, affine)


def write_mask(path: Path, mask_kji: np.ndarray, scan: CTVolume) -> None:
    """Write the mask of a scan as `write_volume` does; if both are NIfTI, with exactly the scan's sform and qform."""
    if WRITERS[_ending(path, WRITERS)] is write_nifti:
        write_nifti(path, mask_kji, scan.affine, header=scan.nifti_header)
    else:
        write_volume(path, mask_kji, scan.affine)


def write_probability(path: Path, probability_kji: np.ndarray, scan: CTVolume) -> None:
    """Write a probability, uint8 in steps of 1/255, on the grid of a scan so that readers get values from 0 to 1."""
    if WRITERS[_ending(path, WRITERS)] is write_nifti:
        write_nifti(path, probability_kji, scan.affine, scale=1 / 255, header=scan.nifti_header)
    else:
        write_nrrd(path, (probability_kji / np.float32(255)).astype(np.float32), scan.affine)


def scan_stem(path: Path) -> str:
    """The name of a scan without the ending of its format; of a folder, its name."""
    ending = _ending(path, (*READERS, *HALVES)) or (path.suffix if path.is_file() else "")
    return path.name[: -len(ending)] if ending else path.name


def _ending(path: Path, endings: Iterable[str]) -> str:
    return next((ending for ending in endings if path.name.lower().endswith(ending)), "")
