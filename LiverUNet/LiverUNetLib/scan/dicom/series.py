"""Sort the slices of many DICOM files into series, each of which can become one volume.

Slices belong together if they share series UID, matrix, orientation and pixel size. Since headers are
rounded, orientation and pixel size may differ by half a pixel at the far corner of the image. Copies
count once. Two scans under one UID, such as phases or reconstructions, are separated by MARKS.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from .headers import MARKS, Frame, Headline, Skipped, read_frames

__all__ = ["TOLERANCE_MM", "Found", "Series", "files_below", "find_in_files", "is_regular"]

# Smaller differences of positions come from rounding in the headers.
TOLERANCE_MM = 0.1
LARGEST_SHIFT_OF_A_CORNER_PX = 0.5
# A gantry is tilted by up to 30 degrees (cosine 0.87); reformats are coronal or sagittal.
SMALLEST_COSINE_OF_AXIAL = 0.8
# Fewer slices are a scout, bolus tracking or a biopsy.
SMALLEST_SCAN = (5, 30.0)  # slices, mm
# The first marks, acquisition and time point, separate scans wherever their slices lie.
ALWAYS_APART = 2
# Two scans whose slices interleave share at least this part of their range.
SMALLEST_SHARED_RANGE = 0.5


@dataclass(frozen=True, eq=False)
class Series:
    """The frames of a series that can become one volume.

    Attributes:
        part: distinguishes it from another scan under the same UID; mostly empty.
        frames: sorted by their position along the normal.
    """

    part: str
    frames: tuple[Frame, ...]

    @property
    def headline(self) -> Headline:
        """Its name and technique."""
        return self.frames[0].headline

    @property
    def title(self) -> str:
        """Its number, description and number of slices, as shown to users."""
        words = [self.headline.description or "no description", self.part, _counted(len(self.frames), "slice")]
        return f"{self.headline.number or 'unnumbered'} ({', '.join(filter(None, words))})"

    @property
    def details(self) -> str:
        """Its title, with further facts that help to choose it."""
        size_mm = [*self.pixel_mm, *([self.spacing_mm] if len(self.places_mm) > 1 else [])]
        facts = [
            f"of {' x '.join(f'{mm:.2f}' for mm in size_mm)} mm",
            "" if self.is_axial else "not axial",
            f"contrast {self.headline.contrast}" if self.headline.contrast else "",
            f"kernel {self.headline.kernel}" if self.headline.kernel else "",
            "derived" if self.is_derived else "",
        ]
        return f"{self.title} {', '.join(filter(None, facts))}"

    def is_like(self, other: Series) -> bool:
        """Whether both have the same matrix, orientation and pixel size."""
        return _are_alike(self.frames[0], other.frames[0])

    @cached_property
    def axes(self) -> np.ndarray:
        """LPS directions in which columns (i) and rows (j) increase, shape (2, 3), perpendicular."""
        # The median of all slices, each of which may be rounded.
        along_i, along_j = np.median([frame.axes for frame in self.frames], axis=0)
        along_i /= np.linalg.norm(along_i)
        along_j -= (along_i @ along_j) * along_i
        return np.stack([along_i, along_j / np.linalg.norm(along_j)])

    @cached_property
    def pixel_mm(self) -> tuple[float, float]:
        """Pixel size along i and j, the median of all slices."""
        column_mm, row_mm = np.median([frame.pixel_mm for frame in self.frames], axis=0)
        return float(column_mm), float(row_mm)

    @cached_property
    def distances_mm(self) -> np.ndarray:
        """Position of each frame along the normal."""
        return _distances(self.frames, np.cross(*self.axes))

    @cached_property
    def places_mm(self) -> np.ndarray:
        """As `distances_mm`, where positions that coincide count once."""
        distances = self.distances_mm
        return distances[np.diff(distances, prepend=-np.inf) >= TOLERANCE_MM]

    @property
    def spacing_mm(self) -> float:
        """The median distance of neighboring slices; infinite for a single slice."""
        return float(np.median(np.diff(self.places_mm))) if len(self.places_mm) > 1 else np.inf

    @property
    def extent_mm(self) -> float:
        """From the first to the last slice."""
        return float(self.places_mm[-1] - self.places_mm[0])

    @property
    def is_axial(self) -> bool:
        """Whether the slices are axial, also with a tilted gantry."""
        return bool(abs(np.cross(*self.axes)[2]) >= SMALLEST_COSINE_OF_AXIAL)

    @property
    def is_derived(self) -> bool:
        """Whether it was computed from other images."""
        return all(frame.derived for frame in self.frames)

    @property
    def is_scan(self) -> bool:
        """Whether it is axial and large enough to be a scan."""
        slices, extent_mm = SMALLEST_SCAN
        return self.is_axial and len(self.places_mm) >= slices and self.extent_mm >= extent_mm


@dataclass(frozen=True)
class Found:
    """The series in a set of files, sorted by number, and the files that cannot be used."""

    series: tuple[Series, ...]
    skipped: tuple[Skipped, ...]


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder in a fixed order; links are followed, but no folder is visited twice."""
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        place = Path(root).resolve()
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        folders.sort()
        yield from (Path(root, name) for name in sorted(names))


