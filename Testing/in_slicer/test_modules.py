"""Slicer lists, opens and reloads both modules."""

import sys
import unittest

import pytest
import slicer

from panel_helpers import open_panel


def test_the_modules_show_their_titles_and_licenses():
    module, training = slicer.modules.liverunet, slicer.modules.liverunettrain
    assert (module.title, training.title) == ("LiverUNet", "LiverUNetTrain")
    assert list(module.categories) == list(training.categories) == ["Segmentation"]
    assert "non-commercial" in module.helpText
    assert "MONAI" in module.acknowledgementText
    assert module.contributors
    assert "LiverUNet" in list(training.dependencies)


def test_without_the_packages_the_self_test_is_visibly_skipped(scene, monkeypatch):
    from LiverUNet import LiverUNetTest
    from LiverUNetPanel import installer

    monkeypatch.setattr(installer, "unmet", list)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(LiverUNetTest).run(result)
    assert {reason for _, reason in result.skipped} == {"not installed: onnxruntime>=1.20, nibabel>=5"}
    assert len(result.skipped) == result.testsRun == 5


@pytest.fixture
def packages():
    """Our packages as other tests have imported them; they are restored after the test."""
    before = {name: module for name, module in sys.modules.items() if name.startswith("LiverUNet")}
    yield before
    for name in [name for name in sys.modules if name.startswith("LiverUNet")]:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.mark.parametrize("module", ["LiverUNet", "LiverUNetTrain"])
def test_reload_imports_our_packages_anew_and_no_others(scene, dialogs, settings, packages, module):
    torch, panel = sys.modules.get("torch"), open_panel(module)
    panel.onReload()
    assert sys.modules[f"{module}Panel.widget"] is not packages[f"{module}Panel.widget"]
    assert sys.modules["LiverUNetLib.steps"] is not packages["LiverUNetLib.steps"]
    assert sys.modules.get("torch") is torch
    assert getattr(slicer.modules, f"{module}Widget") is not panel
    assert dialogs.shown == []
