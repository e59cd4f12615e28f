"""Metrics against values worked out on paper, and against SimpleITK."""

import doctest
import json
from dataclasses import asdict, dataclass, fields

import numpy as np
import pytest
import SimpleITK as sitk

from LiverUNetLib.models.scores import Evaluation, Figures
from LiverUNetTrainLib.evaluation import card_text, figures, metrics, report, tables
from LiverUNetTrainLib.evaluation.measures import MEASURES, Measure
from LiverUNetTrainLib.evaluation.metrics import (
    CaseScores,
    MaskScores,
    compare_masks,
    largest_disagreement,
    summarize,
)


def voxel(*index: int, shape=(8, 9, 10)) -> np.ndarray:
    mask = np.zeros(shape, dtype=np.uint8)
    mask[index] = 1
    return mask


def test_two_voxels_two_millimeters_apart():
    scores = compare_masks(voxel(4, 4, 4), voxel(4, 4, 5), (5.0, 3.0, 2.0))
    assert (scores.dice, scores.hd95_mm, scores.assd_mm) == (0, 2, 2)
    assert (scores.surface_dice_1mm, scores.surface_dice_3mm) == (0, 1)
    assert scores.volume_error_ml == 0


@pytest.mark.parametrize(("shift", "distance"), [((1, 0, 0), 5), ((0, 1, 0), 3), ((0, 0, 1), 2)])
def test_distances_follow_the_spacing_of_their_axis(shift, distance):
    moved = tuple(4 + step for step in shift)
    assert compare_masks(voxel(4, 4, 4), voxel(*moved), (5.0, 3.0, 2.0)).hd95_mm == distance


def test_overlap_and_volumes_of_two_bars():
    mask, reference = np.zeros((3, 3, 12), np.uint8), np.zeros((3, 3, 12), np.uint8)
    mask[1, 1, 0:6] = 1
    reference[1, 1, 2:12] = 1
    scores = compare_masks(mask, reference, (10.0, 10.0, 10.0))
    assert scores.dice == pytest.approx(2 * 4 / 16)
    assert (scores.volume_ml, scores.reference_ml) == (6, 10)
    assert (scores.volume_error_ml, scores.volume_error_percent) == (-4, -40)


def test_precision_recall_and_jaccard_of_two_bars():
    mask, reference = np.zeros((3, 3, 12), np.uint8), np.zeros((3, 3, 12), np.uint8)
    mask[1, 1, 0:6] = 1
    reference[1, 1, 2:12] = 1
    scores = compare_masks(mask, reference, (1.0, 1.0, 1.0))
    assert (scores.precision, scores.recall, scores.jaccard) == (4 / 6, 4 / 10, 4 / 12)


def test_identical_masks_agree_fully():
    mask = voxel(2, 3, 4) + voxel(2, 3, 5)
    scores = compare_masks(mask, mask, (1.0, 1.0, 1.0))
    assert (scores.dice, scores.hd95_mm, scores.assd_mm, scores.surface_dice_1mm, scores.volume_error_ml) == (
        1,
        0,
        0,
        1,
        0,
    )


def test_two_empty_masks_agree_fully():
    empty = np.zeros((8, 9, 10), np.uint8)
    scores = compare_masks(empty, empty, (1.0, 1.0, 1.0))
    assert (scores.dice, scores.hd95_mm, scores.assd_mm, scores.surface_dice_3mm, scores.volume_error_percent) == (
        1,
        0,
        0,
        1,
        0,
    )


def test_one_empty_mask_is_the_worst_and_as_far_as_the_scan_is_wide():
    empty = np.zeros((8, 9, 10), np.uint8)
    missed = compare_masks(empty, voxel(4, 4, 4), (1.0, 2.0, 3.0))
    assert (missed.dice, missed.surface_dice_3mm, missed.volume_error_percent) == (0, 0, -100)
    assert missed.hd95_mm == missed.assd_mm == pytest.approx(np.sqrt(8**2 + 18**2 + 30**2))
    invented = compare_masks(voxel(4, 4, 4), empty, (1.0, 2.0, 3.0))
    assert (invented.dice, invented.volume_error_percent) == (0, 100)


