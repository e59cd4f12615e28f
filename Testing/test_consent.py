"""Questions to the user before a run; PyTorch is installed only for users who want a GPU."""

import pytest
import slicer

from LiverUNetLib.system.dependencies import TORCH_REQUIREMENT


@pytest.fixture
def computer(scene, monkeypatch):
    """A computer: set whether it has a GPU, and which requirements are missing."""
    from LiverUNetPanel import consent

    class Computer:
        gpu, missing = True, {TORCH_REQUIREMENT}

    monkeypatch.setattr(consent, "unmet", lambda lines: [line for line in lines if line in Computer.missing])
    monkeypatch.setattr(consent, "gpu_driver_present", lambda: Computer.gpu)
    monkeypatch.setattr(consent, "gpu_in_sight", lambda: Computer.gpu and TORCH_REQUIREMENT not in Computer.missing)
    monkeypatch.setattr(consent, "likely_engine", lambda device, _engine: "torch" if device == "cuda" else "onnx")
    return Computer


@pytest.fixture
def settings(computer):
    from LiverUNetPanel.settings import Settings

    return Settings()


@pytest.fixture
def choose(settings):
    from LiverUNetPanel.consent import chooseDevice

    return lambda: chooseDevice(settings)


@pytest.mark.parametrize(
    ("gpu", "device", "expected"),
    [
        (False, "auto", ("auto", "onnx")),
        (True, "cpu", ("cpu", "onnx")),
        (True, "cuda", ("cuda", "torch")),
    ],
)
def test_the_user_is_not_asked_where_there_is_no_choice(computer, settings, choose, gpu, device, expected):
    computer.gpu, settings.device = gpu, device
    assert choose() == expected
    assert slicer.app.asked == []


def test_with_pytorch_installed_the_user_is_not_asked(computer, choose):
    computer.missing = set()
    assert choose()[0] == "auto"
    computer.gpu, computer.missing = False, {"monai>=1.5.1"}  # a PyTorch for CPUs, of another extension
    assert choose() == ("auto", "onnx")
    assert slicer.app.asked == []


def test_a_user_who_wants_the_gpu_is_asked_once_and_gets_pytorch(choose):
    assert [choose(), choose()] == [("auto", "torch")] * 2
    (question,) = slicer.app.asked
    assert "seems to have a GPU" in question
    assert "several GB" in question


def test_a_user_who_declines_uses_the_cpu_and_is_asked_again_only_after_another_choice(settings, choose):
    slicer.app.answer = False
    assert [choose(), choose()] == [("cpu", "onnx")] * 2
    assert len(slicer.app.asked) == 1
    settings.device = "cpu"
    settings.device = "auto"
    assert choose() == ("cpu", "onnx")
    assert len(slicer.app.asked) == 2


def test_the_user_is_also_asked_if_only_monai_is_missing(computer, choose):
    computer.missing = {"monai>=1.5.1"}
    assert choose() == ("auto", "torch")
    assert len(slicer.app.asked) == 1


def test_in_testing_mode_the_user_is_not_asked_and_the_cpu_is_used(choose):
    slicer.app.testing = True
    assert choose() == ("cpu", "onnx")
    assert slicer.app.asked == []
