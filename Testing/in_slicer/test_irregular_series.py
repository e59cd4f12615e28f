"""A series with a tilted gantry in the real Slicer, under a grid transform as Slicer's DICOM import adds it."""

import numpy as np
import pytest
import slicer
import vtk
from scipy import ndimage
from vtk.util.numpy_support import vtk_to_numpy

from LiverUNetLib.scan.phantom import abdomen, axial_affine
from mrml_helpers import add_volume, measured
from panel_helpers import run_to_the_end

SHAPE, SPACING = (154, 116, 88), (2.5, 2.5, 2.5)
# Each slice lies this number of rows behind the one below: a gantry that is tilted by 15 degrees.
TILT = 0.268


@pytest.fixture
def patient():
    """The phantom and its liver, with axes along RAS and the first voxel at the origin."""
    volume, liver = abdomen(axial_affine(SPACING, SHAPE), SHAPE[::-1], noise_hu=0)
    flipped = [np.ascontiguousarray(array[:, ::-1, ::-1]) for array in (volume.hu_kji, liver)]
    return *flipped, np.diag([*SPACING, 1.0])


@pytest.fixture
def tilted_volume(scene, patient):
    """Every slice was scanned behind the one below; a grid transform moves it there."""
    hu, _, affine = patient
    taken = [ndimage.shift(hu[k], (-k * TILT, 0), order=1, cval=-1000) for k in range(len(hu))]
    node = add_volume(np.array(taken), affine, "tilted")
    grid = vtk.vtkImageData()
    grid.SetDimensions(2, 2, len(hu))
    grid.SetSpacing(SPACING[0] * SHAPE[0], SPACING[1] * SHAPE[1], SPACING[2])
    grid.AllocateScalars(vtk.VTK_DOUBLE, 3)
    moves = vtk_to_numpy(grid.GetPointData().GetScalars()).reshape(len(hu), 2, 2, 3)
    moves[:] = 0
    moves[..., 1] = (np.arange(len(hu)) * TILT * SPACING[1])[:, None, None]
    transform = slicer.vtkOrientedGridTransform()
    transform.SetDisplacementGridData(grid)
    parent = scene.AddNewNodeByClass("vtkMRMLGridTransformNode", "tilted acquisition transform")
    parent.SetAndObserveTransformToParent(transform)
    node.SetAndObserveTransformNodeID(parent.GetID())
    return node


@pytest.fixture
def segmentation(panel, tilted_volume):
    panel.parameterNode.volume = tilted_volume
    panel.ui.segmentButton.click()
    run_to_the_end(panel)
    return panel.parameterNode.segmentation


@pytest.fixture
def expected(segmented, patient):
    """Volume and centroid of the liver on a regular grid; its nodes are removed again."""
    hu, _, affine = patient
    volume = add_volume(hu, affine, "regular")
    node = segmented(volume).segmentationNode
    found = measured(node)
    for each in (volume, node):
        slicer.mrmlScene.RemoveNode(each)
    return found


def assert_over(node, expected):
    ml, center = measured(node)
    assert ml == pytest.approx(expected[0], rel=0.03)
    assert np.linalg.norm(center - expected[1]) < 1


def test_the_liver_lies_over_the_patient_and_the_panel_mentions_the_transform(panel, expected, segmentation):
    assert_over(segmentation, expected)
    assert segmentation.GetParentTransformNode() is None
    assert "tilted acquisition transform moves tilted and is not linear" in panel.ui.warningLabel.text


def test_segment_statistics_and_3d_show_the_same_liver(panel, segmentation, patient):
    import SegmentStatistics

    statistics = SegmentStatistics.SegmentStatisticsLogic()
    statistics.getParameterNode().SetParameter("Segmentation", segmentation.GetID())
    statistics.computeStatistics()
    ml = statistics.getStatistics()["liver", "LabelmapSegmentStatisticsPlugin.volume_cm3"]
    assert ml == pytest.approx(measured(segmentation)[0], rel=1e-3)
    panel.ui.show3DButton.setChecked(True)
    surface = vtk.vtkPolyData()
    segmentation.GetClosedSurfaceRepresentation("liver", surface)
    bounds, (_, liver, _) = surface.GetBounds(), patient
    for axis in range(3):
        where = np.flatnonzero(liver.any(axis=tuple({0, 1, 2} - {2 - axis}))) * SPACING[axis]
        assert bounds[2 * axis] == pytest.approx(where[0], abs=8)
        assert bounds[2 * axis + 1] == pytest.approx(where[-1], abs=8)


def test_the_segment_editor_thresholds_the_scan_where_the_patient_is(panel, segmentation, patient):
    """The CT is the source volume; Slicer resamples it through the transform to the grid of the segmentation."""
    panel.ui.editButton.click()
    editor = slicer.modules.SegmentEditorWidget.editor
    assert editor.sourceVolumeNode().GetName() == "tilted"
    bones = segmentation.GetSegmentation().AddEmptySegment("bones")
    editor.setCurrentSegmentID(bones)
    editor.setActiveEffectByName("Threshold")
    effect = editor.activeEffect()
    effect.setParameter("MinimumThreshold", "300")
    effect.setParameter("MaximumThreshold", "3000")
    effect.self().onApply()
    editor.setActiveEffectByName("")
    hu, _, affine = patient
    for k in range(len(hu)):
        hu[k, : int(k * TILT)] = -1000  # in front of the scanned region
    expected = (affine @ [*np.argwhere(hu > 300).mean(axis=0)[::-1], 1])[:3]
    ml, center = measured(segmentation, bones)
    assert ml > 50
    assert np.linalg.norm(center - expected) < 2


def test_a_saved_scene_keeps_liver_and_transform(panel, expected, segmentation, tmp_path):
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    read = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert read.GetParentTransformNode() is None
    assert_over(read, expected)
    volume = slicer.mrmlScene.GetFirstNodeByName("tilted")
    assert not volume.GetParentTransformNode().IsTransformToWorldLinear()
