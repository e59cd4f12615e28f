"""Under nonlinear transforms the liver lies where the views show the phantom's liver."""

from collections.abc import Callable

import numpy as np
import pytest
import slicer
import vtk
from scipy import ndimage
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from LiverUNetLib.scan.formats import read_mask, read_volume
from LiverUNetLib.scan.phantom import LIVER, abdomen, axial_affine
from LiverUNetLib.steps import finish
from mrml_helpers import (
    LABELMAP,
    add_other_segment,
    add_transform,
    add_volume,
    measured,
    node_names,
    numpy_matrix,
    turned,
    voxels,
    vtk_matrix,
)

TILT = np.tan(np.radians(15))


def tilted(ras: np.ndarray) -> np.ndarray:
    """A gantry that leans by 15 degrees: every slice is moved to the back by its height."""
    return ras + np.array([0, TILT, 0]) * ras[:, 2:]


def irregular(ras: np.ndarray) -> np.ndarray:
    """Slices that grow apart towards the head, from 0.7 to 1.3 of the nominal distance."""
    z = ras[:, 2:]
    return np.hstack([ras[:, :2], 0.7 * z + 0.3 * z**2 / 215])


def bent(ras: np.ndarray) -> np.ndarray:
    """A smooth deformation of up to 12 mm, as a registration makes one."""
    x, _, z = ras.T
    return ras + np.column_stack([6 * np.sin(z / 60), 12 * np.sin(x / 90), 5 * np.cos(x / 80)])


def arched(ras: np.ndarray) -> np.ndarray:
    """Slices that are 25 mm higher in the middle than at the sides of the body."""
    return ras + np.array([0, 0, 25]) * np.sin(np.pi * ras[:, :1] / 382)


def grid_transform(shape_ijk, spacing_mm, place: Callable, *, corners=True) -> vtk.vtkAbstractTransform:
    """From nominal to real places, as Slicer's DICOM import makes it: a displacement at the corners of each slice."""
    size = (2, 2, shape_ijk[2]) if corners else tuple(n // 4 + 1 for n in shape_ijk)
    extent = [(n - 1) * mm for n, mm in zip(shape_ijk, spacing_mm, strict=True)]
    grid = vtk.vtkImageData()
    grid.SetDimensions(*size)
    grid.SetSpacing(*(length / (n - 1) for length, n in zip(extent, size, strict=True)))
    grid.AllocateScalars(vtk.VTK_DOUBLE, 3)
    points = np.array([grid.GetPoint(n) for n in range(grid.GetNumberOfPoints())])
    vtk_to_numpy(grid.GetPointData().GetScalars())[:] = place(points) - points
    transform = slicer.vtkOrientedGridTransform()
    transform.SetDisplacementGridData(grid)
    return transform


def bspline_transform(shape_ijk, spacing_mm, place: Callable) -> vtk.vtkAbstractTransform:
    """A B-spline whose coefficients are the displacements, which it smooths a little."""
    grid = grid_transform(shape_ijk, spacing_mm, place, corners=False).GetDisplacementGrid()
    transform = slicer.vtkOrientedBSplineTransform()
    transform.SetCoefficientData(grid)
    return transform


@pytest.fixture(scope="module")
def phantom():
    """A fine phantom with its first voxel at the origin and axes along RAS, so that its places are easy to write."""
    spacing, shape = (2.0, 2.0, 2.5), (192, 144, 88)
    volume, liver = abdomen(axial_affine(spacing, shape), shape[::-1], noise_hu=0)
    hu, liver = (np.ascontiguousarray(array[:, ::-1, ::-1]) for array in (volume.hu_kji, liver))
    return hu, liver, np.diag([*spacing, 1.0])


@pytest.fixture
def acquired(phantom, scene):
    """A volume node that shows the phantom through a transform: its voxels were taken at the real places."""
    hu, _, affine = phantom

    def acquire(make, place, name="CT", *, from_parent=False):
        shape, spacing = hu.shape[::-1], np.diag(affine)[:3]
        transform = make(shape, spacing, place)
        kji = np.indices(hu.shape).reshape(3, -1)
        nominal = kji[::-1].T * spacing
        points, real = vtk.vtkPoints(), vtk.vtkPoints()
        points.SetData(numpy_to_vtk(nominal))
        transform.TransformPoints(points, real)
        at = vtk_to_numpy(real.GetData()) / spacing
        taken = ndimage.map_coordinates(hu.astype(float), at[:, ::-1].T, order=1, cval=-1000.0)
        node = add_volume(np.rint(taken).astype(np.int16).reshape(hu.shape), affine, name)
        parent = scene.AddNewNodeByClass("vtkMRMLTransformNode", f"{name} acquisition transform")
        if from_parent:
            parent.SetAndObserveTransformFromParent(transform.GetInverse())
        else:
            parent.SetAndObserveTransformToParent(transform)
        node.SetAndObserveTransformNodeID(parent.GetID())
        return node

    return acquire


@pytest.fixture
def reference(segmented, phantom):
    """Volume and centroid of the phantom's own liver as the model finds it on a regular grid."""
    hu, _, affine = phantom
    node = segmented(add_volume(hu, affine, "regular")).segmentationNode
    return measured(node)


WARPS = {
    "tilted gantry": (grid_transform, tilted),
    "irregular slices": (grid_transform, irregular),
    "B-spline": (bspline_transform, bent),
}


def assert_near(found, expected):
    """Volumes within 3.5 %, centroids within 1 mm: blurred borders differ by more than 10 HU and are missed."""
    assert found[0] == pytest.approx(expected[0], rel=0.035)
    assert np.linalg.norm(found[1] - expected[1]) < 1


def places(node, step=41):
    """The places in the world of some voxels of the liver, through all transforms."""
    labelmap = node.GetSegmentation().GetSegment("liver").GetRepresentation(LABELMAP)
    kji = np.argwhere(voxels(node))[::step]
    ijk1 = np.column_stack([kji[:, ::-1] + labelmap.GetExtent()[::2], np.ones(len(kji))])
    matrix, world = vtk.vtkMatrix4x4(), [0.0, 0.0, 0.0]
    labelmap.GetImageToWorldMatrix(matrix)
    found = []
    for point in (ijk1 @ numpy_matrix(matrix).T)[:, :3]:
        node.TransformPointToWorld(point, world)
        found.append(list(world))
    return np.array(found)


def share_inside(points, phantom, world=None):
    """The share of these places that are liver in the phantom, which a matrix may have moved."""
    _, liver, affine = phantom
    if world is not None:
        affine = world @ affine
    ijk = (np.column_stack([points, np.ones(len(points))]) @ np.linalg.inv(affine).T)[:, :3]
    return ndimage.map_coordinates(liver.astype(float), ijk[:, ::-1].T, order=0).mean()


@pytest.mark.slow
@pytest.mark.parametrize("from_parent", [False, True], ids=["to parent", "from parent"])
@pytest.mark.parametrize("warp", WARPS)
def test_the_liver_is_in_the_right_place_under_a_warp(
    segmented, acquired, reference, phantom, warp, from_parent, scene
):
    node = acquired(*WARPS[warp], from_parent=from_parent)
    before = slicer.util.arrayFromVolume(node).copy(), node_names(scene)
    outcome = segmented(node)
    assert_near(measured(outcome.segmentationNode), reference)
    assert share_inside(places(outcome.segmentationNode), phantom) > 0.98
    assert outcome.result.measurement.volume_ml == pytest.approx(measured(outcome.segmentationNode)[0], rel=1e-3)
    assert outcome.segmentationNode.GetParentTransformNode() is None
    assert outcome.result.measurement.cut_off == ()
    assert (
        sum("CT acquisition transform moves CT and is not linear" in warning for warning in outcome.result.warnings)
        == 1
    )
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), before[0])
    assert set(node_names(scene)) - set(before[1]) == {"CT liver", "SegmentationDisplay_1"}, "no stray nodes"


