"""Segments of the scene as cases, and as masks on the voxels of their scans."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

from LiverUNetLib.errors import ScanError
from LiverUNetLib.scan.volume import CTVolume
from LiverUNetLib.steps import Progress
from LiverUNetPanel.nodes.edits import LABELMAP, voxelsOf
from LiverUNetPanel.nodes.segmentation import labelmapOf, volumeOf
from LiverUNetPanel.nodes.volume import arrayFromMatrix, transformToWorld
from LiverUNetPanel.nodes.warp import chained, resampleSteps, toWorld, warpOver

__all__ = ["SceneCase", "maskSteps", "sceneCases"]

LIVER_CODE = "SCT^10200004^"


@dataclass(frozen=True)
class SceneCase:
    """A volume of the scene with a segment that could be its liver."""

    volumeNode: vtkMRMLScalarVolumeNode
    segmentationNode: vtkMRMLSegmentationNode
    segmentId: str

    @property
    def name(self) -> str:
        """For a table."""
        segment = self.segmentationNode.GetSegmentation().GetSegment(self.segmentId).GetName()
        return f"{self.volumeNode.GetName()} / {self.segmentationNode.GetName()} / {segment}"


def sceneCases() -> list[SceneCase]:
    """Every segment of the scene with the volume it was drawn on, the most likely livers first.

    A segmentation that was loaded from a file refers to no volume; it belongs to the only volume, if there is just
    one.
    """
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    only = volumes[0] if len(volumes) == 1 else None
    found = []
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        volume = volumeOf(node) or only
        if volume is not None:
            found += [(rank, SceneCase(volume, node, segmentId)) for segmentId, rank in _liverRanks(node).items()]
    return [case for _, case in sorted(found, key=lambda pair: pair[0])]


def maskSteps(
    segmentationNode: vtkMRMLSegmentationNode, segmentId: str, volume: CTVolume
) -> Generator[Progress, None, np.ndarray]:
    """The segment as a mask on the voxels of a scan in world coordinates, uint8 (k, j, i).

    It is interpolated if the grids differ.

    Raises:
        ScanError: the segment has no voxels.
    """
    segment = segmentationNode.GetSegmentation().GetSegment(segmentId)
    inside = voxelsOf(segment) if segment else None
    if inside is None:
        raise ScanError(f"The segment {segmentId} of {segmentationNode.GetName()} has no voxels.")
    labelmap, matrix, shape = segment.GetRepresentation(LABELMAP), vtk.vtkMatrix4x4(), volume.hu_kji.shape
    labelmap.GetImageToWorldMatrix(matrix)
    first, toRas = np.array(labelmap.GetExtent()[::2]), arrayFromMatrix(matrix)
    if not warpOver(segmentationNode):
        toVoxels = np.linalg.inv(volume.affine) @ transformToWorld(segmentationNode) @ toRas
        shift = np.rint(toVoxels[:3, 3]).astype(int)
        if np.allclose(toVoxels[:3, :3], np.eye(3), atol=1e-4) and np.allclose(toVoxels[:3, 3], shift, atol=1e-2):
            return _placed(inside, (first + shift)[::-1], shape)
    parent = segmentationNode.GetParentTransformNode()
    toLabelmap = chained(volume.affine, toWorld(parent, inverse=True), np.linalg.inv(toRas))
    image = labelmapOf(inside, tuple(first[::-1]), np.eye(4))
    return (yield from resampleSteps(image, toLabelmap, tuple(slice(0, size) for size in shape), outside=0))


def _placed(part: np.ndarray, begin: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Place a part into an empty mask of this shape, with its first voxel at `begin`; cut off what is outside."""
    mask = np.zeros(shape, np.uint8)
    ends = np.minimum(begin + part.shape, shape)
    target = tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(begin, ends, strict=True))
    source = tuple(slice(max(-a, 0), max(b - a, 0)) for a, b in zip(begin, ends, strict=True))
    mask[target] = part[source]
    return mask


def _liverRanks(segmentationNode: vtkMRMLSegmentationNode) -> dict[str, int]:
    """By segment id: 0 with the terminology of the liver, 1 with the name of the liver, 2 for all others."""
    ranks = {}
    for segmentId in segmentationNode.GetSegmentation().GetSegmentIDs():
        segment, tag = segmentationNode.GetSegmentation().GetSegment(segmentId), vtk.reference("")
        coded = segment.GetTag(segment.GetTerminologyEntryTagName(), tag) and LIVER_CODE in str(tag)
        ranks[segmentId] = 0 if coded else 1 if "liver" in segment.GetName().lower() else 2
    return ranks
