"""What a training was asked for, as its run folder keeps it: the same must be asked for to resume."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from LiverUNetLib.errors import TrainingError
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.models.spec import ModelSpec

from ..data.cache import Cache, Grids
from ..data.splits import Split

if TYPE_CHECKING:
    from .settings import TrainingSettings

__all__ = ["descent", "request"]


def request(cache: Cache, split: Split, spec: ModelSpec, settings: TrainingSettings) -> dict[str, Any]:
    """What a run folder keeps of what was asked for.

    Raises:
        TrainingError: the cache was prepared on other grids.
    """
    _check_grids(cache, spec)
    hashes = {case.name: case.content_hash for case in cache.cases}
    used = cache.select([name for names in asdict(split).values() for name in names])
    return {
        "spec": asdict(spec),
        "training": asdict(settings),
        "split": {part: {name: hashes[name] for name in names} for part, names in asdict(split).items()},
        "masks": {case.name: case.mask_hash for case in used},
    }


def _check_grids(cache: Cache, spec: ModelSpec) -> None:
    expected = Grids.of(spec)
    if spec.coarse is None:  # what a cache holds for it is not used
        expected = replace(expected, voxel_mm=cache.grids.voxel_mm)
    if cache.grids != expected:
        raise TrainingError(
            f"{cache.folder} was prepared on other grids than this model's; prepare the cases again, for the "
            "fine-tuning of a model with --like MODEL."
        )


def descent(parent: LiverModel | None, cache: Cache, split: Split) -> dict[str, Any] | None:
    """Where fine-tuning starts, and what its lineage has seen and holds out."""
    if parent is None:
        return None
    card = parent.card
    held_out = set(card.lineage.held_out.values())
    leaks = [case.name for case in cache.select(split.training + split.validation) if case.content_hash in held_out]
    if leaks:
        raise TrainingError(f"{', '.join(leaks)} must never train: {card.name} holds them out; add them to --hold-out.")
    identity = {key: getattr(card, key) for key in ("name", "version", "checksum", "license")}
    return identity | {"lineage": asdict(card.lineage)}
