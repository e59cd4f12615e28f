"""A model learns from new cases: what it may train on, and whether it has become better."""

from __future__ import annotations

import logging
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from LiverUNetLib.environment import Device
from LiverUNetLib.errors import ModelError, ScanError, TrainingError
from LiverUNetLib.formats import read_volume
from LiverUNetLib.model import LiverModel, find_model

from .cache import Cache
from .dataset import Case, Split, content_hash, split_by_patient
from .evaluation import CaseScores, evaluate_model
from .export import Statement, export_run
from .run_folder import RunFolder

__all__ = ["Verdict", "compare_before_after", "judge", "split_for_finetuning"]

logger = logging.getLogger(__name__)

# A mean Dice that falls by less than this is rounding.
SMALLEST_LOSS = 0.0005


def split_for_finetuning(
    cache: Cache, parent: LiverModel, *, held_out: Iterable[str] = (), validation: float = 0.2, seed: int = 0
) -> tuple[Split, tuple[str, ...]]:
    """Split new cases by patient; old ones keep the part that the parent's lineage gave them, by content.

    A case whose mask was corrected since the parent trained on it is learned from as if it were new. The
    parent's validation patients join those drawn from the new ones; alone they would choose the
    epoch that has learned least, and then nobody validates.

    Returns:
        The split, and which of its training cases the parent has learned from: they are replayed.

    Raises:
        TrainingError: there is nothing to learn from, or a case that the parent knows is to be held out.
    """
    lineage = parent.card.lineage
    parts = lineage.roles()
    asked, names = set(held_out), {case.name for case in cache.cases}
    if asked - names:
        raise TrainingError(f"Cannot hold out {', '.join(sorted(asked - names))}: there is no such case.")
    found = defaultdict(list)
    for case in cache.cases:
        part = parts.get(case.content_hash, "new")
        if case.name in asked:
            part = "held out" if part in ("new", "held out") else "learned"
        elif part == "training" and lineage.masks.get(case.content_hash, case.mask_hash) != case.mask_hash:
            part = "corrected"
        found[part].append(case.name)
    namesakes = sorted({*found["new"], *found["corrected"]} & set(lineage.held_out))
    if namesakes:
        logger.warning(
            "%s called like what %s holds out, with other content: if they are the same patients in other files, "
            "hold them out as well.",
            f"{', '.join(namesakes)} {'is' if len(namesakes) == 1 else 'are'}",
            parent.card.name,
        )
    if found["learned"]:
        learned = ", ".join(sorted(found["learned"]))
        raise TrainingError(f"Cannot hold out {learned}: {parent.card.name} has learned from it already.")
    if not found["new"] and not found["corrected"]:
        raise TrainingError(
            f"There is nothing new for {parent.card.name} to learn from: all {len(names)} cases are known or held out."
        )
    drawn = split_by_patient(found["new"], validation=validation, seed=seed) if found["new"] else Split((), (), ())
    old = tuple(sorted(found["training"]))
    split = Split(
        training=(*drawn.training, *found["corrected"], *old),
        validation=(*drawn.validation, *sorted(found["validation"])) if drawn.validation else (),
        held_out=tuple(sorted(found["held out"])),
    )
    return split, old


@dataclass(frozen=True)
class Verdict:
    """What fine-tuning has done to the same held-out cases.

    Attributes:
        before, after: mean Dice; None if nothing could be compared.
        cases: how many were compared.
        obstacle: why nothing could.
    """

    before: float | None
    after: float | None
    cases: int
    obstacle: str = "no held-out case is there"

    @property
    def good(self) -> bool:
        """Whether it was shown that the new model is no worse."""
        return self.before is not None and not self.worse

    @property
    def worse(self) -> bool:
        """Whether the new model should not be used without a second thought."""
        return self.before is not None and self.after < self.before - SMALLEST_LOSS

    @property
    def words(self) -> str:
        """The figures in a sentence."""
        if self.before is None:
            return f"Nobody knows whether the model has become better or worse: {self.obstacle}."
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

    A scan that cannot be read is passed over.

    Returns:
        None if the run did not start from a model.

    Raises:
        TrainingError: the run has no weights yet.
    """
    parent = RunFolder(run).settings().get("parent")
    if not parent:
        return None
    try:
        before = find_model(parent["name"])
    except ModelError as error:
        return Verdict(None, None, 0, str(error).rstrip("."))
    if before.card.checksum != parent["checksum"]:
        return Verdict(None, None, 0, f"{parent['name']} is not the model any more that this run started from")
    with tempfile.TemporaryDirectory() as folder:
        after = export_run(run, Path(folder) / "tuned", Statement("tuned"))
        held_out = set(after.card.lineage.held_out.values())
        chosen = [case for case in cases if _content(case) in held_out]
        if not chosen:
            return compare_before_after([], [])
        return compare_before_after(*(list(evaluate_model(model, chosen, device)) for model in (before, after)))


def _content(case: Case) -> str:
    """The content hash of a scan; empty if it cannot be read."""
    try:
        return content_hash(read_volume(case.scan))
    except ScanError as error:
        logger.warning("%s is not compared: %s", case.name, error)
        return ""
