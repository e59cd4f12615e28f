"""The panel of LiverUNetTrain on stand-in widgets, with real trainings in processes of their own."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import slicer

from helpers import unix_only, write_pair
from LiverUNetLib.exchange import remove_model
from LiverUNetLib.steps import Progress
from LiverUNetTrainLib.detached import state_of
from LiverUNetTrainLib.finetuning import Verdict
from mrml_helpers import add_other_segment


@pytest.fixture
def panel(qt, scene, tmp_path, monkeypatch):
    monkeypatch.setenv("LIVER_UNET_MODELS", str(tmp_path / "models"))
    from LiverUNetTrainPanel.widget import LiverUNetTrainWidget

    parent = slicer.qMRMLWidget()
    parent.setLayout(qt.QVBoxLayout())
    widget = LiverUNetTrainWidget(parent)
    widget.setup()
    widget.enter()
    yield widget
    if widget.train.run() and widget.train.run().is_dir():
        (widget.train.run() / "stop").touch()
    if widget.train._process:
        widget.train._process.kill()
        widget.train._process.wait()
    widget.cleanup()


def get(widget, name):
    """A property, however PySide6 offers it at the moment."""
    return widget.property(name)


def put(widget, name, value):
    widget.setProperty(name, value)


def turn(panel, until, seconds=120):
    """Let the event loop turn until something is true."""
    import qt

    end = time.monotonic() + seconds
    while not until():
        qt.QApplication.processEvents()
        time.sleep(0.01)
        assert time.monotonic() < end, (get(panel.ui.statusLabel, "text"), get(panel.ui.runStateLabel, "text"))


def cells(table, row):
    return [table.item(row, column).text() for column in range(get(table, "columnCount"))]


def finish_run(panel):
    turn(panel, lambda: not panel.runner.running)


def test_without_folders_every_button_says_what_is_missing(panel):
    ui = panel.ui
    tips = {name: (get(button, "enabled"), get(button, "toolTip")) for name, button in vars(ui).items()}
    assert tips["prepareButton"] == (False, "Choose a folder of cases.")
    assert tips["startButton"] == (False, "Prepare the cases first.")
    assert tips["stopButton"] == (False, "No training works in this run folder.")
    assert tips["installButton"] == (False, "There is no run with a validated epoch.")
    assert tips["cancelButton"] == (False, "This panel is doing nothing.")


def test_from_data_to_an_installed_model_that_liverunet_uses(panel, qt, tmp_path, a_volume, monkeypatch):
    """The whole way by its buttons, with a real training in a process of its own."""
    data = tmp_path / "data"
    data.mkdir()
    for n in range(3):
        write_pair(data, f"patient {n}", seed=n)
    ui = panel.ui
    put(ui.dataPath, "text", str(data))
    put(ui.cachePath, "text", str(tmp_path / "cache"))
    ui.prepareButton.click()
    finish_run(panel)
    assert get(ui.statusLabel, "text") == "3 of 3 cases can be used."
    assert [cells(ui.caseTable, 0)[column] for column in (0, 3, 4)] == [
        "patient 0",
        "48 x 36 x 12",
        "8.00 x 8.00 x 18.00",
    ]
    ui.previewButton.click()
    finish_run(panel)
    assert panel.data._preview.property("pixmap").height() == 800
    panel.data._preview.close()
    put(ui.runPath, "text", str(tmp_path / "run"))
    put(ui.epochsSpin, "value", 2)
    put(ui.batchSpin, "value", 4)
    put(ui.heldEdit, "text", "patient 2")
    panel.train.watch()
    assert [cells(ui.caseTable, row)[2] for row in range(3)] == ["", "", "held out"]
    put(ui.trainDeviceSelector, "currentText", "cpu")
    ui.startButton.click()
    assert not get(ui.startButton, "enabled")
    turn(panel, lambda: get(ui.runStateLabel, "text").startswith("finished, 2 of 2 epochs"))
    assert slicer.mrmlScene.GetFirstNodeByName("run Dice")
    assert sorted(cells(ui.caseTable, row)[2] for row in range(3)) == ["held out", "trains", "validates"]
    assert ui.overlayLabel.property("pixmap").width() == 320, "the validation case is drawn"
    put(ui.nameEdit, "text", "my-liver")
    put(ui.licenceEdit, "text", "CC0-1.0")
    ui.installButton.click()
    finish_run(panel)
    assert get(ui.statusLabel, "text") == "Installed my-liver; choose it in the module LiverUNet."
    put(ui.evaluateModelSelector, "currentText", "my-liver")
    ui.evaluateButton.click()
    finish_run(panel)
    assert get(ui.scoreTable, "rowCount") == 1, "only the case that was held out"
    assert get(ui.comparisonLabel, "text") == ""
    put(ui.compareSelector, "currentText", "liver-ct")
    ui.evaluateButton.click()
    finish_run(panel)
    assert "1 cases in both; differences are liver-ct minus my-liver" in get(ui.comparisonLabel, "text")
    assert ui.scoreTable.item(0, 6).text() != ""
    assert ui.scoreTable.item(0, 0).text() == "patient 2"

    archive = tmp_path / "my-liver.zip"
    monkeypatch.setattr(qt.QFileDialog, "chosen", str(archive))
    ui.zipOutButton.click()
    finish_run(panel)
    remove_model("my-liver")
    ui.zipInButton.click()
    finish_run(panel)
    assert get(ui.statusLabel, "text") == "Installed my-liver; choose it in the module LiverUNet."

    from LiverUNetPanel.logic import LiverUNetLogic

    outcome = LiverUNetLogic().process(a_volume, modelName="my-liver", deviceName="cpu")
    assert outcome.result.provenance["model"] == "my-liver"


def test_a_new_panel_finds_a_training_stops_it_and_lets_it_go_on(panel, a_cache, tmp_path):
    ui = panel.ui
    put(ui.cachePath, "text", str(a_cache.folder))
    put(ui.runPath, "text", str(tmp_path / "run"))
    put(ui.epochsSpin, "value", 400)
    put(ui.batchSpin, "value", 4)
    put(ui.trainDeviceSelector, "currentText", "cpu")
    ui.startButton.click()
    turn(panel, lambda: "validation Dice" in get(ui.runStateLabel, "text"))

    from LiverUNetTrainPanel.widget import LiverUNetTrainWidget

    other_parent = slicer.qMRMLWidget()
    import qt

    other_parent.setLayout(qt.QVBoxLayout())
    other = LiverUNetTrainWidget(other_parent)
    other.setup()
    other.enter()
    assert get(other.ui.runPath, "currentPath") == str(tmp_path / "run"), "folders are remembered"
    assert get(other.ui.runStateLabel, "text").startswith("running")
    other.ui.stopButton.click()
    panel.train._process.wait()
    other.train.watch()
    assert "stopped" in get(other.ui.runStateLabel, "text")
    assert get(other.ui.resumeButton, "enabled")
    other.cleanup()


@unix_only
def test_after_sigkill_of_trainer_and_parent_a_new_panel_shows_the_whole_curve_and_resumes(a_cache, tmp_path, panel):
    """A process in Slicer's place orders the training and is killed; so is the trainer, later."""
    run, ui = tmp_path / "run", panel.ui
    code = (
        "import sys, os; from pathlib import Path; from LiverUNetTrainLib.detached import launch;"
        "from LiverUNetTrainLib.order import TrainingOrder; cache, run = map(Path, sys.argv[1:]);"
        "order = TrainingOrder(cache, run, recipe='accurate', epochs=400, batch_size=4, device='cpu');"
        "launch(order.arguments(), run); os.kill(os.getpid(), 9)"
    )
    parent = subprocess.run([sys.executable, "-c", code, str(a_cache.folder), str(run)])
    assert parent.returncode == -signal.SIGKILL
    put(ui.cachePath, "text", str(a_cache.folder))
    put(ui.runPath, "text", str(run))
    turn(panel, lambda: "validation Dice" in get(ui.runStateLabel, "text"))
    os.kill(int((run / "running").read_text()), signal.SIGKILL)
    turn(panel, lambda: get(ui.runStateLabel, "text").startswith("died"))
    done = len(state_of(run).history)
    assert slicer.mrmlScene.GetFirstNodeByName("run training") is None, "nobody has asked for curves"
    ui.curvesButton.click()
    assert slicer.mrmlScene.GetFirstNodeByName("run training").GetTable().GetNumberOfRows() == done >= 2
    ui.resumeButton.click()
    turn(panel, lambda: len(state_of(run).history) > done)


