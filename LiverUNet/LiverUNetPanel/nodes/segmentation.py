"""Write a mask as the liver of a segmentation node: complete before it is visible, and no other segment changes."""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np
import vtk
from slicer import (
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLSubjectHierarchyNode,
    vtkMRMLTransformableNode,
    vtkOrientedImageData,
    vtkSegment,
    vtkSegmentationConverter,
)
from vtk.util.numpy_support import numpy_to_vtk

from LiverUNetLib.errors import ScanError
from LiverUNetLib.scan.itk import LIVER_COLOR, LIVER_TERMINOLOGY
from LiverUNetLib.segmentation.measurement import bounding_box
from LiverUNetLib.segmentation.result import Segmentation
from LiverUNetLib.steps import Progress

from .edits import LABELMAP, isEdited, rememberVoxels
from .stored_result import store
from .volume import Scan, Warp, ijkToRas, matrixFromArray, transformToWorld
from .warp import chained, regularGrid, resampleSteps, toWorld, warpOver

__all__ = ["LABELMAP", "checkTarget", "findLiver", "isLiverEdited", "labelmapOf", "volumeOf", "writeSteps"]

SEGMENT_ID = "liver"
# Marks LiverUNet's segment whatever its name, and tells which model made it.
SEGMENT_TAG = "LiverUNet"
# Refers to the volume in which the liver was found; the geometry of the segmentation may be that of another volume.
VOLUME_ROLE = "LiverUNet.Volume"
SURFACE = "Closed surface"


def writeSteps(
    result: Segmentation,
    scan: Scan,
    volumeNode: vtkMRMLScalarVolumeNode,
    segmentationNode: vtkMRMLSegmentationNode | None = None,
    *,
    beforeReplacing: Callable[[vtkMRMLSegmentationNode], None] = lambda _: None,
) -> Generator[Progress, None, vtkMRMLSegmentationNode]:
    """Write a liver into a segmentation node; the scene changes only in the last step.

    A new node gets the volume's geometry, parent transform and place in the subject hierarchy. In an
    existing node LiverUNet's segment is replaced, or added. Everything else there is kept, including
    the parent transform: the labelmap then gets a geometry that places it over the volume.

    If the transform of the volume is not linear, a new node gets no transform. Slicer shows the liver
    over the volume in either case. But under such a transform Segment Statistics would count distorted
    voxels, an export would be misplaced, and the brushes of the Segment Editor, which support only
    matrices, would paint in the wrong place.

    A liver that a user has edited is not replaced: the new one gets a new node. With both in one node,
    Segment Statistics, DICOM export and other extensions would find two livers there, and the attributes
    of a node can describe only one run.

    Args:
        scan: the segmented voxels, with their place in the volume node.
        beforeReplacing: called before an older liver of LiverUNet's is replaced.

    Raises:
        ScanError: see `checkTarget`.
    """
    target = None if segmentationNode is None or isLiverEdited(segmentationNode) else segmentationNode
    if target:
        checkTarget(target)
    affine = scan.warp.affine if scan.warp else transformToWorld(volumeNode) @ ijkToRas(volumeNode)
    moving = target or (None if scan.warp else volumeNode)
    labelmap = yield from _labelmapSteps(result.mask_kji, scan.first_kji, affine, moving)
    node = target or _newNode(volumeNode, scan.warp)
    try:
        segmentId = findLiver(node)
        if segmentId:
            beforeReplacing(node)
            _replace(node, segmentId, labelmap)
        else:
            segmentId = _add(node, labelmap)
    except BaseException:
        if not target:
            volumeNode.GetScene().RemoveNode(node)
        raise
    node.SetNodeReferenceID(VOLUME_ROLE, volumeNode.GetID())
    madeBy = result.provenance
    segment = node.GetSegmentation().GetSegment(segmentId)
    segment.SetTag(SEGMENT_TAG, f"{madeBy.model} {madeBy.model_version} {madeBy.model_checksum[:12]}")
    rememberVoxels(segment)
    store(node, result)
    return node


def findLiver(segmentationNode: vtkMRMLSegmentationNode) -> str | None:
    """The id of the segment that LiverUNet wrote; None if there is none."""
    segmentation = segmentationNode.GetSegmentation()
    for segmentId in segmentation.GetSegmentIDs():
        if segmentation.GetSegment(segmentId).HasTag(SEGMENT_TAG):
            return segmentId
    return None


def isLiverEdited(segmentationNode: vtkMRMLSegmentationNode) -> bool:
    """Whether a user has edited the liver that LiverUNet wrote here."""
    segmentId = findLiver(segmentationNode)
    return segmentId is not None and isEdited(segmentationNode.GetSegmentation().GetSegment(segmentId))


def volumeOf(segmentationNode: vtkMRMLSegmentationNode) -> vtkMRMLScalarVolumeNode | None:
    """The volume in which the liver was found, otherwise the one on which the segmentation was drawn."""
    roles = (VOLUME_ROLE, segmentationNode.GetReferenceImageGeometryReferenceRole())
    return next(filter(None, map(segmentationNode.GetNodeReference, roles)), None)


