"""The part that both panels share: the one run of a panel, with its progress bar, status line and packages."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import slicer
from slicer.i18n import tr as _

from LiverUNetLib.errors import LiverUNetError
from LiverUNetLib.steps import Progress

from ..settings import Settings

if TYPE_CHECKING:
    from ..runner import Listener  # which imports qt

__all__ = ["Packages", "RunSection", "Runner"]


class Runner(Protocol):
    """What takes the steps, see `StepRunner`."""

    @property
    def running(self) -> bool:
        """Whether a run is under way."""

    def start(self, steps: Generator[Progress, None, Any], listener: Listener, onDone: Callable[[Any], None]) -> None:
        """Begin a run."""

    def cancel(self) -> None:
        """End the run, unless it is writing its result."""

    def stop(self) -> None:
        """End the run now."""


class Packages(Protocol):
    """What installs packages, see `Installer`."""

    def missing(self, engine: str) -> list[str]:
        """The requirements of an engine that are not met."""

    def ensure(self, wheelFolder: str, *, engine: str) -> bool:
        """Install what is missing; False if the user declines."""


class RunSection:
    """Starts runs and shows how they go.

    Args:
        ui: the widgets of the panel by name; `progressBar` and `statusLabel` are used here.
        title: the name of the module in messages.
        engine: the engine whose packages every run of this panel needs; empty if a run needs none, or if they are
            installed before it by `ensureInstalled`.
        onChanged: called when a run has begun or ended.
    """

    def __init__(
        self,
        ui: Any,
        title: str,
        *,
        runner: Runner,
        packages: Packages,
        settings: Settings,
        onChanged: Callable[[], None],
        engine: str = "",
    ) -> None:
        self._ui, self._title, self._engine = ui, title, engine
        self._runner, self._packages, self._settings = runner, packages, settings
        self._onChanged = onChanged
        ui.progressBar.visible = False
        self.say("")

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        return self._runner.running

    def start(self, steps: Generator[Progress, None, Any], onDone: Callable[[Any], None] = lambda _: None) -> None:
        """Begin a run; `onDone` is called with its result."""
        with slicer.util.tryWithErrorDisplay(_("{module} cannot start.").format(module=self._title)):
            if not self._engine or self.ensureInstalled():
                self._runner.start(steps, self, partial(self._done, onDone))
                self._ui.progressBar.visible = True
                self.say(_("Starting"))
                self._onChanged()

    def cancel(self) -> None:
        """End the run, unless there is none or it is writing its result."""
        self._runner.cancel()

    def stop(self) -> None:
        """End the run now, if there is one."""
        self._runner.stop()

    def ensureInstalled(self, engine: str = "") -> bool:
        """Install the packages that are missing, if the user agrees; returns whether a run can begin now.

        Slicer's event loop runs during the installation, so another run may have begun.

        Raises:
            LiverUNetError: why the installation failed, and what to do.
        """
        engine, installed = engine or self._engine, False
        missing = self._packages.missing(engine)
        self.say(_("Installing {names}.").format(names=", ".join(missing)) if missing else "")
        try:
            installed = self._packages.ensure(self._settings.wheelFolder, engine=engine)
        finally:
            self.say("" if installed else _("Nothing was done: packages are missing and were not installed."))
        return installed and not self.running

    def say(self, message: str) -> None:
        """Show a message in the status line, which takes no room while it is empty."""
        self._ui.statusLabel.text = message
        self._ui.statusLabel.visible = bool(message)

    def onProgress(self, progress: Progress) -> None:
        """Show the stage and how much of it is done; the bar has no end where the total is unknown."""
        bar = self._ui.progressBar
        bar.maximum = progress.total
        bar.value = progress.done
        count = _(", {done} of {total}").format(done=progress.done, total=progress.total) if progress.total else ""
        self.say(progress.stage + (_("; this cannot be cancelled") if progress.final else count))

    def onCancelled(self) -> None:
        """Say that the run was cancelled."""
        self._ended(_("Cancelled; nothing unfinished was written."))

    def onFailed(self, error: Exception) -> None:
        """Show what went wrong, once."""
        self._ended(str(error) if isinstance(error, LiverUNetError) else _("Failed: {error}").format(error=error))
        with slicer.util.tryWithErrorDisplay(_("{module} could not finish.").format(module=self._title)):
            raise error

    def _done(self, onDone: Callable[[Any], None], result: Any) -> None:
        self._ended(_("Done."))
        onDone(result)
        self._onChanged()

    def _ended(self, message: str) -> None:
        self._ui.progressBar.visible = False
        self.say(message)
        self._onChanged()
