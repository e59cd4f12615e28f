"""Write files whole or not at all."""

from __future__ import annotations

import errno
import io
import json
import os
import platform
import re
import secrets
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..errors import LiverUNetError, OutputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "UNZIP_ERRORS",
    "check_writable",
    "exists",
    "from_json",
    "is_running",
    "make_folder",
    "read_json",
    "save_array",
    "save_tensors",
    "staged",
    "stamp",
    "this_computer",
    "write_json",
]

# What a damaged or encrypted zip raises, or a full disk.
UNZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError)

# The temporary names of `staged`.
UNFINISHED = re.compile(r"\.(?P<computer>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}-unfinished(\.\w+)*")
# No file takes a day to write, and no clock of a file server is wrong by more than some days.
ABANDONED_SECONDS = 7 * 24 * 3600

Record = TypeVar("Record", bound="DataclassInstance")


def exists(path: Path, error: type[LiverUNetError]) -> bool:
    """Whether there is something at `path`.

    Raises:
        LiverUNetError: of the type `error`; the system cannot look there: the name is too long, a folder is locked.
    """
    try:
        return path.exists()
    except OSError as cause:
        raise error(f"{path} cannot be used ({cause.strerror}); name another.") from cause


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless it is there already.

    Raises:
        OutputError: it cannot be made: a read-only or full disk, a file in its place, a name that is too long.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {path} cannot be made ({error.strerror}); name another.") from error


def check_writable(path: Path, *, overwrite: bool = False) -> None:
    """Raise OutputError unless a file `path` can be made now, so that no work is done in vain.

    Folders that are missing are made by `staged`, when there is something to write. The one that is
    there is tried by making a file in it: permission bits say nothing for root or a read-only mount.
    """
    if exists(path, OutputError) and not overwrite:
        raise OutputError(f"{path} exists already; name another output or allow overwriting it (--overwrite).")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file in it.")
    folder = next(parent for parent in path.absolute().parents if exists(parent, OutputError))
    for part in path.absolute().relative_to(folder).parts:
        exists(folder / part, OutputError)  # a name that is too long is one in any folder
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"Nothing can be written to {folder} ({error.strerror}); name another output.") from error


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` with the same ending; move it to `path` if the block succeeds.

    Works for a file or a folder. Folders above are made. Whatever ends the block early (an error,
    Ctrl-C), the temporary one is removed and `path` stays as it was; what a killed process left in
    this folder goes as well. A folder replaces an older one only when complete.

    Raises:
        OutputError: the disk is full or the folder cannot be written to.
    """
    make_folder(path.parent)
    _remove_abandoned(path.parent)
    temporary = path.with_name(_temporary_name(path))
    try:
        yield temporary
        _flush(temporary)
        try:
            temporary.replace(path)
        except OSError:
            if not (temporary.is_dir() and path.is_dir()):
                raise
            _replace_folder(temporary, path)
    except OSError as error:
        raise OutputError(f"{path} could not be written ({error.strerror or error}).") from error
    finally:
        _remove(temporary)


def _temporary_name(path: Path) -> str:
    """A name for an unfinished `path`: short, for `path` may be as long as a name can be, with its ending."""
    ending = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    return f".{this_computer()}-{os.getpid()}-{secrets.token_hex(4)}-unfinished{ending if len(ending) < 16 else ''}"


def this_computer() -> str:
    """A name for this start of this computer, or of a container on it: process numbers mean nothing elsewhere."""
    try:
        known_by = Path("/proc/sys/kernel/random/boot_id").read_text() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        known_by = platform.node()
    return f"{zlib.crc32(known_by.encode()):08x}"


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed left unfinished in a folder; what cannot be removed stays.

    The folder may be shared: of other computers only what has been left alone for long is taken.
    """
    with suppress(OSError):
        for path in folder.glob(".*-unfinished*"):
            if (name := UNFINISHED.fullmatch(path.name)) and (
                (name["computer"] == this_computer() and not is_running(int(name["process"])))
                or time.time() - path.lstat().st_mtime > ABANDONED_SECONDS
            ):
                _remove(path)


def is_running(process: int) -> bool:
    """Whether there is a process of that number; on Windows, where asking is harmful, always."""
    if os.name == "nt":  # os.kill(…, 0) would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def _flush(path: Path) -> None:
    """Bring a file, or those in a folder, to the disk: a network drive says only now that it is full."""
    for file in [part for part in path.rglob("*") if part.is_file()] if path.is_dir() else [path]:
        with file.open("rb+") as opened:
            try:
                os.fsync(opened.fileno())
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # a file system that cannot
                    raise


def _replace_folder(temporary: Path, path: Path) -> None:
    """Put a folder in the place of one that is not empty, or of a link to one; the old one becomes `temporary`."""
    old = temporary.with_name(temporary.name.replace("unfinished", "replaced"))
    path.rename(old)
    try:
        temporary.rename(path)
    except OSError:
        old.rename(path)
        raise
    old.rename(temporary)


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder if it can be; an error here would hide the one that came first."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file, or one in a folder, does: how many, their bytes, the newest time of change in ns."""
    files = [part for part in path.rglob("*") if part.is_file()] if path.is_dir() else [path]
    facts = [file.stat() for file in files]
    return len(files), sum(fact.st_size for fact in facts), max((fact.st_mtime_ns for fact in facts), default=0)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, whole or not at all."""
    with staged(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file. Python writes the bytes: numpy does not say that the last ones found no room on the disk."""
    with path.open("wb") as file:
        np.save(SimpleNamespace(write=file.write), array)


def save_tensors(path: Path, content: Any) -> None:
    """Write what `torch.load` reads. Python writes the bytes: torch's own error at a full disk is no OSError."""
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getbuffer())


def read_json(path: Path, error: type[LiverUNetError]) -> Any:
    """Read JSON; what is missing or malformed is raised as `error` with the file's name."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as cause:
        raise error(f"{path} does not exist.") from cause
    except (OSError, ValueError) as cause:
        raise error(f"{path} is not readable JSON ({cause}).") from cause


def from_json(cls: type[Record], content: dict[str, Any]) -> Record:
    """Make a dataclass of numbers, strings, dictionaries and tuples from what JSON kept of it.

    Raises:
        TypeError: a field is unknown or missing, also one that has a default: defaults change.
    """
    if missing := {field.name for field in fields(cls)} - content.keys():
        raise TypeError(f"{cls.__name__} lacks {', '.join(sorted(missing))}")
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in content.items()})
