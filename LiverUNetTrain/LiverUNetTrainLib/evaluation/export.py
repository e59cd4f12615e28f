"""A finished run becomes a model folder: weights, lineage, scores and the model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LiverUNetLib.models.bundle import save_model
from LiverUNetLib.models.calibration import Calibration
from LiverUNetLib.models.card import COARSE, FINE, PERMISSIVE_LICENSES, Lineage, ModelCard
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.models.spec import ModelSpec, NetworkSpec, spec_from_json

from ..run.folder import COARSE_FOLDER, RunFolder
from .calibration_report import calibration_section
from .metrics import CaseScores, summarise

if TYPE_CHECKING:
    import torch

__all__ = ["ModelInfo", "export_run", "record_calibration", "record_scores"]

COURSES = {"cosine": "warm-up and cosine", "constant": "a constant rate after the warm-up"}
CHOICES = {
    "best": "The best epoch was kept by the 3D Dice of",
    "last": "The weights are those of the last epoch; validated by the 3D Dice of",
}
LIMITS = """\
- A research tool, not a medical device; check every mask.
- Reliable at most where scans resemble those that it has learned from.
- The liver is segmented with its tumours and the vessels inside; the vena cava and the gallbladder are not part of it.
- Scans are brought to {pixel_mm:g} mm pixels, so details finer than that are lost.
- If several parts are found, only the one with the most evidence is kept: of a liver in two parts, one is reported.
"""


@dataclass(frozen=True)
class ModelInfo:
    """The title page of a model; `notes` is Markdown, about what its failures look like."""

    name: str
    version: str = "0.1.0"
    description: str = "Segments the liver in CT with U-Nets"
    license: str = "not stated; ask who trained it"
    notes: str = ""


def export_run(run: Path, folder: Path, info: ModelInfo, *, weights: str = "best") -> LiverModel:
    """Write the averaged weights of a run as a model folder; it is not evaluated yet.

    Args:
        weights: "best" for those with the best validation Dice, "last" for those of the last epoch.

    Raises:
        TrainingError: the run has no such weights, or was begun by an older LiverUNet.
        OutputError: the folder cannot be written.
    """
    settings = RunFolder(run).hashed_settings()
    parent = settings.get("parent")
    if parent and parent["license"] not in PERMISSIVE_LICENSES:
        info = replace(info, license=f"{info.license}; from {parent['name']}: {parent['license']}")
    card = ModelCard(
        **asdict(info),
        spec=spec_from_json(settings["spec"]),
        lineage=_lineage(settings),
        training=settings["training"]
        | {
            "weights": weights,
            "validated": list(settings["split"]["validation"]),
            "parent": parent and f"{parent['name']} {parent['version']}",
        },
    )
    return save_model(folder, card, _weights(run, card, weights), _readme(card))


def _weights(run: Path, card: ModelCard, which: str) -> dict[str, dict[str, torch.Tensor]]:
    """Of each look; a fine-tuned model has the coarse look of its parent."""
    found = {FINE: RunFolder(run).weights(which)}
    if card.spec.coarse:
        found[COARSE] = RunFolder(run / COARSE_FOLDER).weights(which if card.training["parent"] is None else "best")
    return found


def _lineage(settings: dict[str, Any]) -> Lineage:
    """What the run has seen and holds out, and all of its parent's; of two cases with one name both are kept."""
    own, parent = settings["split"], (settings.get("parent") or {}).get("lineage", {})
    parts = {}
    for part, cases in own.items():
        inherited = parent.get(part, {})
        parts[part] = {
            f"{name} ({hash_[:8]})" if cases.get(name, hash_) != hash_ else name: hash_
            for name, hash_ in inherited.items()
        } | cases
    seen = own["training"] | own["validation"]
    masks = {hash_: settings["masks"][name] for name, hash_ in seen.items() if name in settings.get("masks", {})}
    return Lineage(**parts, masks=parent.get("masks", {}) | masks)


def record_scores(model: LiverModel, cases: Sequence[CaseScores], command: str) -> LiverModel:
    """Write the scores of an evaluation into the model's card, metadata and README; the weights stay."""
    scores = {"command": command, "summary": summarise(cases), "cases": [case.row() for case in cases]}
    return _rewrite(model, replace(model.card, scores=scores), model.calibration())


def record_calibration(model: LiverModel, calibration: Calibration) -> LiverModel:
    """Write a calibration into the model, and into its README; the weights stay."""
    return _rewrite(model, model.card, calibration)


def _rewrite(model: LiverModel, card: ModelCard, calibration: Calibration | None) -> LiverModel:
    weights = {look: model.state_dict(look) for look in model.looks}
    return save_model(model.folder, card, weights, _readme(card, calibration), calibration=calibration)


