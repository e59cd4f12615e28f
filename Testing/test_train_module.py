"""LiverUNetTrain in Slicer: its nodes and its logic."""

from types import SimpleNamespace

import numpy as np
import pytest
import slicer

from helpers import SHAPE_IJK, dice
from LiverUNetLib.errors import TrainingError
from LiverUNetLib.scan.formats import read_mask, read_volume
from LiverUNetLib.scan.phantom import axial_affine
from LiverUNetLib.steps import finish
from LiverUNetTrainLib.run.folder import EpochLog
from LiverUNetTrainLib.run.options import RECIPE_NAMES, TrainingOptions
from LiverUNetTrainLib.training.recipes import RECIPES
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
    from LiverUNetTrainPanel.nodes.plots import curvesOf

    charts = curvesOf(scene, "run", HISTORY[:1])
    assert set(charts) == {"loss", "accuracy", "Dice"}
    assert charts["Dice"].GetNumberOfPlotSeriesNodes() == 1, "without a validation there is no curve of it"
    assert curvesOf(scene, "run", HISTORY) == charts, "the same nodes are updated"
    table = scene.GetFirstNodeByName("run training").GetTable()
    assert [table.GetValueByName(row, "loss").ToDouble() for row in range(3)] == [0.9, 0.7, 0.5]
    validation = scene.GetFirstNodeByName("run validation").GetTable()
    assert validation.GetNumberOfRows() == 1
    assert validation.GetValueByName(0, "Dice").ToDouble() == pytest.approx(0.6)
    assert validation.GetValueByName(0, "epoch").ToDouble() == 2
    assert charts["Dice"].GetNumberOfPlotSeriesNodes() == 2
    assert scene.GetNumberOfNodesByClass("vtkMRMLPlotSeriesNode") == 6


def test_runs_with_similar_names_have_separate_charts(scene):
    from LiverUNetTrainPanel.nodes.plots import curvesOf

    charts = [curvesOf(scene, name, HISTORY)["Dice"] for name in ("my-run", "run", "run(1)", "run(1)")]
    assert len({chart.GetID() for chart in charts}) == 3
    assert charts[2] is charts[3]


@pytest.mark.parametrize("volume_turned", [0, 35])
@pytest.mark.parametrize("segmentation_turned", [0, 20])
def test_a_segment_becomes_a_mask_on_the_volumes_voxels_through_all_transforms(
    segmented, train, a_volume, scene, volume_turned, segmentation_turned
):
    from LiverUNetPanel.nodes.volume import scanSteps
    from LiverUNetTrainPanel.nodes.segments import maskSteps

    if volume_turned:
        a_volume.SetAndObserveTransformNodeID(add_transform(turned(volume_turned)).GetID())
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "other")
    if segmentation_turned:
        segmentation.SetAndObserveTransformNodeID(add_transform(turned(segmentation_turned, axis=1)).GetID())
    outcome = segmented(a_volume, segmentation)
    mask = finish(maskSteps(segmentation, "liver", finish(scanSteps(a_volume)).volume))
    assert mask.shape == SHAPE_IJK[::-1]
    assert dice(mask, outcome.result.mask_kji) > 0.999


def test_the_segment_with_the_terminology_of_the_liver_comes_first(segmented, train, a_volume, a_phantom):
    node = segmented(a_volume).segmentationNode
    node.GetSegmentation().GetSegment("liver").SetName("Leber")
    add_other_segment(node, a_phantom[0].affine, "a liver by name")
    case, other = train.sceneCases()
    assert case.segmentId == "liver"
    assert other.name == "CT / CT liver / a liver by name"
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
    finish(train.loadCaseSteps([pairs], "patient1"))
    node = finish(train.loadCaseSteps([pairs], "patient1", str(threshold_model.folder)))
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1, (
        "the segmentation that was shown before is replaced"
    )
    assert list(node.GetSegmentation().GetSegmentIDs()) == ["reference", "prediction"]
    assert scene.GetFirstNodeByName("patient1").IsA("vtkMRMLScalarVolumeNode")


@pytest.mark.slow
def test_scores_become_a_table_with_the_worst_first(train, pairs, threshold_model):
    scores = finish(train.evaluateSteps(str(threshold_model.folder), [pairs], heldOutOnly=False, deviceName="cpu"))
    table = train.showScores("threshold", scores)
    shown = [float(table.GetCellText(row, 2)) for row in range(table.GetNumberOfRows())]
    assert shown == sorted(shown)
    assert len(shown) == 4


@pytest.mark.slow
def test_the_cost_of_a_training_is_estimated_from_its_options(train, a_cache, tmp_path):
    options = TrainingOptions(
        a_cache.folder, tmp_path / "run", recipe="notebook", epochs=10_000, minutes=0.1, device="cpu"
    )
    cost = finish(train.estimateSteps(options))
    assert "s an epoch" in cost
    assert "; 0.1 min are enough for" in cost


