"""Split patients into training, validation and held out, for new models and for fine-tuning."""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from LiverUNetLib.errors import TrainingError
from LiverUNetLib.models.card import Lineage
from LiverUNetLib.models.folder import LiverModel

from .cache import Cache

__all__ = ["Split", "split_by_patient", "split_for_finetuning"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Names of cases by their use; no patient is in two of the lists."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    held_out: tuple[str, ...]


def split_by_patient(
    names: Sequence[str], *, held_out: Iterable[str] = (), validation: float = 0.2, seed: int = 0
) -> Split:
    """Draw the validation patients at random from those not held out; one name is one patient.

    Args:
        validation: their share, rounded, at least one patient; a single patient trains and validation is off.

    Raises:
        TrainingError: an unknown name is held out, or no patient is left.
    """
    held_out = tuple(sorted(set(held_out)))
    unknown = sorted(set(held_out) - set(names))
    if unknown:
        raise TrainingError(
            f"Cannot hold out {', '.join(unknown)}: there is no such case among {', '.join(sorted(names))}."
        )
    rest = sorted(set(names) - set(held_out))
    if not rest:
        raise TrainingError("No patient is left for training; add cases or hold out fewer.")
    if not 0 < validation < 1:
        raise TrainingError(f"The validation share must lie between 0 and 1, not {validation:g}.")
    count = min(max(round(validation * len(rest)), 1), len(rest) - 1)  # a single patient trains
    drawn = set(random.Random(seed).sample(rest, count))  # noqa: S311 - no cryptography
    return Split(
        training=tuple(name for name in rest if name not in drawn),
        validation=tuple(name for name in rest if name in drawn),
        held_out=held_out,
    )


def split_for_finetuning(
    cache: Cache, parent: LiverModel, *, held_out: Iterable[str] = (), validation: float = 0.2, seed: int = 0
) -> tuple[Split, tuple[str, ...]]:
    """Split new cases by patient; old ones keep the part that the parent's lineage gave them, by content.

    A case whose mask was corrected since the parent trained on it is learned from as if it were new. The
    parent's validation patients join those drawn from the new ones. Alone they would choose the
    least-trained epoch, so without new ones validation is off.

    Returns:
        The split, and which of its training cases the parent has learned from: they are replayed.

    Raises:
        TrainingError: there is nothing to learn from, or a case that the parent knows is to be held out.
    """
    names, asked = {case.name for case in cache.cases}, set(held_out)
    if asked - names:
        raise TrainingError(f"Cannot hold out {', '.join(sorted(asked - names))}: there is no such case.")
    found = _by_part(cache, parent.card.lineage, asked)
    if found["learned"]:
        learned = ", ".join(sorted(found["learned"]))
        raise TrainingError(f"Cannot hold out {learned}: {parent.card.name} has learned from it already.")
    if not found["new"] and not found["corrected"]:
        raise TrainingError(
            f"There is nothing new for {parent.card.name} to learn from: all {len(names)} cases are known or held out."
        )
    _warn_of_namesakes([*found["new"], *found["corrected"]], parent)
    drawn = split_by_patient(found["new"], validation=validation, seed=seed) if found["new"] else Split((), (), ())
    old = tuple(sorted(found["training"]))
    split = Split(
        training=(*drawn.training, *found["corrected"], *old),
        validation=(*drawn.validation, *sorted(found["validation"])) if drawn.validation else (),
        held_out=tuple(sorted(found["held out"])),
    )
    return split, old


def _by_part(cache: Cache, lineage: Lineage, held_out: set[str]) -> dict[str, list[str]]:
    """Names by the part that the parent's lineage gives them, or "new", "corrected" or "learned".

    "learned" are those of `held_out` that the parent trained or validated on.
    """
    roles = lineage.roles()
    found = defaultdict(list)
    for case in cache.cases:
        part = roles.get(case.content_hash, "new")
        if case.name in held_out:
            part = "held out" if part in ("new", "held out") else "learned"
        elif part == "training" and lineage.masks.get(case.content_hash, case.mask_hash) != case.mask_hash:
            part = "corrected"
        found[part].append(case.name)
    return found


def _warn_of_namesakes(names: Sequence[str], parent: LiverModel) -> None:
    namesakes = sorted(set(names) & set(parent.card.lineage.held_out))
    if namesakes:
        logger.warning(
            "%s holds out cases of the same name but other content: %s. If they are the same patients in other files, "
            "hold them out as well.",
            parent.card.name,
            ", ".join(namesakes),
        )
