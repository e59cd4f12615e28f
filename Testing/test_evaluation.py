"""Models and masks made elsewhere are evaluated on cases, and two evaluations compared."""

import csv
import json
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest

from helpers import with_other_axes
from LiverUNetLib.errors import TrainingError
from LiverUNetLib.models.card import Lineage
from LiverUNetLib.scan.formats import read_mask, read_volume, write_volume
from LiverUNetTrainLib.cli.main import main
from LiverUNetTrainLib.data.cases import content_hash
from LiverUNetTrainLib.data.layouts import find_cases
from LiverUNetTrainLib.evaluation.evaluate import evaluate_model, evaluate_predictions


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
    held_out = Lineage(held_out={"patient1": "other content", "other": "another content"})
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


def test_the_command_of_an_evaluation_runs_also_where_a_path_has_spaces(predictions, pairs, tmp_path, capsys):
    references = pairs.rename(tmp_path / "my pairs")
    arguments = ["evaluate", "--predictions", str(predictions), "--reference", str(references)]
    assert main([*arguments, "--json", str(tmp_path / "scores.json")]) == 0
    program, *again = shlex.split(json.loads((tmp_path / "scores.json").read_text())["command"])
    assert (program, again) == ("liver-unet-train", arguments)


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
