"""An edit of a liver by the user is always detected, and an edited liver is never replaced."""

import numpy as np
import pytest
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from LiverUNetLib.steps import finish
from mrml_helpers import LABELMAP, add_other_segment, add_transform, add_volume, measured, turned, voxels


@pytest.fixture
def liver(segmented, a_volume):
    """A segmentation with the liver of a volume."""
    return segmented(a_volume).segmentationNode


def edit(node, segment_id="liver"):
    """Erase the lowest third of a segment like a brush: only its voxels change."""
    segment = node.GetSegmentation().GetSegment(segment_id)
    labelmap = segment.GetRepresentation(LABELMAP)
    values = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(labelmap.GetDimensions()[::-1])
    values[: len(values) // 3][values[: len(values) // 3] == segment.GetLabelValue()] = 0
    labelmap.Modified()


def is_edited(node):
    from LiverUNetPanel.nodes.segmentation import isLiverEdited

    return isLiverEdited(node)


def saved_and_read(node, folder):
    """The same node from a scene file."""
    for each in (node, node.GetNodeReference("LiverUNet.Volume")):
        each.AddDefaultStorageNode()
        path = folder / f"{each.GetID()}{'.seg' * (each is node)}.nrrd"
        each.GetStorageNode().SetFileName(str(path))
        assert each.GetStorageNode().WriteData(each)
    slicer.mrmlScene.SetURL(str(folder / "scene.mrml"))
    assert slicer.mrmlScene.Commit()
    again = slicer.vtkMRMLScene()
    again.SetURL(str(folder / "scene.mrml"))
    assert again.Import()
    return again, again.GetFirstNodeByClass("vtkMRMLSegmentationNode")


def rename(node, _affine):
    segment = node.GetSegmentation().GetSegment("liver")
    segment.SetName("Leber")
    segment.SetColor(0.1, 0.2, 0.3)
    node.CreateClosedSurfaceRepresentation()


def share(node, affine):
    add_other_segment(node, affine)
    node.GetSegmentation().CollapseBinaryLabelmaps(0)
    assert node.GetSegmentation().GetNumberOfLayers() == 1


def enlarge(node, _affine):
    """Change the extent of the image but not the liver, as painting elsewhere does."""
    labelmap = node.GetSegmentation().GetSegment("liver").GetRepresentation(LABELMAP)
    padded = np.pad(voxels(node), ((2, 1), (0, 3), (4, 0)))
    extent = [first + by for first, by in zip(labelmap.GetExtent(), (-4, 0, 0, 3, -2, 1), strict=True)]
    labelmap.SetExtent(*extent)
    labelmap.GetPointData().SetScalars(numpy_to_vtk(padded.ravel(), deep=True, array_type=vtk.VTK_UNSIGNED_CHAR))


def move(node, _affine):
    node.SetAndObserveTransformNodeID(add_transform(turned(20)).GetID())
    node.HardenTransform()


@pytest.mark.parametrize("change", [rename, share, enlarge, move])
def test_changes_that_keep_the_voxels_are_no_edit(liver, a_phantom, change):
    assert not is_edited(liver)
    change(liver, a_phantom[0].affine)
    assert not is_edited(liver)
    edit(liver)
    assert is_edited(liver)


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_edits_are_still_detected_after_a_scene_was_saved_and_opened(liver, a_phantom, tmp_path, edited, shared):
    if shared:
        share(liver, a_phantom[0].affine)
    if edited:
        edit(liver)
    _scene, read = saved_and_read(liver, tmp_path)
    assert is_edited(read) is edited


def test_an_edited_liver_is_kept_and_the_new_one_gets_a_new_segmentation(segmented, liver, a_volume, logic):
    edit(liver)
    by_hand, report = voxels(liver), liver.GetAttribute("LiverUNet.Report")
    outcome = segmented(a_volume, liver)
    new = outcome.segmentationNode
    assert new is not liver
    assert outcome.note == "CT liver was edited by hand and is kept; the new liver is in CT liver_1."
    np.testing.assert_array_equal(voxels(liver), by_hand)
    assert liver.GetAttribute("LiverUNet.Report") == report
    assert measured(new)[0] > 1.2 * measured(liver)[0]
    assert logic.ownSegmentation(a_volume) is new, "the next run replaces that one"
    assert segmented(a_volume, new).segmentationNode is new
    assert segmented(a_volume, new).note == ""


def test_an_edit_during_a_run_counts(logic, liver, a_volume, threshold_model):
    steps = logic.segmentSteps(a_volume, liver, modelName=str(threshold_model.folder), deviceName="cpu")
    while next(steps).stage != "Restoring":
        pass
    edit(liver)
    assert finish(steps).segmentationNode is not liver
    assert is_edited(liver)


def test_all_volumes_keep_edited_livers(logic, liver, a_volume, a_phantom, threshold_model):
    named = {"modelName": str(threshold_model.folder), "deviceName": "cpu"}
    edit(liver)
    by_hand = voxels(liver)
    other = add_volume(a_phantom[0].hu_kji, a_phantom[0].affine, "other")
    outcomes = finish(logic.segmentAllSteps([a_volume, other], **named))
    assert [outcome.name for outcome in outcomes] == ["other"], "the user has corrected what this model has found"
    liver.SetAttribute("LiverUNet.ModelChecksum", "another model")
    outcomes = finish(logic.segmentAllSteps([a_volume, other], **named))
    assert [outcome.name for outcome in outcomes] == ["CT"]
    assert outcomes[0].note.startswith("CT liver was edited by hand and is kept")
    np.testing.assert_array_equal(voxels(liver), by_hand)
    assert finish(logic.segmentAllSteps([a_volume, other], **named)) == []


def test_a_liver_that_was_erased_counts_as_edited(liver):
    labelmap = liver.GetSegmentation().GetSegment("liver").GetRepresentation(LABELMAP)
    labelmap.GetPointData().GetScalars().Fill(0)
    assert is_edited(liver)


def test_milliliters_are_current_and_follow_a_transform_that_scales(liver):
    from LiverUNetPanel.nodes.edits import milliliters

    before = measured(liver)[0]
    assert milliliters(liver, "liver") == pytest.approx(before)
    liver.SetAndObserveTransformNodeID(add_transform(np.diag([2.0, 1.0, 1.0, 1.0])).GetID())
    assert milliliters(liver, "liver") == pytest.approx(2 * before)
    edit(liver)
    assert milliliters(liver, "liver") == pytest.approx(measured(liver)[0])


def test_the_measurements_of_a_run_are_saved_with_the_scene(segmented, a_volume, tmp_path):
    from LiverUNetLib.segmentation.summary import sentence, table_row
    from LiverUNetPanel.nodes.stored_result import stored

    a_volume.SetName('50 % "Phase"; a:b Ä')
    slicer.util.arrayFromVolume(a_volume)[:22] = -1000
    outcome = segmented(a_volume)
    _scene, read = saved_and_read(outcome.segmentationNode, tmp_path)
    found = stored(read)
    assert sentence(found) == sentence(outcome.result)
    assert table_row(found) == table_row(outcome.result)
    assert found.warnings == outcome.result.warnings
    assert found.measurement == outcome.result.measurement
    assert found.provenance == outcome.result.provenance


@pytest.mark.parametrize("report", [None, "", "{}", "[1", '{"measurement": {"unknown": 1}}', "null", "3"])
def test_an_unreadable_report_is_ignored(liver, report):
    from LiverUNetPanel.nodes.stored_result import stored

    liver.SetAttribute("LiverUNet.Report", report)
    assert stored(liver) is None
