"""The first press of Segment: questions and installation; nothing is really installed here."""

import sys
from types import ModuleType

import pytest
import slicer

from panel_helpers import run_to_the_end

PACKAGES = "LiverUNet needs onnxruntime>=1.20, nibabel>=5. Install into Slicer's own Python, from the internet?"


@pytest.fixture
def missing(monkeypatch):
    """Names of packages that are not installed; a fake pip removes the ones it is to install."""
    from LiverUNetPanel import consent, installer

    names = set()
    for module in (consent, installer):
        monkeypatch.setattr(module, "unmet", lambda lines: [line for line in lines if line.split(">")[0] in names])
    pip = ModuleType("slicer.packaging")
    pip.pip_ensure = lambda lines, **_: names.difference_update(line.split(">")[0] for line in lines)
    monkeypatch.setitem(sys.modules, "slicer.packaging", pip)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)  # the extension PyTorch is not installed
    return names


@pytest.fixture
def a_gpu(panel, missing, monkeypatch):
    """A computer with a GPU and without PyTorch, and a panel with the device Auto."""
    from LiverUNetPanel import consent

    missing |= {"torch", "monai"}
    monkeypatch.setattr(consent, "gpu_driver_present", lambda: True)
    panel.settings.device = "auto"


def test_onnx_runtime_and_nibabel_are_installed_and_the_liver_is_found(panel, a_volume, missing, dialogs):
    missing |= {"onnxruntime", "nibabel", "torch", "monai"}
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    assert dialogs.asked == [PACKAGES]
    assert missing == {"torch", "monai"}
    run_to_the_end(panel)
    assert panel.parameterNode.segmentation


def test_a_user_who_declines_the_packages_is_told_that_nothing_was_done(panel, a_volume, missing, dialogs):
    missing |= {"onnxruntime", "nibabel"}
    dialogs.answer = False
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    assert not panel.run.running
    assert panel.ui.statusLabel.text == "Nothing was done: packages are missing and were not installed."
    assert missing == {"onnxruntime", "nibabel"}


def test_a_user_who_declines_the_gpu_gets_the_liver_from_the_cpu_and_is_not_asked_again(
    panel, a_volume, a_gpu, dialogs
):
    dialogs.answer = False
    panel.parameterNode.volume = a_volume
    for _ in range(2):
        panel.ui.segmentButton.click()
        run_to_the_end(panel)
    (question,) = dialogs.asked
    assert question.startswith("This computer seems to have a GPU.")
    assert panel.parameterNode.segmentation
    assert panel.ui.deviceStateLabel.text == "The last run was on cpu in float32."


def test_a_user_who_wants_the_gpu_is_told_where_to_get_pytorch(panel, a_volume, a_gpu, dialogs):
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    assert len(dialogs.asked) == 1
    (sentence,) = dialogs.shown
    assert "The extension PyTorch is missing; install it in the Extensions Manager" in sentence
    assert not panel.run.running


def test_choosing_another_device_and_auto_again_asks_again(panel, a_volume, a_gpu, dialogs):
    dialogs.answer = False
    panel.parameterNode.volume = a_volume
    for device in ("auto", "auto", "cpu", "auto"):
        panel.ui.deviceSelector.currentIndex = panel.ui.deviceSelector.findData(device)
        panel.ui.segmentButton.click()
        run_to_the_end(panel)
    assert len(dialogs.asked) == 2


def test_a_model_without_onnx_files_needs_pytorch(panel, a_volume, missing, dialogs, monkeypatch):
    from LiverUNetLib.models.folder import LiverModel

    missing |= {"torch", "monai"}
    monkeypatch.setattr(LiverModel, "has_onnx", property(lambda _model: False))
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    (sentence,) = dialogs.shown
    assert "The extension PyTorch is missing" in sentence


def test_training_needs_pytorch(train_panel, missing, dialogs, monkeypatch, tmp_path):
    missing |= {"torch", "monai"}
    assert train_panel.installer.missing("torch") == ["torch>=2.4", "monai>=1.5.1"]
    with pytest.raises(Exception, match="The extension PyTorch is missing"):
        train_panel.run.ensureInstalled()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
