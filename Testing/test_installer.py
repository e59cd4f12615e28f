"""Installation on first use: each way in which it can end; nothing is really installed."""

import sys
from importlib.metadata import version
from pathlib import Path
from subprocess import CalledProcessError
from types import ModuleType

import pytest
import slicer

from helpers import REPOSITORY
from LiverUNetLib.system.dependencies import TORCH_ENGINE, explain_failure, unmet

REQUIREMENTS = REPOSITORY / "LiverUNet/Resources/LiverUNet-requirements.txt"
TRAINING = REPOSITORY / "LiverUNetTrain/Resources/LiverUNetTrain-requirements.txt"
LINES = ["onnxruntime>=1.20", "nibabel>=5"]


@pytest.fixture
def missing(scene, monkeypatch):
    """The requirements that are not met; a successful installation clears them."""
    from LiverUNetPanel import installer

    names: set[str] = set()
    monkeypatch.setattr(
        installer, "unmet", lambda lines: [line for line in lines if line.split(">")[0].split("=")[0] in names]
    )
    return names


@pytest.fixture
def installer(missing):
    from LiverUNetPanel.installer import Installer

    return Installer(REQUIREMENTS)


@pytest.fixture
def pip(missing, monkeypatch):
    """A fake pip in `slicer.packaging` and `slicer.util`: records calls, prints `output`, raises `error`."""
    fake = ModuleType("slicer.packaging")
    fake.calls, fake.output, fake.error = [], "", None

    def install(requirements, **options):
        constraints = options.get("constraints")
        fake.calls.append((requirements, constraints and Path(constraints).read_text()))
        print(fake.output)
        if fake.error:
            raise fake.error
        missing.clear()

    fake.pip_ensure = install
    monkeypatch.setitem(sys.modules, "slicer.packaging", fake)
    monkeypatch.setattr(slicer.util, "pip_install", install)
    return fake


@pytest.fixture
def pytorch(missing, monkeypatch):
    """The PyTorch extension."""
    module = ModuleType("PyTorchUtils")
    module.asked = []

    class PyTorchUtilsLogic:
        def installTorch(self, **options):  # noqa: N802
            module.asked.append(options)
            missing.discard("torch")

    module.PyTorchUtilsLogic = PyTorchUtilsLogic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)
    return module


def test_where_nothing_is_missing_nothing_is_asked_or_installed(installer, pip):
    assert installer.ensure()
    assert pip.calls == slicer.app.asked == []


def test_for_the_cpu_onnx_runtime_and_nibabel_are_installed_and_nothing_else(installer, missing, pip, pytorch):
    missing |= {"torch", "monai", "onnxruntime", "nibabel", "tqdm", "matplotlib"}
    assert installer.missing() == LINES
    assert installer.ensure()
    assert pip.calls == [(LINES, "")]
    assert pytorch.asked == []
    question = "LiverUNet needs onnxruntime>=1.20, nibabel>=5. Install into Slicer's own Python, from the internet?"
    assert slicer.app.asked == [question]


def test_torch_comes_from_the_pytorch_extension_and_other_packages_do_not_change_it(installer, missing, pip, pytorch):
    missing |= {"torch", "monai"}
    assert installer.ensure(engine="torch")
    assert pytorch.asked == [{"askConfirmation": False, "torchVersionRequirement": ">=2.4"}]
    assert pip.calls == [(["monai>=1.5.1"], f"torch=={version('torch')}\n")]
    (question,) = slicer.app.asked
    assert "needs torch>=2.4, monai>=1.5.1." in question
    assert "some minutes and up to several GB" in question


def test_training_needs_both_engines():
    from LiverUNetPanel.installer import Installer

    needed = Installer(TRAINING).requirements("torch")
    assert needed == [*TORCH_ENGINE, "onnx>=1.16", *LINES, "tqdm>=4.64", "matplotlib>=3.8"]


def test_on_windows_no_torch_is_installed_whose_paths_are_too_long(
    installer, missing, pip, pytorch, monkeypatch, tmp_path
):
    monkeypatch.setattr(sys, "platform", "win32")
    missing.add("torch")
    assert installer.ensure(engine="torch")
    missing.add("torch")
    assert installer.ensure(str(tmp_path), engine="torch")
    assert pytorch.asked[0]["torchVersionRequirement"] == ">=2.4,<2.13"
    assert pip.calls[0][0][-1] == "torch>=2.4,<2.13"


