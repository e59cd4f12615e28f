"""Unpack a zip temporarily, and remove everything afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ScanError
from ..system.files import UNZIP_ERRORS, is_running, this_computer

__all__ = ["temporary_folder", "unpacked"]

LARGEST_UNPACKED_BYTES = 20 * 2**30


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yield the path itself or, for a zip, a temporary folder with its content.

    Raises:
        ScanError: the zip is damaged or too large.
    """
    if path.is_dir() or not zipfile.is_zipfile(path):
        yield path
        return
    with temporary_folder() as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > LARGEST_UNPACKED_BYTES:
                    raise ScanError(
                        f"{path} unpacks to more than {LARGEST_UNPACKED_BYTES / 2**30:.0f} GiB; unpack it by hand."
                    )
                archive.extractall(folder)  # writes nothing outside the folder and makes no links
        except UNZIP_ERRORS as error:
            raise ScanError(f"{path} cannot be unpacked ({error}).") from error
        yield folder


@contextmanager
def temporary_folder(near: Path | None = None) -> Iterator[Path]:
    """Yield a new folder that is removed when the block ends; after a kill, the next call removes it.

    Args:
        near: the folder to make it in; None for the system's folder of temporary files.

    Raises:
        ScanError: nothing can be written there.
    """
    place = near or Path(tempfile.gettempdir())
    prefix = f"liver-unet-{this_computer()}-"
    try:
        _remove_leftovers(place, prefix)
        temporary = tempfile.TemporaryDirectory(dir=near, prefix=f"{prefix}{os.getpid()}-")
    except OSError as error:
        remedy = "name another folder" if near else "set TMPDIR to a folder that can be written to"
        raise ScanError(f"No temporary folder can be made in {place} ({error.strerror}); {remedy}.") from error
    with temporary as folder:
        yield Path(folder)


def _remove_leftovers(place: Path, prefix: str) -> None:
    """Remove the folders of killed processes of this computer: they hold images of patients."""
    for folder in place.glob(f"{prefix}*"):
        process = folder.name[len(prefix) :].split("-")[0]
        if process.isdigit() and not is_running(int(process)):
            shutil.rmtree(folder, ignore_errors=True)
