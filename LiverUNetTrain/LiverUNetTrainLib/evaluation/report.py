"""One self-contained HTML file of a run or a cross-validation: curves, scores, agreement, overlays."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from LiverUNetLib.errors import TrainingError
from LiverUNetLib.models.folder import LiverModel, open_model
from LiverUNetLib.segmentation.picture import draw_montage
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.steps import finish
from LiverUNetLib.system.environment import Device, package_versions
from LiverUNetLib.system.files import staged

from ..data.cases import Case
from ..run.folder import EpochLog, RunFolder
from .figures import draw_bars, draw_bland_altman, draw_curves
from .measures import MEASURES
from .metrics import CaseScores, summarize
from .tables import SUMMARY_ROWS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Report", "draw_overlays", "histories_of", "model_of"]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em; color: #222 }
img { max-width: 100% }
table { border-collapse: collapse; font-size: 13px }
th, td { padding: 2px 10px; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
"""


def histories_of(source: Path) -> dict[str, list[EpochLog]]:
    """The epochs of a run folder, or of every fold of a cross-validation.

    Raises:
        TrainingError: `source` is neither.
    """
    runs = {source.name: RunFolder(source)} if RunFolder(source).exists() else {}
    runs = runs or {path.parent.name: RunFolder(path) for path in sorted(source.glob("fold*/run"))}
    if not runs:
        raise TrainingError(f"{source} is neither a run nor the work folder of a cross-validation.")
    return {name: run.history() for name, run in runs.items()}


def model_of(source: Path, case: str) -> LiverModel:
    """The model of the fold that tested a case."""
    for folder in sorted(source.glob("fold*/model")):
        model = open_model(folder)
        if case in model.card.lineage.held_out:
            return model
    raise TrainingError(f"No fold in {source} has tested {case}.")


def draw_overlays(
    scores: Sequence[CaseScores], cases: Sequence[Case], models: dict[str, LiverModel], device: Device
) -> Iterator[tuple[str, Figure]]:
    """Outlines of segmentation and reference for the worst, the median and the best patient by Dice.

    Args:
        models: which model segments a case, by the case's name.
    """
    ordered = sorted(scores, key=lambda case: case.scores.dice)
    chosen = {"Worst": ordered[0], "Median": ordered[len(ordered) // 2], "Best": ordered[-1]}
    files = {case.name: case for case in cases}
    for title, score in chosen.items():
        if score.case not in files:
            raise TrainingError(f"The data hold no case {score.case}, which the scores name.")
        scan, reference = files[score.case].read()
        result = finish(segment(scan, models[score.case], device))
        masks = {"LiverUNet": result.mask_kji, "reference": reference.hu_kji}
        yield title, draw_montage(scan, masks, title=f"{score.case}: Dice {score.scores.dice:.4f}")


@dataclass(frozen=True)
class Report:
    """What a report shows; parts that are empty are left out."""

    title: str
    histories: dict[str, list[EpochLog]]
    scores: list[CaseScores] = field(default_factory=list)
    overlays: dict[str, Figure] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the HTML file, whole or not at all; it needs no other file and no network."""
        parts = [f"<h1>{escape(self.title)}</h1>"]
        if any(self.histories.values()):
            parts += ["<h2>Training</h2>", _image(draw_curves(self.histories), "loss, accuracy and Dice by epoch")]
        if self.scores:
            parts += ["<h2>Scores per patient, in 3D</h2>", _table(self.scores)]
            parts += [_image(draw_bars(self.scores), "scores per patient")]
            parts += ["<h2>Volume</h2>", _image(draw_bland_altman(self.scores), "Bland-Altman plot of volumes")]
        for title, figure in self.overlays.items():
            parts += [f"<h2>{escape(title)}</h2>", _image(figure, f"{title}: segmentation and reference")]
        versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
        parts.append(f"<p><small>Made with {escape(versions)}.</small></p>")
        head = f'<meta charset="utf-8"><title>{escape(self.title)}</title><style>{STYLE}</style>'
        with staged(path) as temporary:
            temporary.write_text(
                f"<!DOCTYPE html><html lang=en><head>{head}</head><body>" + "\n".join(parts), encoding="utf-8"
            )


def _image(figure: Figure, description: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90, format="png")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(description)}" src="data:image/png;base64,{data}">'


def _table(scores: Sequence[CaseScores]) -> str:
    summary = summarize(scores)
    rows = [(case.case, [getattr(case.scores, measure.name) for measure in MEASURES]) for case in scores]
    rows += [(row, [getattr(summary.get(measure.name), row, None) for measure in MEASURES]) for row in SUMMARY_ROWS]
    head = "".join(f"<th>{escape(title)}</th>" for title in ("patient", *(measure.heading for measure in MEASURES)))
    lines = [f"<tr>{head}</tr>"]
    for title, values in rows:
        texts = (measure.text(value) for measure, value in zip(MEASURES, values, strict=True))
        cells = "".join(f"<td>{text}</td>" for text in (escape(title), *texts))
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"
