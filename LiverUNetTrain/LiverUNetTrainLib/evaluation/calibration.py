"""Make a calibration from runs on patients whose liver is known, and measure how good it is on patients left out.

The estimate is a ridge regression of logit(Dice) on the logits of the agreements, in which all patients weigh the
same. Its interval is that of the jackknife by patient: to both sides, the conformal quantile of the absolute
residuals of patients when left out (Barber and others, "Predictive inference with the jackknife+", Annals of
Statistics 49, 2021; with several runs of one patient: Lee and others, "Distribution-free inference with hierarchical
data", arXiv 2306.06342). The plain jackknife has no guarantee in the worst case, so its coverage is measured, with
the patient left out of the residuals as well. It holds for patients and alterations like these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from LiverUNetLib.errors import TrainingError
from LiverUNetLib.models.calibration import Calibration, Estimate, logit
from LiverUNetLib.segmentation.plausibility import Reason, Severity, about_the_looks, about_the_usual
from LiverUNetLib.segmentation.verdict import LOOK, UNKNOWN, UNUSABLE, judge

from .altered_runs import SPOILT, UNALTERED, AlteredRun

__all__ = ["COVERAGE", "JudgedRun", "conformal_quantile", "fit", "judge_left_out"]

# The coarse look is left out: where a scan ends in the liver it may miss what the fine one finds.
AGREEMENTS = ("expected_dice", "repeated_dice")
COVERAGE = 0.9
# Of the ridge, beside signals of variance 1: enough to share weight among signals that tell the same.
PENALTY = 0.01
# Noise may be half or twice that of the patients.
NOISE_FACTOR = 2.0
SEVERITY = {LOOK: Severity.LOOK, UNUSABLE: Severity.UNUSABLE}


@dataclass(frozen=True)
class JudgedRun:
    """A run with what is thought of it by a calibration that has not seen its patient.

    Attributes:
        estimate: None if no liver was found or a signal lacks.
        word: of its verdict.
    """

    run: AlteredRun
    estimate: Estimate | None
    word: str


def fit(runs: Sequence[AlteredRun], command: str) -> Calibration:
    """Make a calibration.

    Raises:
        TrainingError: too few patients for an interval.
    """
    runs = _usable(runs)
    patients = {run.case for run in runs}
    left_out = [
        (run, estimate)
        for patient in sorted(patients)
        for run, estimate in _estimated(_line([run for run in runs if run.case != patient]), runs, patient)
    ]
    margin = conformal_quantile(
        _by_patient(left_out, lambda run, center: abs(logit(run.dice) - center)), coverage=COVERAGE
    )
    exponent = conformal_quantile(_by_patient(left_out, _volume_score), coverage=COVERAGE)
    noise = [_signal(run, "noise_hu") for run in runs if run.alteration == UNALTERED]
    weights, intercept = _line(runs)
    return Calibration(
        weights=weights,
        intercept=intercept,
        coverage=COVERAGE,
        logit_margin=margin,
        volume_exponent=exponent,
        usual={"noise_hu": (min(noise) / NOISE_FACTOR, max(noise) * NOISE_FACTOR)} if noise else {},
        patients=len(patients),
        runs=len(runs),
        command=command,
    )


def judge_left_out(runs: Sequence[AlteredRun], *, kinds_too: bool = False) -> list[JudgedRun]:
    """Judge every run by a calibration of the other patients.

    Args:
        kinds_too: leave all alterations of the same kind out of it as well, whatever their degree.
    """
    judged = []
    for patient in sorted({run.case for run in runs}):
        others = [run for run in runs if run.case != patient]
        own = [run for run in runs if run.case == patient]
        whole = None if kinds_too else fit(others, "")
        for run in own:
            strange = [other for other in others if _kind(other) != _kind(run) or run.alteration == UNALTERED]
            judged.append(_judged(run, whole or fit(strange, "")))
    return judged


def conformal_quantile(scores: Iterable[Sequence[float]], *, coverage: float) -> float:
    """The score that one of a new group does not exceed with this probability, if groups are exchangeable.

    Each group has a weight of 1, shared by its scores; a group of weight 1 is added at infinity.

    Args:
        scores: of each group, a patient.

    Raises:
        TrainingError: there are so few groups that the quantile is infinite.
    """
    groups = [group for group in scores if len(group)]
    values = np.concatenate(groups) if groups else np.zeros(0)
    weights = np.concatenate([np.full(len(group), 1 / len(group)) for group in groups]) if groups else np.zeros(0)
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) >= coverage * (len(groups) + 1) - 1e-9
    if not reached.any():
        needed = math.ceil(coverage / (1 - coverage) - 1e-9)
        raise TrainingError(
            f"{len(groups)} patients are too few for an interval that holds {coverage:.0%}; at least {needed} that the "
            "model holds out are needed. A cross-validation makes every patient one of them (crossval)."
        )
    return float(values[order][np.argmax(reached)])


def _usable(runs: Sequence[AlteredRun]) -> list[AlteredRun]:
    """Those that teach: a liver was found, and they are not spoilt."""
    return [run for run in runs if run.signals and run.alteration not in SPOILT]


def _signal(run: AlteredRun, name: str) -> float:
    """A signal that is there."""
    value = run.signals[name]
    if value is None:
        raise ValueError(f"{run.case}, {run.alteration} has no {name}")
    return value


def _line(runs: Sequence[AlteredRun]) -> tuple[dict[str, float], float]:
    """The weights of the logits of the signals, and their intercept: ridge regression, patients weighing the same."""
    values = np.array([[logit(_signal(run, name)) for name in AGREEMENTS] for run in runs])
    target = np.array([logit(run.dice) for run in runs])
    patients = [run.case for run in runs]
    share = np.array([1 / patients.count(patient) for patient in patients]) / len(set(patients))
    center, middle = share @ values, share @ target
    spread = np.sqrt(share @ (values - center) ** 2) + 1e-9
    scaled = (values - center) / spread
    covariance = scaled.T @ (share[:, None] * scaled) + PENALTY * np.eye(len(AGREEMENTS))
    slopes = np.linalg.solve(covariance, scaled.T @ (share * (target - middle))) / spread
    return dict(zip(AGREEMENTS, slopes.tolist(), strict=True)), float(middle - slopes @ center)


def _estimated(
    line: tuple[dict[str, float], float], runs: Sequence[AlteredRun], patient: str
) -> list[tuple[AlteredRun, float]]:
    """The runs of a patient with their estimated logits."""
    weights, intercept = line
    return [
        (run, intercept + sum(weight * logit(_signal(run, name)) for name, weight in weights.items()))
        for run in runs
        if run.case == patient
    ]


def _by_patient(
    left_out: Sequence[tuple[AlteredRun, float]], score: Callable[[AlteredRun, float], float]
) -> list[list[float]]:
    scores: dict[str, list[float]] = {}
    for run, center in left_out:
        scores.setdefault(run.case, []).append(score(run, center))
    return list(scores.values())


def _volume_score(run: AlteredRun, center: float) -> float:
    """How far the volume is off, in units of how far it may be."""
    if not run.reference_ml:
        return math.inf
    return abs(math.log(run.reference_ml / run.volume_ml)) * (1 + math.exp(center))


def _judged(run: AlteredRun, calibration: Calibration) -> JudgedRun:
    estimate = calibration.estimate(run.signals) if run.signals else None
    reasons = [] if run.word == UNKNOWN else [Reason("", SEVERITY[run.word])]
    if run.signals:
        reasons += [*about_the_looks(run.signals["coarse_dice"]), *about_the_usual(calibration, run.signals)]
    return JudgedRun(run, estimate, judge(reasons, run.volume_ml, estimate).word)


def _kind(run: AlteredRun) -> str:
    """An alteration without its degree."""
    return re.sub(r"[-+]?\d+(\.\d+)?|larger|smaller|upper|lower", "", run.alteration)