@pytest.mark.slow
@pytest.mark.parametrize("order", ["above", "below"])
def test_a_linear_transform_above_or_below_is_applied_too(segmented, acquired, reference, phantom, order, scene):
    node = acquired(grid_transform, tilted)
    warp, turn = node.GetParentTransformNode(), turned(20)
    linear = add_transform(turn)
    if order == "above":
        warp.SetAndObserveTransformNodeID(linear.GetID())
    else:  # the voxels are rotated in their own space, and rotated back before the grid moves them
        node.ApplyTransformMatrix(vtk_matrix(np.linalg.inv(turn)))
        linear.SetAndObserveTransformNodeID(warp.GetID())
        node.SetAndObserveTransformNodeID(linear.GetID())
        turn = np.eye(4)
    outcome = segmented(node)
    assert_near(measured(outcome.segmentationNode), (reference[0], (turn @ [*reference[1], 1])[:3]))
    assert share_inside(places(outcome.segmentationNode), phantom, turn) > 0.98
    assert "CT acquisition transform moves" in outcome.result.warnings[0], "the transform that is not linear is named"


@pytest.mark.slow
@pytest.mark.parametrize("over", ["nothing", "linear", "the same", "another"])
def test_an_existing_segmentation_keeps_its_own_transform(segmented, acquired, reference, phantom, over, scene):
    node = acquired(grid_transform, tilted)
    target = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "target")
    transforms = {
        "nothing": None,
        "linear": add_transform(turned(20, axis=1)),
        "the same": node.GetParentTransformNode(),
        "another": acquired(bspline_transform, bent, "other").GetParentTransformNode(),
    }
    target.SetAndObserveTransformNodeID(transforms[over].GetID() if transforms[over] else None)
    add_other_segment(target, phantom[2])
    stomach = voxels(target, "stomach").sum(), measured_own(target, "stomach")
    assert segmented(node, target).segmentationNode is target
    assert target.GetParentTransformNode() is transforms[over]
    found = places(target)
    assert share_inside(found, phantom) > 0.98
    assert np.linalg.norm(found.mean(axis=0) - reference[1]) < 2, "denser where the transform shrinks"
    assert (voxels(target, "stomach").sum(), measured_own(target, "stomach")) == stomach
    if over in ("nothing", "linear"):
        assert_near(measured(target), reference)