@pytest.fixture
def widgets(tmp_path):
    """The widgets of the training panel that hold choices, as the user finds them."""
    numbers = ("epochsSpin", "minutesSpin", "batchSpin", "validationSpin", "patienceSpin")
    return SimpleNamespace(
        dataPath=SimpleNamespace(currentPath=str(tmp_path / "data")),
        ownPath=SimpleNamespace(currentPath=""),
        cachePath=SimpleNamespace(currentPath=str(tmp_path / "cache")),
        runPath=SimpleNamespace(currentPath=str(tmp_path / "run")),
        startSelector=SimpleNamespace(currentText="A new network", currentIndex=0),
        recipeSelector=SimpleNamespace(currentText="accurate"),
        trainDeviceSelector=SimpleNamespace(currentText="auto"),
        heldEdit=SimpleNamespace(text=""),
        rateEdit=SimpleNamespace(text=""),
        **{name: SimpleNamespace(value=0) for name in numbers},
    )


@pytest.fixture
def choices(scene, widgets):
    from LiverUNetTrainPanel.choices import TrainingChoices

    return TrainingChoices(widgets)


def test_untouched_widgets_leave_the_options_to_the_recipe(choices, tmp_path):
    assert choices.options() == TrainingOptions(tmp_path / "cache", tmp_path / "run", recipe="accurate")


def test_every_choice_becomes_an_option(choices, widgets, tmp_path):
    widgets.epochsSpin.value, widgets.minutesSpin.value, widgets.batchSpin.value = 20, 90, 8
    widgets.validationSpin.value, widgets.patienceSpin.value = 25, 5
    widgets.rateEdit.text, widgets.heldEdit.text = "2e-3", "patient 1, b ,"
    widgets.trainDeviceSelector.currentText = "cpu"
    assert choices.options() == TrainingOptions(
        tmp_path / "cache",
        tmp_path / "run",
        recipe="accurate",
        epochs=20,
        minutes=90,
        batch_size=8,
        learning_rate=0.002,
        validation=0.25,
        patience=5,
        held_out=("patient 1", "b"),
        device="cpu",
    )


def test_a_model_is_fine_tuned_with_its_own_recipe(choices, widgets):
    widgets.startSelector.currentText, widgets.startSelector.currentIndex = "liver-ct", 1
    assert (choices.options().parent, choices.options().recipe) == ("liver-ct", "fine-tuning")


@pytest.mark.parametrize("text", ["fast", "0", "1", "-0.1", "nan"])
def test_a_learning_rate_that_is_not_between_0_and_1_is_refused(choices, widgets, text):
    widgets.rateEdit.text = text
    with pytest.raises(TrainingError, match=f"The learning rate must be a number between 0 and 1, not {text}"):
        choices.options()


def test_the_own_training_set_counts_once_it_holds_a_case(choices, widgets, tmp_path, pairs):
    widgets.ownPath.currentPath = str(tmp_path / "own")
    assert choices.folders() == [tmp_path / "data"]
    widgets.ownPath.currentPath = str(pairs)
    assert choices.folders() == [tmp_path / "data", pairs]
    widgets.dataPath.currentPath = str(pairs)
    assert choices.folders() == [pairs]


def test_the_recipes_of_the_panel_are_those_of_the_library():
    assert tuple(RECIPES) == RECIPE_NAMES


def test_the_preview_shows_the_height_at_which_the_red_view_cuts_a_loaded_case(train, pairs, scene):
    from LiverUNetTrainPanel.nodes.cases import shownHeight

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


def test_a_case_that_is_shown_again_replaces_its_nodes_unless_the_user_has_edited_them(train, scene, pairs):
    def names(kind):
        return sorted(node.GetName() for node in slicer.util.getNodesByClass(kind))

    for _ in range(2):
        node = finish(train.loadCaseSteps([pairs], "patient1"))
        assert names("vtkMRMLSegmentationNode") == ["patient1 liver"]
        assert names("vtkMRMLScalarVolumeNode") == ["patient1"]
    add_other_segment(node, np.eye(4), "corrected by hand")
    again = finish(train.loadCaseSteps([pairs], "patient1"))
    assert node.GetScene() is scene
    assert again is not node
    assert names("vtkMRMLScalarVolumeNode") == ["patient1"] * 2
    finish(train.loadCaseSteps([pairs], "patient1"))
    assert node.GetScene() is scene, "the edited one is kept"
    assert len(names("vtkMRMLSegmentationNode")) == 2


def test_a_missing_case_is_named(train, pairs):
    with pytest.raises(TrainingError, match="There is no case missing in the chosen folders any more"):
        finish(train.loadCaseSteps([pairs], "missing"))
