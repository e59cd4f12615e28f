"""Metrics against values worked out on paper, and against SimpleITK."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import with_other_axes
from LiverUNetLib.errors import TrainingError
from LiverUNetLib.models.card import Lineage
from LiverUNetLib.models.scores import Figures
from LiverUNetLib.scan.formats import read_mask, read_volume, write_volume
from LiverUNetTrainLib.cli.main import main
from LiverUNetTrainLib.data.cases import content_hash
from LiverUNetTrainLib.data.layouts import find_cases
from LiverUNetTrainLib.evaluation.evaluate import evaluate_model, evaluate_predictions
from LiverUNetTrainLib.evaluation.metrics import CaseScores, compare_masks, largest_disagreement, summarise


def voxel(*index: int, shape=(8, 9, 10)) -> np.ndarray:
    mask = np.zeros(shape, dtype=np.uint8)
    mask[index] = 1
    return mask


def test_two_voxels_two_millimetres_apart():
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


def test_masks_of_any_dtype_are_compared_and_other_shapes_refused():
    assert compare_masks(voxel(1, 1, 1).astype(bool), voxel(1, 1, 1) * 3.0, (1.0, 1.0, 1.0)).dice == 1
    with pytest.raises(ValueError, match=r"\(8, 9, 10\) and \(8, 9, 9\)"):
        compare_masks(voxel(1, 1, 1), voxel(1, 1, 1, shape=(8, 9, 9)), (1.0, 1.0, 1.0))


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

    summary = summarise([case(voxel(4, 4, 4), voxel(4, 4, 4)), case(voxel(4, 4, 4), voxel(4, 4, 6))])
    assert summary["dice"] == Figures(0.5, pytest.approx(np.sqrt(0.5)), 0.5, worst=0)
    assert summary["hd95_mm"].worst == 2
    assert summary["volume_error_percent"].mean_absolute == 0
    assert summary["volume_ml"].worst is None


@pytest.mark.slow
def test_evaluate_prints_and_writes_every_patient(pairs, threshold_model, tmp_path, capsys):
    output = tmp_path / "scores.json"
    command = ["evaluate", str(pairs), "--model", str(threshold_model.folder), "--device", "cpu", "--json", str(output)]
    assert main(command) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == [
        "patient",
        *(f"patient{n}" for n in range(4)),
        "mean",
        "sd",
        "median",
        "worst",
    ]
    written = json.loads(output.read_text())
    assert [case["role"] for case in written["cases"]] == ["new"] * 4
    assert written["summary"]["dice"]["mean"] == pytest.approx(np.mean([case["dice"] for case in written["cases"]]))
    assert written["model"]["checksum"] == threshold_model.card.checksum


def test_a_case_that_cannot_be_used_does_not_lose_the_scores_of_the_others(pairs, threshold_model, tmp_path, capsys):
    (pairs / "patient1_liver.nii.gz").write_bytes(b"damaged")
    table = tmp_path / "scores.csv"
    command = ["evaluate", str(pairs), "--model", str(threshold_model.folder), "--csv", str(table), "--record"]
    assert main(command) == 1
    told = capsys.readouterr()
    assert "so the scores were not recorded:\npatient1: left out: " in told.err
    assert "patient3" in told.out
    assert "patient3" in table.read_text()
    for path in pairs.glob("*_liver.nii.gz"):
        path.write_bytes(b"damaged")
    assert main(command) == 1
    assert "There is no case to evaluate.\npatient0: left out: " in capsys.readouterr().err


def test_evaluating_held_out_cases_where_there_are_none_says_so(pairs, threshold_model, cpu, capsys):
    assert main(["evaluate", str(pairs), "--model", str(threshold_model.folder), "--held-out"]) == 1
    assert "None of the 4 cases is among the 0 that threshold holds out" in capsys.readouterr().err
    held_out = Lineage(held_out={"patient1": "other content", "somebody": "else"})
    model = replace(threshold_model, card=replace(threshold_model.card, lineage=held_out))
    with pytest.raises(TrainingError, match=r"among the 2 that .* patient1 have their names but other content"):
        list(evaluate_model(model, find_cases([pairs]), cpu, held_out_only=True))


@pytest.fixture
def predictions(pairs, tmp_path):
    """Masks made elsewhere, in other formats and under other names: the references, one of them moved."""
    folder = tmp_path / "predictions"
    folder.mkdir()
    for n, ending in enumerate(("_seg.nrrd", ".nii.gz", "_pred.nii", ".seg.nrrd")):
        mask = read_mask(pairs / f"patient{n}_liver.nii.gz")
        array = np.roll(mask.hu_kji, 1, axis=2) if n == 3 else mask.hu_kji
        write_volume(folder / f"patient{n}{ending}", array, mask.affine)
    return folder


def test_predictions_from_elsewhere_are_compared_with_their_references(predictions, pairs, tmp_path, capsys):
    table = tmp_path / "scores.csv"
    command = ["evaluate", "--predictions", str(predictions), "--reference", str(pairs), "--csv", str(table)]
    assert main(command) == 0
    rows = list(csv.DictReader(table.open()))
    assert [row["case"] for row in rows] == [f"patient{n}" for n in range(4)]
    assert [float(row["dice"]) for row in rows[:3]] == [1, 1, 1]
    assert 0.8 < float(rows[3]["dice"]) < 1
    assert "patient3" in capsys.readouterr().out


@pytest.mark.slow
def test_predictions_and_references_with_other_axes_are_compared_voxel_by_voxel(predictions, pairs):
    expected = [case.scores for case in evaluate_predictions(predictions, pairs)]
    with_other_axes(predictions / "patient1.nii.gz", "ASR")
    with_other_axes(pairs / "patient2_liver.nii.gz", "PIL")
    assert [case.scores for case in evaluate_predictions(predictions, pairs)] == expected


def test_a_held_out_patient_is_found_with_other_axes(pairs, threshold_model, cpu):
    held_out = Lineage(held_out={"p": content_hash(read_volume(pairs / "patient1_orig.nii.gz"))})
    model = replace(threshold_model, card=replace(threshold_model.card, lineage=held_out))
    (before,) = evaluate_model(model, find_cases([pairs]), cpu, held_out_only=True)
    with_other_axes(pairs / "patient1_orig.nii.gz", "RAS")
    (after,) = evaluate_model(model, find_cases([pairs]), cpu, held_out_only=True)
    assert (after.case, after.role) == ("patient1", "held out")
    assert after.scores.dice == before.scores.dice > 0


def test_a_reference_without_prediction_is_named(predictions, pairs, capsys):
    (predictions / "patient1.nii.gz").unlink()
    assert main(["evaluate", "--predictions", str(predictions), "--reference", str(pairs)]) == 1
    assert "patient1_liver.nii.gz has no prediction" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--predictions", "x"], "go together"),
        ([], "Name either data"),
        (["data", "--predictions", "x", "--reference", "y"], "Name either data"),
        (["--predictions", "x", "--reference", "y", "--record"], "need a model"),
    ],
)
def test_sources_that_exclude_each_other_are_refused(arguments, expected, capsys):
    assert main(["evaluate", *arguments]) == 1
    assert expected in capsys.readouterr().err


def evaluation(path, dices) -> str:
    cases = [
        {
            "case": f"p{n}",
            "dice": dice,
            "hd95_mm": 5,
            "assd_mm": 1,
            "surface_dice_3mm": 0.9,
            "volume_error_percent": -dice,
            "role": "new",
            "seconds": 1.0,
            **dict.fromkeys(("jaccard", "precision", "recall", "surface_dice_1mm"), 0.9),
            **dict.fromkeys(("volume_ml", "reference_ml", "volume_error_ml"), 1000.0),
        }
        for n, dice in enumerate(dices)
    ]
    path.write_text(json.dumps({"cases": cases}))
    return str(path)


def test_two_evaluations_are_compared_case_by_case(tmp_path, capsys):
    dices = np.linspace(0.9, 0.96, 8)
    first = evaluation(tmp_path / "first.json", dices)
    second = evaluation(tmp_path / "second.json", [*(dices + 0.01), 0.5])
    assert main(["compare", first, second]) == 0
    told = capsys.readouterr().out
    assert "8 cases in both" in told
    assert "mean difference +0.0100, Wilcoxon p = 0.0078" in told
    assert "0 cases differ: too few for a test" in told
    assert main(["compare", first, evaluation(tmp_path / "none.json", [])]) == 1
    assert "share no case" in capsys.readouterr().err


def test_the_slice_of_the_largest_disagreement_is_found():
    reference = np.zeros((4, 3, 3), np.uint8)
    reference[1] = reference[2, 0] = 1
    mask = reference.copy()
    assert largest_disagreement(mask, reference) == 1, "they agree: the fullest slice"
    mask[3, 0, :2] = 1
    mask[2] = 0
    assert largest_disagreement(mask, reference) == 2


def test_masks_of_two_readers_in_folders_of_pairs_are_compared(pairs, tmp_path):
    other = shutil.copytree(pairs, tmp_path / "other")
    scores = [case.scores.dice for case in evaluate_predictions(other, pairs)]
    assert scores == [1.0] * 4


def test_of_a_prediction_with_several_labels_those_of_the_reference_count(pairs, tmp_path):
    references, predictions = tmp_path / "references", tmp_path / "predictions"
    for folder in ("imagesTr", "labelsTr"):
        (references / folder).mkdir(parents=True)
    predictions.mkdir()
    (references / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "spleen": 1, "liver": 2}}))
    for n in range(2):
        shutil.copy(pairs / f"patient{n}_orig.nii.gz", references / f"imagesTr/p{n}_0000.nii.gz")
        mask = read_mask(pairs / f"patient{n}_liver.nii.gz")
        labels = mask.hu_kji * np.uint8(2)
        labels[0] = 1
        write_volume(references / f"labelsTr/p{n}.nii.gz", labels, mask.affine)
        write_volume(predictions / f"p{n}.nii.gz", labels if n else (labels == 2).astype(np.uint8), mask.affine)
    assert [case.scores.dice for case in evaluate_predictions(predictions, references)] == [1.0, 1.0]


def test_two_masks_of_one_name_are_refused(predictions, pairs, capsys):
    shutil.copy(predictions / "patient1.nii.gz", predictions / "patient1_seg.nii.gz")
    assert main(["evaluate", "--predictions", str(predictions), "--reference", str(pairs)]) == 1
    assert "patient1.nii.gz and patient1_seg.nii.gz both belong to patient1" in capsys.readouterr().err
