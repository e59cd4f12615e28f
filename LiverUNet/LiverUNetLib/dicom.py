"""Read a CT series from DICOM: a folder, a zip, or one file, single or multi-frame.

Headers are read by pydicom, pixels by SimpleITK (GDCM), which knows the compressed transfer
syntaxes and applies the rescale. Slices are sorted by position. What DICOM allows and a regular
grid does not, a tilted gantry or slices at irregular distances, is resampled and said in words.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import ScanError
from .files import UNZIP_ERRORS
from .itk import LPS_TO_RAS, quiet_itk
from .volume import CTVolume, compact

if TYPE_CHECKING:
    import pydicom

__all__ = ["Series", "find_series", "is_dicom", "read_dicom"]

AIR_HU = -1024
# Places that are off by less are rounding in the headers.
TOLERANCE_MM = 0.1
# A wider gap is not bridged: the anatomy in it is unknown.
LARGEST_GAP_IN_SLICES = 2.5
SMALLEST_TILT_DEGREES = 0.5
LARGEST_UNPACKED_BYTES = 20 * 2**30


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice: the frame `index` of a file, and the middle of its first pixel in LPS mm."""

    file: Path
    index: int
    position: np.ndarray


@dataclass(frozen=True, eq=False)
class Series:
    """The frames of one series that share matrix and orientation.

    Attributes:
        axes: LPS directions in which columns (i) and rows (j) increase, shape (2, 3).
        pixel_mm: along i and j.
        thickness_mm: the distance of slices where there is only one.
    """

    uid: str
    number: str
    description: str
    axes: np.ndarray
    pixel_mm: tuple[float, float]
    thickness_mm: float
    frames: tuple[Frame, ...]

    @property
    def title(self) -> str:
        """How a person knows it."""
        return f"{self.number or 'unnumbered'} ({self.description or 'no description'}, {len(self.frames)} slices)"


def is_dicom(path: Path) -> bool:
    """Whether `path` is a folder, a zip, or a file with DICOM's preamble."""
    if path.is_dir() or zipfile.is_zipfile(path):
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom(path: Path, *, series: str | None = None, folder: str | None = None) -> CTVolume:
    """Read the one CT series in a folder, a zip or a file, or the one that is chosen.

    Args:
        series: its number, description, title or UID.
        folder: read only what lies in folders of that name, of any modality.

    Raises:
        ScanError: no CT series, several and none chosen, or slices that form no volume.
    """
    if not path.exists():
        raise ScanError(f"{path} does not exist.")
    with _unpacked(path) as unpacked:
        if folder is None:
            found = find_series(unpacked)
        else:
            found = [one for part in unpacked.rglob(folder) for one in find_series(part, modality=None)]
        return _read_series(_choose(found, series, path), path.name)


def find_series(path: Path, *, modality: str | None = "CT") -> list[Series]:
    """All series of a modality below a folder, or in a file, by number; localizers are ignored."""
    groups: dict[tuple, list[tuple[pydicom.Dataset, Frame]]] = defaultdict(list)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        header = _header(file)
        if header is None or "LOCALIZER" in header.get("ImageType", []):
            continue
        if modality not in (None, header.get("Modality")):
            continue
        for frame, orientation, pixel_mm in _frames(header, file):
            matrix = (header.get("Rows"), header.get("Columns"), pixel_mm)
            groups[str(header.get("SeriesInstanceUID", "")), matrix, orientation].append((header, frame))
    series = []
    for (uid, (_, _, pixel_mm), orientation), members in groups.items():
        header = members[0][0]
        one = Series(
            uid=uid,
            number=str(header.get("SeriesNumber") or ""),
            description=str(header.get("SeriesDescription") or ""),
            axes=np.reshape(orientation, (2, 3)),
            pixel_mm=pixel_mm,
            thickness_mm=float(header.get("SliceThickness") or 1.0),
            frames=tuple(frame for _, frame in members),
        )
        series.append(one)
    return sorted(series, key=lambda one: (len(one.number), one.number, one.uid))


