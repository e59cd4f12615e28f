"""Drive steps from the event loop, so that the application stays alive and Cancel works between any two."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Protocol

import qt

from LiverUNetLib.steps import Progress

__all__ = ["Listener", "StepRunner"]


class Listener(Protocol):
    """Who shows how a run goes."""

    def onProgress(self, progress: Progress) -> None:
        """A step was taken."""

    def onCancelled(self) -> None:
        """The run was ended before its time."""

    def onFailed(self, error: Exception) -> None:
        """The run has ended by an error."""


class StepRunner:
    """Takes one step of a generator at a time from a timer of no interval, one run at a time."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._timer = qt.QTimer()
        self._timer.interval = 0
        self._timer.connect("timeout()", self._step)
        self._steps: Generator[Progress, None, Any] | None = None
        self._onDone: Callable[[Any], None] | None = None
        self._final = False

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        return self._steps is not None

    def start(self, steps: Generator[Progress, None, Any], onDone: Callable[[Any], None]) -> None:
        """Begin a run; it ends with `onDone`, given its result, or with one of the listener's last two."""
        if self.running:
            raise RuntimeError("One run at a time.")
        self._steps, self._onDone = steps, onDone
        self._timer.start()

    def cancel(self) -> None:
        """End the run, if there is one and it is not writing its result."""
        if not self._final:
            self.stop()

    def stop(self) -> None:
        """End the run now, if there is one; what it has begun is undone by its own `finally`."""
        if self.running:
            self._end()
            self._listener.onCancelled()

    def _step(self) -> None:
        if self._steps is None:
            return
        try:
            progress = next(self._steps)
        except StopIteration as end:
            onDone = self._onDone
            self._end()
            onDone(end.value)
        except Exception as error:  # noqa: BLE001 - an event loop takes no exception; the listener shows it
            self._end()
            self._listener.onFailed(error)
        else:
            self._final = progress.final
            self._listener.onProgress(progress)

    def _end(self) -> None:
        """Forget the run before anybody hears of its end and begins another."""
        self._timer.stop()
        self._steps.close()
        self._steps = self._onDone = None
        self._final = False