@unix_only
def test_a_run_folder_that_is_deleted_in_mid_run_is_named_by_panel_and_trainer(panel, a_cache, tmp_path):
    ui, run = panel.ui, tmp_path / "run"
    put(ui.cachePath, "text", str(a_cache.folder))
    put(ui.runPath, "text", str(run))
    put(ui.epochsSpin, "value", 1000)
    put(ui.batchSpin, "value", 4)
    put(ui.trainDeviceSelector, "currentText", "cpu")
    ui.startButton.click()
    turn(panel, lambda: "validation Dice" in get(ui.runStateLabel, "text"))
    errors = (run / "errors.txt").open()
    end = time.monotonic() + 30
    while run.exists():  # the trainer may write into it meanwhile
        shutil.rmtree(run, ignore_errors=True)
        assert time.monotonic() < end, "somebody holds it"
    turn(panel, lambda: "is gone; what was in it cannot be resumed" in get(ui.runStateLabel, "text"))
    assert panel.train._process.wait() == 1
    last = errors.read().splitlines()[-1]  # the second sentence if it was writing just then
    assert "is gone; what was trained in it is lost, start a new run." in last or "could not be written" in last
    errors.close()
    panel.train.watch()
    assert "is gone" in get(ui.runStateLabel, "text")
    assert get(ui.startButton, "enabled")


