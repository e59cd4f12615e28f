"""Tests that run inside Slicer are reported outside, even if Slicer crashes or hangs; tested with a fake Slicer."""

import os
import subprocess
import sys

import pytest

from helpers import REPOSITORY, unix_only
from slicer_process import SlicerRun, SlicerTestError

PROGRAM = f"""#!{sys.executable}
import runpy, sys, types
sys.modules["slicer"] = types.SimpleNamespace(app=types.SimpleNamespace(exit=sys.exit))
print("the log")
runpy.run_path(sys.argv[-1], run_name="__main__")
"""

TESTS = """
import ctypes, pytest, time

def test_that_passes():
    print("printed")

@pytest.mark.parametrize("number", [1, 2])
def test_of_two_numbers(number):
    assert number == 1

def test_that_crashes():
    ctypes.string_at(0)

def test_that_hangs():
    time.sleep(60)

def test_that_is_skipped():
    pytest.skip("a reason")
"""


@pytest.fixture
def run(tmp_path):
    """Run the tests of a file with a fake Slicer."""
    runs = []

    def run(text):
        (tmp_path / "slicer").write_text(PROGRAM)
        (tmp_path / "slicer").chmod(0o755)
        (tmp_path / "test_it.py").write_text(text)
        names = [line.split()[1].split("(")[0] for line in text.splitlines() if line.startswith("def ")]
        tests = {name: f"test_it.py::{name}" for name in names}
        program = str(tmp_path / "slicer")
        runs.append(SlicerRun(program, list(tests.values()), root=tmp_path, limit_seconds=8))
        return lambda name: runs[0].reports(tests[name])

    yield run
    for each in runs:
        each.stop()


@pytest.mark.slow
@unix_only
def test_each_test_is_reported_and_a_crash_or_a_hang_fails_no_other(run):
    reports = run(TESTS)
    passed = reports("test_that_passes")
    assert [report["outcome"] for report in passed] == ["passed"] * 3
    assert "".join(report["printed"] for report in passed) == "printed\n"
    two = {report["test"][-3:]: report for report in reports("test_of_two_numbers") if report["outcome"] == "failed"}
    assert list(two) == ["[2]"]
    assert "assert 2 == 1" in two["[2]"]["text"]
    with pytest.raises(SlicerTestError, match=r"(?s)ended with code .*_crashes.*the log.*in test_that_crashes"):
        reports("test_that_crashes")
    with pytest.raises(SlicerTestError, match=r"(?s)was silent for 8 s.*test_that_hangs.*in test_that_hangs"):
        reports("test_that_hangs")
    skipped = [report["text"] for report in reports("test_that_is_skipped") if report["outcome"] == "skipped"]
    assert skipped == ["Skipped: a reason"]


@unix_only
def test_a_file_that_cannot_be_imported_fails_all_its_tests_with_the_reason(run):
    reports = run("import no_such_module\n\ndef test_one():\n    pass\n\ndef test_two():\n    pass\n")
    for name in ("test_one", "test_two"):
        with pytest.raises(SlicerTestError, match="No module named 'no_such_module'"):
            reports(name)


@pytest.mark.slow
def test_without_slicer_the_tests_are_skipped_with_instructions():
    environment = {name: value for name, value in os.environ.items() if name != "SLICER"}
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", "Testing/in_slicer/test_panel.py"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "needs a real 3D Slicer: set SLICER to its program" in done.stdout
    assert " passed" not in done.stdout