def _header(file: Path) -> pydicom.Dataset | None:
    import pydicom

    if not file.is_file():
        return None
    try:
        return pydicom.dcmread(file, stop_before_pixels=True)
    except (pydicom.errors.InvalidDicomError, OSError, ValueError, EOFError):
        return None


def _frames(header: pydicom.Dataset, file: Path) -> Iterator[tuple[Frame, tuple[float, ...], tuple[float, float]]]:
    """The frames of a file with orientation and pixel size; none where a place in the patient is missing."""
    shared = header.get("SharedFunctionalGroupsSequence") or [{}]
    groups = header.get("PerFrameFunctionalGroupsSequence") or [{}]

    def look_up(group: pydicom.Dataset, sequence: str, name: str) -> pydicom.multival.MultiValue | None:
        for place in (group, shared[0]):
            if place.get(sequence):
                return place.get(sequence)[0].get(name)
        return header.get(name)

    for index, group in enumerate(groups):
        position = look_up(group, "PlanePositionSequence", "ImagePositionPatient")
        orientation = look_up(group, "PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = look_up(group, "PixelMeasuresSequence", "PixelSpacing")
        if (np.size(position), np.size(orientation), np.size(spacing)) == (3, 6, 2):
            axes = tuple(round(float(value), 4) for value in orientation)
            row_mm, column_mm = (float(value) for value in spacing)
            yield Frame(file, index, np.array(position, dtype=float)), axes, (column_mm, row_mm)


def _choose(found: Sequence[Series], wanted: str | None, path: Path) -> Series:
    titles = ", ".join(series.title for series in found)
    if not found:
        raise ScanError(f"{path} holds no CT series in DICOM.")
    if wanted is None:
        if len(found) > 1:
            raise ScanError(
                f"{path} holds {len(found)} CT series: {titles}; choose one by number or as written here (--series)."
            )
        return found[0]
    key = wanted.casefold()
    chosen = [one for one in found if key in map(str.casefold, (one.number, one.description, one.title, one.uid))]
    if len(chosen) != 1:
        raise ScanError(f"{path} holds {len(chosen) or 'no'} CT series {wanted!r}; there are {titles}.")
    return chosen[0]


def _read_series(series: Series, name: str) -> CTVolume:
    normal = np.cross(*series.axes)
    frames = sorted(series.frames, key=lambda frame: float(frame.position @ normal))
    distances = np.array([frame.position @ normal for frame in frames])
    spacing, notes = _spacing(distances, series, name)
    hu_kji = _pixels(frames, name)
    first = frames[0].position

    drift_mm = np.array([(frame.position - first) @ series.axes.T for frame in frames])
    height = max(distances[-1] - distances[0], TOLERANCE_MM)
    tilt = np.degrees(np.arctan2(np.abs(drift_mm).max(), height))
    if tilt > SMALLEST_TILT_DEGREES:
        hu_kji, moved_mm = _upright(hu_kji, drift_mm, series.pixel_mm)
        first = first + moved_mm @ series.axes
        notes.append(f"The gantry of {name} was tilted by {tilt:.1f} degrees; the slices were moved upright.")
    if not _is_regular(distances):
        hu_kji = _interpolated(hu_kji, distances, spacing)

    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([series.axes[0], series.axes[1], normal]) * [*series.pixel_mm, spacing]
    affine[:3, 3] = first
    return CTVolume(hu_kji, LPS_TO_RAS @ affine, name, tuple(notes))


def _spacing(distances: np.ndarray, series: Series, name: str) -> tuple[float, list[str]]:
    """The distance of slices in mm, and what has to be said of it."""
    steps = np.diff(distances)
    if not steps.size:
        return series.thickness_mm, []
    if steps.min() < TOLERANCE_MM:
        raise ScanError(
            f"{name} has several slices at one place (at {distances[steps.argmin()]:.1f} mm): "
            "it mixes phases or reconstructions; separate them first."
        )
    spacing = float(np.median(steps))
    widest = int(steps.argmax())
    if steps[widest] > LARGEST_GAP_IN_SLICES * spacing:
        raise ScanError(
            f"{name} lacks slices: between {distances[widest]:.1f} and {distances[widest + 1]:.1f} mm there are none, "
            f"elsewhere one every {spacing:.2f} mm; load the whole series."
        )
    extent = float(distances[-1] - distances[0])
    if _is_regular(distances):
        return extent / len(steps), []
    spacing = extent / round(extent / spacing)
    note = (
        f"The slices of {name} lie {steps.min():.2f} to {steps.max():.2f} mm apart, irregular or with one missing; "
        f"they were interpolated to {spacing:.2f} mm, and the mask lies on that grid."
    )
    return spacing, [note]


def _is_regular(distances: np.ndarray) -> bool:
    """Whether the slices lie where they would at one distance; rounding in the headers does not add up."""
    return bool(np.allclose(distances, np.linspace(distances[0], distances[-1], len(distances)), 0, TOLERANCE_MM))


def _pixels(frames: Sequence[Frame], name: str) -> np.ndarray:
    """HU of the frames in their order, shape (slices, rows, columns)."""
    import SimpleITK as sitk

    quiet_itk()
    try:
        files = {frame.file for frame in frames}
        if len(files) == 1:
            stored = sitk.GetArrayFromImage(sitk.ReadImage(str(frames[0].file)))
            return np.ascontiguousarray(stored[[frame.index for frame in frames]])
        if len(files) < len(frames):
            raise ScanError(f"{name} is spread over {len(files)} multi-frame files; load one of them.")
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(frame.file) for frame in frames])
        hu = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ScanError(f"The pixels of {name} cannot be read ({reason}); decompress or convert the series.") from error
    return compact(hu)


