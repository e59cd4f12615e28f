"""Read the header of a DICOM file with pydicom; only the attributes needed are kept in memory.

Real headers often break the standard: a decimal comma, no preamble, no modality, text instead of a number.
They are read as far as they can be understood; otherwise `Skipped` gives the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .values import BadAttribute, bad_value, numbers, raw_text, reason, text, unreadable

if TYPE_CHECKING:
    import pydicom

__all__ = ["MARKS", "NO_PLACE", "Frame", "Headline", "Mark", "Skipped", "is_dicom_file", "read_frames"]

CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
)
GRAY = ("MONOCHROME1", "MONOCHROME2")
NO_PLACE = "no position in the patient"
# Without a preamble a file begins with an element of group 0002 or 0008, in either byte order.
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
# Direction cosines are at least this exact, even if rounded to two decimals.
LARGEST_ERROR_OF_AXES = 0.02


@dataclass(frozen=True)
class Mark:
    """An attribute that can distinguish two scans under one series UID, in single-frame and in multi-frame files."""

    label: str
    keyword: str
    sequence: str = ""
    frame_keyword: str = ""
    ordered: bool = False


MARKS = (
    Mark("acquisition", "AcquisitionNumber", "FrameContentSequence", "FrameAcquisitionNumber", ordered=True),
    Mark("time point", "TemporalPositionIdentifier", "FrameContentSequence", "TemporalPositionIndex", ordered=True),
    Mark("stack", "StackID", "FrameContentSequence", "StackID"),
    Mark("cardiac phase", "NominalPercentageOfCardiacPhase", "CardiacSynchronizationSequence", ordered=True),
    Mark("trigger time", "TriggerTime", ordered=True),
    Mark("description", "SeriesDescription"),
    Mark("contrast", "ContrastBolusAgent"),
    Mark("kernel", "ConvolutionKernel", "CTReconstructionSequence"),
    Mark("image type", "ImageType", "CTImageFrameTypeSequence", "FrameType"),
    Mark("thickness", "SliceThickness", "PixelMeasuresSequence"),
    Mark("kV", "KVP", "CTXRayDetailsSequence"),
    Mark("comment", "ImageComments", "FrameContentSequence", "FrameComments"),
    Mark("acquisition time", "AcquisitionTime", "FrameContentSequence", "FrameAcquisitionDateTime", ordered=True),
    Mark("content time", "ContentTime", ordered=True),
    Mark("image", "InstanceNumber", ordered=True),
)
TAGS = (
    *("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"),
    *(mark.keyword for mark in MARKS),
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "Modality"),
    *("Rows", "Columns", "PhotometricInterpretation", "NumberOfFrames"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType"),
)


@dataclass(frozen=True)
class Headline:
    """Name and technique of a series, as text."""

    uid: str
    number: str
    description: str
    contrast: str
    kernel: str


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice: the frame `index` of a file.

    Attributes:
        headline: of its series.
        instance: its SOPInstanceUID, which copies share.
        position: the middle of its first pixel in LPS mm.
        axes: LPS directions in which columns (i) and rows (j) increase, shape (2, 3).
        pixel_mm: along i and j.
        shape: rows and columns.
        thickness_mm: None if it is not given.
        rescale: slope and intercept to HU; None if they are not given.
        unit: RescaleType.
        plain: GDCM computes the correct HU.
        derived: computed from other images, such as a reformat, a projection or a screenshot.
        marks: the values of MARKS.
    """

    file: Path
    index: int
    headline: Headline
    instance: str
    position: np.ndarray
    axes: np.ndarray
    pixel_mm: tuple[float, float]
    shape: tuple[int, int]
    thickness_mm: float | None
    rescale: tuple[float, float] | None
    unit: str
    plain: bool
    derived: bool
    marks: tuple[str, ...]


@dataclass(frozen=True)
class Skipped:
    """A file that should hold slices but cannot be used."""

    file: Path
    uid: str
    reason: str


def is_dicom_file(file: Path) -> bool:
    """Whether a file is DICOM, with a preamble or without."""
    try:
        return _looks_like_dicom(file)
    except OSError:
        return False


def read_frames(file: Path, modality: str | None = "CT") -> list[Frame] | Skipped:
    """The slices in a file; none if it is a localizer, or not an image of that modality.

    Args:
        modality: None for any.
    """
    uid = ""
    try:
        if not (file.is_file() and _looks_like_dicom(file)):
            return []
        header = _header(file)
        uid = text(header, "SeriesInstanceUID")
        if not _is_wanted(header, modality):
            return []
        frames = list(_frames(header, file))
    except BadAttribute as error:
        return Skipped(file, uid, str(error))
    except unreadable() as error:
        return Skipped(file, uid, f"not readable: {reason(error)}")
    return frames or Skipped(file, uid, NO_PLACE)


def _looks_like_dicom(file: Path) -> bool:
    """By the mark after the preamble; without a preamble by its first group and an attribute that every image has."""
    with file.open("rb") as stream:
        start = stream.read(132)
    if start[128:] == b"DICM":
        return True
    try:
        return start[:2] in FIRST_GROUPS and any(name in _header(file) for name in ("SOPClassUID", "Modality", "Rows"))
    except unreadable():
        return False


