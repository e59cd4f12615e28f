"""Which process works in a folder: a lock on a file, which the system releases when the process ends, however it ends.

A process id alone would not do: the system gives it to other processes later, and it means nothing after a restart.
Not `filelock`: it comes with PyTorch, which watching a run does without, and its locks need write access.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from LiverUNetLib.errors import TrainingError

__all__ = ["is_locked", "locked", "locked_since"]

LOCK = "running"
# `is_locked` holds the lock for an instant; that must not turn away a training that starts then.
ATTEMPTS, PAUSE_SECONDS = 5, 0.1


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` during the block; the file `running` then holds the process id.

    Raises:
        TrainingError: another process works in it.
    """
    path = folder / LOCK
    with path.open("a+", encoding="utf-8") as file:
        for attempt in range(ATTEMPTS):
            if _lock(file):
                break
            if attempt + 1 == ATTEMPTS:
                owner = path.read_text(encoding="utf-8").strip() or "unknown"
                raise TrainingError(
                    f"Another training works in {folder} (process {owner}); stop it, or name another folder."
                )
            time.sleep(PAUSE_SECONDS)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            _unlock(file)


def locked_since(folder: Path) -> float:
    """When a process last began to work in `folder`, in seconds since 1970; 0 if none has."""
    path = folder / LOCK
    return path.stat().st_mtime if path.exists() else 0.0


def is_locked(folder: Path) -> bool:
    """Whether a process works in `folder` now."""
    try:
        # Locking needs no write access, so another user's run can be inspected.
        with (folder / LOCK).open("r+" if os.access(folder / LOCK, os.W_OK) else "r", encoding="utf-8") as file:
            free = _lock(file)
            if free:
                _unlock(file)
            return not free
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    FAR = 1 << 30  # beyond the content, which others can then still read

    def _lock(file: TextIO) -> bool:
        os.lseek(file.fileno(), FAR, os.SEEK_SET)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: TextIO) -> None:
        os.lseek(file.fileno(), FAR, os.SEEK_SET)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: TextIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _unlock(file: TextIO) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