def checkTarget(segmentationNode: vtkMRMLSegmentationNode) -> None:
    """Raise ScanError unless an existing segmentation can hold a liver as voxels."""
    segmentation = segmentationNode.GetSegmentation()
    source = segmentation.GetSourceRepresentationName()
    if segmentation.GetNumberOfSegments() and source != LABELMAP:
        raise ScanError(
            f"{segmentationNode.GetName()} consists of {source}, which has no voxels; choose another segmentation, "
            f"or make {LABELMAP} its source representation in the module Segmentations."
        )


def _newNode(volumeNode: vtkMRMLScalarVolumeNode, warp: Warp | None) -> vtkMRMLSegmentationNode:
    """An empty segmentation over the volume, next to it in the subject hierarchy."""
    scene = volumeNode.GetScene()
    name = scene.GenerateUniqueName(f"{volumeNode.GetName()} liver")
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    if warp:
        geometry = vtkOrientedImageData()
        geometry.SetExtent(*(n for size in reversed(warp.shape_kji) for n in (0, size - 1)))
        geometry.SetGeometryFromImageToWorldMatrix(matrixFromArray(warp.affine))
        node.GetSegmentation().SetConversionParameter(
            vtkSegmentationConverter.GetReferenceImageGeometryParameterName(),
            vtkSegmentationConverter.SerializeImageGeometry(geometry),
        )
    else:
        node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    hierarchy = vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item, beside = (hierarchy.GetItemByDataNode(each) for each in (node, volumeNode))
    if item and beside:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(beside))
    return node


def _labelmapSteps(
    mask_kji: np.ndarray, first_kji: tuple[int, int, int], affine: np.ndarray, moving: vtkMRMLTransformableNode | None
) -> Generator[Progress, None, vtkOrientedImageData]:
    """The labelmap that lies over the mask after the transforms of `moving` were applied to it.

    Args:
        first_kji: the first voxel of the mask on the grid of `affine`.
        affine: 4x4, from (i, j, k, 1) of that grid to RAS of the world.
        moving: the node with the transforms; None for no transform. If one is not linear, the mask is resampled.
    """
    if moving is None or not warpOver(moving):
        fromWorld = np.eye(4) if moving is None else np.linalg.inv(transformToWorld(moving))
        return labelmapOf(mask_kji, first_kji, fromWorld @ affine)
    parent, mask = moving.GetParentTransformNode(), labelmapOf(mask_kji, first_kji, np.eye(4))
    low, high = np.reshape(mask.GetExtent(), (3, 2)).T[:, ::-1]
    toNode = chained(affine, toWorld(parent, inverse=True))
    own, shape = regularGrid(tuple(low), tuple(high - low + 1), toNode, moving.GetName())
    toMask = chained(own, toWorld(parent), np.linalg.inv(affine))
    voxels = yield from resampleSteps(mask, toMask, tuple(slice(0, size) for size in shape), outside=0)
    return labelmapOf(voxels, (0, 0, 0), own)


def labelmapOf(mask_kji: np.ndarray, first_kji: tuple[int, int, int], geometry: np.ndarray) -> vtkOrientedImageData:
    """The mask, cropped to the liver, with the geometry 4x4 from IJK of the volume to RAS of the segmentation."""
    box = bounding_box(mask_kji)
    cropped = np.ascontiguousarray(mask_kji[box])
    labelmap = vtkOrientedImageData()
    extent = []
    for part, first in zip(reversed(box), reversed(first_kji), strict=True):
        extent += [part.start + first, part.stop - 1 + first]
    labelmap.SetExtent(*extent)
    scalars = numpy_to_vtk(cropped.ravel(), deep=True, array_type=vtk.VTK_UNSIGNED_CHAR)
    labelmap.GetPointData().SetScalars(scalars)
    labelmap.SetGeometryFromImageToWorldMatrix(matrixFromArray(geometry))
    return labelmap


def _add(node: vtkMRMLSegmentationNode, labelmap: vtkOrientedImageData) -> str:
    segmentation = node.GetSegmentation()
    segment = vtkSegment()
    segment.SetName("liver")
    segment.SetColor(*(value / 255 for value in LIVER_COLOR))
    segment.SetTag(segment.GetTerminologyEntryTagName(), LIVER_TERMINOLOGY)
    segment.AddRepresentation(LABELMAP, labelmap)
    segmentId = segmentation.GenerateUniqueSegmentID(SEGMENT_ID)
    segmentation.AddSegment(segment, segmentId)
    return segmentId


def _replace(node: vtkMRMLSegmentationNode, segmentId: str, labelmap: vtkOrientedImageData) -> None:
    """Replace only the voxels; name, color, terminology and display stay as the user set them."""
    segmentation = node.GetSegmentation()
    segment = segmentation.GetSegment(segmentId)
    hasSurface = segment.GetRepresentation(SURFACE) is not None
    wasModifying = node.StartModify()
    segmentation.SeparateSegmentLabelmap(segmentId)  # other segments may share its image
    segment.RemoveAllRepresentations()
    segment.SetLabelValue(1)
    segment.AddRepresentation(LABELMAP, labelmap)
    if hasSurface:
        segmentation.CreateRepresentation(SURFACE)
    node.EndModify(wasModifying)
    segmentation.InvokeEvent(segmentation.SourceRepresentationModified, segmentId)
