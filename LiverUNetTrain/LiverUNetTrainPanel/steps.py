"""Steps that wait for work in a background thread, which may need PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from types import ModuleType
from typing import Any

from LiverUNetLib.errors import LiverUNetError, TrainingError
from LiverUNetLib.steps import Progress, in_background
from LiverUNetPanel.imports import importLibraries, withoutCollector
from LiverUNetTrainLib.data.cases import Finding

__all__ = ["each", "job"]


def job(stage: str, work: Callable[[ModuleType], Any], *, final: bool = False) -> Generator[Progress, None, Any]:
    """Call `work` with the module `jobs` in a background thread, where it is imported first."""
    return (yield from in_background(stage, lambda: work(_importJobs()), final=final))


def _importJobs() -> ModuleType:
    try:
        importLibraries("torch")
        with withoutCollector():
            from . import jobs
    except ImportError as error:
        raise LiverUNetError(
            f"A package is missing ({error}); press Prepare in the module LiverUNetTrain once."
        ) from error
    return jobs


def each(stage: str, work: Iterator[Any], total: int = 0) -> Generator[Progress, None, list[Any]]:
    """Everything an iterator yields; each item is made in the background."""
    found: list[Any] = []
    while True:
        count = f"{len(found) + 1} of {total}" if total else str(len(found) + 1)
        try:
            item = yield from in_background(f"{stage} {count}", lambda: next(work, None))
        except TrainingError as error:
            faults = [str(finding) for finding in found if isinstance(finding, Finding) and not finding.usable]
            raise TrainingError("\n".join([str(error), *faults])) from error
        if item is None:
            return found
        found.append(item)
