"""A finished run becomes a model folder: weights, lineage and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from LiverUNetLib.models.bundle import save_model
from LiverUNetLib.models.calibration import Calibration
from LiverUNetLib.models.card import COARSE, FINE, PERMISSIVE_LICENSES, Lineage, ModelCard
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.models.scores import Evaluation

from ..run.folder import COARSE_FOLDER, RunFolder
from ..run.run_settings import RunSettings
from .card_text import card_text
from .metrics import CaseScores, summarize

if TYPE_CHECKING:
    import torch

__all__ = ["ModelInfo", "export_run", "record_calibration", "record_scores"]


@dataclass(frozen=True)
class ModelInfo:
    """Name, version, description and license of a model; `notes` is Markdown, for example about its failures."""

    name: str
    version: str = "0.1.0"
    description: str = "Segments the liver in CT with U-Nets"
    license: str = "not stated; ask those who trained it"
    notes: str = ""


def export_run(run: Path, folder: Path, info: ModelInfo, *, weights: str = "best") -> LiverModel:
    """Write the averaged weights of a run as a model folder; it is not evaluated yet.

    Args:
        weights: "best" for those with the best validation Dice, "last" for those of the last epoch.

    Raises:
        TrainingError: the run has no such weights, or was begun by another version of LiverUNet.
        OutputError: the folder cannot be written.
    """
    settings = RunFolder(run).settings()
    parent = settings.parent
    if parent and parent.license not in PERMISSIVE_LICENSES:
        info = replace(info, license=f"{info.license}; from {parent.name}: {parent.license}")
    card = ModelCard(
        **asdict(info),
        spec=settings.spec,
        lineage=_lineage(settings),
        training=asdict(settings.training)
        | {
            "weights": weights,
            "validated": list(settings.split.validation),
            "parent": parent and f"{parent.name} {parent.version}",
        },
    )
    return save_model(folder, card, _weights(run, settings, weights), card_text(card))


def _weights(run: Path, settings: RunSettings, which: str) -> dict[str, dict[str, torch.Tensor]]:
    """Of each look; a fine-tuned model has the coarse look of its parent."""
    found = {FINE: RunFolder(run).weights(which)}
    if settings.spec.coarse:
        found[COARSE] = RunFolder(run / COARSE_FOLDER).weights("best" if settings.parent else which)
    return found


def _lineage(settings: RunSettings) -> Lineage:
    """What the run has seen and holds out, and all of its parent's; of two cases with one name both are kept."""
    own, inherited = settings.split, settings.parent.lineage if settings.parent else Lineage()
    seen = own.training | own.validation
    return Lineage(
        training=_united(own.training, inherited.training),
        validation=_united(own.validation, inherited.validation),
        held_out=_united(own.held_out, inherited.held_out),
        masks=inherited.masks | {hash_: settings.masks[name] for name, hash_ in seen.items()},
    )


def _united(own: dict[str, str], inherited: dict[str, str]) -> dict[str, str]:
    renamed = {
        f"{name} ({hash_[:8]})" if own.get(name, hash_) != hash_ else name: hash_ for name, hash_ in inherited.items()
    }
    return renamed | own


def record_scores(model: LiverModel, cases: Sequence[CaseScores], command: str) -> LiverModel:
    """Write the scores of an evaluation into the model's card, metadata and README; the weights stay."""
    scores = Evaluation(command, summarize(cases), tuple(case.row() for case in cases))
    return _rewrite(model, replace(model.card, scores=scores), model.calibration())


def record_calibration(model: LiverModel, calibration: Calibration) -> LiverModel:
    """Write a calibration into the model, and into its README; the weights stay."""
    return _rewrite(model, model.card, calibration)


def _rewrite(model: LiverModel, card: ModelCard, calibration: Calibration | None) -> LiverModel:
    weights = {look: model.state_dict(look) for look in model.looks}
    return save_model(model.folder, card, weights, card_text(card, calibration), calibration=calibration)