def test_the_chosen_segment_of_the_scene_stays_chosen_when_the_list_is_made_again(panel, scene, a_phantom, a_volume):
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
    assert "liver" in cells(table, 0)[0], "the likeliest comes first"
    assert cells(table, table.currentRow()) == chosen


def test_a_learning_rate_that_is_none_is_named_and_nothing_starts(panel, a_cache, tmp_path):
    put(panel.ui.cachePath, "text", str(a_cache.folder))
    put(panel.ui.runPath, "text", str(tmp_path / "run"))
    put(panel.ui.rateEdit, "text", "fast")
    panel.ui.startButton.click()
    assert "The learning rate must be a number between 0 and 1, not fast." in slicer.app.shown[0]
    assert not (tmp_path / "run").exists()


def test_nothing_is_cut_off_in_a_picture_of_400_pixels_width(panel, qt, tmp_path):
    from slicer_standin.picture import draw

    picture = draw(panel, 400, 1100)
    for name, widget in vars(panel.ui).items():
        if widget.isVisible():
            assert widget.mapTo(panel.parent, widget.rect().topRight()).x() <= 400, name
    assert picture.save(str(tmp_path / "panel.png"))


def test_why_no_case_can_be_used_is_shown(panel, pairs, tmp_path):
    for path in pairs.glob("*_liver.nii.gz"):
        path.write_bytes(b"damaged")
    put(panel.ui.dataPath, "text", str(pairs))
    put(panel.ui.cachePath, "text", str(tmp_path / "cache"))
    panel.ui.prepareButton.click()
    finish_run(panel)
    assert "None of the cases can be used" in slicer.app.shown[0]
    assert slicer.app.shown[0].count("is not a readable NIfTI file") == 4


def test_nothing_is_trained_while_cases_are_prepared(panel, a_cache, pairs, tmp_path):
    put(panel.ui.cachePath, "text", str(a_cache.folder))
    put(panel.ui.dataPath, "text", str(pairs))
    put(panel.ui.runPath, "text", str(tmp_path / "run"))
    assert get(panel.ui.startButton, "enabled")
    panel.ui.prepareButton.click()
    assert not get(panel.ui.startButton, "enabled")
    panel.runner.stop()
    assert get(panel.ui.startButton, "enabled")


def test_a_run_that_cannot_be_read_is_said_and_the_buttons_live(panel, tmp_path, monkeypatch):
    from LiverUNetTrainLib import detached

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(detached, "state_of", refuse)
    put(panel.ui.runPath, "text", str(tmp_path))
    panel.train.watch()
    assert "Permission denied" in get(panel.ui.runStateLabel, "text")


def test_reloading_forgets_our_packages_alone(panel, monkeypatch):
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    panel.onReload()
    ours = {name for name in sys.modules if name.startswith("LiverUNet")}
    assert not {name for name in ours if name.split(".")[0] not in ("LiverUNet", "LiverUNetTrain")}
    assert "torch" in sys.modules


def test_a_model_that_got_worse_is_not_installed_without_a_question(panel, tmp_path, monkeypatch):
    def judge(_run, _folders):
        yield Progress("Comparing", 0, 0)
        return Verdict(before=0.9, after=0.8, cases=2)

    (tmp_path / "run").mkdir()
    (tmp_path / "run/best.pt").touch()
    monkeypatch.setattr(panel.logic, "judgeSteps", judge)
    put(panel.ui.runPath, "text", str(tmp_path / "run"))
    put(panel.ui.nameEdit, "text", "worse")
    slicer.app.answer = False
    panel.ui.installButton.click()
    finish_run(panel)
    assert slicer.app.asked[-1].endswith("Install it all the same?")
    assert get(panel.ui.statusLabel, "text").startswith("Not installed. ")
    assert not (tmp_path / "models").exists()
