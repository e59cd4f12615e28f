"""What both command lines share: results on stdout, all else on stderr, exit codes 0, 1 and 2."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence

from .errors import LiverUNetError

__all__ = ["DONE", "FAILED", "run_command"]

DONE, FAILED = 0, 1  # 2, wrong usage, is argparse's own


def run_command(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Parse the arguments, run the function that the chosen command set as `run`, return the exit code.

    A LiverUNetError becomes its one sentence on stderr; Ctrl-C ends quietly. Anything else is a bug
    and keeps its traceback.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    options = parser.parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.run
    try:
        command(options)
    except LiverUNetError as error:
        print(error, file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("Cancelled.", file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # the reader of stdout, `head` say, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE
