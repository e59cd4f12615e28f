"""Run the command line of LiverUNet, and tell what each stage cost in CPU seconds.

    python Testing/benchmarks/cost_stages.py FILE segment CT -o MASK

The seconds go to FILE as JSON, those of all threads together. Works with any commit since the library has rooms.
What nothing claims (arguments, the model's card, printing) is "rest".
"""

import builtins
import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

IMPORTS, READING, LOADING, WRITING, REST = "Python and imports", "reading", "loading the network", "writing", "rest"
UNNAMED = "unnamed"  # until the next Progress tells the stage


class Clock:
    """CPU seconds of the process since its start, by stage; only the main thread opens stages."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._open, self._charged = [REST], 0.0
        self.charge(IMPORTS)  # the start of Python

    def charge(self, name: str = "") -> None:
        """Book what was spent since the last call on a stage: `name`, or the one that is open."""
        now, name = time.process_time(), name or self._open[-1]
        self.spent[name] = self.spent.get(name, 0.0) + now - self._charged
        self._charged = now

    @contextlib.contextmanager
    def during(self, name: str) -> Iterator[None]:
        """Book the block on a stage, but for the stages that open within it."""
        if threading.current_thread() is not threading.main_thread() or self._open[-1] == name:
            yield
            return
        self.charge()
        self._open.append(name)
        try:
            yield
        finally:
            self.charge()
            self._open.pop()

    def rename(self, old: str, new: str) -> None:
        """Move what was booked on one stage to another."""
        self.spent[new] = self.spent.get(new, 0.0) + self.spent.pop(old, 0.0)

    def timed(self, name: str, function: Callable) -> Callable:
        """The function, booked on a stage."""

        def timed(*arguments: Any, **named: Any) -> Any:
            with self.during(name):
                return function(*arguments, **named)

        return timed

    def watched(self, steps_of: Callable) -> Callable:
        """A function that returns steps, each booked on the stage of the Progress that ends it.

        A Progress of 0 done announces a stage: what came before it belongs to the one before.
        """

        def watched(*arguments: Any, **named: Any) -> Any:
            steps, current = steps_of(*arguments, **named), ""
            while True:
                try:
                    with self.during(UNNAMED):
                        progress = next(steps)
                except StopIteration as end:
                    self.rename(UNNAMED, current or REST)
                    return end.value
                if progress.done or not current:
                    current = progress.stage
                self.rename(UNNAMED, current)
                current = progress.stage
                yield progress

        return watched


def main() -> int:
    clock, file = Clock(), Path(sys.argv.pop(1))
    builtins.__import__ = clock.timed(IMPORTS, builtins.__import__)
    from LiverUNetLib.cli.main import main as run
    from LiverUNetLib.models.folder import LiverModel
    from LiverUNetLib.scan import formats
    from LiverUNetLib.segmentation import pipeline

    # The command line imports these names when it needs them, so it finds the watched ones.
    formats.read_volume = clock.timed(READING, formats.read_volume)
    formats.write_mask = clock.timed(WRITING, formats.write_mask)
    for name in {"network", "networks"} & set(vars(LiverModel)):  # commits differ in how many a model has
        setattr(LiverModel, name, clock.timed(LOADING, getattr(LiverModel, name)))
    pipeline.segment = clock.watched(pipeline.segment)
    try:
        return run()
    finally:
        clock.charge()
        file.write_text(json.dumps(clock.spent))


if __name__ == "__main__":
    sys.exit(main())