def _header(file: Path) -> pydicom.Dataset:
    """The attributes that this module needs, without pixels and private data, which can be large."""
    import pydicom

    return pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(TAGS))


def _is_wanted(header: pydicom.Dataset, modality: str | None) -> bool:
    """Whether the file is an image of that modality; if none is given, its SOP class decides."""
    sop_class, stated = text(header, "SOPClassUID"), text(header, "Modality").upper()
    if "LOCALIZER" in text(header, "ImageType").split("\\"):
        return False
    if modality is not None and stated != modality and (stated or (sop_class and sop_class not in CT_CLASSES)):
        return False
    if not (header.get("Rows") and header.get("Columns")):
        if sop_class in CT_CLASSES:
            raise BadAttribute("no image in it, perhaps cut short")
        return False
    if text(header, "PhotometricInterpretation") not in ("", *GRAY):
        raise BadAttribute("a color image")
    return True


@dataclass(frozen=True)
class _Part:
    """The header of one frame: its functional groups, those that all frames share, and the header of the file."""

    header: pydicom.Dataset
    groups: tuple[pydicom.Dataset, ...]

    def of(self, sequence: str) -> pydicom.Dataset:
        """The item of `sequence` that applies to the frame; the header of the file if there is none."""
        inner = (group.get(sequence)[0] for group in self.groups if group.get(sequence))
        return next(inner, self.header)


def _parts(header: pydicom.Dataset) -> Iterator[_Part]:
    shared = tuple(header.get("SharedFunctionalGroupsSequence") or ())[:1]
    for group in header.get("PerFrameFunctionalGroupsSequence") or [None]:
        yield _Part(header, shared if group is None else (group, *shared))


def _frames(header: pydicom.Dataset, file: Path) -> Iterator[Frame]:
    """The frames that have a position in the patient."""
    if (header.get("NumberOfFrames") or 1) > 1 and not header.get("PerFrameFunctionalGroupsSequence"):
        return  # a single position cannot be that of all frames
    sop_class, kinds = text(header, "SOPClassUID"), text(header, "ImageType").split("\\")
    derived = kinds[0] == "DERIVED" or (sop_class or CT_CLASSES[0]) not in CT_CLASSES
    plain = sop_class in CT_CLASSES and text(header, "PhotometricInterpretation") != "MONOCHROME1"
    for index, part in enumerate(_parts(header)):
        position = numbers(part.of("PlanePositionSequence"), "ImagePositionPatient", 3)
        axes = _axes(part.of("PlaneOrientationSequence"))
        measures, values = part.of("PixelMeasuresSequence"), part.of("PixelValueTransformationSequence")
        spacing = numbers(measures, "PixelSpacing", 2)
        if position is None or axes is None or spacing is None:
            continue
        if min(spacing) <= 0:
            raise bad_value(measures, "PixelSpacing")
        row_mm, column_mm = spacing
        yield Frame(
            file=file,
            index=index,
            headline=_headline(part),
            instance=text(header, "SOPInstanceUID"),
            position=np.array(position),
            axes=axes,
            pixel_mm=(column_mm, row_mm),
            shape=(int(header.Rows), int(header.Columns)),
            thickness_mm=_thickness(measures),
            rescale=_rescale(values),
            unit=text(values, "RescaleType").upper(),
            plain=plain and "," not in raw_text(values, "RescaleSlope") + raw_text(values, "RescaleIntercept"),
            derived=derived,
            marks=tuple(_mark(part, mark) for mark in MARKS),
        )


def _headline(part: _Part) -> Headline:
    header = part.header
    number = text(header, "SeriesNumber")
    return Headline(
        uid=text(header, "SeriesInstanceUID"),
        number=str(int(number)) if number.isdecimal() else number,
        description=text(header, "SeriesDescription"),
        contrast=text(header, "ContrastBolusAgent"),
        kernel=text(part.of("CTReconstructionSequence"), "ConvolutionKernel"),
    )


def _axes(dataset: pydicom.Dataset) -> np.ndarray | None:
    cosines = numbers(dataset, "ImageOrientationPatient", 6)
    if cosines is None:
        return None
    axes: np.ndarray = np.reshape(cosines, (2, 3))
    if np.abs(axes @ axes.T - np.eye(2)).max() > LARGEST_ERROR_OF_AXES:
        raise bad_value(dataset, "ImageOrientationPatient")
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    return axes


def _thickness(dataset: pydicom.Dataset) -> float | None:
    """None if it is missing or invalid: only a scan of a single slice needs it."""
    try:
        (thickness_mm,) = numbers(dataset, "SliceThickness", 1) or (0.0,)
    except BadAttribute:
        return None
    return thickness_mm if thickness_mm > 0 else None


def _rescale(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    slope, intercept = numbers(dataset, "RescaleSlope", 1), numbers(dataset, "RescaleIntercept", 1)
    if slope is None and intercept is None:
        return None
    # A slope of 0 would make an image of one value; as in GDCM, it counts as 1.
    return (slope or (1.0,))[0] or 1.0, (intercept or (0.0,))[0]


def _mark(part: _Part, mark: Mark) -> str:
    inner = part.of(mark.sequence) if mark.sequence else part.header
    return text(inner, mark.frame_keyword or mark.keyword) or text(part.header, mark.keyword)
