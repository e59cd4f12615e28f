"""Run a job step by step from the event loop: Slicer stays responsive, and a run can be cancelled between two steps."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Protocol

import qt

from LiverUNetLib.steps import Progress

__all__ = ["Listener", "StepRunner"]


class Listener(Protocol):
    """Is told how a run goes."""

    def onProgress(self, progress: Progress) -> None:
        """A step was taken."""

    def onCancelled(self) -> None:
        """The run was cancelled."""

    def onFailed(self, error: Exception) -> None:
        """The run ended with an error."""


class StepRunner:
    """Takes one step of a generator at a time, from a timer without delay. There is one run at a time."""

    def __init__(self) -> None:
        self._timer = qt.QTimer()
        self._timer.interval = 0
        self._timer.connect("timeout()", self._step)
        self._steps: Generator[Progress, None, Any] | None = None
        self._listener: Listener | None = None
        self._onDone: Callable[[Any], None] | None = None
        self._final = False

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        return self._steps is not None

    def start(self, steps: Generator[Progress, None, Any], listener: Listener, onDone: Callable[[Any], None]) -> None:
        """Begin a run. It ends with `onDone`, given its result, or with one of the listener's last two methods."""
        if self.running:
            raise RuntimeError("One run at a time.")
        self._steps, self._listener, self._onDone = steps, listener, onDone
        self._timer.start()

    def cancel(self) -> None:
        """End the run, unless there is none or it is writing its result."""
        if not self._final:
            self.stop()

    def stop(self) -> None:
        """End the run now, if there is one; its own `finally` blocks clean up."""
        if self.running:
            listener = self._listener
            self._end()
            listener.onCancelled()

    def _step(self) -> None:
        if self._steps is None:
            return
        listener, onDone = self._listener, self._onDone
        try:
            progress = next(self._steps)
        except StopIteration as end:
            self._end()
            onDone(end.value)
        except Exception as error:  # noqa: BLE001 - the event loop cannot handle it, the listener shows it
            self._end()
            listener.onFailed(error)
        else:
            self._final = progress.final
            listener.onProgress(progress)

    def _end(self) -> None:
        """Forget the run before its end is reported, so that the next one can begin."""
        self._timer.stop()
        self._steps.close()
        self._steps = self._listener = self._onDone = None
        self._final = False