def test_masks_of_any_number_type_are_compared():
    assert compare_masks(voxel(1, 1, 1).astype(bool), voxel(1, 1, 1) * 3.0, (1.0, 1.0, 1.0)).dice == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": voxel(1, 1, 1)[0]}, r"mask must be an array with three axes, not one of shape \(9, 10\)"),
        ({"reference": [[[1]]]}, r"reference must be an array with three axes, not one of shape \(1, 1, 1\)"),
        ({"reference": voxel(1, 1, 1).astype(str)}, "reference must hold bool or numbers, not <U3"),
        ({"mask": voxel(1, 1, 1, shape=(8, 9, 9))}, r"must have one shape, not \(8, 9, 9\) and \(8, 9, 10\)"),
        ({"spacing_mm": (1.0, 1.0)}, r"spacing_mm must be three positive numbers, not \(1.0, 1.0\)"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, "spacing_mm must be three positive numbers"),
        ({"spacing_mm": (1.0, float("nan"), 1.0)}, "spacing_mm must be three positive numbers"),
    ],
)
def test_an_argument_that_cannot_be_compared_is_named_with_its_value(change, message):
    good = {"mask": voxel(1, 1, 1), "reference": voxel(1, 1, 1), "spacing_mm": (1.0, 1.0, 1.0)}
    with pytest.raises(ValueError, match=message):
        compare_masks(**good | change)


def test_the_example_in_the_documentation_is_true():
    result = doctest.testmod(metrics)
    assert result.attempted
    assert not result.failed


def test_the_table_of_measures_names_all_that_is_measured_in_its_order():
    assert [measure.name for measure in MEASURES] == [field.name for field in fields(MaskScores)]


@dataclass(frozen=True, kw_only=True)
class MoreScores(MaskScores):
    """With a measure that was added later."""

    added: float | None = None


@pytest.fixture
def an_added_measure(monkeypatch) -> Measure:
    measure = Measure("added", "added", "", ".1f", "high", "added", main=True, drawn=True)
    monkeypatch.setattr(metrics, "MaskScores", MoreScores)
    for module, names in ((metrics, "MEASURES"), (report, "MEASURES"), (tables, "NARROW"), (figures, "BARS")):
        monkeypatch.setattr(module, names, (*getattr(module, names), measure))
    for module in (tables, card_text):
        monkeypatch.setattr(module, "MAIN_MEASURES", (*module.MAIN_MEASURES, measure))
    return measure


def test_a_measure_that_an_older_file_lacks_stays_blank_in_every_table(an_added_measure, tmp_path):
    scores = compare_masks(voxel(4, 4, 4), voxel(4, 4, 4), (1.0, 1.0, 1.0))
    cases = [CaseScores(name, "new", scores, 1.0) for name in "ab"]
    assert scores.added is None
    rows = [{name: value for name, value in case.row().items() if name != "added"} for case in cases]
    (tmp_path / "older.json").write_text(json.dumps({"cases": rows}))
    assert tables.read_scores(tmp_path / "older.json") == cases
    summary = summarize(cases)
    assert "added" not in summary
    assert [len(line.split()) for line in tables.summary_lines(summary)] == [9, 9, 9, 8]
    assert not any("added" in line for line in tables.comparison(*[tmp_path / "older.json"] * 2))
    assert "<td>b</td>" in report._table(cases)
    assert "| a (new) | 1.0000 | 0.00 | 0.00 | 1.000 | +0.0 % |  |" in card_text._scores(
        Evaluation("evaluate", summary, tuple(rows))
    )
    tables.write_csv(tmp_path / "older.csv", cases)
    assert (tmp_path / "older.csv").read_text().splitlines()[0].split(",")[-2:] == ["added", "seconds"]
    figures.draw_bars(cases)


