"""Slicer, in a separate process, opens the modules and runs their self-tests as CTest and the GUI do."""

import os
import shutil
import subprocess
import sys
import unittest
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import slicer

from helpers import REPOSITORY, SETTINGS, SPEC, cmake_files
from LiverUNetTrainLib.run.folder import EpochLog, RunFolder
from LiverUNetTrainLib.run.run_settings import RunSettings, SplitHashes
from slicer_process import ENVIRONMENT, HOW_TO, TREE, slicer_command

OPENED = """
import sys
from pathlib import Path
import slicer
slicer.app.userSettings().setValue("LiverUNet/Folders/runPath", sys.argv[1])
for module in (slicer.modules.liverunet, slicer.modules.liverunettrain):
    panel = module.widgetRepresentation().self()
    panel.enter()
imported = [name for name in ("torch", "monai", "nibabel", "matplotlib", "pydicom") if name in sys.modules]
Path(sys.argv[1], "seen.txt").write_text(f"{panel.ui.runStateLabel.text}\\n{imported}")
slicer.app.exit(0)
"""

ALONE = """
import sys
from pathlib import Path
import slicer
from LiverUNetLib.scan.phantom import abdomen, axial_affine
shape = (96, 72, 44)
scan, _ = abdomen(axial_affine((4.0, 4.0, 5.0), shape), shape[::-1])
slicer.util.addVolumeFromArray(scan.hu_kji, scan.affine, "Phantom")
panel = slicer.modules.liverunet.widgetRepresentation().self()
panel.enter()
panel.ui.segmentButton.click()
while panel.run.running:
    slicer.app.processEvents()
training = [name for name in sys.modules if name.startswith("LiverUNetTrain")]
seen = [panel.ui.resultLabel.text.splitlines()[0], str(panel.ui.addCaseButton.isHidden()), str(training)]
Path(sys.argv[1], "seen.txt").write_text("\\n".join(seen))
slicer.app.exit(0)
"""


@pytest.fixture
def run_slicer():
    """Run a script in a new Slicer without settings, in testing mode; returns its output."""
    program = os.environ.get("SLICER")
    if not program:
        pytest.skip(HOW_TO)

    def run(script: Path, *arguments: str, modules: Sequence[Path] = TREE, **environment: str) -> str:
        command = slicer_command(program, script, options=["--testing", "--no-main-window"], modules=modules)
        done = subprocess.run(
            [*command, *arguments],
            env=os.environ | ENVIRONMENT | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.stdout + done.stderr

    return run


@pytest.fixture
def installed(tmp_path) -> Path:
    """Both modules in one folder, as the Extensions Manager installs them: the files that CMake lists."""
    for folder in TREE:
        for name in cmake_files(folder):
            target = tmp_path / "qt-scripted-modules" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / name, target)
    return tmp_path / "qt-scripted-modules"


@pytest.mark.slow
def test_the_self_tests_of_both_modules_pass_as_they_are_installed(run_slicer, installed, tmp_path):
    report = tmp_path / "report.txt"
    script = REPOSITORY / "Testing/run_self_tests.py"
    output = run_slicer(script, modules=[installed], SELF_TEST_REPORT=str(report))
    assert report.exists(), output
    text = report.read_text()
    assert text.endswith("PASSED\n"), text
    assert "5 tested, 0 skipped" in text
    assert "1 tested, 0 skipped" in text


@pytest.mark.slow
def test_opening_both_modules_imports_neither_torch_nor_monai_nor_nibabel(run_slicer, tmp_path):
    """This holds even if there is a run to watch."""
    split = SplitHashes(training={"a": ""}, validation={}, held_out={})
    settings = RunSettings(SPEC, replace(SETTINGS, epochs=5), split, masks={}, parent=None, replayed=())
    RunFolder(tmp_path).begin(settings)
    RunFolder(tmp_path).write_log([EpochLog(1, 1e-3, 0.9, 0.5, 0.9, 2.0)])
    (tmp_path / "open.py").write_text(OPENED)
    output = run_slicer(tmp_path / "open.py", str(tmp_path))
    assert (tmp_path / "seen.txt").exists(), output
    state, imported = (tmp_path / "seen.txt").read_text().splitlines()
    assert state.startswith("died, 1 of 5 epochs")
    assert imported == "[]"


@pytest.mark.slow
def test_liverunet_works_without_liverunettrain_and_hides_what_that_module_provides(run_slicer, tmp_path):
    (tmp_path / "alone.py").write_text(ALONE)
    output = run_slicer(tmp_path / "alone.py", str(tmp_path), modules=[REPOSITORY / "LiverUNet"])
    assert (tmp_path / "seen.txt").exists(), output
    assert (tmp_path / "seen.txt").read_text().splitlines() == ["Phantom", "True", "[]"]


def test_the_runner_of_the_self_tests_fails_without_a_module_or_without_tests(scene, monkeypatch):
    from run_self_tests import module_names, run

    assert "LiverUNet" in module_names(REPOSITORY)
    good, report = run(["LiverUNet"])
    assert not good
    assert "not loaded by Slicer" in report
    assert run([]) == (False, "")
    monkeypatch.setattr(slicer.modules, "empty", object(), raising=False)
    empty = SimpleNamespace(EmptyTest=type("EmptyTest", (unittest.TestCase,), {}))
    monkeypatch.setitem(sys.modules, "Empty", empty)
    assert run(["Empty"])[0] is False, "no test ran"
    empty.EmptyTest.test_passes = unittest.TestCase.tearDown
    assert run(["Empty"])[0] is True
