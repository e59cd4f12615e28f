"""The charts of a report, as figures of matplotlib: curves of trainings, scores of patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from LiverUNetLib.segmentation.verdict import GOOD_DICE

from ..run.folder import CURVES, EpochLog
from .altered_runs import SPOILT, UNALTERED
from .calibration import JudgedRun
from .measures import MEASURES
from .metrics import CaseScores, has_measure

__all__ = ["draw_bars", "draw_bland_altman", "draw_calibration", "draw_curves"]

TRAINING, VALIDATION, LIVER = "#90a4ae", "#1976d2", "#dd8265"
BARS = tuple(measure for measure in MEASURES if measure.drawn)


def draw_curves(histories: Mapping[str, Sequence[EpochLog]]) -> Figure:
    """Loss, accuracy and Dice by epoch, a row a run; training per slice, validation per patient in 3D."""
    figure = Figure(figsize=(13, 3.2 * len(histories)), layout="constrained")
    rows = figure.subplots(len(histories), len(CURVES), squeeze=False)
    for axes_of_run, (name, history) in zip(rows, histories.items(), strict=True):
        for axes, (title, (training, validation)) in zip(axes_of_run, CURVES.items(), strict=True):
            for label, attribute, color in (("training", training, TRAINING), ("validation", validation, VALIDATION)):
                points = [(log.epoch, value) for log in history if (value := getattr(log, attribute)) is not None]
                if not points:  # a legend must not name a curve that is not there
                    continue
                axes.plot(
                    [epoch for epoch, _ in points],
                    [value for _, value in points],
                    marker=".",
                    color=color,
                    label=label,
                )
            axes.set(title=f"{name}: {title}", xlabel="epoch")
            axes.grid(alpha=0.3)
        axes_of_run[0].set_yscale("log")
        axes_of_run[0].legend()
    return figure


def draw_bars(cases: Sequence[CaseScores]) -> Figure:
    """The measures to be drawn, of every patient, the worst Dice first; one that a patient lacks is left out."""
    ordered = sorted(cases, key=lambda case: case.scores.dice)
    known = [measure for measure in BARS if has_measure(cases, measure)]
    figure = Figure(figsize=(13, 1.2 + 0.3 * len(cases)), layout="constrained")
    for axes, measure in zip(figure.subplots(1, len(known), sharey=True), known, strict=True):
        values = [getattr(case.scores, measure.name) for case in ordered]
        bars = axes.barh([case.case for case in ordered], values, color=LIVER)
        axes.bar_label(bars, [measure.text(value) for value in values], fontsize=7, padding=2)
        axes.axvline(float(np.mean(values)), color="black", linewidth=0.8, linestyle="--")
        axes.set(title=f"{measure.heading} (dashed: mean)")
        axes.margins(x=0.15)
    axes.invert_yaxis()
    return figure


def draw_bland_altman(cases: Sequence[CaseScores]) -> Figure:
    """Difference of volumes against their mean, with bias and 95 % limits of agreement (Bland and Altman, 1986)."""
    volumes = np.array([(case.scores.volume_ml, case.scores.reference_ml) for case in cases])
    mean, difference = volumes.mean(axis=1), volumes[:, 0] - volumes[:, 1]
    bias, spread = difference.mean(), 1.96 * difference.std(ddof=1) if len(cases) > 1 else 0.0
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(mean, difference, color=LIVER, zorder=3)
    for case, x, y in zip(cases, mean, difference, strict=True):
        axes.annotate(case.case, (x, y), fontsize=7, xytext=(4, 3), textcoords="offset points")
    for level, style in ((bias, "-"), (bias - spread, "--"), (bias + spread, "--")):
        axes.axhline(level, color="black", linewidth=0.8, linestyle=style)
        axes.annotate(
            f"{level:+.0f} ml", (1.0, level), xycoords=("axes fraction", "data"), fontsize=8, ha="right", va="bottom"
        )
    axes.margins(x=0.15)
    axes.set(
        title="Bland-Altman: bias and 95 % limits of agreement",
        xlabel="mean of segmented and reference volume in ml",
        ylabel="segmented minus reference in ml",
    )
    return figure


def draw_calibration(judged: Sequence[JudgedRun]) -> Figure:
    """Estimated against true Dice of each run, with its interval; all of them, and the best ones enlarged."""
    figure = Figure(figsize=(13, 6.2), layout="constrained")
    known = [(each.run, each.estimate) for each in judged if each.estimate and each.run.alteration not in SPOILT]
    groups = {
        "altered": ([(run, estimate) for run, estimate in known if run.alteration != UNALTERED], TRAINING),
        "unaltered": ([(run, estimate) for run, estimate in known if run.alteration == UNALTERED], LIVER),
    }
    for axes, lowest, title in zip(figure.subplots(1, 2), (0.0, 0.85), ("all runs", "Dice above 0.85"), strict=True):
        for label, (group, color) in groups.items():
            x = np.array([estimate.dice for _, estimate in group])
            low, high = np.array([estimate.dice_interval for _, estimate in group]).reshape(-1, 2).T
            style: dict[str, Any] = {"fmt": "o", "markersize": 4, "linewidth": 0.4, "color": color, "label": label}
            axes.errorbar(x, [run.dice for run, _ in group], xerr=[x - low, high - x], **style)
        axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
        for line in (axes.axvline, axes.axhline):
            line(GOOD_DICE, color="black", linewidth=0.8, linestyle="--")
        axes.set(xlim=(lowest, 1), ylim=(lowest, 1), title=title)
        axes.set(xlabel="estimated Dice, with its interval", ylabel="true Dice")
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    figure.suptitle("Each patient judged by a calibration of the others; dashed: what is called good")
    return figure
