"""One word, its reasons, and where to look."""

import json
from dataclasses import replace

import numpy as np
import pytest

from helpers import ALL_48
from LiverUNetLib.models.calibration import Estimate
from LiverUNetLib.models.spec import Rules
from LiverUNetLib.models.store import find_model
from LiverUNetLib.scan.phantom import axial_affine
from LiverUNetLib.scan.volume import CTVolume
from LiverUNetLib.segmentation.grid import canonical_scan, reoriented
from LiverUNetLib.segmentation.looks import FineLooked
from LiverUNetLib.segmentation.measurement import Measurement
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.segmentation.plausibility import Reason, Severity, about_the_liver, about_the_looks, about_the_rest
from LiverUNetLib.segmentation.quality import slices_to_check
from LiverUNetLib.segmentation.result import report_from_json
from LiverUNetLib.segmentation.signals import Signals
from LiverUNetLib.segmentation.summary import table_row, verdict_lines
from LiverUNetLib.segmentation.verdict import GOOD, LOOK, UNKNOWN, UNUSABLE, SliceToCheck, Verdict, judge, with_reason
from LiverUNetLib.steps import finish

BODY = Measurement(volume_ml=1500.0, mean_hu=100.0, sd_hu=15.0, extent_mm=(150.0, 150.0, 200.0))
SIGNALS = Signals(0.97, 0.98, 0.95, 10.0, 0.0, 0)


def estimate(dice: float) -> Estimate:
    return Estimate(dice, (dice - 0.1, dice + 0.02), (0.9, 1.1), 0.9)


@pytest.mark.parametrize(
    ("dice", "severities", "word"),
    [
        (0.95, [], GOOD),
        (0.90, [], GOOD),
        (0.89, [], LOOK),
        (0.69, [], UNUSABLE),
        (0.95, [Severity.LOOK], LOOK),
        (0.95, [Severity.LOOK, Severity.UNUSABLE], UNUSABLE),
        (0.69, [Severity.LOOK], UNUSABLE),
        (None, [], UNKNOWN),
        (None, [Severity.LOOK], LOOK),
        (None, [Severity.UNUSABLE], UNUSABLE),
    ],
)
def test_a_verdict_is_as_bad_as_the_worst_reason(dice, severities, word):
    reasons = [Reason(f"Reason {number}.", severity) for number, severity in enumerate(severities)]
    verdict = judge(reasons, 1000.0, estimate(dice) if dice else None)
    assert verdict.word == word
    assert verdict.reasons[-len(reasons) :] == tuple(reason.sentence for reason in reasons) or not reasons
    assert bool(verdict.reasons) == (word not in (GOOD, UNKNOWN))


def test_a_low_estimate_is_the_first_reason_and_gives_the_interval():
    verdict = judge([Reason("Another.")], 1000.0, estimate(0.8))
    assert verdict.reasons == (
        "The Dice is estimated at 0.80 (90% interval 0.70 to 0.82): check the outline.",
        "Another.",
    )
    assert verdict.volume_interval_ml == (900.0, 1100.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"volume_ml": 200.0}, "A liver of 200 ml is unusual"),
        ({"volume_ml": 200.0, "cut_off": ("superior",)}, "its volume is a lower bound"),
        ({"volume_ml": 5000.0}, "A liver of 5000 ml is unusual"),
        ({"mean_hu": -60.0}, "A liver of -60 HU is unusual"),
        ({"mean_hu": 300.0}, "A liver of 300 HU is unusual"),
    ],
)
def test_a_liver_unlike_any_is_a_reason(change, words):
    reasons = about_the_liver(replace(BODY, **change), 1500.0, Rules())
    assert len(reasons) == (words is not None)
    assert all(words in reason.sentence for reason in reasons)


def test_an_empty_mask_is_not_to_be_used():
    (reason,) = about_the_liver(Measurement(), 0.0, Rules())
    assert reason == Reason("No liver was found; the mask is empty.", Severity.UNUSABLE)


@pytest.mark.parametrize(("coarse_dice", "said"), [(None, False), (0.82, False), (0.49, True)])
def test_looks_that_found_different_things_are_a_reason(coarse_dice, said):
    reasons = about_the_looks(coarse_dice)
    assert bool(reasons) == said
    assert all("(Dice 0.49 between them)" in reason.sentence for reason in reasons)


@pytest.mark.parametrize(("cut_away_ml", "said"), [(149, False), (151, True)])
def test_much_that_was_left_out_is_a_reason(cut_away_ml, said):
    reasons = about_the_rest(replace(SIGNALS, cut_away_ml=cut_away_ml, parts_cut_away=2), 1500.0)
    assert bool(reasons) == said
    assert all("151 ml looked like one, in 2 parts of 1 ml or more" in reason.sentence for reason in reasons)


def doubtful(shape, places: dict[tuple[int, int, int], float]) -> np.ndarray:
    """A probability that is in doubt at some cells alone, 0.5 there at most."""
    probability = np.zeros(shape, np.float32)
    for cell, value in places.items():
        probability[cell] = value
    return probability


