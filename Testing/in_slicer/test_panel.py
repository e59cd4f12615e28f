"""The panel: which buttons are enabled, and complete runs by its buttons."""

from dataclasses import replace

import numpy as np
import pytest
import slicer

from dicom_files import write_series
from helpers import SPACING_MM, read_table
from LiverUNetLib.scan.formats import write_volume
from LiverUNetLib.scan.phantom import abdomen, axial_affine
from LiverUNetLib.segmentation.verdict import SliceToCheck
from mrml_helpers import add_volume, measured, node_names
from panel_helpers import assert_nothing_is_cut_off, run_to_the_end, run_until, state


def test_without_a_volume_the_buttons_tell_what_is_missing(panel):
    assert state(panel.ui.segmentButton) == (False, "Choose a CT volume.")
    assert state(panel.ui.segmentAllButton)[0] is False
    assert state(panel.ui.segmentFolderButton) == (False, "Choose both folders.")
    assert state(panel.ui.editButton) == (False, "There is no liver yet.")
    assert state(panel.ui.copyButton) == (False, "There is no result yet.")
    assert state(panel.ui.withdrawButton) == (False, "You have agreed to no license.")


def test_a_chosen_volume_can_be_segmented(panel, a_volume):
    panel.parameterNode.volume = a_volume
    assert panel.ui.volumeSelector.currentNode() is a_volume
    assert state(panel.ui.segmentButton) == (True, "Find the liver.")


def test_a_whole_run_fills_result_and_buttons(panel, a_volume):
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    assert panel.ui.segmentButton.text == "Cancel"
    assert state(panel.ui.segmentAllButton) == (False, "Wait for the run to end, or cancel it.")
    run_to_the_end(panel)
    node = panel.parameterNode.segmentation
    assert panel.ui.segmentButton.text == "Segment"
    assert panel.ui.statusLabel.text == "Done."
    assert panel.ui.resultLabel.text.startswith(f"CT\nLiver: {measured(node)[0]:.0f} ml")
    assert panel.ui.segmentationSelector.currentNode() is node
    assert panel.ui.show3DButton.segmentationNode() is node
    panel.ui.copyButton.click()
    assert "ml" in slicer.app.clipboard().text()
    assert "Verdict: " in slicer.app.clipboard().text()
    panel.ui.tableButton.click()
    assert slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLTableNode").GetNumberOfRows() == 1
    panel.ui.editButton.click()
    editor = slicer.modules.SegmentEditorWidget.editor
    assert editor.segmentationNode() is node
    assert editor.sourceVolumeNode() is a_volume


def test_the_verdict_is_shown_and_a_slice_worth_a_look_jumps_the_views(panel, a_volume):
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    run_to_the_end(panel)
    outcome = panel.logic.storedOutcome(a_volume, panel.parameterNode.segmentation)
    there, elsewhere = (SliceToCheck(3, point, 2.0) for point in ((11.0, -12.0, 13.0), (0.0, 0.0, 0.0)))
    verdict = replace(outcome.result.verdict, word="look at it", slices=(elsewhere, there))
    panel.result.show(replace(outcome, result=replace(outcome.result, verdict=verdict)))
    assert panel.ui.verdictLabel.text.startswith("Verdict: look at it")
    assert '<a href="1">3</a>' in panel.ui.verdictLabel.text
    panel.ui.verdictLabel.linkActivated("1")
    red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    assert red.GetSliceToRAS().GetElement(2, 3) == pytest.approx(13, abs=2)
    panel.result.show(None)
    assert panel.ui.verdictLabel.text == ""


def test_a_region_made_in_the_panel_spans_the_volume(panel, a_volume):
    panel.parameterNode.volume = a_volume
    roi = panel.ui.regionSelector.addNode()
    bounds = [0.0] * 6
    a_volume.GetRASBounds(bounds)
    found = [0.0] * 6
    roi.GetRASBounds(found)
    assert found == pytest.approx(bounds)


def test_cancel_writes_nothing_and_another_run_can_begin(panel, a_volume, scene):
    panel.parameterNode.volume = a_volume
    before = node_names(scene)
    panel.ui.segmentButton.click()
    run_until(panel, "Segmenting")
    panel.ui.segmentButton.click()
    assert panel.ui.statusLabel.text == "Cancelled; nothing unfinished was written."
    assert node_names(scene) == before
    panel.ui.segmentButton.click()
    run_to_the_end(panel)
    assert panel.parameterNode.segmentation


