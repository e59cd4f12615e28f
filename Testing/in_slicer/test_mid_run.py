"""Actions of a user during a run."""

import slicer

from mrml_helpers import node_names
from panel_helpers import run_to_the_end, run_until, state


def test_removing_the_volume_ends_the_run_with_a_message(panel, a_volume, scene, dialogs):
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    run_until(panel, "Segmenting")
    scene.RemoveNode(a_volume)
    run_to_the_end(panel)
    sentence = "CT was removed while it was being segmented; nothing was written."
    assert panel.ui.statusLabel.text == sentence
    assert dialogs.shown == [f"LiverUNet could not finish.\n\n{sentence}"]
    assert scene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None
    assert state(panel.ui.segmentButton) == (False, "Choose a CT volume.")


def test_a_run_finishes_while_another_module_is_open(panel, a_volume, scene):
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    run_until(panel, "Segmenting")
    slicer.util.selectModule("Volumes")
    run_to_the_end(panel)
    liver = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    slicer.util.selectModule("LiverUNet")
    assert panel.ui.segmentationSelector.currentNode() is liver


def test_reloading_the_module_ends_its_run_and_another_can_begin(panel, a_volume, scene):
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    run_until(panel, "Segmenting")
    before = node_names(scene)
    slicer.util.reloadScriptedModule("LiverUNet")
    assert not panel.run.running
    assert node_names(scene) == before
    again = slicer.modules.LiverUNetWidget
    assert again is not panel
    again.ui.segmentButton.click()
    run_to_the_end(again)
    assert scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")


def test_only_the_region_is_segmented(panel, a_volume, scene):
    panel.parameterNode.volume = a_volume
    roi = panel.ui.regionSelector.addNode()
    whole = [0.0] * 6
    roi.GetRASBounds(whole)
    roi.SetSizeWorld([whole[1] - whole[0], whole[3] - whole[2], (whole[5] - whole[4]) / 4])
    region = [0.0] * 6
    roi.GetRASBounds(region)
    panel.ui.segmentButton.click()
    run_to_the_end(panel)
    liver = [0.0] * 6
    scene.GetFirstNodeByClass("vtkMRMLSegmentationNode").GetRASBounds(liver)
    height_mm = a_volume.GetSpacing()[2]
    assert region[4] - height_mm <= liver[4] < liver[5] <= region[5] + height_mm
    assert "inferior and superior" in panel.ui.warningLabel.text
