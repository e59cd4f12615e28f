"""A model learns from new cases: what it may train on, and whether it has become better."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from LiverUNetLib.environment import Device
from LiverUNetLib.errors import ModelError, TrainingError
from LiverUNetLib.formats import read_volume
from LiverUNetLib.model import LiverModel, find_model

from .cache import Cache
from .dataset import Case, Split, content_hash, split_by_patient
from .evaluation import CaseScores, evaluate_model
from .export import Statement, export_run
from .run_folder import RunFolder

__all__ = ["Verdict", "compare_before_after", "judge", "split_for_finetuning"]

# A mean Dice that falls by less than this is rounding.
SMALLEST_LOSS = 0.0005


def split_for_finetuning(
    cache: Cache, parent: LiverModel, *, held_out: Iterable[str] = (), validation: float = 0.2, seed: int = 0
) -> tuple[Split, tuple[str, ...]]:
    """Split new cases by patient; old ones keep the part that the parent's lineage gave them, by content.

    Returns:
        The split, and which of its training cases the parent has learned from: they are replayed.

    Raises:
        TrainingError: there is no new case to learn from.
    """
    lineage = parent.card.lineage
    held = set(lineage.held_out.values())
    known = set(lineage.training.values()) | set(lineage.validation.values())
    asked = set(held_out)
    names = {case.name: case.content_hash for case in cache.cases}
    if asked - set(names):
        raise TrainingError(f"Cannot hold out {', '.join(sorted(asked - set(names)))}: there is no such case.")
    out = sorted(name for name, hash_ in names.items() if hash_ in held or name in asked)
    old = sorted(name for name, hash_ in names.items() if hash_ in known and name not in out)
    new = [name for name in names if name not in out and name not in old]
    if not new:
        raise TrainingError(
            f"There is nothing new for {parent.card.name} to learn from: all {len(names)} cases are known or held out."
        )
    split = split_by_patient(new, validation=validation, seed=seed)
    return Split((*split.training, *old), split.validation, tuple(out)), tuple(old)


@dataclass(frozen=True)
class Verdict:
    """What fine-tuning has done to the same held-out cases.

    Attributes:
        before, after: mean Dice; None if there is no held-out case.
        cases: how many were compared.
    """

    before: float | None
    after: float | None
    cases: int

    @property
    def worse(self) -> bool:
        """Whether the new model should not be used without a second thought."""
        return self.before is not None and self.after < self.before - SMALLEST_LOSS

    @property
    def words(self) -> str:
        """The figures in a sentence."""
        if self.before is None:
            return "No case was held out, so nobody knows whether the model has become better or worse."
        change = "worse" if self.worse else "no worse"
        return (
            f"On the same {self.cases} held-out cases the mean Dice was {self.before:.4f} before and "
            f"is {self.after:.4f} after: {change} than before."
        )


def compare_before_after(before: Sequence[CaseScores], after: Sequence[CaseScores]) -> Verdict:
    """Compare two evaluations of the same cases.

    Raises:
        TrainingError: the cases are not the same.
    """
    names = [sorted(case.case for case in cases) for cases in (before, after)]
    if names[0] != names[1]:
        raise TrainingError("Before and after were not measured on the same cases.")
    means = [float(np.mean([case.scores.dice for case in cases])) if cases else None for cases in (before, after)]
    return Verdict(*means, len(before))


def judge(run: Path, cases: Sequence[Case], device: Device) -> Verdict | None:
    """Compare the model of a fine-tuned run with its parent, on the cases that the run holds out.

    Returns:
        None if the run did not start from a model.

    Raises:
        TrainingError: the run has no weights yet.
        ModelError: the parent is not installed any more, or another version of it is.
    """
    parent = RunFolder(run).settings().get("parent")
    if not parent:
        return None
    before = find_model(parent["name"])
    if before.card.checksum != parent["checksum"]:
        raise ModelError(f"{parent['name']} is not the model that this run started from; install that one to compare.")
    with tempfile.TemporaryDirectory() as folder:
        after = export_run(run, Path(folder) / "tuned", Statement("tuned"))
        held_out = set(after.card.lineage.held_out.values())
        chosen = [case for case in cases if content_hash(read_volume(case.scan)) in held_out]
        if not chosen:
            return compare_before_after([], [])
        return compare_before_after(*(list(evaluate_model(model, chosen, device)) for model in (before, after)))