def test_an_added_measure_is_written_and_read_again(an_added_measure, tmp_path):
    scores = compare_masks(voxel(4, 4, 4), voxel(0, 0, 0), (1.0, 1.0, 1.0))
    cases = [CaseScores("a", "new", MoreScores(**asdict(scores) | {"added": 0.5}), 1.0)]
    tables.write_evaluation(tmp_path / "new.json", cases, "evaluate")
    assert tables.read_scores(tmp_path / "new.json") == cases
    assert summarize(cases)["added"].mean == 0.5
    assert tables.summary_lines(summarize(cases))[0].split()[-1] == "0.5"


@pytest.mark.parametrize(
    ("name", "worst", "text"),
    [("dice", -3, "-3.0000"), ("hd95_mm", 2, "2.00"), ("volume_error_percent", -3, "-3.0 %"), ("volume_ml", None, "")],
)
def test_the_worst_of_a_measure_is_what_is_worst_for_it(name, worst, text):
    (measure,) = [measure for measure in MEASURES if measure.name == name]
    assert measure.worst(np.array([1.0, -3.0, 2.0])) == worst
    assert measure.text(worst) == text


def blob(seed: int) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(np.random.default_rng(seed).standard_normal((24, 40, 36)), 4)
    z, y, x = np.mgrid[:24, :40, :36]
    ball = 1 - ((z - 12) / 9) ** 2 - ((y - 20) / 14) ** 2 - ((x - 18) / 13) ** 2
    return np.pad((ball + 15 * field > 0).astype(np.uint8), 1)  # no contour runs along the end of the array


@pytest.mark.parametrize("seed", range(3))
def test_metrics_agree_with_simpleitk_contours_and_distance_maps(seed):
    spacing = (2.5, 1.5, 0.8)
    mask, reference = blob(seed), blob(seed + 100)
    images = []
    for array in (mask, reference):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(spacing[::-1])
        images.append(image)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    contours = [sitk.GetArrayFromImage(sitk.LabelContour(image)) > 0 for image in images]
    distances = [
        sitk.GetArrayFromImage(
            sitk.SignedMaurerDistanceMap(sitk.LabelContour(image), squaredDistance=False, useImageSpacing=True)
        )
        for image in images
    ]
    one_way, other_way = distances[1][contours[0]].clip(0), distances[0][contours[1]].clip(0)
    scores = compare_masks(mask, reference, spacing)
    assert scores.dice == pytest.approx(overlap.GetDiceCoefficient(), abs=1e-6)
    assert scores.hd95_mm == pytest.approx(max(np.percentile(one_way, 95), np.percentile(other_way, 95)), rel=1e-4)
    both = np.concatenate([one_way, other_way])
    assert scores.assd_mm == pytest.approx(both.mean(), rel=1e-4)
    assert scores.surface_dice_3mm == pytest.approx((both <= 3).mean(), abs=1e-6)


def test_the_summary_takes_the_worst_of_each_measure():
    def case(mask, reference):
        return CaseScores("x", "new", compare_masks(mask, reference, (1.0, 1.0, 1.0)), 1.0)

    summary = summarize([case(voxel(4, 4, 4), voxel(4, 4, 4)), case(voxel(4, 4, 4), voxel(4, 4, 6))])
    assert summary["dice"] == Figures(0.5, pytest.approx(np.sqrt(0.5)), 0.5, worst=0)
    assert summary["hd95_mm"].worst == 2
    assert summary["volume_error_percent"].mean_absolute == 0
    assert summary["volume_ml"].worst is None


def test_the_slice_of_the_largest_disagreement_is_found():
    reference = np.zeros((4, 3, 3), np.uint8)
    reference[1] = reference[2, 0] = 1
    mask = reference.copy()
    assert largest_disagreement(mask, reference) == 1, "they agree: the fullest slice"
    mask[3, 0, :2] = 1
    mask[2] = 0
    assert largest_disagreement(mask, reference) == 2
