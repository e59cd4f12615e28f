"""Install missing packages on first use, never before, and explain each way in which that can fail."""

from __future__ import annotations

import contextlib
import io
import socket
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any, TextIO

import slicer
from slicer.i18n import tr as _

from LiverUNetLib.errors import LiverUNetError
from LiverUNetLib.system.dependencies import TORCH_ENGINE, TORCH_REQUIREMENT, explain_failure, unmet

__all__ = ["InstallationError", "Installer"]

REQUESTER = "LiverUNet"


class InstallationError(LiverUNetError):
    """Packages are missing and could not be installed."""


class _Tee(io.TextIOBase):
    """Records the output of pip, which the error of a failed installation lacks, and still prints it."""

    def __init__(self, shown: TextIO) -> None:
        self._shown, self.text = shown, ""

    def write(self, text: str) -> int:
        self.text += text
        self._shown.write(text)
        return len(text)


def internetAnswers() -> bool:
    """Whether the address of the package index can be looked up; checked only after a failed installation."""
    try:
        return bool(socket.getaddrinfo("pypi.org", 443))
    except OSError:
        return False


def _torchToInstall() -> str:
    """On Windows torch 2.13 fails to install: in Slicer's folder its paths are longer than 260 characters."""
    return TORCH_REQUIREMENT + (",<2.13" if sys.platform == "win32" else "")


class Installer:
    """Installs the packages of a requirements file, and PyTorch for the engine "torch".

    Args:
        requirementsFile: the packages that both engines need.
    """

    # Shared by all panels: Slicer's event loop runs while pip works, so other buttons can be pressed.
    _working = False

    def __init__(self, requirementsFile: Path) -> None:
        self._requirementsFile = requirementsFile

    def missing(self, engine: str = "onnx") -> list[str]:
        """The requirements of an engine that are not met; reads package metadata and imports nothing."""
        return unmet(self.requirements(engine))

    def ensure(self, wheelFolder: str = "", *, engine: str = "onnx") -> bool:
        """Install what is missing, if the user agrees; returns False if they decline.

        Args:
            wheelFolder: install from this folder, without the internet.
            engine: "onnx", or "torch" for GPUs and training.

        Raises:
            InstallationError: why it failed and what to do; also if another installation is running.
        """
        if Installer._working:
            raise InstallationError(_("Packages are being installed already; wait until the installation has ended."))
        Installer._working = True
        try:
            return self._ensure(wheelFolder, engine)
        finally:
            Installer._working = False

    def _ensure(self, wheelFolder: str, engine: str) -> bool:
        missing = self.missing(engine)
        if not missing:
            return True
        if slicer.app.testingEnabled():
            raise InstallationError(
                _("{names} missing; nothing is installed in testing mode.").format(names=", ".join(missing))
            )
        steps = self._fromFolder(missing, wheelFolder) if wheelFolder else self._fromInternet(missing)
        if not self._agreed(missing, wheelFolder):
            return False
        log = _Tee(sys.stdout)
        try:
            with contextlib.redirect_stdout(log):
                for install in steps:
                    install()
        except CalledProcessError as error:
            output = log.text if wheelFolder or internetAnswers() else f"{log.text} getaddrinfo"
            reason = explain_failure(output, urllib.request.getproxies())
            raise InstallationError(
                _("{names} could not be installed: {reason}.").format(names=", ".join(missing), reason=reason)
            ) from error
        missing = self.missing(engine)
        if missing:
            raise InstallationError(
                _("{names} still missing after the installation; restart Slicer and try again.").format(
                    names=", ".join(missing)
                )
            )
        return True

    def _agreed(self, missing: list[str], wheelFolder: str) -> bool:
        """Ask the user once for everything that is missing."""
        question = _("LiverUNet needs {names}. Install into Slicer's own Python, from {source}?{size}").format(
            names=", ".join(missing),
            source=wheelFolder or _("the internet"),
            size=_("\n\nPyTorch takes some minutes and up to several GB.") if TORCH_REQUIREMENT in missing else "",
        )
        return bool(slicer.util.confirmOkCancelDisplay(question, REQUESTER))

    def _fromFolder(self, missing: list[str], wheelFolder: str) -> list[Callable[[], Any]]:
        if not Path(wheelFolder).is_dir():
            raise InstallationError(
                _("The folder of wheels {folder} does not exist; choose another or clear it.").format(
                    folder=wheelFolder
                )
            )
        names = [_torchToInstall() if name == TORCH_REQUIREMENT else name for name in missing]
        return [partial(slicer.util.pip_install, ["--no-index", "--find-links", wheelFolder, *names])]

    def _fromInternet(self, missing: list[str]) -> list[Callable[[], Any]]:
        others = [name for name in missing if name != TORCH_REQUIREMENT]
        torch = [self._torchInstallation()] if TORCH_REQUIREMENT in missing else []
        return [*torch, *([partial(self._installOthers, others)] if others else [])]

    def _torchInstallation(self) -> Callable[[], Any]:
        """Install torch by the PyTorch extension, which chooses the build for the GPU."""
        if not unmet(["torch"]):
            raise InstallationError(
                _(
                    "torch {version} is installed, LiverUNet needs {requirement}; uninstall it in the module PyTorch "
                    "Util, restart Slicer and try again."
                ).format(version=version("torch"), requirement=TORCH_REQUIREMENT)
            )
        try:
            from PyTorchUtils import PyTorchUtilsLogic
        except ImportError as error:
            raise InstallationError(
                _(
                    "The extension PyTorch is missing; install it in the Extensions Manager, "
                    "restart Slicer and try again. Segmenting on the CPU does not need it."
                )
            ) from error
        required = _torchToInstall().removeprefix("torch")
        return partial(PyTorchUtilsLogic().installTorch, askConfirmation=False, torchVersionRequirement=required)

    def _installOthers(self, missing: list[str]) -> None:
        """Install other packages without changing an installed torch."""
        with tempfile.TemporaryDirectory() as folder:
            constraints = Path(folder) / "constraints.txt"
            fixed = "" if unmet(["torch"]) else f"torch=={version('torch')}\n"
            constraints.write_text(fixed, encoding="utf-8")
            try:
                from slicer.packaging import pip_ensure
            except ImportError:  # Slicer 5.10
                slicer.util.pip_install(["--constraint", str(constraints), *missing])
            else:
                pip_ensure(missing, constraints=constraints, requester=REQUESTER, prompt_install=False)

    def requirements(self, engine: str) -> list[str]:
        """Everything that an engine needs, installed or not."""
        lines = [line.strip() for line in self._requirementsFile.read_text(encoding="utf-8").splitlines()]
        needed = [line for line in lines if line and not line.startswith("#")]
        return list(dict.fromkeys([*(TORCH_ENGINE if engine == "torch" else ()), *needed]))
