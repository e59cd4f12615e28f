"""The logic on Slicer's real MRML."""

import numpy as np
import pytest
import slicer
import vtk

from LiverUNetLib.errors import ScanError
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.scan.itk import LIVER_COLOR
from LiverUNetLib.steps import finish
from mrml_helpers import (
    add_other_segment,
    add_transform,
    add_volume,
    assert_over,
    measured,
    node_names,
    turned,
    voxels,
)


@pytest.fixture
def steps(logic, threshold_model):
    def make(volume, segmentation=None):
        return logic.segmentSteps(volume, segmentation, modelName=str(threshold_model.folder), deviceName="cpu")

    return make


def test_a_new_segmentation_is_a_liver_to_all_of_slicer(segmented, a_volume, scene, threshold_model):
    node = segmented(a_volume).segmentationNode
    segment = node.GetSegmentation().GetSegment("liver")
    tag = vtk.reference("")
    segment.GetTag(segment.GetTerminologyEntryTagName(), tag)
    assert "SCT^10200004^Liver" in str(tag)
    assert segment.GetName() == "liver"
    assert segment.GetColor() == pytest.approx([value / 255 for value in LIVER_COLOR])
    assert node.GetName() == "CT liver"
    assert node.GetDisplayNode()
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is a_volume
    geometry = node.GetSegmentation().GetConversionParameter("Reference image geometry")
    assert geometry.endswith("0;95;0;71;0;43;"), "the geometry of the volume, not of the liver's box"
    assert node.GetAttribute("LiverUNet.Model") == "threshold"
    assert node.GetAttribute("LiverUNet.ModelChecksum") == threshold_model.card.checksum
    assert '"pixel_mm": 4.0' in node.GetAttribute("LiverUNet.Report")


def test_the_segmentation_lies_beside_its_volume_in_the_subject_hierarchy(segmented, a_volume, scene):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(a_volume), study)
    node = segmented(a_volume).segmentationNode
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study


def test_a_second_run_replaces_only_our_segment_and_keeps_its_name_and_display(segmented, a_volume, a_phantom):
    node = segmented(a_volume).segmentationNode
    segmentation = node.GetSegmentation()
    liver = segmentation.GetSegment("liver")
    liver.SetName("my liver")
    liver.SetColor(0.1, 0.2, 0.3)
    add_other_segment(node, a_phantom[0].affine)
    node.CreateClosedSurfaceRepresentation()
    segmentation.CollapseBinaryLabelmaps(0)
    first, stomach = voxels(node), measured(node, "stomach")
    points = liver.GetRepresentation("Closed surface").GetNumberOfPoints()
    slicer.util.arrayFromVolume(a_volume)[:22] = -1000  # without the lower half of the liver

    assert segmented(a_volume, node).segmentationNode is node

    assert list(segmentation.GetSegmentIDs()) == ["liver", "stomach"]
    assert liver.GetName() == "my liver"
    assert liver.GetColor() == pytest.approx((0.1, 0.2, 0.3))
    assert 0 < voxels(node).sum() < 0.9 * first.sum()
    assert measured(node, "stomach")[0] == stomach[0]
    assert 0 < liver.GetRepresentation("Closed surface").GetNumberOfPoints() < points


def test_a_segment_named_liver_that_is_not_ours_is_kept(segmented, a_volume, a_phantom, scene):
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "by hand")
    add_other_segment(segmentation, a_phantom[0].affine, "liver")
    by_hand = measured(segmentation, "liver")
    segmented(a_volume, segmentation)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 2
    assert measured(segmentation, "liver")[0] == by_hand[0]


def test_where_no_liver_is_found_nothing_is_created_or_changed(segmented, a_volume, scene):
    node = segmented(a_volume).segmentationNode
    liver = voxels(node)
    hu = slicer.util.arrayFromVolume(a_volume)
    hu[hu > 0] = 20
    before = node_names(scene)
    outcome = segmented(a_volume)
    assert outcome.segmentationNode is None
    assert "No liver was found" in outcome.result.warnings[-1]
    segmented(a_volume, node)
    assert node_names(scene) == before
    np.testing.assert_array_equal(voxels(node), liver)


@pytest.mark.slow
def test_cancelling_at_any_step_leaves_the_scene_as_it_was(steps, a_volume, scene):
    before = node_names(scene)
    count = 0
    for _ in steps(a_volume):
        count += 1
    assert node_names(scene) != before
    slicer.mrmlScene.RemoveNode(scene.GetFirstNodeByClass("vtkMRMLSegmentationNode"))
    before = node_names(scene)
    for last in range(1, count):
        run = steps(a_volume)
        stages = [next(run).stage for _ in range(min(last, 40))]
        run.close()
        assert node_names(scene) == before, stages[-1]


@pytest.mark.parametrize("gone", ["volume", "segmentation", "scene"])
def test_a_node_that_is_removed_during_a_run_ends_it_with_a_message(steps, segmented, a_volume, scene, gone):
    node = segmented(a_volume).segmentationNode
    run = steps(a_volume, node)
    while next(run).stage != "Segmenting":
        pass
    if gone == "scene":
        scene.Clear(0)
    else:
        scene.RemoveNode(a_volume if gone == "volume" else node)
    before = node_names(scene)
    with pytest.raises(Exception, match=r"was removed while it was being segmented; nothing was written\."):
        finish(run)
    assert node_names(scene) == before


