"""The module file: its own test, and what opening it costs."""

import json
import subprocess
import sys
import unittest
from dataclasses import asdict
from types import SimpleNamespace

import slicer

from helpers import REPOSITORY
from LiverUNetTrainLib.run_folder import EpochLog


def test_the_self_test_of_the_module_passes_on_the_stand_in(qt, scene, monkeypatch):
    """Its own run is in Slicer, by run_self_tests.py; here its code is at least executed."""
    from LiverUNet import LiverUNetTest, LiverUNetWidget

    parent = slicer.qMRMLWidget()
    parent.setLayout(qt.QVBoxLayout())
    widget = LiverUNetWidget(parent)
    module = SimpleNamespace(widgetRepresentation=lambda: SimpleNamespace(self=lambda: widget))
    monkeypatch.setattr(slicer.modules, "liverunet", module, raising=False)
    monkeypatch.setattr(slicer.app, "processEvents", qt.QApplication.processEvents, raising=False)
    slicer.app.testing = True
    widget.setup()
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(LiverUNetTest).run(result)
    widget.cleanup()
    assert result.testsRun == 5
    assert not result.skipped
    assert not result.errors + result.failures, (result.errors + result.failures)[0][1]


OPENED = """
import sys; sys.path.insert(0, "Testing")
import slicer_standin; slicer_standin.install_qt()
import qt, slicer
from LiverUNet import LiverUNetWidget
from LiverUNetTrain import LiverUNetTrainWidget
slicer.app.userSettings().setValue("LiverUNet/Folders/runPath", sys.argv[1])
for widget in (LiverUNetWidget, LiverUNetTrainWidget):
    parent = slicer.qMRMLWidget()
    parent.setLayout(qt.QVBoxLayout())
    panel = widget(parent)
    panel.setup()
    panel.enter()
print(panel.ui.runStateLabel.property("text"))
print([name for name in ("torch", "monai", "nibabel", "matplotlib", "pydicom") if name in sys.modules])
"""


def test_opening_both_modules_imports_neither_torch_nor_monai_nor_nibabel(tmp_path):
    """Not even with a run to watch."""
    split = {"training": {"a": ""}, "validation": {}, "held_out": {}}
    (tmp_path / "settings.json").write_text(json.dumps({"training": {"epochs": 5}, "split": split}))
    (tmp_path / "log.jsonl").write_text(json.dumps(asdict(EpochLog(1, 1e-3, 0.9, 0.5, 0.9, 2.0))) + "\n")
    command = [sys.executable, "-c", OPENED, str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    state, imported = done.stdout.splitlines() or ("", done.stderr)
    assert state.startswith("died, 1 of 5 epochs")
    assert imported == "[]"


def test_without_the_packages_the_modules_own_test_is_visibly_skipped(scene, monkeypatch):
    from LiverUNet import LiverUNetTest
    from LiverUNetPanel import installer

    monkeypatch.setattr(installer, "unmet", list)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(LiverUNetTest).run(result)
    assert {reason for _, reason in result.skipped} == {"not installed: torch>=2.4, monai>=1.5.1, nibabel>=5"}
    assert len(result.skipped) == result.testsRun == 5


def test_the_module_says_what_it_is_and_under_which_licence(scene):
    from LiverUNet import LiverUNet

    parent = SimpleNamespace()
    LiverUNet(parent)
    assert parent.categories == ["Segmentation"]
    assert "non-commercial" in parent.helpText
    assert parent.contributors
    assert "MONAI" in parent.acknowledgementText


def test_the_runner_of_the_self_tests_takes_nothing_for_granted(scene, monkeypatch):
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
