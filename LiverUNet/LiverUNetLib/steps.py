"""Work in steps: a generator that yields Progress and returns a result.

The command line runs it to its end under a progress bar; Slicer's event loop takes one step at a time.
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

# A step that waits for a background thread gives it this much time before it returns.
PATIENCE_SECONDS = 0.03


@dataclass(frozen=True)
class Progress:
    """How much of a stage is done: `done` of `total`, where a total of 0 means unknown.

    Attributes:
        final: the stage can no longer be cancelled, and ends soon.
    """

    stage: str
    done: int
    total: int
    final: bool = False


# Counts yields how many items are done and how many there are.
Steps = Generator[Progress, None, T]
Counts = Generator[tuple[int, int], None, T]


def finish(steps: Generator[Before, None, T], show: Callable[[Before], object] = lambda _: None) -> T:
    """Run a generator to its end, call `show` with everything that it yields, and return its result."""
    while True:
        try:
            show(next(steps))
        except StopIteration as end:
            result: T = end.value
            return result


def mapped(steps: Generator[Before, None, T], change: Callable[[Before], After]) -> Generator[After, None, T]:
    """Apply `change` to everything that the steps yield; the result stays the same."""
    while True:
        try:
            yield change(next(steps))
        except StopIteration as end:
            result: T = end.value
            return result


def stage(name: str, counts: Counts[T]) -> Steps[T]:
    """Turn counts into Progress of a stage."""
    return mapped(counts, lambda count: Progress(name, *count))


def prefixed(name: str, steps: Steps[T]) -> Steps[T]:
    """Put a name before the stage of every Progress."""
    return mapped(steps, lambda progress: replace(progress, stage=f"{name}: {progress.stage}"))


def in_background(name: str, work: Callable[[], T], *, final: bool = False) -> Steps[T]:
    """Run `work` in a thread so that a UI stays responsive; yield Progress until it ends, then return its result.

    For work that cannot be divided into steps, such as the first import of torch, which takes
    seconds. Closing the generator does not end the thread, but discards its result.

    Args:
        name: the stage to show.
        final: the work cannot be cancelled, for example because it writes files.

    Raises:
        BaseException: what `work` raises.
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
    """Run all steps of a generator in one background thread; during a step, the last progress is repeated.

    For steps that take so long that a UI would freeze, such as a batch of slices on a busy computer. All
    steps run in the same thread, since torch keeps a pool of threads for each thread that calls it.
    Closing the generator lets the current step end in the background, then closes `steps`.

    Args:
        around: makes a context manager that is entered in that thread for every step.
    """

    def take() -> Progress | StopIteration:
        with around():
            try:
                return next(steps)
            except StopIteration as end:  # a Future cannot raise it
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
