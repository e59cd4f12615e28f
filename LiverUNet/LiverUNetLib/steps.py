"""Work in steps: a generator that yields Progress and returns a result.

The command line runs one to its end under a progress bar; Slicer's event loop takes a step at a time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, replace
from typing import Any, TypeVar

__all__ = ["Progress", "finish", "in_background", "in_one_thread", "mapped", "prefixed", "stage"]

T = TypeVar("T")

# How long a waiting step hands the interpreter to the background thread before it returns.
PATIENCE_SECONDS = 0.03


@dataclass(frozen=True)
class Progress:
    """How far a stage is: `done` of `total`; a total of 0 means that it is unknown.

    Attributes:
        final: it can no longer be ended; what it does will be done in a moment.
    """

    stage: str
    done: int
    total: int
    final: bool = False


def finish(steps: Generator[Any, None, T], show: Callable[[Any], None] = lambda _: None) -> T:
    """Run a generator to its end, `show` each thing it yields, and return what it returns."""
    while True:
        try:
            show(next(steps))
        except StopIteration as end:
            return end.value


def mapped(steps: Generator[Any, None, T], change: Callable[[Any], Any]) -> Generator[Any, None, T]:
    """The same steps with everything that they yield changed; their result stays."""
    while True:
        try:
            yield change(next(steps))
        except StopIteration as end:
            return end.value


def stage(name: str, counts: Generator[tuple[int, int], None, T]) -> Generator[Progress, None, T]:
    """The counts of a generator, done and in all, as Progress."""
    return mapped(counts, lambda count: Progress(name, *count))


def prefixed(name: str, steps: Generator[Progress, None, T]) -> Generator[Progress, None, T]:
    """The same steps, with a name before every stage."""
    return mapped(steps, lambda progress: replace(progress, stage=f"{name}: {progress.stage}"))


def in_background(name: str, work: Callable[[], T], *, final: bool = False) -> Generator[Progress, None, T]:
    """Do `work` in a thread while the steps of stage `name` only wait; its result or its error comes back here.

    For what holds the event loop too long in one piece, as the first import of torch does for
    seconds. Closing the generator does not end the thread: whatever it still does is thrown away.

    Args:
        final: `work` writes something that others see, so it should not be left alone.
    """
    outcome: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name=f"LiverUNet: {name}", daemon=True)
    thread.start()
    while thread.is_alive():
        yield Progress(name, 0, 0, final)
        thread.join(PATIENCE_SECONDS)
    if errors:
        raise errors[0]
    return outcome[0]


def in_one_thread(
    steps: Generator[Progress, None, T],
    around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Generator[Progress, None, T]:
    """Take all steps of a generator in one background thread; while one works, the last progress is repeated.

    For steps that hold an event loop too long each, as a batch of slices does on a busy computer. One
    thread for all of them, since torch keeps a pool of threads for each that it is called from.
    Closing the generator lets the step in hand end in the background and closes `steps` after it.

    Args:
        around: makes a context in which every step is taken, in that thread.
    """

    def take() -> tuple[Progress | None, StopIteration | None]:
        with around():
            try:
                return next(steps), None
            except StopIteration as end:  # which a Future cannot carry
                return None, end

    progress = Progress("Starting", 0, 0)
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="LiverUNet steps")
    try:
        while True:
            step = thread.submit(take)
            while not wait_for([step], PATIENCE_SECONDS).done:
                yield progress
            progress, end = step.result()
            if end is not None:
                return end.value
            yield progress
    finally:
        thread.submit(steps.close)
        thread.shutdown(wait=False)