def _readme(card: ModelCard, calibration: Calibration | None = None) -> str:
    """The model card, in Markdown."""
    training, lineage = card.training, card.lineage
    sections = [
        f"# {card.name} {card.version}\n\n{card.description}.",
        f"**License of the weights: {card.license}.**",
        f"## Networks\n\n{_networks(card.spec)}",
        "## Data\n\n"
        f"Trained on {len(lineage.training)} patients: {', '.join(lineage.training)}.\n\n"
        f"{_validated(training['weights'], training.get('validated', list(lineage.validation)))}\n\n"
        f"Held out of training and validation: {', '.join(lineage.held_out) or 'none'}. "
        "Their content hashes are in `configs/metadata.json`.",
        "## Training\n\n"
        f"{training['epochs']} epochs, batches of {training['batch_size']}, AdamW at {training['learning_rate']:g} "
        f"with {COURSES[training['schedule']]}, {_loss(training)}, "
        f"averaged weights (decay {training['ema_decay']:g}), "
        f"seed {training['seed']}.{_refinement(training)}{_origin(card)} All settings are in `configs/metadata.json`.",
        _scores_section(card.scores),
        calibration_section(calibration) if calibration else "",
        "## Limits\n\n" + LIMITS.format(pixel_mm=card.spec.fine.pixel_mm),
        card.notes.strip(),
    ]
    return "\n\n".join(section.rstrip() for section in sections if section) + "\n"


def _validated(weights: str, patients: Sequence[str]) -> str:
    if not patients:
        return "Nobody validated; the weights are those of the last epoch."
    others = "another one" if len(patients) == 1 else f"{len(patients)} others"
    return f"{CHOICES[weights]} {others}: {', '.join(patients)}."


def _loss(training: dict[str, Any]) -> str:
    return training.get("loss", "dice+cross-entropy").replace("dice", "Dice").replace("+", " and ")


def _refinement(training: dict[str, Any]) -> str:
    chosen = training.get("refinement")
    if not chosen:
        return ""
    return (
        f" The last {chosen['epochs']} of these epochs, a fifth of all at most, are a second course from the averaged "
        f"weights, at {chosen['rate'] * training['learning_rate']:g} and with fewer masses of other organs; "
        f"{chosen['share']:.0%} of the weights before it are kept."
    )


def _origin(card: ModelCard) -> str:
    """How the coarse look was trained, and what was tuned."""
    coarse, parent = card.spec.coarse, card.training.get("parent")
    if parent:
        kept = "; the coarse look is that of the parent, unchanged" if coarse else ""
        return f" Fine-tuned from {parent}{kept}."
    if not coarse:
        return ""
    settings = card.training["coarse"]
    return (
        f" The coarse look: {settings['epochs']} epochs, in each {settings['shown']} parts of every patient, batches "
        f"of {settings['batch_size']}."
    )


def _networks(spec: ModelSpec) -> str:
    """Both looks, and what is taken for a liver."""
    low, high = spec.window_hu
    fine, coarse, rules = spec.fine, spec.coarse, spec.rules
    lines = [f"HU are clipped to [{low:g}, {high:g}]."]
    if coarse:
        lines.append(
            f"A coarse look at the whole scan in cubes of {coarse.voxel_mm:g} mm, by a 3D U-Net of MONAI with feature "
            f"maps {_maps(coarse.network)}, finds where there may be liver: where the probability exceeds "
            f"{coarse.threshold:g}, and {coarse.margin_mm:g} mm around that. Scans of less than "
            f"{coarse.shortest_mm:g} mm get a fine look alone."
        )
    lines.append(
        f"{'A fine look there' if coarse else 'A look'} at axial slices in pixels of {fine.pixel_mm:g} mm, by a 2D "
        f"U-Net of MONAI with feature maps {_maps(fine.network)}, finds the liver; its channels are the slices at "
        f"{', '.join(f'{mm:g}' for mm in fine.context_mm)} mm."
    )
    lines.append(
        f"Liver is where the probability exceeds {rules.threshold:g}; less than {rules.doubtful_ml:g} ml with a mean "
        f"probability below {rules.doubtful_probability:g} is discarded."
    )
    return "\n".join(lines)


def _maps(network: NetworkSpec) -> str:
    return ", ".join(map(str, network.channels))


def _scores_section(scores: dict[str, Any]) -> str:
    if not scores:
        return "## Scores\n\nNot evaluated yet."
    head = "| patient | Dice | HD95 mm | ASSD mm | surface Dice 3 mm | volume error |\n|---|---|---|---|---|---|"
    rows = [
        f"| {case['case']} ({case['role']}) | {case['dice']:.4f} | {case['hd95_mm']:.2f} | {case['assd_mm']:.2f} "
        f"| {case['surface_dice_3mm']:.3f} | {case['volume_error_percent']:+.1f} % |"
        for case in scores["cases"]
    ]
    summary = scores["summary"]
    rows.append(
        f"| **mean** | **{summary['dice']['mean']:.4f}** | {summary['hd95_mm']['mean']:.2f} "
        f"| {summary['assd_mm']['mean']:.2f} | {summary['surface_dice_3mm']['mean']:.3f} "
        f"| {summary['volume_error_percent']['mean_absolute']:.1f} % (absolute) |"
    )
    return "\n".join(
        [
            "## Scores\n\nPer patient, in 3D, on the voxels of the scan:\n",
            head,
            *rows,
            f"\nMeasured with `{scores['command']}`.",
        ]
    )
