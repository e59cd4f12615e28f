"""LiverUNetTrain in Slicer: nodes, the panel on stand-in widgets, and real trainings in processes of their own."""

import os
import signal
import subprocess
import sys
import time
import unittest
from types import SimpleNamespace

import numpy as np
import pytest
import slicer

from helpers import SHAPE_IJK, dice, write_pair
from LiverUNetLib.exchange import remove_model
from LiverUNetLib.formats import read_mask, read_volume
from LiverUNetLib.phantom import axial_affine
from LiverUNetLib.steps import finish
from LiverUNetTrainLib.detached import state_of
from LiverUNetTrainLib.order import RECIPE_NAMES, TrainingOrder
from LiverUNetTrainLib.recipes import RECIPES
from LiverUNetTrainLib.run_folder import EpochLog
from mrml_helpers import add_other_segment, add_transform, turned

HISTORY = [
    EpochLog(1, 1e-3, 0.9, 0.5, 0.9, 2.0),
    EpochLog(2, 1e-3, 0.7, 0.6, 0.92, 2.0, 0.8, 0.91, {"a": 0.5, "b": 0.7}),
    EpochLog(3, 1e-3, 0.5, 0.8, 0.95, 2.0),
]


@pytest.fixture
def train(scene):
    from LiverUNetTrainPanel.logic import LiverUNetTrainLogic

    return LiverUNetTrainLogic()


def test_the_curves_of_a_recorded_log_become_charts_that_grow(scene):
    from LiverUNetTrainPanel.plots import curvesOf

    charts = curvesOf(scene, "run", HISTORY[:1])
    assert set(charts) == {"loss", "accuracy", "Dice"}
    assert curvesOf(scene, "run", HISTORY) == charts, "the same nodes are updated"
    table = scene.GetFirstNodeByName("run training").GetTable()
    assert [table.GetValueByName(row, "loss").ToDouble() for row in range(3)] == [0.9, 0.7, 0.5]
    validation = scene.GetFirstNodeByName("run validation").GetTable()
    assert validation.GetNumberOfRows() == 1
    assert validation.GetValueByName(0, "Dice").ToDouble() == pytest.approx(0.6)
    assert validation.GetValueByName(0, "epoch").ToDouble() == 2
    assert charts["Dice"].GetNumberOfPlotSeriesNodes() == 2
    assert scene.GetNumberOfNodesByClass("vtkMRMLPlotSeriesNode") == 6


@pytest.mark.parametrize("volume_turned", [0, 35])
@pytest.mark.parametrize("segmentation_turned", [0, 20])
def test_a_segment_becomes_a_mask_on_the_volumes_voxels_through_all_transforms(
    segmented, train, a_volume, scene, volume_turned, segmentation_turned
):
    from LiverUNetTrainPanel.segments import maskOnVolume

    if volume_turned:
        a_volume.SetAndObserveTransformNodeID(add_transform(turned(volume_turned)).GetID())
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "other")
    if segmentation_turned:
        segmentation.SetAndObserveTransformNodeID(add_transform(turned(segmentation_turned, axis=1)).GetID())
    outcome = segmented(a_volume, segmentation)
    mask = maskOnVolume(segmentation, "liver", a_volume)
    assert mask.shape == SHAPE_IJK[::-1]
    assert dice(mask, outcome.result.mask_kji) > 0.999


def test_the_segment_with_the_terminology_of_the_liver_is_proposed(segmented, train, a_volume, a_phantom):
    node = segmented(a_volume).segmentationNode
    node.GetSegmentation().GetSegment("liver").SetName("Leber")
    add_other_segment(node, a_phantom[0].affine, "a liver by name")
    (case,) = train.sceneCases()
    assert case.segmentId == "liver"
    assert case.name == "CT / CT liver / Leber"


def test_a_case_of_the_scene_becomes_a_pair_with_its_geometry_and_no_name(segmented, train, a_volume, tmp_path):
    a_volume.SetName("Doe^Jane")
    a_volume.SetAndObserveTransformNodeID(add_transform(turned(35)).GetID())
    outcome = segmented(a_volume)
    name = finish(train.addCaseSteps(train.sceneCases()[0], tmp_path))
    mask = read_mask(tmp_path / f"{name}_liver.nii.gz")
    np.testing.assert_array_equal(mask.hu_kji, outcome.result.mask_kji)
    scan = read_volume(tmp_path / f"{name}_orig.nii.gz")
    expected = turned(35) @ axial_affine((4.0, 4.0, 5.0), SHAPE_IJK)
    np.testing.assert_allclose(scan.affine, expected, atol=1e-3)
    assert not [path for path in tmp_path.iterdir() if "Doe" in path.name]
    assert "threshold" in (tmp_path / f"{name}_provenance.json").read_text()


