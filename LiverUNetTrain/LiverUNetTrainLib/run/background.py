"""A training in a separate process, which outlives this one; both communicate through the run folder alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from LiverUNetLib.errors import TrainingError
from LiverUNetLib.system.files import make_folder

from .folder import COARSE_FOLDER, COARSE_TITLE, EpochLog, RunFolder
from .lock import is_locked, locked_since
from .settings import TrainingSettings

__all__ = ["RunState", "launch", "resume", "state_of"]

OUTPUT, ERRORS = "output.txt", "errors.txt"
RESUME = "--resume"
# Flags of Windows, which `subprocess` defines only there.
DETACHED_PROCESS, CREATE_NEW_PROCESS_GROUP = 0x00000008, 0x00000200
NO_MESSAGE = "it ended without a message: it was killed, or the machine was switched off"
# Importing takes seconds, many of them on a slow disk; a process that is silent for longer is reported as dead.
LONGEST_START_SECONDS = 30
# A warning of Python: its place and kind, and the line of code, indented below. A warning ends no training.
WARNING = re.compile(r"^\S.*:\d+: \w*Warning: .*\n?(?:[ \t]+.*\n?)?", re.MULTILINE)


@dataclass(frozen=True)
class RunState:
    """The state of a run, read from its folder.

    Attributes:
        phase: "none" (nothing was begun here), "starting", "running", "stopped" (it can be resumed), "finished"
            or "died".
        epochs: how many were asked for; 0 if that is not known yet.
        message: why it ended, or the last sentence of one that died.
        stage: how far the coarse look is trained; empty once the fine look is trained.
    """

    phase: str
    history: tuple[EpochLog, ...] = ()
    epochs: int = 0
    message: str = ""
    stage: str = ""


def launch(arguments: Sequence[str], run: Path, *, python: str = sys.executable) -> subprocess.Popen[bytes]:
    """Start `liver-unet-train` with these arguments in a detached process; its output goes to files in the run folder.

    Args:
        python: the interpreter; inside Slicer that is PythonSlicer.

    Raises:
        TrainingError: a training works in this folder already, or the process cannot be started.
    """
    if is_locked(run):
        raise TrainingError(f"A training works in {run} already; stop it, or name another folder.")
    make_folder(run)
    folder = RunFolder(run)
    folder.forget_end()
    command = [python, "-m", "LiverUNetTrainLib", *map(str, arguments)]
    windows = os.name == "nt"
    try:
        with (run / OUTPUT).open("a") as output, (run / ERRORS).open("w") as errors:
            process = subprocess.Popen(  # noqa: S603 - our own module
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=_environment(),
                creationflags=DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP if windows else 0,
                start_new_session=not windows,
            )
    except OSError as error:
        raise TrainingError(f"The training could not be started with {python} ({error.strerror}).") from error
    folder.write_arguments([str(argument) for argument in arguments if argument != RESUME])
    return process


def resume(run: Path, *, python: str = sys.executable) -> subprocess.Popen[bytes]:
    """Resume a training with the arguments of its launch, see `launch`.

    Raises:
        TrainingError: also if it was not launched by `launch`.
    """
    return launch([*RunFolder(run).arguments(), RESUME], run, python=python)


def state_of(run: Path, process: subprocess.Popen[bytes] | None = None) -> RunState:
    """The state of a run, however it was started.

    Args:
        process: what `launch` returned, if this process started the run; it is reaped.

    Raises:
        TrainingError: the folder is gone, or its files are damaged.
    """
    if not run.is_dir():
        raise TrainingError(f"The run folder {run} is gone, so the run cannot be resumed.")
    folder = RunFolder(run)
    settings = folder.settings().training if folder.exists() else None
    history = tuple(folder.history())
    state = RunState("running", history)
    if settings:
        state = replace(state, epochs=settings.epochs, stage="" if history else _stage(run, settings))
    if is_locked(run):
        return state
    if settings is None and not (run / ERRORS).exists():
        return RunState("none")
    if process.poll() is None if process else _begins(run):
        return replace(state, phase="starting")
    end = folder.end()
    if end:
        return replace(state, phase="stopped" if end.interrupted else "finished", message=end.message)
    return replace(state, phase="died", message=_last_error_line(run) or NO_MESSAGE)


def _stage(run: Path, settings: TrainingSettings) -> str:
    """How far the coarse look is trained; empty before, after and without it."""
    coarse = RunFolder(run / COARSE_FOLDER)
    if not coarse.has_weights("last"):
        return ""
    done, epochs = len(coarse.history()), settings.coarse.epochs
    return "" if done == epochs else f"{COARSE_TITLE}: epoch {done + 1} of {epochs}"


def _begins(run: Path) -> bool:
    """Whether a process was launched a moment ago and has not locked its folder yet."""
    launched = RunFolder(run).launched_at()
    return locked_since(run) < launched and time.time() - launched < LONGEST_START_SECONDS


def _last_error_line(run: Path) -> str:
    """The last line that the process wrote to stderr, apart from warnings; empty if there is none."""
    try:
        text = (run / ERRORS).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        text = ""
    lines = [line.strip() for line in WARNING.sub("", text).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _environment() -> Mapping[str, str]:
    """The environment of this process, with the libraries on Python's path and unbuffered output."""
    from LiverUNetLib import errors

    # Two folders in the source tree, one where both are installed.
    folders = [str(Path(errors.__file__).parents[1]), str(Path(__file__).parents[2])]
    before = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([*dict.fromkeys(folders), *([before] if before else [])])
    return os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
