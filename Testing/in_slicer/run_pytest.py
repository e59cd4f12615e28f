"""Run the tests that IN_SLICER_FOLDER/tests.txt lists; slicer_process.py starts this script inside Slicer.

It writes each event as a line of JSON at once, so that a crash loses nothing.
"""

from __future__ import annotations

import faulthandler
import json
import os
import traceback
from pathlib import Path
from typing import Any

import slicer

# The traceback of a test that crashes or hangs goes to Slicer's log; pytest captures standard error.
STDERR = os.dup(2)
HANGS_AFTER_SECONDS = 0.8 * float(os.environ["IN_SLICER_LIMIT_SECONDS"])


class Reporter:
    """A plugin of pytest."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def say(self, kind: str, **what: Any) -> None:
        self._file.write(json.dumps({"kind": kind} | what) + "\n")
        self._file.flush()

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.say("fault", text=f"{report.nodeid}: {report.longreprtext}")

    def pytest_collection_finish(self, session: Any) -> None:
        self.say("collected", tests=[item.nodeid for item in session.items])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        faulthandler.dump_traceback_later(HANGS_AFTER_SECONDS, file=STDERR)

    def pytest_runtest_logreport(self, report: Any) -> None:
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        printed = "".join(part for title, part in report.sections if title == f"Captured stdout {report.when}")
        self.say("report", test=report.nodeid, outcome=report.outcome, text=text, printed=printed)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        faulthandler.cancel_dump_traceback_later()
        self.say("finished", test=nodeid)


def main() -> None:
    folder = Path(os.environ["IN_SLICER_FOLDER"])
    reporter = Reporter(folder / "events.jsonl")
    faulthandler.enable(STDERR)
    try:
        import pytest

        tests = (folder / "tests.txt").read_text(encoding="utf-8").splitlines()
        options = ["-p", "no:cacheprovider", "-p", "no:faulthandler", "--continue-on-collection-errors"]
        pytest.main([*options, "--rootdir", ".", *tests], plugins=[reporter])
    except BaseException:  # noqa: BLE001 - the process outside must be told of any error
        reporter.say("fault", text=traceback.format_exc())
    slicer.app.exit(0)


if __name__ == "__main__":
    main()