def test_declining_ends_quietly(installer, missing, pip, pytorch):
    missing |= {"torch", "monai", "nibabel"}
    slicer.app.answer = False
    for engine in ("onnx", "torch"):
        assert installer.ensure(engine=engine) is False
    assert len(slicer.app.asked) == 2
    assert pip.calls == pytorch.asked == []


def test_without_the_pytorch_extension_the_sentence_says_where_to_get_it(installer, missing, monkeypatch):
    missing.add("torch")
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    with pytest.raises(Exception, match="extension PyTorch is missing; install it in the Extensions Manager"):
        installer.ensure(engine="torch")
    assert slicer.app.asked == [], "the user is not asked for the impossible"


def test_a_torch_that_is_too_old_is_named(installer, monkeypatch, missing):
    from LiverUNetPanel import installer as module

    monkeypatch.setattr(module, "unmet", lambda lines: [line for line in lines if line == "torch>=2.4"])
    with pytest.raises(Exception, match=rf"torch {version('torch')[:3]}.* is installed, LiverUNet needs torch>=2.4"):
        installer.ensure(engine="torch")


def test_testing_mode_installs_nothing(installer, missing, pip):
    missing.add("nibabel")
    slicer.app.testing = True
    with pytest.raises(Exception, match=r"nibabel>=5 missing; nothing is installed in testing mode"):
        installer.ensure()
    assert pip.calls == []


def test_a_failure_is_explained_from_the_output_of_pip(installer, missing, pip, capsys):
    missing.add("nibabel")
    pip.output, pip.error = "ERROR: [Errno 28] No space left on device", CalledProcessError(1, "pip install")
    with pytest.raises(Exception, match=r"nibabel>=5 could not be installed: the disk is full"):
        installer.ensure()
    assert "No space left" in capsys.readouterr().out, "the output of pip is still shown"


def test_a_failure_without_output_is_explained_by_the_missing_internet(installer, missing, pip, monkeypatch):
    from LiverUNetPanel import installer as module

    missing.add("nibabel")
    pip.error = CalledProcessError(1, "pip install")
    monkeypatch.setattr(module, "internetAnswers", lambda: False)
    with pytest.raises(Exception, match="the package index cannot be reached; connect to the internet, or"):
        installer.ensure()


def test_a_folder_of_wheels_needs_no_internet(installer, missing, pip, tmp_path):
    missing |= {"torch", "monai"}
    assert installer.ensure(str(tmp_path), engine="torch")
    assert pip.calls == [(["--no-index", "--find-links", str(tmp_path), "torch>=2.4", "monai>=1.5.1"], None)]
    assert f"needs torch>=2.4, monai>=1.5.1. Install into Slicer's own Python, from {tmp_path}?" in slicer.app.asked[0]
    missing.add("nibabel")
    slicer.app.answer = False
    assert installer.ensure(str(tmp_path)) is False
    with pytest.raises(Exception, match="nowhere does not exist; choose another or clear it"):
        installer.ensure("nowhere")


def test_slicer_5_10_has_no_packaging_module(installer, missing, pip, monkeypatch):
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    missing.add("nibabel")
    assert installer.ensure()
    requirements, _ = pip.calls[0]
    assert requirements[0] == "--constraint"
    assert requirements[2:] == ["nibabel>=5"]


def test_requirements_are_compared_with_what_is_installed():
    assert unmet(LINES) == []
    assert unmet(["monai>=99", "no-such-package", "nibabel>=5"]) == ["monai>=99", "no-such-package"]


@pytest.mark.parametrize(
    ("output", "proxies", "explanation"),
    [
        (
            "ProxyError('Cannot connect to proxy.')",
            {"https": "http://proxy:3128"},
            "the proxy http://proxy:3128 refused",
        ),
        ("SSLError(SSLCertVerificationError", {}, "a certificate could not be verified"),
        ("Failed to establish a new connection: [Errno -3]", {}, "the package index cannot be reached"),
        ("ERROR: No matching distribution found for monai", {}, "no version fits this Python"),
        ("PermissionError: [Errno 13] Permission denied", {}, "Slicer's own folder cannot be written to"),
        ("", {"http": "http://proxy"}, "pip gave no reason; is the proxy http://proxy correct?"),
        ("something else", {}, "the log in the Python console says why"),
    ],
)
def test_each_kind_of_failure_has_its_own_explanation(output, proxies, explanation):
    assert explanation in explain_failure(output, proxies)