def find_in_files(files: Iterable[Path], modality: str | None = "CT") -> Found:
    """The series of a modality, None for any; localizers are ignored."""
    of_uid: dict[str, dict[tuple[object, ...], Frame]] = defaultdict(dict)
    skipped = []
    for file in files:
        frames = read_frames(file, modality)
        if isinstance(frames, Skipped):
            skipped.append(frames)
            continue
        for frame in frames:
            # Some converters give all slices the same instance UID: only a slice at the same position is a copy.
            same = (frame.instance or file, frame.index, *np.rint(frame.position / TOLERANCE_MM))
            of_uid[frame.headline.uid].setdefault(same, frame)
    series = [
        Series(part, tuple(frames))
        for copies in of_uid.values()
        for alike in _alike(copies.values())
        for part, frames in _scans(alike)
    ]
    series.sort(key=lambda one: (len(one.headline.number), one.headline.number, one.headline.uid))
    return Found(tuple(_with_titles_of_their_own(series)), tuple(skipped))


def is_regular(distances_mm: np.ndarray) -> bool:
    """Whether the slices are equally spaced, up to rounding in the headers, which does not add up."""
    first, last = distances_mm[[0, -1]]
    return bool(np.allclose(distances_mm, np.linspace(first, last, len(distances_mm)), 0, TOLERANCE_MM))


def _alike(frames: Iterable[Frame]) -> list[list[Frame]]:
    """The frames in groups of one matrix, orientation and pixel size."""
    groups: list[list[Frame]] = []
    for frame in frames:
        group = next((group for group in groups if _are_alike(group[0], frame)), None)
        if group is None:
            groups.append([frame])
        else:
            group.append(frame)
    return groups


def _are_alike(one: Frame, other: Frame) -> bool:
    """Whether the corners of two slices coincide when their first pixels do."""
    if one.shape != other.shape:
        return False
    steps_mm = [frame.axes * np.reshape(frame.pixel_mm, (2, 1)) for frame in (one, other)]
    rows, columns = one.shape
    along_i, along_j = (steps_mm[0] - steps_mm[1]) * np.reshape([columns - 1, rows - 1], (2, 1))
    shift_mm = max(np.linalg.norm(corner) for corner in (along_i, along_j, along_i + along_j))
    return bool(shift_mm <= LARGEST_SHIFT_OF_A_CORNER_PX * min(one.pixel_mm))


