"""What a training was asked for, as its run folder keeps it: the same must be asked for to resume."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from LiverUNetLib.errors import TrainingError
from LiverUNetLib.model import LiverModel
from LiverUNetLib.network import NetworkSpec

from .cache import Cache
from .dataset import Split

if TYPE_CHECKING:
    from .settings import TrainingSettings

__all__ = ["descent", "request"]


def request(cache: Cache, split: Split, network: NetworkSpec, settings: TrainingSettings) -> dict[str, Any]:
    """What a run folder keeps of what was asked for."""
    hashes = {case.name: case.content_hash for case in cache.cases}
    used = cache.select([name for names in asdict(split).values() for name in names])
    return {
        "preprocessing": asdict(cache.preprocessing),
        "network": asdict(network),
        "training": asdict(settings),
        "split": {part: {name: hashes[name] for name in names} for part, names in asdict(split).items()},
        "masks": {case.name: case.mask_hash for case in used},
    }


def descent(parent: LiverModel | None, cache: Cache, split: Split) -> dict[str, Any] | None:
    """Where fine-tuning starts, and what its lineage has seen and holds out."""
    if parent is None:
        return None
    card = parent.card
    if card.preprocessing != cache.preprocessing:
        raise TrainingError(
            f"{card.name} was made for another model grid than {cache.folder}: prepare it by --like {card.name}."
        )
    held_out = set(card.lineage.held_out.values())
    leaks = [case.name for case in cache.select(split.training + split.validation) if case.content_hash in held_out]
    if leaks:
        raise TrainingError(f"{', '.join(leaks)} must never train: {card.name} holds them out; add them to --hold-out.")
    identity = {key: getattr(card, key) for key in ("name", "version", "checksum", "license")}
    return identity | {"lineage": asdict(card.lineage)}
