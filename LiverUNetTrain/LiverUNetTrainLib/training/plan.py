"""The plan of a training, and what its run folder keeps of it: only the same plan can resume a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from LiverUNetLib.errors import TrainingError
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.models.spec import ModelSpec

from ..data.cache import Cache, CachedCase, Grids
from ..data.splits import Split, split_by_patient, split_for_finetuning
from ..run.run_settings import ParentModel, RunSettings, SplitHashes
from ..run.settings import TrainingSettings
from .recipes import Recipe

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """What to train, on which cases, and how.

    Attributes:
        parent: start from this model instead of fresh weights; its fine look is tuned, its coarse one stays.
        replayed: training cases that the parent knows; an epoch shows `settings.replay` of their slices for each new
            one.
    """

    cache: Cache
    split: Split
    spec: ModelSpec
    settings: TrainingSettings
    parent: LiverModel | None = None
    replayed: tuple[str, ...] = ()

    @classmethod
    def for_recipe(
        cls, cache: Cache, recipe: Recipe, *, parent: LiverModel | None = None, held_out: Iterable[str] = ()
    ) -> Plan:
        """Train by a recipe on the cases of a cache, split by patient, with a parent by `split_for_finetuning`.

        Raises:
            TrainingError: what is to be held out does not exist or was learned from, or nothing is left to learn from.
        """
        validation, seed = recipe.validation, recipe.settings.seed
        replayed: tuple[str, ...] = ()
        if parent:
            split, replayed = split_for_finetuning(cache, parent, held_out=held_out, validation=validation, seed=seed)
        else:
            names = [case.name for case in cache.cases]
            split = split_by_patient(names, held_out=held_out, validation=validation, seed=seed)
        return cls(cache, split, recipe.on(cache.grids, parent), recipe.settings, parent, replayed)

    @property
    def training(self) -> list[CachedCase]:
        """The cases to learn from."""
        return self.cache.select(self.split.training)

    @property
    def validation(self) -> list[CachedCase]:
        """The cases to validate on."""
        return self.cache.select(self.split.validation)

    def record(self) -> RunSettings:
        """What a run folder keeps of it.

        Raises:
            TrainingError: the cache was prepared on other grids, or the parent holds out a case that would train.
        """
        self._check_grids()
        hashes = {case.name: case.content_hash for case in self.cache.cases}
        split = SplitHashes(
            **{part: {name: hashes[name] for name in names} for part, names in vars(self.split).items()}
        )
        used = split.training | split.validation | split.held_out
        masks = {case.name: case.mask_hash for case in self.cache.cases if case.name in used}
        return RunSettings(self.spec, self.settings, split, masks, self._parent(), self.replayed)

    def _check_grids(self) -> None:
        expected = Grids.of(self.spec)
        if self.spec.coarse is None:  # what a cache holds for it is not used
            expected = replace(expected, voxel_mm=self.cache.grids.voxel_mm)
        if self.cache.grids != expected:
            raise TrainingError(
                f"{self.cache.folder} was prepared on other grids than this model's; prepare the cases again, for the "
                "fine-tuning of a model with --like MODEL."
            )

    def _parent(self) -> ParentModel | None:
        if self.parent is None:
            return None
        card = self.parent.card
        held_out = set(card.lineage.held_out.values())
        leaks = [case.name for case in self.training + self.validation if case.content_hash in held_out]
        if leaks:
            raise TrainingError(
                f"{', '.join(leaks)} must never train: {card.name} holds them out; add them to --hold-out."
            )
        return ParentModel(card.name, card.version, card.checksum, card.license, card.lineage)
