"""The text of a model card, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from LiverUNetLib.models.calibration import Calibration
from LiverUNetLib.models.card import ModelCard
from LiverUNetLib.models.scores import Evaluation
from LiverUNetLib.models.spec import ModelSpec, NetworkSpec

from .calibration_report import calibration_section
from .measures import MAIN_MEASURES
from .metrics import CaseScores
from .training_record import TrainingRecord

__all__ = ["card_text"]

COURSES = {"cosine": "warm-up and cosine", "constant": "a constant rate after the warm-up"}
CHOICES = {
    "best": "The weights are those of the epoch with the best 3D Dice in validation, on",
    "last": "The weights are those of the last epoch; it was validated by 3D Dice on",
}
LIMITS = """\
- A research tool, not a medical device; check every mask.
- Reliable only where scans resemble those that it has learned from.
- The liver is segmented with its tumors and the vessels inside; the vena cava and the gallbladder are not part of it.
- Scans are brought to {pixel_mm:g} mm pixels, so details finer than that are lost.
- Only one connected part is kept, the one with the most evidence; of a liver in two parts, one is reported.
"""


def card_text(card: ModelCard, calibration: Calibration | None = None) -> str:
    """The model card, in Markdown."""
    training, lineage = TrainingRecord.of(card), card.lineage
    sections = [
        f"# {card.name} {card.version}\n\n{card.description}.",
        f"**License of the weights: {card.license}.**",
        f"## Networks\n\n{_networks(card.spec)}",
        "## Data\n\n"
        f"Trained on {len(lineage.training)} patients: {', '.join(lineage.training)}.\n\n"
        f"{_validated(training.weights, training.validated)}\n\n"
        f"Held out of training and validation: {', '.join(lineage.held_out) or 'none'}. "
        "Their content hashes are in `configs/metadata.json`.",
        "## Training\n\n"
        f"{training.epochs} epochs, batches of {training.batch_size}, AdamW at {training.learning_rate:g} "
        f"with {COURSES[training.schedule]}, {_loss(training)}, "
        f"averaged weights (decay {training.ema_decay:g}), "
        f"seed {training.seed}.{_refinement(training)}{_origin(card, training)} "
        "All settings are in `configs/metadata.json`.",
        _scores(card.scores),
        calibration_section(calibration) if calibration else "",
        "## Limits\n\n" + LIMITS.format(pixel_mm=card.spec.fine.pixel_mm),
        card.notes.strip(),
    ]
    return "\n\n".join(section.rstrip() for section in sections if section) + "\n"


def _validated(weights: str, patients: Sequence[str]) -> str:
    if not patients:
        return "No validation set was used; the weights are those of the last epoch."
    others = "one other patient" if len(patients) == 1 else f"{len(patients)} other patients"
    return f"{CHOICES[weights]} {others}: {', '.join(patients)}."


def _loss(training: TrainingRecord) -> str:
    return training.loss.replace("dice", "Dice").replace("+", " and ")


def _refinement(training: TrainingRecord) -> str:
    chosen, epochs = training.refinement, training.refined_epochs
    if not chosen or not epochs:
        return ""
    last = "The last of these epochs is" if epochs == 1 else f"The last {epochs} of these epochs are"
    return (
        f" {last} a second course from the averaged weights, at {chosen.rate * training.learning_rate:g} and with "
        f"fewer masses of other organs; {chosen.share:.0%} of the weights before it are kept."
    )


def _origin(card: ModelCard, training: TrainingRecord) -> str:
    """How the coarse look was trained, or from which model the fine look was tuned."""
    if training.parent:
        kept = "; the coarse look is that of the parent, unchanged" if card.spec.coarse else ""
        return f" Fine-tuned from {training.parent}{kept}."
    coarse = training.coarse
    if not card.spec.coarse or not coarse:
        return ""
    return (
        f" The coarse look: {coarse.epochs} epochs, each shows {coarse.shown} crops per patient, in batches of "
        f"{coarse.batch_size}."
    )


def _networks(spec: ModelSpec) -> str:
    """Both looks, and what is taken for a liver."""
    low, high = spec.window_hu
    fine, coarse, rules = spec.fine, spec.coarse, spec.rules
    lines = [f"HU are clipped to [{low:g}, {high:g}]."]
    if coarse:
        lines.append(
            f"The coarse look: a 3D U-Net of MONAI with feature maps {_maps(coarse.network)} sees the whole scan in "
            f"cubes of {coarse.voxel_mm:g} mm and finds a box for the liver: where the probability exceeds "
            f"{coarse.threshold:g}, and {coarse.margin_mm:g} mm around that. Scans of less than "
            f"{coarse.shortest_mm:g} mm get a fine look alone."
        )
    lines.append(
        f"The fine look: {'in that box, ' if coarse else ''}a 2D U-Net of MONAI with feature maps "
        f"{_maps(fine.network)} finds the liver in axial slices with pixels of {fine.pixel_mm:g} mm; its channels are "
        f"the slices at {', '.join(f'{mm:g}' for mm in fine.context_mm)} mm."
    )
    lines.append(
        f"Liver is where the probability exceeds {rules.threshold:g}; less than {rules.doubtful_ml:g} ml with a mean "
        f"probability below {rules.doubtful_probability:g} is discarded."
    )
    return "\n".join(lines)


def _maps(network: NetworkSpec) -> str:
    return ", ".join(map(str, network.channels))


def _scores(scores: Evaluation | None) -> str:
    if scores is None:
        return "## Scores\n\nNot evaluated yet."
    headings = ("patient", *(measure.heading for measure in MAIN_MEASURES))
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    for case in map(CaseScores.from_row, scores.cases):
        texts = (measure.text(getattr(case.scores, measure.name)) for measure in MAIN_MEASURES)
        lines.append(f"| {case.case} ({case.role}) | " + " | ".join(texts) + " |")
    dice, *others = (measure.mean_text(scores.summary.get(measure.name)) for measure in MAIN_MEASURES)
    lines.append(f"| **mean** | **{dice}** | " + " | ".join(others) + " |")
    introduction = "## Scores\n\nPer patient, in 3D, on the voxels of the scan:\n"
    return "\n".join([introduction, *lines, f"\nMeasured with `{scores.command}`."])
