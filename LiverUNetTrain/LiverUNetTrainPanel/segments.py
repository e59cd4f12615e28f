"""A segment as a mask on a volume's own voxels, through every transform above both."""

from __future__ import annotations

import numpy as np
import vtk
from scipy import ndimage
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from vtk.util.numpy_support import vtk_to_numpy

from LiverUNetLib.errors import ScanError
from LiverUNetPanel.volume_node import arrayFromMatrix, ijkToRas, transformToWorld

__all__ = ["liverRanks", "maskOnVolume"]

LABELMAP = "Binary labelmap"
LIVER_CODE = "SCT^10200004^"


def liverRanks(segmentationNode: vtkMRMLSegmentationNode) -> dict[str, int]:
    """Of every segment by its id: 0 with the terminology of the liver, 1 with its name, 2 for all others."""
    ranks = {}
    for segmentId in segmentationNode.GetSegmentation().GetSegmentIDs():
        segment, tag = segmentationNode.GetSegmentation().GetSegment(segmentId), vtk.reference("")
        coded = segment.GetTag(segment.GetTerminologyEntryTagName(), tag) and LIVER_CODE in str(tag)
        ranks[segmentId] = 0 if coded else 1 if "liver" in segment.GetName().lower() else 2
    return ranks


def maskOnVolume(
    segmentationNode: vtkMRMLSegmentationNode, segmentId: str, volumeNode: vtkMRMLScalarVolumeNode
) -> np.ndarray:
    """The segment on the voxels of the volume, uint8 (k, j, i); interpolated where the grids differ.

    Raises:
        ScanError: the segment has no voxels, or a transform is not linear.
    """
    segment = segmentationNode.GetSegmentation().GetSegment(segmentId)
    labelmap = segment.GetRepresentation(LABELMAP) if segment else None
    if labelmap is None or not labelmap.GetNumberOfPoints():
        raise ScanError(f"The segment {segmentId} of {segmentationNode.GetName()} holds no voxels.")
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    to_world = transformToWorld(volumeNode) @ ijkToRas(volumeNode)
    from_labelmap = transformToWorld(segmentationNode) @ arrayFromMatrix(matrix)
    # From (i, j, k) of the volume to (i, j, k) of the labelmap; scipy counts the other way, from its first voxel.
    ijk = np.linalg.inv(from_labelmap) @ to_world
    first = np.array(labelmap.GetExtent()[::2])
    values = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(labelmap.GetDimensions()[::-1])
    shape = tuple(reversed(volumeNode.GetImageData().GetDimensions()))
    shift = np.rint(ijk[:3, 3]).astype(int)
    if np.allclose(ijk[:3, :3], np.eye(3), atol=1e-4) and np.allclose(ijk[:3, 3], shift, atol=1e-2):
        return _placed((values == segment.GetLabelValue()), (first - shift)[::-1], shape)
    # A border of background: scipy takes what lies outside by a rounding error for nothing at all.
    inside = np.pad((values == segment.GetLabelValue()).astype(np.float32), 1)
    moved = ndimage.affine_transform(
        inside, ijk[:3, :3][::-1, ::-1], offset=(ijk[:3, 3] - first + 1)[::-1], output_shape=shape, order=1
    )
    return (moved > 0.5).astype(np.uint8)


def _placed(part: np.ndarray, begin: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A part in an empty mask of this shape, from voxel `begin` on; what lies outside of it is cut off."""
    mask = np.zeros(shape, np.uint8)
    ends = np.minimum(begin + part.shape, shape)
    target = tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(begin, ends, strict=True))
    source = tuple(slice(max(-a, 0), max(b - a, 0)) for a, b in zip(begin, ends, strict=True))
    mask[target] = part[source]
    return mask
