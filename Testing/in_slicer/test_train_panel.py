"""The panel of LiverUNetTrain, with real trainings in separate processes."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import slicer

from helpers import unix_only, write_pair
from LiverUNetLib.models.exchange import install_model, remove_model
from LiverUNetLib.steps import Progress
from LiverUNetTrainLib.evaluation.before_after import Verdict
from LiverUNetTrainLib.evaluation.measures import MAIN_MEASURES
from LiverUNetTrainLib.run.background import state_of
from mrml_helpers import add_other_segment
from panel_helpers import assert_nothing_is_cut_off, open_panel, run_to_the_end, state, turn


@pytest.fixture
def panel(train_panel):
    return train_panel


def cells(table, row):
    return [table.item(row, column).text() for column in range(table.columnCount)]


def headings(table):
    return [table.horizontalHeaderItem(column).text() for column in range(table.columnCount)]


def test_without_folders_every_button_tells_what_is_missing(panel):
    ui = panel.ui
    tips = {name: state(button) for name, button in vars(ui).items() if name.endswith("Button")}
    assert tips["prepareButton"] == (False, "Choose a folder of cases.")
    assert tips["startButton"] == (False, "Prepare the cases first.")
    assert tips["stopButton"] == (False, "No training is running in this folder.")
    assert tips["installButton"] == (False, "There is no run with a validated epoch.")
    assert tips["cancelButton"] == (False, "Nothing is running in this panel.")


def test_from_data_to_an_installed_model_that_liverunet_uses(panel, tmp_path, a_volume, chosen_file):
    """The complete work flow by the buttons, with a real training in a separate process."""
    data = tmp_path / "data"
    data.mkdir()
    for n in range(3):
        write_pair(data, f"patient {n}", seed=n)
    ui = panel.ui
    ui.dataPath.currentPath = str(data)
    ui.cachePath.currentPath = str(tmp_path / "cache")
    ui.prepareButton.click()
    run_to_the_end(panel)
    assert ui.statusLabel.text == "3 of 3 cases can be used."
    assert [cells(ui.caseTable, 0)[column] for column in (0, 3, 4)] == [
        "patient 0",
        "48 x 36 x 12",
        "8.00 x 8.00 x 18.00",
    ]
    ui.previewButton.click()
    run_to_the_end(panel)
    assert panel.data.preview.pixmap.height() == 800
    panel.data.preview.close()
    ui.runPath.currentPath = str(tmp_path / "run")
    ui.epochsSpin.value = 2
    ui.batchSpin.value = 4
    ui.heldEdit.text = "patient 2"
    panel.train.watch()
    assert [cells(ui.caseTable, row)[2] for row in range(3)] == ["", "", "held out"]
    ui.trainDeviceSelector.currentText = "cpu"
    ui.startButton.click()
    assert not ui.startButton.enabled
    turn(panel, lambda: ui.runStateLabel.text.startswith("finished, 2 of 2 epochs"), seconds=240)
    assert slicer.mrmlScene.GetFirstNodeByName("run Dice")
    assert sorted(cells(ui.caseTable, row)[2] for row in range(3)) == ["held out", "training", "validation"]
    assert ui.overlayLabel.pixmap.width() == 320, "the validation case is drawn"
    ui.nameEdit.text = "my-liver"
    ui.licenseEdit.text = "CC0-1.0"
    ui.installButton.click()
    run_to_the_end(panel)
    assert ui.statusLabel.text == "Installed my-liver; choose it in the module LiverUNet."
    ui.evaluateModelSelector.currentText = "my-liver"
    ui.evaluateButton.click()
    run_to_the_end(panel)
    assert ui.scoreTable.rowCount == 1, "only the case that was held out"
    assert ui.comparisonLabel.text == ""
    ui.compareSelector.currentText = "liver-ct"
    ui.evaluateButton.click()
    run_to_the_end(panel)
    assert "1 cases in both; differences are liver-ct minus my-liver" in ui.comparisonLabel.text
    shown = dict(zip(headings(ui.scoreTable), cells(ui.scoreTable, 0), strict=True))
    assert list(shown) == ["case", *(measure.heading for measure in MAIN_MEASURES), "other Dice"]
    assert shown["case"] == "patient 2"
    assert shown["volume error"].endswith(" %")
    assert shown["other Dice"] != ""

    archive = tmp_path / "my-liver.zip"
    chosen_file.path = str(archive)
    ui.zipOutButton.click()
    run_to_the_end(panel)
    remove_model("my-liver")
    ui.zipInButton.click()
    run_to_the_end(panel)
    assert ui.statusLabel.text == "Installed my-liver; choose it in the module LiverUNet."

    from LiverUNetPanel.logic import LiverUNetLogic

    outcome = LiverUNetLogic().process(a_volume, modelName="my-liver", deviceName="cpu")
    assert outcome.result.provenance.model == "my-liver"


def test_a_new_panel_finds_a_training_stops_it_and_can_resume_it(panel, a_cache, tmp_path):
    ui = panel.ui
    ui.cachePath.currentPath = str(a_cache.folder)
    ui.runPath.currentPath = str(tmp_path / "run")
    ui.epochsSpin.value = 400
    ui.batchSpin.value = 4
    ui.trainDeviceSelector.currentText = "cpu"
    ui.startButton.click()
    turn(panel, lambda: "validation Dice" in ui.runStateLabel.text)

    other = open_panel("LiverUNetTrain")
    assert other.ui.runPath.currentPath == str(tmp_path / "run"), "folders are remembered"
    assert other.ui.runStateLabel.text.startswith("running")
    other.ui.stopButton.click()
    panel.logic.trainings[tmp_path / "run"].wait()
    other.train.watch()
    assert "stopped" in other.ui.runStateLabel.text
    assert other.ui.resumeButton.enabled


@unix_only
def test_after_sigkill_of_trainer_and_parent_a_new_panel_shows_the_whole_curve_and_resumes(a_cache, tmp_path, panel):
    """Another process starts the training and is killed; later the trainer is killed, too."""
    run, ui = tmp_path / "run", panel.ui
    code = (
        "import sys, os; from pathlib import Path; from LiverUNetTrainLib.run.background import launch;"
        "from LiverUNetTrainLib.run.options import TrainingOptions; cache, run = map(Path, sys.argv[1:]);"
        "options = TrainingOptions(cache, run, recipe='accurate', epochs=400, batch_size=4, device='cpu');"
        "launch(options.arguments(), run); os.kill(os.getpid(), 9)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.run([sys.executable, "-c", code, str(a_cache.folder), str(run)], env=environment)
    assert parent.returncode == -signal.SIGKILL
    ui.cachePath.currentPath = str(a_cache.folder)
    ui.runPath.currentPath = str(run)
    turn(panel, lambda: "validation Dice" in ui.runStateLabel.text)
    os.kill(int((run / "running").read_text()), signal.SIGKILL)
    turn(panel, lambda: ui.runStateLabel.text.startswith("died"))
    done = len(state_of(run).history)
    assert slicer.mrmlScene.GetFirstNodeByName("run training") is None, "the user has not asked for curves"
    ui.curvesButton.click()
    assert slicer.mrmlScene.GetFirstNodeByName("run training").GetTable().GetNumberOfRows() == done >= 2
    ui.resumeButton.click()
    turn(panel, lambda: len(state_of(run).history) > done)


@unix_only
def test_panel_and_trainer_report_a_run_folder_that_is_deleted_during_the_run(panel, a_cache, tmp_path):
    ui, run = panel.ui, tmp_path / "run"
    ui.cachePath.currentPath = str(a_cache.folder)
    ui.runPath.currentPath = str(run)
    ui.epochsSpin.value = 1000
    ui.batchSpin.value = 4
    ui.trainDeviceSelector.currentText = "cpu"
    ui.startButton.click()
    turn(panel, lambda: "validation Dice" in ui.runStateLabel.text)
    errors = (run / "errors.txt").open()
    end = time.monotonic() + 30
    while run.exists():  # the trainer may write into it meanwhile
        shutil.rmtree(run, ignore_errors=True)
        assert time.monotonic() < end, "the folder cannot be deleted"
    turn(panel, lambda: "is gone, so the run cannot be resumed" in ui.runStateLabel.text)
    assert panel.logic.trainings[run].wait() == 1
    last = errors.read().splitlines()[-1]  # the second message if it was writing at that moment
    assert "is gone; what was trained in it is lost, start a new run." in last or "could not be written" in last
    errors.close()
    panel.train.watch()
    assert "is gone" in ui.runStateLabel.text
    assert ui.startButton.enabled


def test_the_chosen_segment_of_the_scene_stays_chosen_when_the_list_is_updated(panel, scene, a_phantom, a_volume):
    def add_segments(*names):
        for name in names:
            node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
            add_other_segment(node, a_phantom[0].affine, name)
        panel.enter()

    table = panel.ui.sceneTable
    add_segments("stomach", "spleen")
    table.setCurrentCell(1, 0)
    chosen = cells(table, 1)
    add_segments("liver")
    assert "liver" in cells(table, 0)[0], "the most likely liver comes first"
    assert cells(table, table.currentRow()) == chosen


def test_an_invalid_learning_rate_is_reported_and_nothing_starts(panel, a_cache, tmp_path, dialogs):
    panel.ui.cachePath.currentPath = str(a_cache.folder)
    panel.ui.runPath.currentPath = str(tmp_path / "run")
    panel.ui.rateEdit.text = "fast"
    panel.ui.startButton.click()
    panel.ui.estimateButton.click()
    sentence = "The learning rate must be a number between 0 and 1, not fast."
    assert dialogs.shown == [f"The training was not started.\n\n{sentence}", f"Nothing was estimated.\n\n{sentence}"]
    assert not panel.run.running
    assert not (tmp_path / "run").exists()


def test_nothing_is_cut_off_at_a_width_of_400_pixels(panel):
    assert_nothing_is_cut_off(panel, 400)


def test_the_reasons_why_no_case_can_be_used_are_shown(panel, pairs, tmp_path, dialogs):
    for path in pairs.glob("*_liver.nii.gz"):
        path.write_bytes(b"damaged")
    panel.ui.dataPath.currentPath = str(pairs)
    panel.ui.cachePath.currentPath = str(tmp_path / "cache")
    panel.ui.prepareButton.click()
    run_to_the_end(panel)
    assert "None of the cases can be used" in dialogs.shown[0]
    assert dialogs.shown[0].count("is not a readable NIfTI file") == 4


def test_nothing_is_trained_while_cases_are_prepared(panel, a_cache, pairs, tmp_path):
    panel.ui.cachePath.currentPath = str(a_cache.folder)
    panel.ui.dataPath.currentPath = str(pairs)
    panel.ui.runPath.currentPath = str(tmp_path / "run")
    assert panel.ui.startButton.enabled
    panel.ui.prepareButton.click()
    assert not panel.ui.startButton.enabled
    panel.run.stop()
    assert panel.ui.startButton.enabled


def test_an_unreadable_run_is_reported_and_the_panel_keeps_working(panel, tmp_path, monkeypatch):
    from LiverUNetTrainLib.run import background

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(background, "state_of", refuse)
    panel.ui.runPath.currentPath = str(tmp_path)
    panel.train.watch()
    assert "Permission denied" in panel.ui.runStateLabel.text


def test_a_model_that_got_worse_is_not_installed_without_a_question(panel, tmp_path, monkeypatch, dialogs):
    def judge(_run, _folders):
        yield Progress("Comparing", 0, 0)
        return Verdict(before=0.9, after=0.8, cases=2)

    (tmp_path / "run").mkdir()
    (tmp_path / "run/best.pt").touch()
    monkeypatch.setattr(panel.logic, "judgeSteps", judge)
    panel.ui.runPath.currentPath = str(tmp_path / "run")
    panel.ui.nameEdit.text = "worse"
    dialogs.answer = False
    panel.ui.installButton.click()
    run_to_the_end(panel)
    assert dialogs.asked[-1].endswith("Install it all the same?")
    assert panel.ui.statusLabel.text.startswith("Not installed. ")
    assert not (tmp_path / "models").exists()


def test_a_model_can_be_written_as_a_zip_while_it_is_installed(panel, threshold_model):
    panel.ui.nameEdit.text = "threshold"
    missing = (False, "No model of that name is installed.")
    assert state(panel.ui.zipOutButton) == missing
    install_model(threshold_model.folder)
    panel.updateButtons()
    assert panel.ui.zipOutButton.enabled
    remove_model("threshold")
    panel.updateButtons()
    assert state(panel.ui.zipOutButton) == missing