@pytest.mark.parametrize("orientation", ALL_48)
def test_the_slice_and_the_point_with_most_doubt_are_found_in_any_orientation(orientation):
    # Cells of 20 mm: one in full doubt is 2 cm2, and no surroundings of 15 mm blur it.
    shape, spacing_mm = (12, 9, 7), 20.0
    axial = CTVolume(np.zeros(shape, np.int16), axial_affine((spacing_mm,) * 3, shape[::-1]))
    _, scan = canonical_scan(axial)
    places = {(8, 2, 5): 0.5, (3, 7, 1): 0.6, (1, 1, 1): 0.99}
    fine = FineLooked(scan, np.zeros(shape), doubtful(shape, places))
    from nibabel.orientations import inv_ornt_aff

    stored = reoriented(axial.hu_kji, orientation)
    volume = CTVolume(stored, axial.affine @ inv_ornt_aff(orientation, shape[::-1]))
    worst, second = slices_to_check(fine, volume)
    assert worst.doubtful_cm2 == pytest.approx(2.0)
    assert second.doubtful_cm2 == pytest.approx(1.6)
    for found, cell in zip((worst, second), places, strict=False):
        assert found.point_ras_mm == pytest.approx(tuple((axial.affine @ [*cell[::-1], 1])[:3]), abs=0.1)
    up = [int(axis) for axis in orientation[:, 0]][2]  # where k went, among i, j, k
    turned = orientation[2, 1] < 0
    assert [worst.number, second.number] == ([12 - 8, 12 - 3] if turned else [9, 4])
    assert stored.shape[2 - up] == 12


def test_slices_to_check_are_10_mm_apart_five_at_most_and_have_doubt():
    shape = (40, 10, 10)
    volume = CTVolume(np.zeros(shape, np.int16), axial_affine((10.0, 10.0, 2.0), shape[::-1]))
    probability = np.zeros(shape, np.float32)
    probability[:30] = 0.1  # 0.1 of 100 cm2 in each slice
    probability[20] = 0.2
    _, scan = canonical_scan(volume)
    found = slices_to_check(FineLooked(scan, np.zeros(shape), probability), volume)
    assert [each.number for each in found] == [21, 1, 6, 11, 16]
    assert [each.doubtful_cm2 for each in found] == [20, 10, 10, 10, 10]
    assert slices_to_check(FineLooked(scan, np.zeros(shape), probability / 20), volume) == ()


def test_a_verdict_and_its_signals_travel_in_the_report(a_phantom, two_looks_model, cpu):
    result = finish(segment(a_phantom[0], two_looks_model, cpu))
    report = report_from_json(json.loads(json.dumps(result.to_json())))
    assert (report.verdict, report.signals) == (result.verdict, result.signals)
    assert result.verdict.word == UNKNOWN, "the model has no calibration"
    assert table_row(report)["verdict"] == UNKNOWN
    assert table_row(report)["estimated_dice"] is None


def test_a_verdict_in_lines():
    slices = (SliceToCheck(40, (1.0, 2.0, 3.0), 9.0), SliceToCheck(7, (1.0, 2.0, 3.0), 4.0))
    verdict = judge([], 1000.0, estimate(0.95), slices)
    assert verdict_lines(verdict) == [
        "Verdict: good; Dice estimated at 0.95, 90% of such results have 0.85 to 0.97 and a volume of 900 to 1100 ml",
        "Slices worth a look, the first one most: 40, 7",
    ]
    (line,) = verdict_lines(Verdict(UNKNOWN))
    assert line.startswith("Verdict: not estimated. No Dice is estimated: the model has no calibration")
    assert verdict_lines(Verdict(LOOK, ("Why.",))) == ["Verdict: look at it"]


@pytest.mark.slow
def test_a_water_phantom_has_no_liver_to_use(cpu):
    """A cylinder of water with a rod of bone, as it is scanned for quality control."""
    shape = (30, 80, 80)
    radius = np.hypot(*np.mgrid[-40:40, -40:40]) * 4.0
    slice_hu = np.select([radius < 15, radius < 110], [400, 0], -1000)
    noise = np.random.default_rng(0).normal(0, 10, shape)
    volume = CTVolume((slice_hu + noise).round().astype(np.int16), axial_affine((4.0, 4.0, 5.0), shape[::-1]))
    verdict = finish(segment(volume, find_model("liver-ct"), cpu)).verdict
    assert verdict.word == UNUSABLE
    assert verdict.reasons[0].startswith("No liver was found")


@pytest.mark.parametrize(
    ("before", "severity", "after"),
    [
        ("good", Severity.LOOK, "look at it"),
        ("not estimated", Severity.LOOK, "look at it"),
        ("do not use", Severity.LOOK, "do not use"),
        ("look at it", Severity.UNUSABLE, "do not use"),
    ],
)
def test_another_reason_never_makes_a_verdict_better(before, severity, after):
    verdict = with_reason(Verdict(before, ("first.",)), Reason("second.", severity))
    assert (verdict.word, verdict.reasons) == (after, ("first.", "second."))
