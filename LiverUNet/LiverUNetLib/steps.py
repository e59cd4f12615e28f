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
from typing import TypeVar

__all__ = ["Counts", "Progress", "Steps", "finish", "in_background", "in_one_thread", "mapped", "prefixed", "stage"]

T = TypeVar("T")
Before = TypeVar("Before")
After = TypeVar("After")

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


# Work that tells its progress, and work that counts what is done and how much there is in all.
Steps = Generator[Progress, None, T]
Counts = Generator[tuple[int, int], None, T]


def finish(steps: Generator[Before, None, T], show: Callable[[Before], object] = lambda _: None) -> T:
    """Run a generator to its end, `show` each thing it yields, and return what it returns."""
    while True:
        try:
            show(next(steps))
        except StopIteration as end:
            result: T = end.value
            return result


def mapped(steps: Generator[Before, None, T], change: Callable[[Before], After]) -> Generator[After, None, T]:
    """The same steps with everything that they yield changed; their result stays."""
    while True:
        try:
            yield change(next(steps))
        except StopIteration as end:
            result: T = end.value
            return result


def stage(name: str, counts: Counts[T]) -> Steps[T]:
    """The same work with its counts as Progress."""
    return mapped(counts, lambda count: Progress(name, *count))


def prefixed(name: str, steps: Steps[T]) -> Steps[T]:
    """The same steps, with a name before every stage."""
    return mapped(steps, lambda progress: replace(progress, stage=f"{name}: {progress.stage}"))


def in_background(name: str, work: Callable[[], T], *, final: bool = False) -> Steps[T]:
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
    steps: Steps[T],
    around: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> Steps[T]:
    """Take all steps of a generator in one background thread; while one works, the last progress is repeated.

    For steps that hold an event loop too long each, as a batch of slices does on a busy computer. One
    thread for all of them, since torch keeps a pool of threads for each that it is called from.
    Closing the generator lets the step in hand end in the background and closes `steps` after it.

    Args:
        around: makes a context in which every step is taken, in that thread.
    """

    def take() -> Progress | StopIteration:
        with around():
            try:
                return next(steps)
            except StopIteration as end:  # which a Future cannot raise
                return end

    progress = Progress("Starting", 0, 0)
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="LiverUNet steps")
    try:
        while True:
            step = thread.submit(take)
            while not wait_for([step], PATIENCE_SECONDS).done:
                yield progress
            taken = step.result()
            if isinstance(taken, StopIteration):
                result: T = taken.value
                return result
            progress = taken
            yield progress
    finally:
        thread.submit(steps.close)
        thread.shutdown(wait=False)