def measured_own(node, segment_id):
    matrix = vtk.vtkMatrix4x4()
    node.GetSegmentation().GetSegment(segment_id).GetRepresentation(LABELMAP).GetImageToWorldMatrix(matrix)
    return numpy_matrix(matrix).tolist()


@pytest.mark.slow
def test_a_liver_under_a_warp_lies_over_a_plain_volume(segmented, acquired, reference, phantom, scene):
    """Only the target is under a nonlinear transform."""
    target = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "target")
    target.SetAndObserveTransformNodeID(acquired(grid_transform, irregular, "other").GetTransformNodeID())
    hu, _, affine = phantom
    segmented(add_volume(hu, affine), target)
    assert share_inside(places(target), phantom) > 0.98
    assert np.linalg.norm(places(target).mean(axis=0) - reference[1]) < 5


@pytest.mark.slow
@pytest.mark.parametrize("bent_roi", [False, True], ids=["straight", "bent"])
def test_a_region_contains_what_the_views_show_in_it(segmented, acquired, reference, bent_roi, scene):
    node = acquired(grid_transform, tilted)
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Box")
    center, half = reference[1], np.array([40.0, 40.0, 30.0])
    roi.SetCenter(*center)
    roi.SetSize(*(2 * half))
    if bent_roi:
        roi.SetCenter(*node.GetParentTransformNode().GetTransformFromParent().TransformPoint(center))
        roi.SetAndObserveTransformNodeID(node.GetTransformNodeID())
        half += np.array([0, TILT * 30, 0])
    outcome = segmented(node, roiNode=roi)
    found = places(outcome.segmentationNode, 7)
    assert (np.abs(found - center).max(axis=0) <= half + 3).all()
    assert (np.abs(found - center).max(axis=0) > half - 6)[:2].all(), "the whole of the box"
    assert outcome.result.measurement.cut_off


@pytest.mark.slow
@pytest.mark.parametrize("warp", [(grid_transform, tilted), (bspline_transform, arched)], ids=["tilted", "arched"])
def test_a_liver_that_is_cut_off_is_reported_although_the_resampled_scan_has_air_around_it(
    segmented, acquired, scene, warp
):
    node = acquired(*warp)
    upper = slicer.util.arrayFromVolume(node)[44:].copy()
    short = add_volume(upper, np.eye(4), "short")
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    short.SetIJKToRASMatrix(matrix)
    short.SetOrigin(*(numpy_matrix(matrix) @ [0, 0, 44, 1])[:3])
    short.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    result = segmented(short).result
    assert result.measurement.cut_off == ("inferior",)
    assert result.verdict.word == "look at it"
    assert result.verdict.reasons[-1] in result.warnings
    assert sum("The liver reaches the inferior edge of the" in warning for warning in result.warnings) == 1


@pytest.mark.slow
def test_a_volume_that_is_not_a_ct_is_refused_under_a_warp(segmented, acquired, scene):
    from LiverUNetPanel.nodes.volume import scanSteps

    node = acquired(grid_transform, tilted)
    hu = slicer.util.arrayFromVolume(node)
    hu += 1024
    np.clip(hu, 0, None, out=hu)
    assert finish(scanSteps(node)).volume.hu_kji.min() == hu.min(), "no air is added around a volume without air"
    with pytest.raises(Exception, match="CT is not in HU: it holds no value below 0"):
        segmented(node)


@pytest.mark.slow
@pytest.mark.parametrize("under", ["the world", "the same warp"])
def test_a_case_for_training_is_what_the_views_show(segmented, acquired, phantom, scene, tmp_path, under):
    from LiverUNetTrainPanel.logic import LiverUNetTrainLogic
    from LiverUNetTrainPanel.nodes.segments import SceneCase

    node = acquired(grid_transform, tilted)
    target = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "target")
    if under == "the same warp":
        target.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    segmented(node, target)
    name = finish(LiverUNetTrainLogic().addCaseSteps(SceneCase(node, target, "liver"), tmp_path))
    mask, scan = read_mask(tmp_path / f"{name}_liver.nii.gz"), read_volume(tmp_path / f"{name}_orig.nii.gz")
    assert mask.hu_kji.shape == scan.hu_kji.shape
    affine = scan.affine[:3, :3]
    np.testing.assert_allclose(affine.T @ affine, np.diag(np.diag(affine.T @ affine)), atol=1e-3)
    kji = np.argwhere(mask.hu_kji)[::41]
    points = (np.column_stack([kji[:, ::-1], np.ones(len(kji))]) @ scan.affine.T)[:, :3]
    assert share_inside(points, phantom) > 0.98
    inside = scan.hu_kji[mask.hu_kji > 0]
    assert np.abs(inside - LIVER).mean() < 10
