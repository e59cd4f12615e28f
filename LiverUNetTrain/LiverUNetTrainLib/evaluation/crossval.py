"""Cross-validation by patient: every patient is tested once, by a model that has never seen it.

WORK/cache               all cases on the model grid
WORK/fold1/run           the training of the first fold, resumed after any interruption
WORK/fold1/model         its model; for measurement only
WORK/fold1/scores.json   its scores; a fold that has them is done
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from LiverUNetLib.errors import TrainingError
from LiverUNetLib.steps import Progress
from LiverUNetLib.system.environment import Device
from LiverUNetLib.system.files import read_json, write_json

from ..data.cache import Cache, CachedCase
from ..data.cases import Case
from ..run.folder import EpochLog, RunFolder
from ..training.model_training import ModelTraining
from ..training.plan import Plan
from ..training.recipes import Recipe
from .evaluate import evaluate_model
from .export import ModelInfo, export_run
from .metrics import CaseScores
from .tables import read_scores, write_evaluation

__all__ = ["CrossValidation", "folds_as_in", "folds_of", "scores_of_folds"]


def folds_of(cases: Sequence[CachedCase], count: int, seed: int) -> list[tuple[str, ...]]:
    """Deal cases into folds by a hash of seed and content; names and order play no part.

    Raises:
        TrainingError: fewer than two folds, or fewer cases than folds.
    """
    if not 2 <= count <= len(cases):
        raise TrainingError(f"{len(cases)} cases cannot be dealt into {count} folds; choose 2 to {len(cases)}.")
    dealt = sorted(cases, key=lambda case: hashlib.sha256(f"{seed} {case.content_hash}".encode()).hexdigest())
    return [tuple(sorted(case.name for case in dealt[fold::count])) for fold in range(count)]


def folds_as_in(files: Sequence[Path], cases: Sequence[CachedCase]) -> list[tuple[str, ...]]:
    """Deal cases as an earlier cross-validation did, so that two of them can be compared patient by patient.

    Args:
        files: what `crossval --fold N --json FILE` wrote for each fold, in their order.

    Raises:
        TrainingError: a file holds something else, or the patients are not the same.
    """
    folds = [tuple(sorted(case.case for case in read_scores(path))) for path in files]
    dealt, names = sorted(name for fold in folds for name in fold), sorted(case.name for case in cases)
    if dealt != names:
        raise TrainingError(
            f"These folds hold {', '.join(dealt)}, the cases are {', '.join(names)}; name all folds of the same cases."
        )
    return folds


def scores_of_folds(work: Path, *, only: int | None = None) -> list[CaseScores]:
    """The scores of all patients in the folds of a work folder that are done, or in this one, by name.

    Raises:
        TrainingError: a file of scores is damaged.
    """
    cases = [case for path in work.glob(f"fold{only or '*'}/scores.json") for case in read_scores(path)]
    return sorted(cases, key=lambda case: case.case)


@dataclass(frozen=True)
class CrossValidation:
    """A cross-validation that resumes where it stopped.

    Attributes:
        cache: all cases; those in `references` are dealt into folds, all others only ever train.
        references: the cases with their files, which every fold is tested on.
        same_folds_as: deal as in these files, see `folds_as_in`; `folds` is then ignored.
    """

    work: Path
    cache: Cache
    references: tuple[Case, ...]
    recipe: Recipe
    folds: int = 5
    same_folds_as: tuple[Path, ...] = ()

    def run(self, device: Device, *, only: int | None = None) -> Iterator[tuple[int, Progress | EpochLog | CaseScores]]:
        """Train and test fold after fold; yields the number of the fold with each event in it.

        Args:
            only: this fold alone, counted from 1, so that several processes can share the work.

        Raises:
            TrainingError: the work folder belongs to another cross-validation, or there is no such fold.
        """
        tested = [case for case in self.cache.cases if case.name in {reference.name for reference in self.references}]
        if self.same_folds_as:
            folds = folds_as_in(self.same_folds_as, tested)
        else:
            folds = folds_of(tested, self.folds, self.recipe.settings.seed)
        if only is not None and not 1 <= only <= len(folds):
            raise TrainingError(f"There is no fold {only}; there are 1 to {len(folds)}.")
        self._check_same(folds)
        for number, names in enumerate(folds, start=1):
            folder = self.work / f"fold{number}"
            if only in (None, number) and not (folder / "scores.json").exists():
                yield from ((number, event) for event in self._train(folder / "run", names, device))
                yield from ((number, event) for event in self._test(folder, names, device))

    def scores(self, *, only: int | None = None) -> list[CaseScores]:
        """The scores of all patients in the folds that are done, or in this one, by name."""
        return scores_of_folds(self.work, only=only)

    def _train(self, run: Path, held_out: Sequence[str], device: Device) -> Iterator[Progress | EpochLog]:
        start = ModelTraining.resume if RunFolder(run).exists() else ModelTraining.begin
        training = start(Plan.for_recipe(self.cache, self.recipe, held_out=held_out), run, device)
        ending = yield from training.epochs()
        if ending.interrupted:
            raise TrainingError(f"{run}: {ending.message.split(';')[0]}; run the same command to resume.")

    def _test(self, folder: Path, names: Sequence[str], device: Device) -> Iterator[CaseScores]:
        info = ModelInfo(f"{folder.name}", description="A fold of a cross-validation, for measurement only")
        # The last weights, not the best ones: nothing in a fold is chosen by a score.
        model = export_run(folder / "run", folder / "model", info, weights="last")
        scores = []
        for case in evaluate_model(model, [case for case in self.references if case.name in names], device):
            scores.append(case)
            yield case
        write_evaluation(folder / "scores.json", scores, "liver-unet-train crossval")

    def _check_same(self, folds: Sequence[Sequence[str]]) -> None:
        content = sorted((case.content_hash, case.mask_hash) for case in self.cache.cases)
        plan = {"folds": folds, "recipe": asdict(self.recipe), "content": content}
        asked: dict[str, Any] = json.loads(json.dumps(plan))
        path = self.work / "crossval.json"
        if path.exists() and read_json(path, TrainingError) != asked:
            raise TrainingError(
                f"{self.work} belongs to a cross-validation with other data or settings; name another work folder."
            )
        write_json(path, asked)
