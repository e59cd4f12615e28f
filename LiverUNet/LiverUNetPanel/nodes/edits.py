"""Tell whether a user has edited the voxels of a segment since they were written."""

from __future__ import annotations

import hashlib

import numpy as np
import vtk
from slicer import vtkMRMLSegmentationNode, vtkSegment
from vtk.util.numpy_support import vtk_to_numpy

from LiverUNetLib.segmentation.measurement import bounding_box

from .volume import arrayFromMatrix, transformToWorld
from .warp import warpOver

__all__ = ["LABELMAP", "checksumOf", "isEdited", "milliliters", "rememberVoxels", "voxelsOf"]

LABELMAP = "Binary labelmap"
# A tag of the segment: it is saved and copied with it, and restored with it by the Segment Editor's undo.
VOXELS_TAG = "LiverUNet.Voxels"


def rememberVoxels(segment: vtkSegment) -> None:
    """Keep a checksum of the voxels in the segment, for `isEdited`."""
    segment.SetTag(VOXELS_TAG, checksumOf(segment))


def isEdited(segment: vtkSegment) -> bool:
    """Whether the voxels differ from the remembered ones, or none were remembered.

    Name, color, display and position do not count. Nor do the extent of the image, its label value, and
    whether segments share it: these change when a scene is saved or another segment is edited.
    """
    tag = vtk.reference("")
    return not segment.GetTag(VOXELS_TAG, tag) or str(tag) != checksumOf(segment)


def voxelsOf(segment: vtkSegment) -> np.ndarray | None:
    """The voxels of the segment, bool (k, j, i) in the extent of its labelmap; None if it has no labelmap."""
    labelmap = segment.GetRepresentation(LABELMAP)
    if labelmap is None or not labelmap.GetNumberOfPoints():
        return None
    values = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(labelmap.GetDimensions()[::-1])
    return values == segment.GetLabelValue()


def milliliters(node: vtkMRMLSegmentationNode, segmentId: str) -> float | None:
    """The current volume of a segment; None under a nonlinear transform, where voxels have no single size."""
    segment = node.GetSegmentation().GetSegment(segmentId)
    mask = voxelsOf(segment)
    if mask is None or warpOver(node):
        return None
    matrix = vtk.vtkMatrix4x4()
    segment.GetRepresentation(LABELMAP).GetImageToWorldMatrix(matrix)
    toWorld = transformToWorld(node) @ arrayFromMatrix(matrix)
    return float(np.count_nonzero(mask) * abs(np.linalg.det(toWorld[:3, :3])) / 1000)


def checksumOf(segment: vtkSegment) -> str:
    """SHA-256 of the voxels in their bounding box."""
    mask = voxelsOf(segment)
    box = None if mask is None else bounding_box(mask)
    if box is None:
        return "empty"
    part = mask[box]
    return hashlib.sha256(repr(part.shape).encode() + np.packbits(part).tobytes()).hexdigest()