def test_a_saved_scene_contains_liver_and_provenance(segmented, a_volume, scene, tmp_path):
    a_volume.SetAndObserveTransformNodeID(add_transform(turned(35)).GetID())
    node = segmented(a_volume).segmentationNode
    before = measured(node)
    for each in (a_volume, node):
        each.AddDefaultStorageNode()
        path = tmp_path / f"{each.GetID()}{'.seg' * (each is node)}.nrrd"
        each.GetStorageNode().SetFileName(str(path))
        assert each.GetStorageNode().WriteData(each)
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Commit()

    again = slicer.vtkMRMLScene()
    again.SetURL(str(tmp_path / "scene.mrml"))
    assert again.Import()
    read = again.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert_over(read, *before)
    assert read.GetAttribute("LiverUNet.Model") == "threshold"
    assert read.GetTransformNodeID() == again.GetFirstNodeByClass("vtkMRMLLinearTransformNode").GetID()
    from LiverUNetPanel.nodes.segmentation import findLiver

    assert findLiver(read) == "liver"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("vtkMRMLLabelMapVolumeNode", "is a label map"),
        ("vtkMRMLVectorVolumeNode", "is a vector or color volume"),
        ("vtkMRMLScalarVolumeNode", "has no voxels"),
    ],
)
def test_a_node_that_is_not_a_ct_is_refused_with_a_message(segmented, scene, kind, message):
    node = scene.AddNewNodeByClass(kind, "Wrong")
    before = node_names(scene)
    with pytest.raises(Exception, match=f"Wrong {message}"):
        segmented(node)
    assert node_names(scene) == before


def test_several_volumes_share_one_model_and_a_bad_one_does_not_stop_the_others(
    logic, a_phantom, scene, threshold_model, monkeypatch
):
    volume, _ = a_phantom
    nodes = [
        add_volume(volume.hu_kji, volume.affine, "first"),
        add_volume(np.zeros((4, 4, 4), np.int16), np.eye(4), "constant"),
        add_volume(volume.hu_kji, volume.affine, "last"),
    ]
    loads, networks = [], LiverModel.networks
    monkeypatch.setattr(
        LiverModel, "networks", lambda self, *device, **how: loads.append(self) or networks(self, *device, **how)
    )
    named = {"modelName": str(threshold_model.folder), "deviceName": "cpu"}
    stages = []
    outcomes = finish(logic.segmentAllSteps(nodes, **named), lambda progress: stages.append(progress.stage))
    assert [outcome.name for outcome in outcomes] == ["first", "constant", "last"]
    assert "constant" in outcomes[1].error
    assert all(outcomes[n].segmentationNode for n in (0, 2))
    assert len(loads) == 1
    assert "last (3 of 3): Segmenting" in stages
    again = finish(logic.segmentAllSteps(nodes, **named))
    assert [outcome.name for outcome in again] == ["constant"], "what is done is skipped"
    outcomes[0].segmentationNode.SetAttribute("LiverUNet.Region", "Box")
    again = finish(logic.segmentAllSteps(nodes, **named))
    assert [outcome.name for outcome in again] == ["first", "constant"], "a part of a volume is not the whole"


def test_measurements_become_rows_of_one_table(segmented, a_volume, scene):
    from LiverUNetLib.segmentation.summary import COLUMNS, table_row
    from LiverUNetPanel.nodes.table import addMeasurements

    result = segmented(a_volume).result
    first = addMeasurements(scene, [table_row(result)])
    second = addMeasurements(scene, [table_row(result), {"scan": "empty"}])
    assert first is second
    assert [first.GetColumnName(n) for n in range(first.GetNumberOfColumns())] == list(COLUMNS)
    assert first.GetNumberOfRows() == 3
    volumes = first.GetTable().GetColumnByName("volume_ml")
    assert volumes.GetValue(0) == round(result.measurement.volume_ml, 1)
    assert np.isnan(volumes.GetValue(2))
    assert first.GetCellText(2, 0) == "empty"


def test_the_doctor_reports_slicer_and_every_model(logic):
    text = finish(logic.examineSteps())
    assert text.startswith("Slicer       5.12 (slicer-core)\nsystem ")
    assert "liver-ct" in text


def test_a_liver_belongs_to_the_volume_it_was_found_in_not_to_that_of_the_segmentation(
    segmented, logic, a_volume, scene
):
    from LiverUNetPanel.nodes.segmentation import volumeOf

    arterial = add_volume(slicer.util.arrayFromVolume(a_volume).copy(), np.diag([-4.0, -4.0, 5.0, 1.0]), "arterial")
    drawn = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    drawn.SetReferenceImageGeometryParameterFromVolumeNode(arterial)
    assert segmented(a_volume, drawn).segmentationNode is drawn
    assert volumeOf(drawn) is a_volume
    assert logic.ownSegmentation(a_volume) is drawn
    assert logic.ownSegmentation(arterial) is None
    scene.RemoveNode(a_volume)
    assert volumeOf(drawn) is arterial, "what is left of it"


def test_a_segmentation_of_surfaces_is_refused_before_the_run(segmented, a_volume, a_phantom, scene):
    surfaces = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "surfaces")
    add_other_segment(surfaces, a_phantom[0].affine)
    surfaces.CreateClosedSurfaceRepresentation()
    surfaces.GetSegmentation().SetSourceRepresentationName("Closed surface")
    with pytest.raises(ScanError, match="surfaces consists of Closed surface, which has no voxels"):
        segmented(a_volume, surfaces)
    assert list(surfaces.GetSegmentation().GetSegmentIDs()) == ["stomach"]
