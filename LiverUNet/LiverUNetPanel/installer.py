"""Install what is missing, on the first use and never before; every way it can fail has its own words."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from subprocess import CalledProcessError
from typing import TextIO

import slicer
from slicer.i18n import tr as _

from LiverUNetLib.dependencies import TORCH_REQUIREMENT, explain_failure, unmet
from LiverUNetLib.errors import LiverUNetError

__all__ = ["InstallationError", "Installer"]

logger = logging.getLogger(__name__)

REQUESTER = "LiverUNet"


class InstallationError(LiverUNetError):
    """Packages are missing and could not be installed."""


class _Tee(io.TextIOBase):
    """Keeps what pip prints, which the error of a failed installation does not hold, and shows it as before."""

    def __init__(self, shown: TextIO) -> None:
        self._shown, self.text = shown, ""

    def write(self, text: str) -> int:
        self.text += text
        self._shown.write(text)
        return len(text)


def _internetAnswers() -> bool:
    """Whether the package index has an address here; asked only after an installation has failed."""
    try:
        return bool(socket.getaddrinfo("pypi.org", 443))
    except OSError:
        return False


class Installer:
    """Sees to torch and to the packages of a requirements file.

    Args:
        requirementsFile: what is needed beside torch.
    """

    # Of all panels: Slicer turns its event loop while pip works, so that other buttons can be pressed.
    _working = False

    def __init__(self, requirementsFile: Path) -> None:
        self._requirementsFile = requirementsFile

    def missing(self) -> list[str]:
        """The requirements that are not met; asks the packages' records and imports nothing."""
        return unmet([TORCH_REQUIREMENT, *self._requirements()])

    def ensure(self, wheelFolder: str = "") -> bool:
        """Install what is missing, if the person agrees; returns False if they decline.

        Args:
            wheelFolder: take everything from this folder, without the internet.

        Raises:
            InstallationError: why it failed and what to do; also while another installation is under way.
        """
        if Installer._working:
            raise InstallationError(_("Packages are being installed already; wait until that has ended."))
        Installer._working = True
        try:
            return self._ensure(wheelFolder)
        finally:
            Installer._working = False

    def ensureAndSay(self, wheelFolder: str, say: Callable[[str], None]) -> bool:
        """As `ensure`; the user is told what takes so long, and what came of it."""
        installed = False
        say(_("Installing packages; this takes some minutes.") if self.missing() else "")
        try:
            installed = self.ensure(wheelFolder)
        finally:
            say("" if installed else _("Nothing was done: packages are missing and were not installed."))
        return installed

    def _ensure(self, wheelFolder: str) -> bool:
        missing = self.missing()
        if not missing:
            return True
        if slicer.app.testingEnabled():
            raise InstallationError(
                _("{names} missing, and nothing is installed in testing mode.").format(names=", ".join(missing))
            )
        log = _Tee(sys.stdout)
        try:
            with contextlib.redirect_stdout(log):
                installed = self._fromFolder(missing, wheelFolder) if wheelFolder else self._fromInternet()
        except CalledProcessError as error:
            said = log.text if wheelFolder or _internetAnswers() else f"{log.text} getaddrinfo"
            reason = explain_failure(said, urllib.request.getproxies())
            raise InstallationError(
                _("{names} could not be installed: {reason}.").format(names=", ".join(missing), reason=reason)
            ) from error
        missing = self.missing()
        if installed and missing:
            raise InstallationError(
                _("{names} still missing after the installation; restart Slicer and try again.").format(
                    names=", ".join(missing)
                )
            )
        return installed

    def _fromFolder(self, missing: list[str], wheelFolder: str) -> bool:
        if not Path(wheelFolder).is_dir():
            raise InstallationError(
                _("The folder of wheels {folder} does not exist; choose another or clear it.").format(
                    folder=wheelFolder
                )
            )
        question = _("Install {names} from {folder}?").format(names=", ".join(missing), folder=wheelFolder)
        if not slicer.util.confirmOkCancelDisplay(question, REQUESTER):
            return False
        slicer.util.pip_install(["--no-index", "--find-links", wheelFolder, *missing])
        return True

    def _fromInternet(self) -> bool:
        return self._ensureTorch() and self._ensureOthers()

    def _ensureTorch(self) -> bool:
        """Torch comes from the PyTorch extension, which knows the build that fits the GPU."""
        if not unmet([TORCH_REQUIREMENT]):
            return True
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
                    "restart Slicer and try again."
                )
            ) from error
        required = TORCH_REQUIREMENT.removeprefix("torch")
        return PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=required) is not None

    def _ensureOthers(self) -> bool:
        """Everything else leaves the installed torch as it is."""
        missing = unmet(self._requirements())
        if not missing:
            return True
        with tempfile.TemporaryDirectory() as folder:
            constraints = Path(folder) / "constraints.txt"
            constraints.write_text(f"torch=={version('torch')}\n", encoding="utf-8")
            try:
                from slicer.packaging import pip_ensure
            except ImportError:  # Slicer 5.10
                names = ", ".join(missing)
                if not slicer.util.confirmOkCancelDisplay(_("Install {names}?").format(names=names), REQUESTER):
                    return False
                slicer.util.pip_install(["--constraint", str(constraints), *missing])
                return True
            try:
                pip_ensure(missing, constraints=constraints, requester=REQUESTER)
            except RuntimeError as error:
                if "declined" not in str(error):
                    raise
                logger.info("%s: %s", REQUESTER, error)
                return False
        return True

    def _requirements(self) -> list[str]:
        lines = (line.strip() for line in self._requirementsFile.read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line and not line.startswith("#")]
