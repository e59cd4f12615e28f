"""With any orientation and transform the liver lies over its volume in Slicer's world: volume and RAS centroid."""

import numpy as np
import pytest

from helpers import centroid_ras
from LiverUNetLib.errors import ScanError
from mrml_helpers import (
    add_other_segment,
    add_transform,
    add_volume,
    assert_over,
    measured,
    numpy_matrix,
    turned,
)

OBLIQUE = turned(20, axis=0, shift=(0, 0, 0)) @ turned(12, axis=2, shift=(5, 6, 7))


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)], ids=str)
@pytest.mark.parametrize("world", [np.eye(4), OBLIQUE], ids=["straight", "oblique"])
def test_the_liver_is_in_the_right_place_in_any_orientation(segmented, a_phantom, scene, axes, world):
    volume, liver = a_phantom
    hu, mask = (np.ascontiguousarray(array.transpose(axes)[::-1]) for array in (volume.hu_kji, liver))
    permuted = volume.affine[:, [*(2 - np.array(axes)[::-1]), 3]]
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    flip[2, 3] = hu.shape[0] - 1
    affine = world @ permuted @ flip
    outcome = segmented(add_volume(hu, affine))
    assert_over(outcome.segmentationNode, outcome.result.measurement.volume_ml, centroid_ras(mask, affine))
    assert outcome.result.measurement.volume_ml == pytest.approx(mask.sum() * volume.voxel_ml, rel=0.05)


@pytest.mark.parametrize("degrees", [35, -10])
def test_a_parent_transform_of_the_volume_moves_its_liver_with_it(segmented, a_phantom, scene, degrees):
    volume, _ = a_phantom
    still = segmented(add_volume(volume.hu_kji, volume.affine, "still"))
    moved_volume = add_volume(volume.hu_kji, volume.affine, "moved")
    moved_volume.SetAndObserveTransformNodeID(add_transform(turned(degrees)).GetID())
    moved = segmented(moved_volume)
    ml, centroid = measured(still.segmentationNode)
    assert moved.segmentationNode.GetTransformNodeID() == moved_volume.GetTransformNodeID()
    assert_over(moved.segmentationNode, ml, (turned(degrees) @ [*centroid, 1])[:3])


@pytest.mark.slow
@pytest.mark.parametrize("volume_turned", [0, 35])
@pytest.mark.parametrize("segmentation_turned", [0, 20])
def test_an_existing_segmentation_keeps_its_transform_and_its_other_segments(
    segmented, a_phantom, scene, volume_turned, segmentation_turned
):
    volume, _ = a_phantom
    reference = measured(segmented(add_volume(volume.hu_kji, volume.affine, "still")).segmentationNode)
    node = add_volume(volume.hu_kji, volume.affine)
    if volume_turned:
        node.SetAndObserveTransformNodeID(add_transform(turned(volume_turned)).GetID())
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "existing")
    if segmentation_turned:
        segmentation.SetAndObserveTransformNodeID(add_transform(turned(segmentation_turned, axis=1)).GetID())
    add_other_segment(segmentation, volume.affine)
    stomach, transform = measured(segmentation, "stomach"), segmentation.GetTransformNodeID()

    assert segmented(node, segmentation).segmentationNode is segmentation

    expected = turned(volume_turned) if volume_turned else np.eye(4)
    assert_over(segmentation, reference[0], (expected @ [*reference[1], 1])[:3])
    assert segmentation.GetTransformNodeID() == transform
    np.testing.assert_allclose(measured(segmentation, "stomach")[1], stomach[1])


def test_a_transform_that_scales_changes_the_volume(segmented, a_volume):
    before = segmented(a_volume).result.measurement.volume_ml
    a_volume.SetAndObserveTransformNodeID(add_transform(np.diag([1.1, 1.1, 1.1, 1.0])).GetID())
    assert segmented(a_volume).result.measurement.volume_ml == pytest.approx(before * 1.1**3, rel=0.06)


def test_a_region_limits_the_segmentation_even_if_it_is_rotated(segmented, a_volume, a_phantom, scene):
    whole = segmented(a_volume)
    _, centroid = measured(whole.segmentationNode)
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Box")
    turn = turned(30)
    roi.SetAndObserveTransformNodeID(add_transform(turn).GetID())
    roi.SetCenter(*(np.linalg.inv(turn) @ [*centroid, 1])[:3])
    roi.SetSize(80, 80, 60)
    outcome = segmented(a_volume, roiNode=roi)
    ml, found = measured(outcome.segmentationNode)
    assert 0.1 < ml / measured(whole.segmentationNode)[0] < 0.9
    assert np.abs(found - centroid).max() < 30
    assert outcome.result.measurement.cut_off, "the region cuts the liver, and the result reports it"
    assert outcome.result.measurement.extent_mm[0] <= 70
    assert outcome.segmentationNode.GetAttribute("LiverUNet.Region") == "Box"
    roi.SetCenter(2000, 0, 0)
    with pytest.raises(Exception, match="The region Box lies outside CT"):
        segmented(a_volume, roiNode=roi)


@pytest.mark.slow
def test_a_real_ct_under_a_rotated_transform_gives_the_same_liver_moved(logic, scene, real_data):
    from LiverUNetLib.scan.formats import read_volume

    ct = read_volume(real_data / "ircad" / "ircad_e17_orig.nii.gz")
    still = logic.process(add_volume(ct.hu_kji, ct.affine, "still"), deviceName="cpu")
    node = add_volume(ct.hu_kji, ct.affine, "moved")
    node.SetAndObserveTransformNodeID(add_transform(turned(35)).GetID())
    moved = logic.process(node, deviceName="cpu")
    ml, centroid = measured(still.segmentationNode)
    assert ml > 1000
    assert_over(moved.segmentationNode, ml, (turned(35) @ [*centroid, 1])[:3])


def test_matrices_are_converted_to_vtk_and_back():
    from LiverUNetPanel.nodes.volume import matrixFromArray

    np.testing.assert_array_equal(numpy_matrix(matrixFromArray(OBLIQUE)), OBLIQUE)


def test_a_region_without_size_is_named(logic, a_volume, scene):
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Box")
    with pytest.raises(ScanError, match="The region Box has no size; draw it over the liver"):
        logic.process(a_volume, roiNode=roi, deviceName="cpu")