def test_another_volume_does_not_replace_the_liver_of_the_previous_one(panel, a_volume, a_phantom):
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    run_to_the_end(panel)
    first = panel.parameterNode.segmentation
    panel.parameterNode.volume = add_volume(a_phantom[0].hu_kji, a_phantom[0].affine, "other")
    assert panel.parameterNode.segmentation is None
    panel.parameterNode.volume = a_volume
    assert panel.parameterNode.segmentation is first


def test_a_volume_chosen_during_a_run_does_not_get_the_segmentation_of_another(panel, a_volume, a_phantom):
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    run_until(panel, "Segmenting")
    panel.parameterNode.volume = add_volume(a_phantom[0].hu_kji, a_phantom[0].affine, "other")
    run_to_the_end(panel)
    assert panel.parameterNode.segmentation is None
    assert panel.logic.ownSegmentation(a_volume)


def test_closing_the_scene_ends_a_run_cleanly(panel, a_volume, scene, dialogs):
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    run_until(panel, "Segmenting")
    scene.Clear(0)
    assert not panel.run.running
    assert panel.ui.statusLabel.text == "Cancelled; nothing unfinished was written."
    assert not dialogs.shown
    assert state(panel.ui.segmentButton) == (False, "Choose a CT volume.")


def test_leaving_the_module_lets_a_run_finish(panel, a_volume):
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    run_until(panel, "Segmenting")
    panel.exit()
    run_to_the_end(panel)
    panel.enter()
    assert panel.ui.segmentationSelector.currentNode() is panel.parameterNode.segmentation


def test_quitting_ends_a_run(panel, a_volume, scene):
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    run_until(panel, "Segmenting")
    panel.cleanup()
    assert not panel.run.running
    assert scene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None


def test_a_volume_that_is_not_a_ct_is_reported_once(panel, scene, dialogs):
    panel.parameterNode.volume = add_volume(np.zeros((4, 4, 4), np.int16), np.eye(4), "flat")
    panel.ui.segmentButton.click()
    run_to_the_end(panel)
    assert dialogs.shown == ["LiverUNet could not finish.\n\nflat is constant: every voxel is 0; this is not a CT."]
    assert panel.ui.statusLabel.text.startswith("flat is constant")
    assert state(panel.ui.segmentButton)[0]


def test_all_volumes_of_the_scene(panel, a_volume, scene):
    add_volume(np.zeros((4, 4, 4), np.int16), np.eye(4), "flat")
    scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "no CT at all")
    panel.parameterNode.volume = a_volume
    panel.ui.segmentAllButton.click()
    run_to_the_end(panel)
    message = panel.ui.statusLabel.text
    assert message.startswith("1 segmented, 1 failed")
    assert "flat: flat is constant" in message
    assert scene.GetFirstNodeByClass("vtkMRMLTableNode").GetCellText(0, 0) == "CT"


@pytest.mark.parametrize("done", [(), ("CT",), ("other",), ("CT", "other")], ids=str)
def test_after_all_volumes_the_result_of_the_chosen_one_is_shown(panel, a_volume, a_phantom, done):
    add_volume(a_phantom[0].hu_kji[:30], a_phantom[0].affine, "other")
    for name in done:
        panel.parameterNode.volume = slicer.util.getNode(name)
        panel.ui.segmentButton.click()
        run_to_the_end(panel)
    panel.parameterNode.volume = a_volume
    panel.ui.segmentAllButton.click()
    run_to_the_end(panel)
    assert panel.ui.statusLabel.text.startswith(f"{2 - len(done)} segmented, 0 failed")
    node = panel.parameterNode.segmentation
    assert node is panel.logic.ownSegmentation(a_volume)
    assert panel.ui.resultLabel.text.startswith(f"CT\nLiver: {measured(node)[0]:.0f} ml")
    for button in (panel.ui.editButton, panel.ui.copyButton, panel.ui.tableButton):
        assert button.enabled


def test_a_volume_without_a_liver_is_shown_as_such_until_another_is_chosen(panel, a_volume, a_phantom):
    empty = add_volume(np.minimum(a_phantom[0].hu_kji, -50), a_phantom[0].affine, "empty")
    for button in (panel.ui.segmentButton, panel.ui.segmentAllButton):
        panel.parameterNode.volume = empty
        button.click()
        run_to_the_end(panel)
        shown = panel.ui.resultLabel.text
        assert shown.startswith("empty\n")
        panel.parameterNode.segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        assert panel.ui.resultLabel.text == shown
        panel.parameterNode.volume = a_volume
        assert not panel.ui.resultLabel.text.startswith("empty\n")
    panel.parameterNode.volume = empty
    assert panel.ui.resultLabel.text == "Nothing segmented yet."


