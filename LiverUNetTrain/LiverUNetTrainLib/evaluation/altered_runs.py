"""Run a model on cases it has never seen, unaltered, altered by degrees, and spoilt; what comes of it is kept.

WORK/<case>.json holds the runs of a case; what is there is not done again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from LiverUNetLib.errors import ScanError, TrainingError
from LiverUNetLib.models.card import CALIBRATION
from LiverUNetLib.models.folder import LiverModel, Networks
from LiverUNetLib.scan.volume import CTVolume
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.segmentation.signals import dice
from LiverUNetLib.segmentation.verdict import UNUSABLE, SliceToCheck
from LiverUNetLib.steps import finish
from LiverUNetLib.system.environment import Device
from LiverUNetLib.system.files import from_json, read_json, write_json

from ..data.cases import Case, content_hash
from . import alterations as alter

__all__ = ["BY_DEGREES", "SPOILT", "UNALTERED", "AlteredRun", "altered_runs"]

UNALTERED = "unaltered"
BY_DEGREES: dict[str, alter.Alteration] = {
    **{f"noise of {hu} HU": alter.noise(hu) for hu in (25, 50, 75, 110)},
    **{f"blurred by {mm} mm": alter.smooth(mm) for mm in (1.5, 3, 6)},
    **{f"sharpened by {strength}": alter.sharp(strength) for strength in (0.8, 1.6)},
    **{f"slices of {mm} mm": alter.slices(mm) for mm in (5, 10)},
    **{f"liver {hu:+} HU": alter.liver_by(hu) for hu in (-40, -70, -100, 60)},
    **{f"all {hu:+} HU": alter.offset(hu) for hu in (-80, -40, 50, 100)},
    **{f"contrast times {factor}": alter.contrast(factor) for factor in (0.5, 1.8)},
    **{f"ascites of {mm} mm": alter.ascites(mm) for mm in (15, 40)},
    **{f"streaks of {hu} HU": alter.metal(hu) for hu in (60, 120, 240)},
    **{f"drift of {hu} HU": alter.drift(hu) for hu in (60, 120)},
    "texture of 30 HU": alter.texture(30, 3),
    "texture of 60 HU": alter.texture(60, 5),
    "unenhanced": alter.unenhanced(),
    "tumor of 80 mm": alter.lesions(50, (80,)),
    "tumors of 80, 60 and 40 mm": alter.lesions(20, (80, 60, 40)),
    "cysts of 40, 30 and 20 mm": alter.lesions(8, (40, 30, 20)),
    "left third resected": alter.resected,
    "patient 40 % larger": alter.sized(1.4),
    "patient 30 % smaller": alter.sized(0.7),
    "small field of view": alter.small_field_of_view,
    "upper 40 mm of the liver": alter.part_of_the_liver(40, upper=True),
    "lower 40 mm of the liver": alter.part_of_the_liver(40, upper=False),
}
# What must never be called good; not used to calibrate.
SPOILT: dict[str, alter.Alteration] = {
    "rescale intercept twice": alter.offset(-1024),
    "no rescale intercept": alter.offset(1024),
    "all +150 HU": alter.offset(150),
    "all -150 HU": alter.offset(-150),
    "mirrored left to right": alter.mirrored(2),
    "mirrored front to back": alter.mirrored(1),
    "upside down": alter.mirrored(0),
    "turned by 180 degrees": alter.mirrored(1, 2),
    "noise of 150 HU": alter.noise(150),
    "streaks of 400 HU": alter.metal(400),
    "like an MR": alter.like_mr(1, 0),
    "like an MR, scaled to HU": alter.like_mr(1 / 3, -200),
    "inverted": alter.inverted(),
    "upper half of the liver": alter.half_a_liver(),
    "thorax only": alter.without_liver(above=True),
    "pelvis only": alter.without_liver(above=False),
}


@dataclass(frozen=True)
class AlteredRun:
    """A run of a model on an altered case.

    Attributes:
        model_checksum: of the model, which holds the case out.
        volume_ml, reference_ml: of what was found and of the reference.
        signals: what the run tells of its own quality, see `segmentation.signals`; empty if no liver was found.
        word: of the verdict without an estimate.
        reasons: of the verdict without an estimate; or why the scan was refused.
        errors_in_slices: wrong voxels in the slices that are worth a look, as a multiple of the mean of all slices that
            hold any part of the liver; None without such slices or errors.
    """

    case: str
    alteration: str
    model_checksum: str
    dice: float
    volume_ml: float
    reference_ml: float
    signals: dict[str, float | None]
    word: str
    reasons: tuple[str, ...]
    errors_in_slices: float | None = None


def altered_runs(
    models: Sequence[LiverModel], cases: Sequence[Case], device: Device, work: Path, *, altered: int, spoilt: int
) -> Iterator[AlteredRun]:
    """Run each case with the model that holds it out: unaltered, then altered and spoilt in so many ways each.

    The ways are dealt so that all of them get about the same number of cases.

    Raises:
        TrainingError: no case is held out by a model.
    """
    held_out = {hash_: model for model in models for hash_ in model.card.lineage.held_out.values()}
    networks: dict[str, Networks] = {}
    model_of = _models_of(cases, held_out)
    if not model_of:
        raise TrainingError(
            f"None of the {len(cases)} cases with a liver is held out by a model; only such cases show how a model "
            "does on patients that it has never seen."
        )
    for case, name, alteration in _plan(list(model_of), altered, spoilt):
        path = work / f"{case.name}.json"
        done = _runs_in(path)
        model = model_of[case]
        checksum = model.card.checksum
        known = [run for run in done if (run.alteration, run.model_checksum) == (name, checksum)]
        if not known:
            scan, mask = case.read()
            pair = alteration(scan, mask.hu_kji != 0)
            if pair is None:
                continue
            if checksum not in networks:
                networks[checksum] = model.networks(device)
            known = [_run(case.name, name, pair, _uncalibrated(model), networks[checksum])]
            write_json(path, [asdict(run) for run in [*done, *known]])
        yield known[0]


def _models_of(cases: Sequence[Case], held_out: Mapping[str, LiverModel]) -> dict[Case, LiverModel]:
    """The cases with a liver whose content hash is held out, each with the model that holds it out."""
    found = {}
    for case in cases:
        scan, mask = case.read()
        model = held_out.get(content_hash(scan))
        if model and mask.hu_kji.any():
            found[case] = model
    return found


def _plan(cases: Sequence[Case], altered: int, spoilt: int) -> Iterator[tuple[Case, str, alter.Alteration]]:
    """All runs; the ways are dealt like cards, one to each case in turn, so that more of them only adds runs."""
    yield from ((case, UNALTERED, alter.unaltered) for case in cases)
    for ways, count in ((list(BY_DEGREES.items()), altered), (list(SPOILT.items()), spoilt)):
        # Without a common divisor no case gets a way twice.
        stride = next(step for step in itertools.count(len(cases)) if math.gcd(step, len(ways)) == 1)
        for turn in range(min(count, len(ways))):
            for number, case in enumerate(cases):
                yield case, *ways[(number + turn * stride) % len(ways)]


def _run(
    case: str, alteration: str, pair: tuple[CTVolume, np.ndarray], model: LiverModel, networks: Networks
) -> AlteredRun:
    scan, reference = pair
    reference = reference != 0
    reference_ml = float(np.count_nonzero(reference)) * scan.voxel_ml
    run = AlteredRun(case, alteration, model.card.checksum, 0.0, 0.0, reference_ml, {}, UNUSABLE, ())
    try:
        result = finish(segment(scan, model, networks.fine.device, networks=networks))
    except ScanError as error:
        return replace(run, reasons=(str(error),))
    mask = result.mask_kji != 0
    return replace(
        run,
        dice=dice(mask, reference),
        volume_ml=result.measurement.volume_ml,
        signals=asdict(result.signals) if result.signals else {},
        word=result.verdict.word,
        reasons=result.verdict.reasons,
        errors_in_slices=_errors_in(result.verdict.slices, mask, reference),
    )


def _errors_in(slices: Sequence[SliceToCheck], mask: np.ndarray, reference: np.ndarray) -> float | None:
    """For axial scans: the errors in these slices, as a multiple of those in the slices of the liver."""
    wrong = np.count_nonzero(mask != reference, axis=(1, 2))
    liver = (mask | reference).any(axis=(1, 2))
    if not slices or not wrong.any():
        return None
    return float(wrong[[each.number - 1 for each in slices]].mean() / wrong[liver].mean())


def _uncalibrated(model: LiverModel) -> LiverModel:
    """The same model without what this makes anew."""
    checksums = {name: checksum for name, checksum in model.card.checksums.items() if name != CALIBRATION}
    return replace(model, card=replace(model.card, checksums=checksums))


def _runs_in(path: Path) -> list[AlteredRun]:
    if not path.exists():
        return []
    try:
        return [from_json(AlteredRun, run) for run in read_json(path, TrainingError)]
    except (TypeError, AttributeError) as error:
        raise TrainingError(f"{path} holds no runs ({error}); delete it and calibrate again.") from error
