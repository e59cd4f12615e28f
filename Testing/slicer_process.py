"""Run the tests in `in_slicer` with pytest inside a real 3D Slicer, which is started once for all of them.

The environment variable SLICER names the program. Outside, pytest only reads the names of the test
functions; inside, `in_slicer/run_pytest.py` runs them and writes each event to a file, line by line.
If Slicer crashes or hangs, the running test fails, and Slicer is started again for the others.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from helpers import REPOSITORY

HOW_TO = (
    "needs a real 3D Slicer: set SLICER to its program, and install there what Testing/in_slicer needs "
    "(PythonSlicer -m pip install torch monai onnx onnxruntime nibabel matplotlib tqdm pytest)"
)
TREE = (REPOSITORY / "LiverUNet", REPOSITORY / "LiverUNetTrain")
RUNNER = Path(__file__).parent / "in_slicer" / "run_pytest.py"
# By default Slicer runs at the lowest priority, and hardly runs at all beside other work.
ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1", "SLICER_BACKGROUND_THREAD_PRIORITY": "0"}
# The time limit for one test, and for Slicer to start and import all test files.
LIMIT_SECONDS = 300.0
POLL_SECONDS = 0.02
LOG_LINES = 60

running = pytest.StashKey["SlicerRun"]()


class SlicerFile(pytest.Module):
    """A test file that cannot be imported here."""

    def collect(self) -> Iterator[SlicerTest]:
        for part in ast.parse(self.path.read_text(encoding="utf-8")).body:
            if isinstance(part, ast.FunctionDef) and part.name.startswith("test_"):
                yield SlicerTest.from_parent(self, name=part.name)


class SlicerTest(pytest.Item):
    """A test function, with all its parameters."""

    def runtest(self) -> None:
        if not os.environ.get("SLICER"):
            pytest.skip(HOW_TO)
        if running not in self.config.stash:
            wanted = [item.nodeid for item in self.session.items if isinstance(item, SlicerTest)]
            self.config.stash[running] = SlicerRun(os.environ["SLICER"], wanted)
            self.config.add_cleanup(self.config.stash[running].stop)
        reports = self.config.stash[running].reports(self.nodeid)
        print("".join(report["printed"] for report in reports))
        failures = [f"{report['test']}\n{report['text']}" for report in reports if report["outcome"] == "failed"]
        if failures:
            raise SlicerTestError("\n".join(failures))
        skipped = [report["text"] for report in reports if report["outcome"] == "skipped"]
        if skipped:
            pytest.skip(skipped[0])

    def repr_failure(self, excinfo: pytest.ExceptionInfo) -> Any:
        return str(excinfo.value) if excinfo.errisinstance(SlicerTestError) else super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


def slicer_command(
    program: str, script: Path, *, options: Sequence[str] = (), modules: Sequence[Path] = TREE
) -> list[str]:
    """Start Slicer without the user's settings, with modules from these folders, to run a script."""
    alone = ["--no-splash", "--disable-settings", "--ignore-slicerrc"]
    paths = ["--additional-module-paths", *map(str, modules)]
    return [program, *alone, *options, *paths, "--python-script", str(script)]


class SlicerTestError(Exception):
    """A failure inside Slicer, or of Slicer itself."""


class SlicerRun:
    """Slicer running a list of tests in order.

    Args:
        program: the path of Slicer.
        tests: ids of test functions, without parameters.
        root: the folder to which the ids are relative.
        limit_seconds: the longest time without an event.
    """

    def __init__(
        self, program: str, tests: Sequence[str], *, root: Path = REPOSITORY, limit_seconds: float = LIMIT_SECONDS
    ) -> None:
        self._program, self._tests, self._root, self._limit_seconds = program, list(tests), root, limit_seconds
        self._process: subprocess.Popen | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="tests-in-slicer-")
        self._fault = ""

    def reports(self, test: str) -> list[dict[str, Any]]:
        """Wait for a test; returns the reports of setup, call and teardown for each of its parameters.

        Raises:
            SlicerTestError: Slicer crashed or hung, or does not find the test.
        """
        if self._fault:
            raise SlicerTestError(self._fault)
        if self._process is None:
            self._start(self._tests[self._tests.index(test) :])
        while self._parts is None or self._parts[test] - self._reports.keys():
            self._read(test)
        if not self._parts[test]:
            raise SlicerTestError("\n".join([f"{test} was not found inside Slicer.", *self._faults]))
        return [report for part in sorted(self._parts[test]) for report in self._reports[part]]

    def stop(self) -> None:
        """End Slicer if it is still running."""
        self._end()
        self._folder.cleanup()

    def _start(self, tests: Sequence[str]) -> None:
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        (folder / "tests.txt").write_text("\n".join(tests), encoding="utf-8")
        self._log = folder / "slicer.log"
        self._parts: dict[str, set[str]] | None = None
        self._reports: dict[str, list[dict[str, Any]]] = {}
        self._begun, self._faults = [], []
        (folder / "events.jsonl").touch()
        self._events = (folder / "events.jsonl").open(encoding="utf-8")
        about = {"IN_SLICER_FOLDER": str(folder), "IN_SLICER_LIMIT_SECONDS": str(self._limit_seconds)}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                slicer_command(self._program, RUNNER),
                cwd=self._root,
                env=os.environ | ENVIRONMENT | about,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _read(self, test: str) -> None:
        """Process the next event while waiting for a test."""
        event = self._next(test)
        if event["kind"] == "collected":
            self._parts = {test: set() for test in self._tests}
            for part in event["tests"]:
                self._parts[part.split("[")[0]].add(part)
        elif event["kind"] == "fault":
            self._faults.append(event["text"])
        elif event["kind"] == "report":
            self._begun.append(event)
        elif event["kind"] == "finished":
            self._reports[event["test"]], self._begun = self._begun, []

    def _next(self, test: str) -> dict[str, Any]:
        end = time.monotonic() + self._limit_seconds
        while True:
            ended = self._process.poll() is not None  # checked first, so that its last events are in the file
            place = self._events.tell()
            line = self._events.readline()
            if line.endswith("\n"):
                return json.loads(line)
            self._events.seek(place)
            if ended:
                raise self._lost(f"Slicer ended with code {self._process.returncode}", test)
            if time.monotonic() > end:
                raise self._lost(f"Slicer was silent for {self._limit_seconds:g} s and was killed", test)
            time.sleep(POLL_SECONDS)

    def _lost(self, what: str, test: str) -> SlicerTestError:
        """The failure of the test in which Slicer ended; if it ended before the first test, the failure of all."""
        self._end()
        log = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        fault = "\n".join([f"{what} in {test}.", *self._faults, "The end of its log:", *log])
        if self._parts is None:
            self._fault = fault
        return SlicerTestError(fault)

    def _end(self) -> None:
        if self._process is None:
            return
        if os.name == "nt":
            self._process.kill()
        else:  # Slicer may have been started by a script, on a virtual screen
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._events.close()
        self._process = None
