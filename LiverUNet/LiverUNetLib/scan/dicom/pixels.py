"""The HU of DICOM slices. GDCM decodes the pixels, since it reads compressed transfer syntaxes.

GDCM also applies the rescale. In some cases it does so wrongly: it applies the rescale of the first frame
to all frames of a file, reads a decimal comma as the end of a number, and inverts MONOCHROME1. Then a copy
that holds only the pixels is decoded, and the rescale is applied here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import ScanError
from ..itk import quiet_itk
from ..unpacking import temporary_folder
from ..volume import compact
from .headers import CT_CLASSES, Frame
from .values import reason, unreadable

if TYPE_CHECKING:
    import SimpleITK

__all__ = ["NO_RESCALE", "read_hu"]

NO_RESCALE = (1.0, 0.0)  # slope and intercept of stored values that are HU already
PIXEL_TAGS = (
    *("SOPInstanceUID", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"),
)


def read_hu(frames: Sequence[Frame], name: str) -> np.ndarray:
    """HU of the frames in the given order, shape (slices, rows, columns).

    Raises:
        ScanError: the pixels cannot be decoded, or are not what the headers say.
    """
    import SimpleITK as sitk

    quiet_itk()
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    of_file: dict[Path, list[int]] = defaultdict(list)
    for k, frame in enumerate(frames):
        of_file[frame.file].append(k)
    hu_kji = np.zeros((len(frames), *frames[0].shape), bool)  # takes the type of the slices, see below
    with ExitStack() as stack:
        folder = cache(lambda: stack.enter_context(temporary_folder()))  # made when the first file is copied
        for ks in of_file.values():
            planes = _planes(reader, [frames[k] for k in ks], name, folder)
            hu_kji = hu_kji.astype(np.result_type(hu_kji, planes), copy=False)
            hu_kji[ks] = planes
    return compact(hu_kji)


def _is_plain(frames: Sequence[Frame]) -> bool:
    """Whether GDCM computes the correct HU of these frames of one file."""
    return all(frame.plain and frame.rescale == frames[0].rescale for frame in frames)


def _planes(
    reader: SimpleITK.ImageFileReader, frames: Sequence[Frame], name: str, folder: Callable[[], Path]
) -> np.ndarray:
    """HU of frames of one file; `folder` makes the folder for a copy of it, if one is needed."""
    file, rescaled = frames[0].file, _is_plain(frames)
    try:
        planes = _decoded(reader, file if rescaled else _pixels_alone(file, folder() / "pixels"))
    except unreadable(RuntimeError) as error:
        cause = reason(error).split("): ")[-1]  # the part before it is a place in ITK
        raise ScanError(
            f"The pixels of {name} cannot be read ({file.name}: {cause}); decompress or convert the series."
        ) from error
    indices = [frame.index for frame in frames]
    if max(indices) >= len(planes) or planes.shape[1:] != frames[0].shape:
        raise ScanError(
            f"The pixels of {name} cannot be read ({file.name}: its header promises {max(indices) + 1} images of "
            f"{frames[0].shape}, it holds {len(planes)} of {planes.shape[1:]}); export it again."
        )
    return planes[indices] if rescaled else _rescaled(planes[indices], frames)


def _decoded(reader: SimpleITK.ImageFileReader, file: Path) -> np.ndarray:
    import SimpleITK as sitk

    reader.SetFileName(str(file))
    return compact(sitk.GetArrayFromImage(reader.Execute()))


def _pixels_alone(file: Path, copy: Path) -> Path:
    """Write a copy that GDCM decodes to the stored values; it names no patient."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    dataset = pydicom.dcmread(file, force=True, specific_tags=list(PIXEL_TAGS))
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.SOPClassUID = CT_CLASSES["NumberOfFrames" in dataset]
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.preamble = dataset.preamble or bytes(128)
    if "TransferSyntaxUID" not in dataset.file_meta:
        # Without a preamble the file begins with an element: group, number and, if explicit, type.
        with file.open("rb") as stream:
            explicit = stream.read(6)[4:].isalpha()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian
    dataset.save_as(copy)
    return copy


def _rescaled(stored: np.ndarray, frames: Sequence[Frame]) -> np.ndarray:
    """Apply to each frame its own slope and intercept; int32 if all of them are whole numbers, otherwise float32."""
    rescales = [frame.rescale or NO_RESCALE for frame in frames]
    whole = all(number.is_integer() for rescale in rescales for number in rescale)
    hu = np.empty(stored.shape, np.int32 if whole else np.float32)
    for plane, values, (slope, intercept) in zip(hu, stored, rescales, strict=True):
        plane[:] = values * slope + intercept
    return hu
