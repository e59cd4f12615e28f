"""A mask becomes the liver of a segmentation node: complete before it is seen, and the only segment that is touched."""

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
from LiverUNetLib.scan.itk import LIVER_COLOUR, LIVER_TERMINOLOGY
from LiverUNetLib.segmentation.measurement import bounding_box
from LiverUNetLib.segmentation.pipeline import Segmentation
from LiverUNetLib.steps import Progress

from .edits import LABELMAP, isEdited, rememberVoxels
from .stored_result import store
from .volume import Scan, Warp, ijkToRas, matrixFromArray, transformToWorld
from .warp import chained, regularGrid, resampleSteps, toWorld, warpOver

__all__ = ["LABELMAP", "checkTarget", "findLiver", "isLiverEdited", "labelmapOf", "volumeOf", "writeSteps"]

SEGMENT_ID = "liver"
# Marks the segment that is ours, whatever it is called, and says what made it.
SEGMENT_TAG = "LiverUNet"
# Refers to the volume that the liver was found in; another may have given the segmentation its geometry.
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
    """Put a liver that was found into a segmentation node; nothing has changed before the last step.

    A new node gets the volume's geometry, parent transform and place in the subject hierarchy. In
    an existing one our segment is replaced, or added; everything else there stays as it is, its
    parent transform as well: the labelmap then gets the geometry that puts it over the volume.

    Over a volume whose transform is not linear a new node lies in the world, under no transform.
    Slicer shows it over the volume in slice and 3D views either way; but under such a transform
    Segment Statistics would count distorted voxels, an export would leave the patient's place, and
    the brushes of the Segment Editor, which know matrices only, would paint elsewhere.

    A liver that a user has edited since it was written is not replaced: the new one gets a new node.
    Two segments in one node would be two livers to everything that looks for one there (Segment
    Statistics, DICOM export, other extensions), and its attributes can tell of one run only.

    Args:
        scan: what was segmented, with its place in the volume node.
        beforeReplacing: called when an older segment of ours is about to be replaced.

    Raises:
        ScanError: as `checkTarget`.
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
    segment.SetTag(SEGMENT_TAG, f"{madeBy['model']} {madeBy['model_version']} {madeBy['model_checksum'][:12]}")
    rememberVoxels(segment)
    store(node, result)
    return node


def findLiver(segmentationNode: vtkMRMLSegmentationNode) -> str | None:
    """The id of the segment that LiverUNet has made, if there is one."""
    segmentation = segmentationNode.GetSegmentation()
    for segmentId in segmentation.GetSegmentIDs():
        if segmentation.GetSegment(segmentId).HasTag(SEGMENT_TAG):
            return segmentId
    return None


def isLiverEdited(segmentationNode: vtkMRMLSegmentationNode) -> bool:
    """Whether the liver that LiverUNet has put here, if there is one, holds other voxels now."""
    segmentId = findLiver(segmentationNode)
    return segmentId is not None and isEdited(segmentationNode.GetSegmentation().GetSegment(segmentId))


def volumeOf(segmentationNode: vtkMRMLSegmentationNode) -> vtkMRMLScalarVolumeNode | None:
    """The volume in which our liver was found, or else the one that the segmentation was drawn on."""
    roles = (VOLUME_ROLE, segmentationNode.GetReferenceImageGeometryReferenceRole())
    return next(filter(None, map(segmentationNode.GetNodeReference, roles)), None)


def checkTarget(segmentationNode: vtkMRMLSegmentationNode) -> None:
    """Raise ScanError unless a liver can be put into an existing segmentation as voxels."""
    segmentation = segmentationNode.GetSegmentation()
    source = segmentation.GetSourceRepresentationName()
    if segmentation.GetNumberOfSegments() and source != LABELMAP:
        raise ScanError(
            f"{segmentationNode.GetName()} is made of {source}, which holds no voxels; choose another segmentation, "
            f"or make {LABELMAP} its source representation in the module Segmentations."
        )


def _newNode(volumeNode: vtkMRMLScalarVolumeNode, warp: Warp | None) -> vtkMRMLSegmentationNode:
    """An empty segmentation over the volume, beside it in the subject hierarchy."""
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
    """The labelmap that lies over the mask once the transforms above `moving` have moved it.

    Args:
        first_kji: the mask's first voxel on the grid that `affine` brings to the world.
        moving: None for no transform. Where one is not linear, the mask is resampled.
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
    """The mask, cropped to the liver, where `geometry` (IJK of the volume node -> RAS of the segmentation) puts it."""
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
    segment.SetColor(*(value / 255 for value in LIVER_COLOUR))
    segment.SetTag(segment.GetTerminologyEntryTagName(), LIVER_TERMINOLOGY)
    segment.AddRepresentation(LABELMAP, labelmap)
    segmentId = segmentation.GenerateUniqueSegmentID(SEGMENT_ID)
    segmentation.AddSegment(segment, segmentId)
    return segmentId


def _replace(node: vtkMRMLSegmentationNode, segmentId: str, labelmap: vtkOrientedImageData) -> None:
    """Only the voxels change; name, colour, terminology and display are what the user has made of them."""
    segmentation = node.GetSegmentation()
    segment = segmentation.GetSegment(segmentId)
    hasSurface = segment.GetRepresentation(SURFACE) is not None
    wasModifying = node.StartModify()
    segmentation.SeparateSegmentLabelmap(segmentId)  # others may share the image it lies in
    segment.RemoveAllRepresentations()
    segment.SetLabelValue(1)
    segment.AddRepresentation(LABELMAP, labelmap)
    if hasSurface:
        segmentation.CreateRepresentation(SURFACE)
    node.EndModify(wasModifying)
    segmentation.InvokeEvent(segmentation.SourceRepresentationModified, segmentId)