def _upright(hu_kji: np.ndarray, drift_mm: np.ndarray, pixel_mm: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Move every slice by its drift in plane, on a plane large enough for all; new places are air.

    Returns:
        The slices, and by how many mm along i and j the first pixel of the plane has moved.
    """
    from scipy import ndimage

    drift_px = drift_mm / pixel_mm
    least = np.floor(drift_px.min(axis=0))
    columns, rows = (np.ceil(drift_px.max(axis=0)) - least).astype(int)
    moved = np.full((len(hu_kji), hu_kji.shape[1] + rows, hu_kji.shape[2] + columns), AIR_HU, dtype=np.float32)
    moved[:, : hu_kji.shape[1], : hu_kji.shape[2]] = hu_kji
    for plane, (i, j) in zip(moved, drift_px - least, strict=True):
        plane[:] = ndimage.shift(plane, (j, i), order=1, cval=AIR_HU)
    return np.rint(moved).astype(np.int16), least * pixel_mm


def _interpolated(hu_kji: np.ndarray, distances: np.ndarray, spacing: float) -> np.ndarray:
    """Interpolate linearly between slices to a regular distance, from the first to the last one."""
    wanted = np.linspace(distances[0], distances[-1], round((distances[-1] - distances[0]) / spacing) + 1)
    above = np.searchsorted(distances, wanted).clip(1, len(distances) - 1)
    below = above - 1
    share = ((wanted - distances[below]) / (distances[above] - distances[below])).clip(0, 1)
    regular = np.empty((len(wanted), *hu_kji.shape[1:]), dtype=np.int16)
    for k, (lower, upper, part) in enumerate(zip(below, above, share, strict=True)):
        regular[k] = np.rint(hu_kji[lower] * (1 - part) + hu_kji[upper] * part)
    return regular


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """The path itself, or the folder that a zip was unpacked to for the while."""
    if path.is_dir() or not zipfile.is_zipfile(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > LARGEST_UNPACKED_BYTES:
                    raise ScanError(
                        f"{path} unpacks to more than {LARGEST_UNPACKED_BYTES / 2**30:.0f} GiB; unpack it by hand."
                    )
                archive.extractall(folder)  # leaves no path outside the folder and makes no links
        except UNZIP_ERRORS as error:
            raise ScanError(f"{path} cannot be unpacked ({error}).") from error
        yield Path(folder)