def test_a_folder_of_scans(panel, tmp_path):
    source, target = tmp_path / "scans", tmp_path / "livers"
    source.mkdir()
    shape = (96, 72, 44)
    volume, _ = abdomen(axial_affine(SPACING_MM, shape), shape[::-1], noise_hu=0)
    write_volume(source / "one.nii.gz", volume.hu_kji, volume.affine)
    panel.ui.sourcePath.currentPath = str(source)
    panel.ui.targetPath.currentPath = str(target)
    assert state(panel.ui.segmentFolderButton) == (True, "Resumes where it stopped.")
    panel.ui.segmentFolderButton.click()
    run_to_the_end(panel)
    assert panel.ui.statusLabel.text.startswith("1 of 1 scans segmented")
    assert sorted(path.name for path in target.iterdir()) == ["liver.csv", "one_liver.seg.nrrd"]


def test_a_folder_of_studies_fails_with_its_series_until_one_is_named(panel, a_phantom, tmp_path):
    for number, description in ((2, "ARTERIAL"), (3, "PORTAL VENOUS")):
        folder = tmp_path / f"scans/patient/{number}"
        write_series(folder, a_phantom[0], SeriesNumber=number, SeriesDescription=description)
    panel.ui.sourcePath.currentPath = str(tmp_path / "scans")
    panel.ui.targetPath.currentPath = str(tmp_path / "livers")
    panel.ui.segmentFolderButton.click()
    run_to_the_end(panel)
    assert panel.ui.statusLabel.text.startswith("0 of 1 scans segmented")
    assert "2 (ARTERIAL, 44 slices)" in panel.ui.statusLabel.text
    panel.ui.seriesSelector.lineEdit().text = "portal"
    panel.ui.segmentFolderButton.click()
    run_to_the_end(panel)
    assert panel.ui.statusLabel.text.startswith("1 of 1 scans segmented")
    (row,) = read_table(tmp_path / "livers")
    assert "3 (PORTAL VENOUS, 44 slices) was read, skipped: 2 (ARTERIAL, 44 slices)" in row["warnings"]


def test_a_corrected_liver_joins_the_training_set(panel, a_volume, tmp_path, chosen_file):
    assert state(panel.ui.addCaseButton) == (False, "There is no liver yet.")
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    run_to_the_end(panel)
    assert panel.ui.addCaseButton.visible
    chosen_file.path = str(tmp_path / "own")
    panel.ui.addCaseButton.click()
    run_to_the_end(panel)
    assert panel.ui.statusLabel.text.startswith("Added as case_")
    assert len(list((tmp_path / "own").glob("case_*_liver.nii.gz"))) == 1
    assert panel.settings.folder("ownPath") == str(tmp_path / "own"), "the folder is chosen once"


def test_without_the_module_liverunettrain_no_case_can_be_added(panel, monkeypatch):
    monkeypatch.delattr(slicer.modules, "LiverUNetCaseAction")
    panel.enter()
    assert not panel.ui.addCaseButton.visible


def test_nothing_is_cut_off_at_a_width_of_400_pixels(panel, a_volume):
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    run_to_the_end(panel)
    assert_nothing_is_cut_off(panel, 400)


def test_the_buttons_of_the_result_follow_run_and_scene(panel, a_volume, scene):
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    run_to_the_end(panel)
    assert state(panel.ui.addCaseButton)[0]
    panel.ui.segmentButton.click()
    assert state(panel.ui.addCaseButton) == (False, "Wait for the run to end, or cancel it.")
    panel.run.cancel()
    node = panel.parameterNode.segmentation
    scene.RemoveNode(a_volume)
    panel.updateButtons()
    assert state(panel.ui.addCaseButton) == (False, "The liver's volume is no longer in the scene.")
    node.GetSegmentation().RemoveSegment("liver")
    panel.updateButtons()
    assert state(panel.ui.addCaseButton) == (False, "There is no liver yet.")


def test_an_opened_scene_restores_its_choices(panel, a_volume, scene, tmp_path):
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    run_to_the_end(panel)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    panel.parameterNode.model = "liver-ct"
    scene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert panel.parameterNode.model == panel.models.name == "threshold"
    assert panel.parameterNode.volume.GetName() == "CT"
    assert panel.parameterNode.segmentation.GetName() == "CT liver"
