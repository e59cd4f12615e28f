"""A liver that was corrected in the Segment Editor is kept when the panel segments again."""

import numpy as np
import slicer

from mrml_helpers import measured, node_names, voxels
from panel_helpers import run_to_the_end, turn


def segment(panel, volume):
    panel.parameterNode.volume = volume
    panel.ui.segmentButton.click()
    run_to_the_end(panel)
    return panel.parameterNode.segmentation


def correct(panel):
    """Shrink the liver with a tool of the Segment Editor, and return to the panel."""
    panel.ui.editButton.click()
    editor = slicer.modules.SegmentEditorWidget.editor
    editor.setCurrentSegmentID("liver")
    editor.setActiveEffectByName("Margin")
    editor.activeEffect().setParameter("MarginSizeMm", "-9")
    editor.activeEffect().self().onApply()
    editor.setActiveEffectByName("")
    slicer.util.selectModule("LiverUNet")
    return editor


def test_a_corrected_liver_is_kept_and_the_panel_tells_where_the_new_one_is(panel, a_volume):
    first = segment(panel, a_volume)
    correct(panel)
    by_hand, ml = voxels(first), measured(first)[0]
    assert panel.ui.resultLabel.text.endswith(
        f"The liver was edited after the run and has {ml:.0f} ml now; the figures above are those of the run."
    )
    panel.ui.segmentButton.click()
    run_to_the_end(panel)
    second = panel.parameterNode.segmentation
    assert second is not first
    assert panel.ui.statusLabel.text == "Done. CT liver was edited by hand and is kept; the new liver is in CT liver_1."
    np.testing.assert_array_equal(voxels(first), by_hand)
    assert "edited after the run" not in panel.ui.resultLabel.text
    panel.ui.segmentButton.click()
    run_to_the_end(panel)
    assert panel.parameterNode.segmentation is second, "it was not edited, so it is replaced"


def test_an_edit_that_was_undone_does_not_count(panel, a_volume):
    first = segment(panel, a_volume)
    editor = correct(panel)
    editor.undo()
    panel.enter()
    assert "edited after the run" not in panel.ui.resultLabel.text
    editor.redo()
    panel.enter()
    assert "edited after the run" in panel.ui.resultLabel.text
    editor.undo()
    panel.ui.segmentButton.click()
    run_to_the_end(panel)
    assert panel.parameterNode.segmentation is first


def test_undoing_a_replacement_restores_an_unedited_liver(panel, a_volume):
    first = segment(panel, a_volume)
    editor = correct(panel)
    editor.undo()
    before = voxels(first)
    slicer.util.arrayFromVolume(a_volume)[:22] = -1000
    segment(panel, a_volume)
    assert voxels(first).sum() < before.sum()
    editor.undo()
    np.testing.assert_array_equal(voxels(first), before)
    panel.enter()
    assert "edited after the run" not in panel.ui.resultLabel.text


def test_all_volumes_of_the_scene_skip_a_corrected_liver_of_the_same_model(panel, a_volume):
    first = segment(panel, a_volume)
    correct(panel)
    by_hand, before = voxels(first), node_names(slicer.mrmlScene)
    panel.ui.segmentAllButton.click()
    run_to_the_end(panel)
    assert panel.ui.statusLabel.text == "0 segmented, 0 failed; finished volumes were skipped."
    assert node_names(slicer.mrmlScene) == before
    np.testing.assert_array_equal(voxels(first), by_hand)


def test_a_liver_is_shown_again_after_its_scene_was_saved_and_opened(panel, a_volume, tmp_path):
    segment(panel, a_volume)
    text = panel.ui.resultLabel.text
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    assert panel.ui.resultLabel.text == "Nothing segmented yet."
    assert panel.ui.statusLabel.text == ""
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    turn(panel, lambda: panel.ui.resultLabel.text != "Nothing segmented yet.", seconds=20)
    assert panel.ui.resultLabel.text == text
    assert panel.ui.deviceStateLabel.text == "The last run was on cpu in float32."
    panel.ui.copyButton.click()
    assert slicer.app.clipboard().text().startswith(text)
    panel.ui.tableButton.click()
    table = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLTableNode")
    assert table.GetCellText(0, table.GetColumnIndex("model")) == "threshold 1"


def test_a_liver_is_shown_again_when_the_module_is_reloaded_or_another_volume_chosen(panel, a_volume, a_phantom):
    from mrml_helpers import add_volume

    segment(panel, a_volume)
    text = panel.ui.resultLabel.text
    panel.parameterNode.volume = add_volume(a_phantom[0].hu_kji, a_phantom[0].affine, "other")
    assert panel.ui.resultLabel.text == "Nothing segmented yet."
    assert not panel.ui.copyButton.enabled
    panel.parameterNode.volume = a_volume
    assert panel.ui.resultLabel.text == text
    slicer.util.reloadScriptedModule("LiverUNet")
    slicer.util.selectModule("LiverUNet")
    again = slicer.modules.liverunet.widgetRepresentation().self()
    assert again is not panel
    assert again.ui.resultLabel.text == text
    again.ui.copyButton.click()
    assert slicer.app.clipboard().text().startswith(text)


def test_a_liver_without_its_measurements_is_shown_as_such(panel, a_volume):
    node = segment(panel, a_volume)
    node.RemoveAttribute("LiverUNet.Report")
    panel.enter()
    assert (
        panel.ui.resultLabel.text
        == "CT\nThere is a liver from an earlier run; its measurements were not saved with it."
    )
    assert not panel.ui.tableButton.enabled
    assert panel.ui.editButton.enabled


def test_progress_bar_and_status_line_are_hidden_until_they_are_needed(panel, a_volume):
    assert not panel.ui.progressBar.visible
    assert not panel.ui.statusLabel.visible
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    assert panel.ui.progressBar.visible
    assert panel.ui.statusLabel.visible
    run_to_the_end(panel)
    assert not panel.ui.progressBar.visible
    assert panel.ui.statusLabel.visible
