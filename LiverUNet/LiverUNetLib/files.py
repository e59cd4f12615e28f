"""Write files whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from .errors import LiverUNetError, OutputError

__all__ = [
    "UNZIP_ERRORS",
    "check_writable",
    "exists",
    "from_json",
    "make_folder",
    "read_json",
    "staged",
    "stamp",
    "write_json",
]

# What a damaged or encrypted zip raises, or a full disk.
UNZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError)

T = TypeVar("T")


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

    The folder is tried by making a file in it: permission bits say nothing for root or a
    read-only mount.
    """
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already; name another output or allow overwriting it (--overwrite).")
    if not path.parent.is_dir():
        raise OutputError(f"The folder {path.parent} does not exist; make it first or name another output.")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file in it.")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(
            f"Nothing can be written to {path.parent} ({error.strerror}); name another output."
        ) from error


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` with the same ending; move it to `path` if the block succeeds.

    Works for a file or a folder. Whatever ends the block early (an error, Ctrl-C), the temporary
    one is removed and `path` stays as it was. A folder replaces an older one only when complete.

    Raises:
        OutputError: the disk is full or the folder cannot be written to.
    """
    mine = f"{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{mine}-unfinished-{path.name}")
    try:
        yield temporary
        try:
            temporary.replace(path)
        except OSError:
            if not (temporary.is_dir() and path.is_dir()):
                raise
            # A folder that is not empty, perhaps of another process that was faster, or a link to one.
            old = path.with_name(f".{mine}-replaced-{path.name}")
            path.rename(old)
            temporary.rename(path)
            old.unlink() if old.is_symlink() else shutil.rmtree(old)
    except OSError as error:
        raise OutputError(f"{path} could not be written ({error.strerror or error}).") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file, or one in a folder, does: how many, their bytes, the newest time of change in ns."""
    files = [part for part in path.rglob("*") if part.is_file()] if path.is_dir() else [path]
    facts = [file.stat() for file in files]
    return len(files), sum(fact.st_size for fact in facts), max((fact.st_mtime_ns for fact in facts), default=0)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, whole or not at all."""
    with staged(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, error: type[LiverUNetError]) -> Any:
    """Read JSON; what is missing or malformed is raised as `error` with the file's name."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as cause:
        raise error(f"{path} does not exist.") from cause
    except (OSError, ValueError) as cause:
        raise error(f"{path} is not readable JSON ({cause}).") from cause


def from_json(cls: type[T], content: dict[str, Any]) -> T:
    """Make a dataclass of numbers, strings, dictionaries and tuples from what JSON kept of it.

    Raises:
        TypeError: a field is unknown or missing.
    """
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in content.items()})
