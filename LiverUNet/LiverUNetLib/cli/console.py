"""Shared by both command lines: results on stdout, everything else on stderr; signals and exit codes."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from ..errors import LiverUNetError
from ..system.environment import wait_without_spinning
from ..version import __version__

__all__ = ["DONE", "FAILED", "Terminated", "run_command"]

DONE, FAILED = 0, 1  # 2, wrong usage, is argparse's own; 128 + N: ended by signal N
# Faults of the computer, not bugs: disks that are full or read-only, missing permissions, impossible names.
MACHINE_ERRORS = tuple(
    getattr(errno, name)
    for name in ("EACCES", "EDQUOT", "EIO", "ENAMETOOLONG", "ENOSPC", "EPERM", "EROFS")
    if hasattr(errno, name)
)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: handled as Ctrl-C, so that unfinished files and unpacked zips are removed."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


def run_command(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, *, check: Callable[[], None] | None = None
) -> int:
    """Parse the arguments, call the function that the command stored as `run`, and return the exit code.

    A LiverUNetError and a full or read-only disk become one sentence on stderr; Ctrl-C, SIGTERM and
    SIGHUP end quietly. Any other error is a bug and keeps its traceback.

    Args:
        arguments: None for those of the process; then encodings, signals and OpenMP are set as well.
        check: raises LiverUNetError if no command can run; not called for help and version.
    """
    _open_streams()
    if arguments is None:
        _set_process_up()
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    options = parser.parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.run
    try:
        if check:
            check()
        command(options)
        sys.stdout.flush()
    except LiverUNetError as error:
        print(error, file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as interrupt:
        print(interrupt.args[0] if interrupt.args else "Cancelled.", file=sys.stderr)
        return getattr(interrupt, "exit_code", FAILED)
    except BrokenPipeError:  # the reader of stdout has ended, for example `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in MACHINE_ERRORS:
            raise
        print(f"{error.filename or 'The output'} cannot be used ({error.strerror}); name another.", file=sys.stderr)
        return FAILED
    return DONE


def _open_streams() -> None:
    """Replace closed standard streams by the null device.

    Otherwise `print(…, file=None)` would write to stdout, and the next file to be opened would get the number of
    the closed stream, and with it the output that libraries print there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - stays open


def _set_process_up() -> None:
    """Make the settings of the whole process; must run before torch is imported."""
    wait_without_spinning(os.environ)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            # A name that the terminal cannot show must not stop a run.
            stream.reconfigure(errors="backslashreplace")
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, _terminate)


def _terminate(number: int, _frame: FrameType | None) -> None:
    """Raise Terminated; a second signal of this kind ends the process at once."""
    signal.signal(number, signal.SIG_DFL)
    raise Terminated(number)
