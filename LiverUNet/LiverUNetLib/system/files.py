"""Write files completely or not at all."""

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

# Raised for a damaged or encrypted zip, or a full disk.
UNZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError)

# The temporary names of `staged`.
UNFINISHED = re.compile(r"\.(?P<computer>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}-unfinished(\.\w+)*")
# No file takes a day to write, and no file server's clock is wrong by more than a few days.
ABANDONED_SECONDS = 7 * 24 * 3600

Record = TypeVar("Record", bound="DataclassInstance")


def exists(path: Path, error: type[LiverUNetError]) -> bool:
    """Whether a file or folder `path` exists.

    Raises:
        LiverUNetError: of the type `error`; the path cannot be checked: its name is too long, or a folder is locked.
    """
    try:
        return path.exists()
    except OSError as cause:
        raise error(f"{path} cannot be used ({cause.strerror}); name another.") from cause


def make_folder(path: Path) -> None:
    """Make a folder and its parents, unless it exists.

    Raises:
        OutputError: it cannot be made: the disk is read-only or full, a file has its name, or its name is too long.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {path} cannot be made ({error.strerror}); name another.") from error


def check_writable(path: Path, *, overwrite: bool = False) -> None:
    """Raise OutputError unless a file `path` can be made now, so that no work is done in vain.

    A temporary file is made in the nearest existing folder, since permission bits prove nothing for root or
    a read-only mount. Missing folders are made later, by `staged`.
    """
    if exists(path, OutputError) and not overwrite:
        raise OutputError(f"{path} exists already; name another output or allow overwriting it (--overwrite).")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file in it.")
    folder = next(parent for parent in path.absolute().parents if exists(parent, OutputError))
    for part in path.absolute().relative_to(folder).parts:
        exists(folder / part, OutputError)  # raises for a name that is too long
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"Nothing can be written to {folder} ({error.strerror}); name another output.") from error


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` with the same ending; move it to `path` if the block succeeds.

    Works for a file or a folder; parent folders are made. If the block fails or is interrupted, the temporary
    path is removed and `path` stays as it was. Unfinished files of killed processes in the same folder are
    removed as well. An older folder is replaced only by a complete one.

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
    """A short name for an unfinished `path`, whose own name may have the maximum length; the ending is kept."""
    ending = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    return f".{this_computer()}-{os.getpid()}-{secrets.token_hex(4)}-unfinished{ending if len(ending) < 16 else ''}"


def this_computer() -> str:
    """Identify this computer or container since its last start, for which process numbers are unique."""
    try:
        known_by = Path("/proc/sys/kernel/random/boot_id").read_text() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        known_by = platform.node()
    return f"{zlib.crc32(known_by.encode()):08x}"


def _remove_abandoned(folder: Path) -> None:
    """Remove unfinished files that killed processes left in a folder, as far as possible.

    The folder may be shared: files of other computers are removed only if they have not changed for long.
    """
    with suppress(OSError):
        for path in folder.glob(".*-unfinished*"):
            if (name := UNFINISHED.fullmatch(path.name)) and (
                (name["computer"] == this_computer() and not is_running(int(name["process"])))
                or time.time() - path.lstat().st_mtime > ABANDONED_SECONDS
            ):
                _remove(path)


def is_running(process: int) -> bool:
    """Whether a process of that number exists; always true on Windows, where the test would end it."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def _flush(path: Path) -> None:
    """Flush a file, or the files in a folder, to the disk: a network drive reports only now that it is full."""
    for file in [part for part in path.rglob("*") if part.is_file()] if path.is_dir() else [path]:
        with file.open("rb+") as opened:
            try:
                os.fsync(opened.fileno())
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # the file system cannot flush
                    raise


def _replace_folder(temporary: Path, path: Path) -> None:
    """Replace a folder that is not empty, or a link to one; the old one becomes `temporary`."""
    old = temporary.with_name(temporary.name.replace("unfinished", "replaced"))
    path.rename(old)
    try:
        temporary.rename(path)
    except OSError:
        old.rename(path)
        raise
    old.rename(temporary)


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder if possible; an error here would hide an earlier one."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def stamp(path: Path) -> tuple[int, int, int]:
    """Number, bytes and latest change in ns of a file or of all files in a folder: different if one has changed."""
    files = [part for part in path.rglob("*") if part.is_file()] if path.is_dir() else [path]
    facts = [file.stat() for file in files]
    return len(files), sum(fact.st_size for fact in facts), max((fact.st_mtime_ns for fact in facts), default=0)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, completely or not at all."""
    with staged(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file. Python writes the bytes, since numpy does not report that the disk is full."""
    with path.open("wb") as file:
        np.save(SimpleNamespace(write=file.write), array)


def save_tensors(path: Path, content: Any) -> None:
    """Write a file for `torch.load`. Python writes the bytes, since torch raises no OSError on a full disk."""
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getbuffer())


def read_json(path: Path, error: type[LiverUNetError]) -> Any:
    """Read JSON; raise `error` with the file's name if it is missing or malformed."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as cause:
        raise error(f"{path} does not exist.") from cause
    except (OSError, ValueError) as cause:
        raise error(f"{path} is not readable JSON ({cause}).") from cause


def from_json(cls: type[Record], content: dict[str, Any]) -> Record:
    """Make a dataclass of numbers, strings, dictionaries and tuples from its JSON object.

    Raises:
        TypeError: a field is unknown or missing. A default does not replace it, since defaults may change.
    """
    if missing := {field.name for field in fields(cls)} - content.keys():
        raise TypeError(f"{cls.__name__} lacks {', '.join(sorted(missing))}")
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in content.items()})
