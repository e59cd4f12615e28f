"""Choose the series that the user wants, and report which ones are skipped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

from ...errors import ScanError
from .headers import NO_PLACE, Skipped
from .series import Found, Series

__all__ = ["SERIES_RULES", "choose_series", "skipped_files"]

# Rule -> sort keys: the series with the smallest value wins, and of equals the one with the smallest second value.
# Values that differ by less than the tolerance beside a key count as equal.
RULES: dict[str, tuple[tuple[Callable[[Series], float], float], ...]] = {
    "thinnest": ((lambda one: one.spacing_mm, 0.01), (lambda one: -len(one.places_mm), 0)),
    "largest": ((lambda one: -len(one.places_mm), 0), (lambda one: -one.extent_mm, 1.0)),
}
SERIES_RULES = tuple(RULES)
# At most this many items are named in a message.
LONGEST_LIST = 12


def choose_series(found: Found, wanted: str | None, path: Path) -> tuple[Series, tuple[str, ...]]:
    """The series to read, and notes about skipped ones.

    Args:
        wanted: one of SERIES_RULES; number, description, title or UID; or a part of the description. If None, the
            only original axial scan is chosen, or the only series.

    Raises:
        ScanError: no series or several fit; the message lists what there is.
    """
    if not found.series:
        raise ScanError(_nothing(found.skipped, path))
    key = (wanted or "").strip().casefold()
    if not key:
        chosen = _one_of(_scans(found.series), "", path)
    elif key in SERIES_RULES:
        chosen = _one_of(_best(_scans(found.series), key), f" that are the {key}", path)
    else:
        fitting = _fitting(found.series, key)
        if not fitting:
            titles = _listed([one.title for one in found.series])
            raise ScanError(f"{path} holds no CT series {wanted!r}; there are {titles}.")
        if len(fitting) == 1 and _is_named(fitting[0], key):
            return fitting[0], ()
        chosen = _one_of(_scans(fitting), f" {wanted!r}", path)
    others = [one for one in found.series if one is not chosen]
    return chosen, (_skipped_series(chosen, others, path.name),) if others else ()


def skipped_files(skipped: Sequence[Skipped], uid: str, name: str) -> tuple[str, ...]:
    """A note naming skipped files that may belong to a series; empty if there are none."""
    missing = [one for one in skipped if one.uid in ("", uid)]
    if not missing:
        return ()
    files = "1 file was" if len(missing) == 1 else f"{len(missing)} files were"
    return (f"{files} skipped that may belong to {name}: {_by_reason(missing)}.",)


def _scans(series: Sequence[Series]) -> Sequence[Series]:
    """The original axial series; if there are none, the derived axial ones; if there are none, all."""
    scans = [one for one in series if one.is_scan]
    return [one for one in scans if not one.is_derived] or scans or series


def _best(series: Sequence[Series], rule: str) -> Sequence[Series]:
    """The best series by the first measure of the rule and, among equals, by the second one; all that are equal."""
    for measure, tolerance in RULES[rule]:
        best = min(map(measure, series))
        series = [one for one in series if measure(one) <= best + tolerance]
    return series


def _fitting(series: Sequence[Series], key: str) -> Sequence[Series]:
    """The series with this name; if there is none, those with it in their description, unless it is a number."""
    named = [one for one in series if _is_named(one, key)]
    if named or key.isdecimal():
        return named
    return [one for one in series if key in f"{one.headline.description}, {one.part}".casefold()]


def _is_named(one: Series, key: str) -> bool:
    headline = one.headline
    names = (headline.number, headline.description, headline.uid, one.title, one.details, one.part)
    return key in map(str.casefold, names)


def _one_of(candidates: Sequence[Series], which: str, path: Path) -> Series:
    if len(candidates) == 1:
        return candidates[0]
    raise ScanError(
        f"{path} holds {len(candidates)} CT series{which}: {_listed([one.details for one in candidates], '; ')}."
        f"{_why_apart(candidates)} Choose one by number, by a part of its description, as written here, "
        f"or by a rule (--series; rules are {' and '.join(SERIES_RULES)})."
    )


def _skipped_series(chosen: Series, others: Sequence[Series], name: str) -> str:
    return (
        f"{name} holds {len(others) + 1} CT series; {chosen.title} was read, "
        f"skipped: {_listed([one.title for one in others])}.{_why_apart([chosen, *others])}"
    )


def _why_apart(series: Sequence[Series]) -> str:
    if any(one.headline.uid == other.headline.uid and not one.is_like(other) for one, other in combinations(series, 2)):
        return " Slices under one series UID that differ in orientation, pixel size or matrix are separate series."
    return ""


def _nothing(skipped: Sequence[Skipped], path: Path) -> str:
    if not skipped:
        return f"{path} holds no CT series in DICOM."
    if any(one.reason != NO_PLACE for one in skipped):
        return f"{path} holds no CT series in DICOM that can be read: {_by_reason(skipped)}; export it again."
    images = "1 CT image" if len(skipped) == 1 else f"{len(skipped)} CT images"
    return (
        f"{path} holds {images} without a position in the patient (ImagePositionPatient, ImageOrientationPatient, "
        "PixelSpacing) and no others; export the original images again."
    )


def _by_reason(skipped: Sequence[Skipped]) -> str:
    files: dict[str, list[str]] = defaultdict(list)
    for one in skipped:
        files[one.reason].append(one.file.name)
    return _listed([f"{_listed(names, longest=3)} ({reason})" for reason, names in files.items()])


def _listed(items: Sequence[str], separator: str = ", ", *, longest: int = LONGEST_LIST) -> str:
    more = len(items) - longest
    return separator.join([*items[:longest], f"and {more} more"] if more > 0 else items)