def test_a_case_is_loaded_with_reference_and_prediction(train, pairs, threshold_model, scene):
    node = finish(train.loadCaseSteps([pairs], "patient1", str(threshold_model.folder)))
    assert list(node.GetSegmentation().GetSegmentIDs()) == ["reference", "prediction"]
    assert scene.GetFirstNodeByName("patient1").IsA("vtkMRMLScalarVolumeNode")


def test_scores_become_a_table_with_the_worst_first(train, pairs, threshold_model):
    scores = finish(train.evaluateSteps(str(threshold_model.folder), [pairs], heldOutOnly=False, deviceName="cpu"))
    table = train.showScores("threshold", scores)
    shown = [float(table.GetCellText(row, 2)) for row in range(table.GetNumberOfRows())]
    assert shown == sorted(shown)
    assert len(shown) == 4


def test_the_cost_of_a_training_is_reckoned_from_what_is_ordered(train, a_cache, tmp_path):
    order = TrainingOrder(a_cache.folder, tmp_path / "run", recipe="notebook", epochs=10_000, minutes=0.1, device="cpu")
    words = finish(train.estimateSteps(order))
    assert "s an epoch" in words
    assert "; 0.1 min are enough for" in words


def test_the_recipes_of_the_panel_are_those_of_the_library():
    assert tuple(RECIPES) == RECIPE_NAMES


def test_the_preview_shows_the_height_at_which_the_red_view_cuts_a_loaded_case(train, pairs, scene):
    from LiverUNetTrainPanel.case_nodes import shownHeight

    assert shownHeight("patient1") is None
    finish(train.loadCaseSteps([pairs], "patient1"))
    view = slicer.vtkMRMLSliceNode()
    view.SetSingletonTag("Red")
    view = scene.AddNode(view)
    bounds = [0.0] * 6
    scene.GetFirstNodeByName("patient1").GetRASBounds(bounds)
    view.SetSliceOffset(bounds[4] + 0.25 * (bounds[5] - bounds[4]))
    assert view.GetID() == "vtkMRMLSliceNodeRed"
    assert shownHeight("patient1") == pytest.approx(0.25)
    view.SetSliceOffset(bounds[5] + 1)
    assert shownHeight("patient1") is None


def test_the_modules_own_test_passes_on_the_stand_in(qt, scene):
    from LiverUNetTrain import LiverUNetTrainTest

    slicer.app.testing = True
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(LiverUNetTrainTest).run(result)
    assert result.testsRun == 1
    assert not result.skipped
    assert not result.errors + result.failures, (result.errors + result.failures)[0][1]


@pytest.fixture
def panel(qt, scene, tmp_path, monkeypatch):
    monkeypatch.setenv("LIVER_UNET_MODELS", str(tmp_path / "models"))
    from LiverUNetTrainPanel.widget import LiverUNetTrainWidget

    parent = slicer.qMRMLWidget()
    parent.setLayout(qt.QVBoxLayout())
    widget = LiverUNetTrainWidget(parent)
    widget.setup()
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
        write_pair(data, f"patient{n}", seed=n)
    ui = panel.ui
    put(ui.dataPath, "text", str(data))
    put(ui.cachePath, "text", str(tmp_path / "cache"))
    ui.prepareButton.click()
    finish_run(panel)
    assert get(ui.statusLabel, "text") == "3 of 3 cases can be used."
    assert [cells(ui.caseTable, 0)[column] for column in (0, 3, 4)] == [
        "patient0",
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
    put(ui.heldEdit, "text", "patient2")
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
    assert ui.scoreTable.item(0, 5).text() != ""
    assert ui.scoreTable.item(0, 0).text() == "patient2"

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
    assert get(other.ui.runPath, "currentPath") == str(tmp_path / "run"), "folders are remembered"
    assert get(other.ui.runStateLabel, "text").startswith("running")
    other.ui.stopButton.click()
    panel.train._process.wait()
    other.train.watch()
    assert "stopped" in get(other.ui.runStateLabel, "text")
    assert get(other.ui.resumeButton, "enabled")
    other.cleanup()


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
    turn(panel, lambda: get(ui.runStateLabel, "text").startswith("running, 2 of 400"))
    os.kill(int((run / "running").read_text()), signal.SIGKILL)
    turn(panel, lambda: get(ui.runStateLabel, "text").startswith("died"))
    done = len(state_of(run).history)
    assert slicer.mrmlScene.GetFirstNodeByName("run training").GetTable().GetNumberOfRows() == done >= 2
    put(ui.epochsSpin, "value", 400)
    put(ui.batchSpin, "value", 4)
    put(ui.trainDeviceSelector, "currentText", "cpu")
    ui.resumeButton.click()
    turn(panel, lambda: len(state_of(run).history) > done)


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


def test_the_module_says_what_it_is(scene):
    from LiverUNetTrain import LiverUNetTrain

    parent = SimpleNamespace()
    LiverUNetTrain(parent)
    assert "LiverUNet" in parent.dependencies
    assert "LiverUNetTrain" in sys.modules
