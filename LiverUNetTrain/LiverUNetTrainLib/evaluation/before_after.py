"""Whether fine-tuning has improved a model."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from LiverUNetLib.errors import ModelError, ScanError, TrainingError
from LiverUNetLib.models.store import find_model
from LiverUNetLib.scan.formats import read_volume
from LiverUNetLib.system.environment import Device

from ..data.cases import Case, content_hash
from ..run.folder import RunFolder
from .evaluate import evaluate_model
from .export import ModelInfo, export_run
from .metrics import CaseScores

__all__ = ["Verdict", "compare_before_after", "judge"]

logger = logging.getLogger(__name__)

# A mean Dice that falls by less than this is rounding.
SMALLEST_LOSS = 0.0005


@dataclass(frozen=True)
class Verdict:
    """How a model did on the same held-out cases before and after fine-tuning.

    Attributes:
        before, after: mean Dice; None if nothing could be compared.
        cases: how many were compared.
        obstacle: why nothing could be compared.
    """

    before: float | None
    after: float | None
    cases: int
    obstacle: str = "there is no held-out case"

    @property
    def good(self) -> bool:
        """Whether the new model was measured and is no worse."""
        return self.before is not None and not self.worse

    @property
    def worse(self) -> bool:
        """Whether the new model was measured and is worse."""
        return self.before is not None and self.after is not None and self.after < self.before - SMALLEST_LOSS

    @property
    def message(self) -> str:
        """The result in a sentence."""
        if self.before is None:
            return f"It is unknown whether the model has become better or worse: {self.obstacle}."
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
    if not before:
        return Verdict(None, None, 0)
    one, other = (float(np.mean([case.scores.dice for case in cases])) for cases in (before, after))
    return Verdict(one, other, len(before))


def judge(run: Path, cases: Sequence[Case], device: Device) -> Verdict | None:
    """Compare the model of a fine-tuned run with its parent, on the cases that the run holds out.

    A scan that cannot be read is skipped.

    Returns:
        None if the run did not start from a model.

    Raises:
        TrainingError: the run has no weights yet.
    """
    parent = RunFolder(run).settings().parent
    if parent is None:
        return None
    try:
        before = find_model(parent.name)
    except ModelError as error:
        return Verdict(None, None, 0, str(error).rstrip("."))
    if before.card.checksum != parent.checksum:
        return Verdict(None, None, 0, f"{parent.name} is no longer the model that this run started from")
    with tempfile.TemporaryDirectory() as folder:
        after = export_run(run, Path(folder) / "tuned", ModelInfo("tuned"))
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
