"""Run the self-tests of the modules inside a released Slicer, and write the results to a file.

    xvfb-run -a ./Slicer --testing --no-splash --no-main-window --disable-cli-modules \\
        --additional-module-paths LiverUNet LiverUNetTrain --python-script Testing/run_self_tests.py

Slicer exits with 0 if this script is not found, and only logs an error if a module cannot be loaded.
Therefore the file that SELF_TEST_REPORT names is the proof: it exists, and its last line is PASSED.
"""

from __future__ import annotations

import importlib
import io
import os
import traceback
import unittest
from pathlib import Path

import slicer

REPOSITORY = Path(__file__).resolve().parent.parent


def module_names(repository: Path) -> list[str]:
    """The modules that Slicer should have loaded: folders with a file of their name."""
    return sorted(path.stem for path in repository.glob("*/*.py") if path.stem == path.parent.name)


def run(names: list[str]) -> tuple[bool, str]:
    """Run the tests of modules; returns whether all passed, and the report.

    It is a failure if a module is not loaded, or if none of its tests ran.
    """
    good, report = bool(names), io.StringIO()
    for name in names:
        report.write(f"\n{name}\n")
        if not hasattr(slicer.modules, name.lower()):
            report.write("not loaded by Slicer; its log says why\n")
            good = False
            continue
        module = importlib.import_module(name)
        tests = unittest.defaultTestLoader.loadTestsFromTestCase(getattr(module, f"{name}Test"))
        result = unittest.TextTestRunner(report, verbosity=2).run(tests)
        tested = result.testsRun - len(result.skipped)
        report.write(f"{tested} tested, {len(result.skipped)} skipped\n")
        good = good and result.wasSuccessful() and tested > 0
    return good, report.getvalue()


def main() -> None:
    try:
        good, report = run(module_names(REPOSITORY))
    except Exception:  # noqa: BLE001 - any error belongs in the report
        good, report = False, traceback.format_exc()
    report += "PASSED\n" if good else "FAILED\n"
    print(report)
    path = os.environ.get("SELF_TEST_REPORT")
    if path:
        Path(path).write_text(report, encoding="utf-8")
    slicer.app.exit(0 if good else 1)


if __name__ == "__main__":
    main()
