"""Helpers for tests on MRML scenes."""

import numpy as np
import pytest
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

LABELMAP = "Binary labelmap"


def add_volume(hu_kji, affine, name="CT"):
    return slicer.util.addVolumeFromArray(hu_kji, affine, name)


def add_transform(matrix, name="Transform"):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(vtk_matrix(matrix))
    return node


def add_other_segment(segmentation_node, affine, name="stomach"):
    """A cube of 10 voxels, like a segment that was drawn by hand."""
    labelmap = slicer.vtkOrientedImageData()
    labelmap.SetExtent(5, 14, 5, 14, 5, 14)
    labelmap.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    labelmap.GetPointData().GetScalars().Fill(1)
    labelmap.SetGeometryFromImageToWorldMatrix(vtk_matrix(affine))
    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.AddRepresentation(LABELMAP, labelmap)
    segmentation_node.GetSegmentation().AddSegment(segment, name)


def turned(degrees, axis=2, shift=(12.0, -7.0, 30.0)):
    """A rotation about an axis of the patient, with a shift, 4x4."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    first, second = ((1, 2), (2, 0), (0, 1))[axis]
    matrix = np.eye(4)
    matrix[first, first] = matrix[second, second] = cosine
    matrix[first, second], matrix[second, first] = -sine, sine
    matrix[:3, 3] = shift
    return matrix


def vtk_matrix(array):
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, dtype=float).ravel().tolist())
    return matrix


def numpy_matrix(matrix):
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def measured(segmentation_node, segment_id="liver"):
    """Volume in ml and centroid in RAS of the world, from the voxels of a segment and all transforms above it."""
    labelmap = segmentation_node.GetSegmentation().GetSegment(segment_id).GetRepresentation(LABELMAP)
    to_own, to_world = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(to_own)
    if segmentation_node.GetParentTransformNode():
        segmentation_node.GetParentTransformNode().GetMatrixTransformToWorld(to_world)
    affine = numpy_matrix(to_world) @ numpy_matrix(to_own)
    ijk = labelmap.GetExtent()[::2] + np.argwhere(voxels(segmentation_node, segment_id)).mean(axis=0)[::-1]
    count = np.count_nonzero(voxels(segmentation_node, segment_id))
    return count * abs(np.linalg.det(affine[:3, :3])) / 1000, (affine @ [*ijk, 1])[:3]


def voxels(segmentation_node, segment_id="liver"):
    """1 inside a segment, in the extent of its labelmap (k, j, i)."""
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    labelmap = segment.GetRepresentation(LABELMAP)
    values = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(labelmap.GetDimensions()[::-1])
    return (values == segment.GetLabelValue()).astype(np.uint8)


def node_names(scene):
    """The names of all nodes of a scene."""
    return sorted(scene.GetNthNode(n).GetName() or "" for n in range(scene.GetNumberOfNodes()))


def assert_over(node, ml, centroid):
    """The liver has this volume, within 0.5 %, and lies at this centroid, within 1 mm."""
    found_ml, found_centroid = measured(node)
    assert found_ml == pytest.approx(ml, rel=0.005)
    assert np.linalg.norm(found_centroid - centroid) < 1
