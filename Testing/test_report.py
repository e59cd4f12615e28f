"""A report is one file with every picture in it."""

import re
from dataclasses import replace

import numpy as np
import pytest

from helpers import SETTINGS
from LiverUNetTrainLib.cli.main import main
from LiverUNetTrainLib.evaluation.figures import draw_bland_altman, draw_curves
from LiverUNetTrainLib.evaluation.metrics import CaseScores, compare_masks
from LiverUNetTrainLib.run.folder import EpochLog, RunFolder


def case(name: str, voxels: int, reference: int) -> CaseScores:
    masks = np.zeros((2, 4, 5, 40), np.uint8)
    masks[0, 2, 2, :voxels], masks[1, 2, 2, :reference] = 1, 1
    return CaseScores(name, "new", compare_masks(*masks, (10.0, 10.0, 10.0)), 1.0)


def test_curves_show_training_and_validation_of_every_run():
    history = [
        EpochLog(1, 1e-3, 0.5, 0.8, 0.9, 1.0),
        EpochLog(2, 1e-3, 0.4, 0.9, 0.95, 1.0, 0.3, 0.97, {"a": 0.9, "b": 0.8}),
    ]
    figure = draw_curves({"fold1": history, "fold2": history[:1]})
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [f"fold{n}: {curve}" for n in (1, 2) for curve in ("loss", "accuracy", "Dice")]
    training, validation = figure.axes[2].lines
    assert training.get_xydata().tolist() == [[1, 0.8], [2, 0.9]]
    assert validation.get_xydata().tolist() == [[2, pytest.approx(0.85)]]


def test_bland_altman_draws_bias_and_limits_worked_out_on_paper():
    cases = [case("a", 12, 10), case("b", 20, 20), case("c", 28, 30)]
    axes = draw_bland_altman(cases).axes[0]
    assert axes.collections[0].get_offsets().tolist() == [[11, 2], [20, 0], [29, -2]]
    assert [line.get_ydata()[0] for line in axes.lines] == pytest.approx([0, -1.96 * 2, 1.96 * 2])


@pytest.mark.slow
@pytest.mark.usefixtures("small_recipes")
def test_a_cross_validation_becomes_one_file_with_all_its_pictures(pairs, tmp_path, capsys):
    work = tmp_path / "work"
    common = ["--epochs", "1", "--coarse-epochs", "1", "--device", "cpu"]
    assert main(["crossval", str(pairs), "--work", str(work), "--folds", "2", *common]) == 0
    output = tmp_path / "report.html"
    report = ["report", str(work), "-o", str(output), "--device", "cpu"]
    assert main([*report, "--data", str(pairs)]) == 0
    html = output.read_text()
    pictures = re.findall(r'<img alt="([^"]+)" src="data:image/png;base64,', html)
    assert pictures[:3] == ["loss, accuracy and Dice by epoch", "scores per patient", "Bland-Altman plot of volumes"]
    assert [picture.split(":")[0] for picture in pictures[3:]] == ["Worst", "Median", "Best"]
    assert html.count("<tr>") == 1 + 4 + 4
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert main(report) == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_is_reported_with_the_scores_of_an_evaluation(a_trainer, pairs, threshold_model, tmp_path):
    list(a_trainer("run", settings=replace(SETTINGS, epochs=1)).epochs())
    scores, model = str(tmp_path / "scores.json"), ["--model", str(threshold_model.folder), "--device", "cpu"]
    assert main(["evaluate", str(pairs), "--json", scores, *model]) == 0
    output = tmp_path / "report.html"
    assert (
        main(["report", str(tmp_path / "run"), "--scores", scores, "--data", str(pairs), *model, "-o", str(output)])
        == 0
    )
    assert output.read_text().count("<img") == 6


def test_what_is_neither_run_nor_cross_validation_is_named(tmp_path, capsys):
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "report.html")]) == 1
    assert "neither a run nor" in capsys.readouterr().err


@pytest.mark.slow
def test_a_log_with_a_half_written_line_is_read_up_to_it(a_trainer, tmp_path):
    list(a_trainer("run").epochs())
    log = tmp_path / "run/log.jsonl"
    log.write_text(log.read_text() + '{"epoch": 4, "lea')
    assert [entry.epoch for entry in RunFolder(tmp_path / "run").history()] == [1, 2, 3]


@pytest.mark.slow
def test_the_preview_of_the_augmentation_is_a_picture(a_cache, tmp_path, capsys):
    output = tmp_path / "preview.png"
    assert main(["augment-preview", str(a_cache.folder), "-o", str(output)]) == 0
    assert output.read_bytes()[:4] == b"\x89PNG"
    assert main(["augment-preview", str(a_cache.folder), "-o", str(output), "--overwrite", "--case", "unknown"]) == 1
    assert "holds no case unknown; there are patient0" in capsys.readouterr().err