def _scans(frames: Sequence[Frame]) -> list[tuple[str, list[Frame]]]:
    """Divide frames, sorted by position, into scans; each comes with a text that distinguishes it from the others."""
    normal = np.cross(*frames[0].axes)
    frames = sorted(frames, key=lambda frame: float(frame.position @ normal))
    if len(frames) < 2:
        return [("", frames)]
    distances = _distances(frames, normal)
    if np.diff(distances).min() >= TOLERANCE_MM:
        return _interleaved(frames, normal) or [("", frames)]
    ways = []
    for number, mark in enumerate(MARKS):
        ways.append(_by_value(frames, number))
        if mark.ordered:
            ways.append(_by_rank(frames, distances, number))
    ways.append(_by_value(frames, *_that_differ(frames)))
    good = [
        parts
        for parts in ways
        if 2 <= len(parts) <= len(frames) / 2
        and all(np.diff(_distances(part, normal), prepend=-np.inf).min() >= TOLERANCE_MM for _, part in parts)
    ]
    return min(good, key=len, default=[("", frames)])


def _interleaved(frames: Sequence[Frame], normal: np.ndarray) -> list[tuple[str, list[Frame]]]:
    """Two scans of the same part of the patient whose slices interleave; empty if there are none.

    Different acquisitions are always separated; other marks separate scans only if the slices together
    are irregularly spaced.
    """
    regular = is_regular(_distances(frames, normal))
    for number in range(ALWAYS_APART if regular else len(MARKS)):
        parts = _by_value(frames, number)
        ranges = [_distances(part, normal) for _, part in parts]
        if len(parts) < 2 or min(map(len, ranges)) < SMALLEST_SCAN[0] or not all(map(is_regular, ranges)):
            continue
        shared = min(places[-1] for places in ranges) - max(places[0] for places in ranges)
        if shared >= SMALLEST_SHARED_RANGE * min(np.ptp(places) for places in ranges):
            return parts
    return []


def _by_value(frames: Sequence[Frame], *numbers: int) -> list[tuple[str, list[Frame]]]:
    """Divide the frames by their values of these marks."""
    parts = defaultdict(list)
    for frame in frames:
        values = (f"{MARKS[n].label} {frame.marks[n] or 'not given'}" for n in numbers)
        parts[", ".join(values)].append(frame)
    return sorted(parts.items())


def _that_differ(frames: Sequence[Frame]) -> list[int]:
    """The marks that differ, without those that differ from slice to slice, such as times."""
    return [
        number
        for number, mark in enumerate(MARKS)
        if (number < ALWAYS_APART or not mark.ordered) and len({frame.marks[number] for frame in frames}) > 1
    ]


def _by_rank(frames: Sequence[Frame], distances: np.ndarray, number: int) -> list[tuple[str, list[Frame]]]:
    """Divide the frames by their rank at each position, if all frames of a rank were acquired before the next rank."""
    numbers = [re.search(r"\d+(\.\d*)?", frame.marks[number]) for frame in frames]
    values = [float(found[0]) for found in numbers if found]
    if len(values) < len(frames):
        return []
    place = np.cumsum(np.diff(distances, prepend=-np.inf) >= TOLERANCE_MM)
    ranks: dict[int, list[int]] = defaultdict(list)
    taken: Counter[int] = Counter()
    for n in sorted(range(len(frames)), key=values.__getitem__):
        ranks[taken[place[n]]].append(n)
        taken[place[n]] += 1
    ends = [(values[part[0]], values[part[-1]]) for part in ranks.values()]
    if any(last >= first for (_, last), (first, _) in pairwise(ends)):
        return []
    return [
        (
            f"{MARKS[number].label} {frames[part[0]].marks[number]} to {frames[part[-1]].marks[number]}",
            [frames[n] for n in sorted(part)],
        )
        for part in ranks.values()
    ]


def _distances(frames: Sequence[Frame], normal: np.ndarray) -> np.ndarray:
    return np.array([frame.position @ normal for frame in frames])


def _with_titles_of_their_own(series: Sequence[Series]) -> Iterator[Series]:
    same = Counter(one.title for one in series)
    seen: Counter[str] = Counter()
    for one in series:
        if same[one.title] == 1:
            yield one
        else:
            seen[one.title] += 1
            count = f"{seen[one.title]} of {same[one.title]}"
            yield replace(one, part=", ".join(filter(None, [one.part, count])))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
