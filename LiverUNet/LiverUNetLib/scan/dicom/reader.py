"""Read a CT series from DICOM: a folder, a zip, a DICOMDIR, or one file, single or multi-frame."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

from ...errors import ScanError
from ..unpacking import unpacked
from ..volume import CTVolume
from .choice import SERIES_RULES, choose_series, skipped_files
from .headers import is_dicom_file
from .series import Found, Series, files_below, find_in_files
from .stacking import read_series
from .values import unreadable

__all__ = ["SERIES_RULES", "Series", "find_series", "is_dicom", "read_dicom"]


def is_dicom(path: Path) -> bool:
    """Whether `path` is a folder, a zip, or a DICOM file, with a preamble or without."""
    return path.is_dir() or zipfile.is_zipfile(path) or is_dicom_file(path)


def read_dicom(path: Path, *, series: str | None = None, folder: str | None = None) -> CTVolume:
    """Read a CT series from a folder, a zip, a DICOMDIR or a file.

    Args:
        series: see `cli.main.SERIES_HELP`; None for the only original axial scan. A note names skipped series.
        folder: read only files in folders of that name, of any modality.

    Raises:
        ScanError: there is no CT series, the choice is not unique, or the slices do not form a volume.
    """
    if not path.exists():
        raise ScanError(f"{path} does not exist.")
    with unpacked(path) as place:
        if folder is None:
            found = _find(place)
        else:
            files = (file for file in files_below(place) if folder in file.relative_to(place).parts[:-1])
            found = find_in_files(files, modality=None)
            if len(found.series) > 1:
                titles = ", ".join(one.title for one in found.series)
                raise ScanError(f"{path} holds {len(found.series)} series in {folder}: {titles}; leave one there.")
        chosen, notes = choose_series(found, series, path)
        volume = read_series(chosen, path.name)
    notes += skipped_files(found.skipped, chosen.headline.uid, path.name)
    return replace(volume, notes=notes + volume.notes)


def find_series(path: Path) -> list[Series]:
    """All CT series below a folder, in a DICOMDIR or in a file, by number; localizers are ignored."""
    return list(_find(path).series)


def _find(path: Path) -> Found:
    if path.is_dir():
        return find_in_files(files_below(path))
    return find_in_files(_listed_files(path) or [path])


def _listed_files(path: Path) -> list[Path]:
    """The existing files that a DICOMDIR lists; none if `path` is an ordinary file.

    Raises:
        ScanError: none of the listed files exists.
    """
    import pydicom

    try:
        directory = pydicom.dcmread(
            path, force=True, stop_before_pixels=True, specific_tags=["DirectoryRecordSequence"]
        )
        records = directory.get("DirectoryRecordSequence") or []
        names = [record.get("ReferencedFileID") for record in records]
        listed = [[name] if isinstance(name, str) else list(name) for name in names if name]
    except unreadable():
        return []
    # Names on a disc are in upper case; in copies they are often in lower case.
    places = [(path.parent.joinpath(*parts), path.parent.joinpath(*map(str.lower, parts))) for parts in listed]
    files = [next(filter(Path.is_file, place), None) for place in places]
    if listed and not any(files):
        raise ScanError(f"{path} lists {len(listed)} files, and none lies beside it; copy the whole disc.")
    return list(filter(None, files))
