"""Make one volume of the slices of a DICOM series.

Slices are sorted by position. A tilted gantry and irregularly spaced slices, which DICOM allows but a
regular grid does not, are resampled and reported in a note.

highdicom (0.28) is not used: it refuses both, as well as copies of slices, orientations that differ in
rounding, and decimal commas, and its array is float64, four times as large as int16.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import ScanError
from ..itk import LPS_TO_RAS
from ..volume import CTVolume
from .headers import Frame
from .pixels import NO_RESCALE, read_hu
from .series import TOLERANCE_MM, Series, is_regular

__all__ = ["read_series"]

AIR_HU = -1024
# A wider gap is not filled, since its anatomy is unknown.
LARGEST_GAP_IN_SLICES = 2.5
SMALLEST_TILT_DEGREES = 0.5
# RescaleType of CT images that are not in HU: optical density, percent, effective atomic number, electron
# density (relative and weighted), iodine in mg/ml.
NOT_HU = ("OD", "PCT", "Z_EFF", "ED", "EDW", "MGML")


def read_series(series: Series, name: str) -> CTVolume:
    """Read the slices of a series as one volume.

    Raises:
        ScanError: the pixels are unreadable or not in HU, several slices have one position, or there is a gap.
    """
    _check_rescale(series.frames, name)
    normal = np.cross(*series.axes)
    frames, notes = _without_copies(series, name)
    distances = np.array([frame.position @ normal for frame in frames])
    spacing, notes_on_places = _spacing(distances, frames, name)
    notes += notes_on_places
    hu_kji = read_hu(frames, name)
    first = frames[0].position

    drift_mm = np.array([(frame.position - first) @ series.axes.T for frame in frames])
    height = max(distances[-1] - distances[0], TOLERANCE_MM)
    tilt = np.degrees(np.arctan2(np.abs(drift_mm).max(), height))
    if tilt > SMALLEST_TILT_DEGREES:
        hu_kji, moved_mm = _upright(hu_kji, drift_mm, series.pixel_mm)
        first = first + moved_mm @ series.axes
        notes.append(f"The gantry of {name} was tilted by {tilt:.1f} degrees; the slices were moved upright.")
    if not is_regular(distances):
        hu_kji = _interpolated(hu_kji, distances, spacing)

    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([series.axes[0], series.axes[1], normal]) * [*series.pixel_mm, spacing]
    affine[:3, 3] = first
    return CTVolume(hu_kji, LPS_TO_RAS @ affine, name, tuple(notes))


def _check_rescale(frames: Sequence[Frame], name: str) -> None:
    units = {frame.unit for frame in frames} & set(NOT_HU)
    if units:
        raise ScanError(
            f"{name} is not in HU: its RescaleType is {', '.join(units)}; load the CT it was computed from."
        )
    without = sum(frame.rescale is None for frame in frames)
    if without and len({frame.rescale or NO_RESCALE for frame in frames}) > 1:
        raise ScanError(
            f"{name} mixes values: {without} of its {len(frames)} slices have no rescale to HU "
            "(RescaleSlope, RescaleIntercept); export it again."
        )


def _without_copies(series: Series, name: str) -> tuple[Sequence[Frame], list[str]]:
    """The frames without exact copies at the same position, and a note if there were any."""
    kept = list(series.frames[:1])
    for frame, distance, step in zip(
        series.frames[1:], series.distances_mm[1:], np.diff(series.distances_mm), strict=True
    ):
        if step >= TOLERANCE_MM:
            kept.append(frame)
        elif not np.array_equal(*read_hu([kept[-1], frame], name)):
            raise ScanError(
                f"{name} has several slices at one position (at {distance:.1f} mm): "
                "it mixes phases or reconstructions; separate them first."
            )
    copies = len(series.frames) - len(kept)
    return kept, [f"{name} holds copies of {copies} of its slices; they count once."] if copies else []


def _spacing(distances: np.ndarray, frames: Sequence[Frame], name: str) -> tuple[float, list[str]]:
    """The distance of slices in mm, and notes about it."""
    thickness_mm = np.array([frame.thickness_mm or 0.0 for frame in frames])
    steps = np.diff(distances)
    if not steps.size:
        if not thickness_mm[0]:
            return 1.0, [f"{name} is one slice of unknown thickness (SliceThickness is missing); 1 mm was assumed."]
        return float(thickness_mm[0]), []
    spacing = float(np.median(steps))
    # Some protocols take thick slices in one part of the body and thin ones in another; this is not a gap.
    filled = np.maximum(thickness_mm[1:], thickness_mm[:-1]) + TOLERANCE_MM
    gaps = np.flatnonzero((steps > LARGEST_GAP_IN_SLICES * spacing) & (steps > filled))
    if gaps.size:
        widest = gaps[steps[gaps].argmax()]
        raise ScanError(
            f"{name} lacks slices: between {distances[widest]:.1f} and {distances[widest + 1]:.1f} mm there are none, "
            f"elsewhere one every {spacing:.2f} mm; load the whole series."
        )
    extent = float(distances[-1] - distances[0])
    if is_regular(distances):
        return extent / len(steps), []
    spacing = extent / round(extent / spacing)
    note = (
        f"The slices of {name} lie {steps.min():.2f} to {steps.max():.2f} mm apart, irregular or with one missing; "
        f"they were interpolated to {spacing:.2f} mm, and the mask lies on that grid."
    )
    return spacing, [note]


def _upright(hu_kji: np.ndarray, drift_mm: np.ndarray, pixel_mm: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Move every slice in its plane by its drift; the plane is enlarged to hold all, and filled with air.

    Returns:
        The slices, and by how many mm the first pixel has moved along i and j.
    """
    from scipy import ndimage

    drift_px = drift_mm / pixel_mm
    least = np.floor(drift_px.min(axis=0))
    columns, rows = (np.ceil(drift_px.max(axis=0)) - least).astype(int)
    moved = np.full((len(hu_kji), hu_kji.shape[1] + rows, hu_kji.shape[2] + columns), AIR_HU, dtype=np.float32)
    moved[:, : hu_kji.shape[1], : hu_kji.shape[2]] = hu_kji
    for plane, (i, j) in zip(moved, drift_px - least, strict=True):
        plane[:] = ndimage.shift(plane, (j, i), order=1, cval=AIR_HU)
    return _as_int16(moved), least * pixel_mm


def _interpolated(hu_kji: np.ndarray, distances: np.ndarray, spacing: float) -> np.ndarray:
    """Interpolate linearly to equally spaced slices, from the first to the last one."""
    wanted = np.linspace(distances[0], distances[-1], round((distances[-1] - distances[0]) / spacing) + 1)
    above = np.searchsorted(distances, wanted).clip(1, len(distances) - 1)
    below = above - 1
    share = ((wanted - distances[below]) / (distances[above] - distances[below])).clip(0, 1)
    regular = np.empty((len(wanted), *hu_kji.shape[1:]), dtype=np.int16)
    for k, (lower, upper, part) in enumerate(zip(below, above, share, strict=True)):
        regular[k] = _as_int16(hu_kji[lower] * (1 - part) + hu_kji[upper] * part)
    return regular


def _as_int16(hu: np.ndarray) -> np.ndarray:
    """Round to int16; padding far above any HU becomes the largest int16, not a negative one."""
    limits = np.iinfo(np.int16)
    rounded: np.ndarray = np.rint(hu).clip(limits.min, limits.max).astype(np.int16)
    return rounded
