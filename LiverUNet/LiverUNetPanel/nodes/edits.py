"""Whether a segment still holds the voxels that were written to it, or a user has edited them."""

from __future__ import annotations

import hashlib

import numpy as np
import vtk
from slicer import vtkMRMLSegmentationNode, vtkSegment
from vtk.util.numpy_support import vtk_to_numpy

from LiverUNetLib.segmentation.measurement import bounding_box

from .volume import arrayFromMatrix, transformToWorld
from .warp import warpOver

__all__ = ["LABELMAP", "checksumOf", "isEdited", "millilitres", "rememberVoxels", "voxelsOf"]

LABELMAP = "Binary labelmap"
# A tag of the segment: it is saved with it, copied with it, and comes back with it when the Segment Editor undoes.
VOXELS_TAG = "LiverUNet.Voxels"


def rememberVoxels(segment: vtkSegment) -> None:
    """Note what the segment holds now, for `isEdited`."""
    segment.SetTag(VOXELS_TAG, checksumOf(segment))


def isEdited(segment: vtkSegment) -> bool:
    """Whether its voxels are others than those that were remembered, or none were.

    Name, colour, display and place do not count, nor do the extent of the image, its label value
    and who shares it: these change when a scene is saved or segments are edited beside this one.
    """
    tag = vtk.reference("")
    return not segment.GetTag(VOXELS_TAG, tag) or str(tag) != checksumOf(segment)


def voxelsOf(segment: vtkSegment) -> np.ndarray | None:
    """Where the segment is, bool (k, j, i) in the extent of its labelmap; None without one."""
    labelmap = segment.GetRepresentation(LABELMAP)
    if labelmap is None or not labelmap.GetNumberOfPoints():
        return None
    values = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(labelmap.GetDimensions()[::-1])
    return values == segment.GetLabelValue()


def millilitres(node: vtkMRMLSegmentationNode, segmentId: str) -> float | None:
    """The volume of a segment as it is now; None where no matrix tells how large a voxel is in the world."""
    segment = node.GetSegmentation().GetSegment(segmentId)
    mask = voxelsOf(segment)
    if mask is None or warpOver(node):
        return None
    matrix = vtk.vtkMatrix4x4()
    segment.GetRepresentation(LABELMAP).GetImageToWorldMatrix(matrix)
    toWorld = transformToWorld(node) @ arrayFromMatrix(matrix)
    return float(np.count_nonzero(mask) * abs(np.linalg.det(toWorld[:3, :3])) / 1000)


def checksumOf(segment: vtkSegment) -> str:
    """SHA-256 of the voxels in their own bounding box."""
    mask = voxelsOf(segment)
    box = None if mask is None else bounding_box(mask)
    if box is None:
        return "empty"
    part = mask[box]
    return hashlib.sha256(repr(part.shape).encode() + np.packbits(part).tobytes()).hexdigest()
