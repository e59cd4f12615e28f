"""A mask becomes the liver of a segmentation node: complete before it is seen, and the only segment that is touched."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import vtk
from slicer import (
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLSubjectHierarchyNode,
    vtkOrientedImageData,
    vtkSegment,
)
from vtk.util.numpy_support import numpy_to_vtk

from LiverUNetLib.errors import ScanError
from LiverUNetLib.itk import LIVER_COLOUR, LIVER_TERMINOLOGY
from LiverUNetLib.measurement import bounding_box
from LiverUNetLib.pipeline import Segmentation

from .volume_node import Scan, ijkToRas, matrixFromArray, transformToWorld

__all__ = ["LABELMAP", "checkTarget", "findLiver", "labelmapOf", "volumeOf", "writeLiver"]

SEGMENT_ID = "liver"
# Marks the segment that is ours, whatever a person calls it, and says what made it.
SEGMENT_TAG = "LiverUNet"
ATTRIBUTE_PREFIX = "LiverUNet."
# Refers to the volume that the liver was found in; another may have given the segmentation its geometry.
VOLUME_ROLE = "LiverUNet.Volume"
LABELMAP, SURFACE = "Binary labelmap", "Closed surface"


def writeLiver(
    result: Segmentation,
    scan: Scan,
    volumeNode: vtkMRMLScalarVolumeNode,
    segmentationNode: vtkMRMLSegmentationNode | None = None,
    *,
    beforeReplacing: Callable[[vtkMRMLSegmentationNode], None] = lambda _: None,
) -> vtkMRMLSegmentationNode:
    """Put a liver that was found into a segmentation node.

    A new node gets the volume's geometry, parent transform and place in the subject hierarchy. In
    an existing one our segment is replaced, or added; everything else there stays as it is, its
    parent transform as well: the labelmap then gets the geometry that puts it over the volume.

    Args:
        scan: what was segmented, with its place in the volume node.
        beforeReplacing: called when an older segment of ours is about to be replaced.

    Raises:
        ScanError: as `checkTarget`.
    """
    scene = volumeNode.GetScene()
    new = segmentationNode is None
    if new:
        segmentationNode = _newNode(volumeNode)
    else:
        checkTarget(segmentationNode)
    toWorld = transformToWorld(volumeNode) @ ijkToRas(volumeNode)
    try:
        geometry = np.linalg.inv(transformToWorld(segmentationNode)) @ toWorld
        labelmap = labelmapOf(result.mask_kji, scan.first_kji, geometry)
        segmentId = findLiver(segmentationNode)
        if segmentId:
            beforeReplacing(segmentationNode)
            _replace(segmentationNode, segmentId, labelmap)
        else:
            segmentId = _add(segmentationNode, labelmap)
    except BaseException:
        if new:
            scene.RemoveNode(segmentationNode)
        raise
    segmentationNode.SetNodeReferenceID(VOLUME_ROLE, volumeNode.GetID())
    madeBy = result.provenance
    segment = segmentationNode.GetSegmentation().GetSegment(segmentId)
    segment.SetTag(SEGMENT_TAG, f"{madeBy['model']} {madeBy['model_version']} {madeBy['model_checksum'][:12]}")
    for name, value in _attributes(result).items():
        segmentationNode.SetAttribute(ATTRIBUTE_PREFIX + name, value)
    return segmentationNode


def findLiver(segmentationNode: vtkMRMLSegmentationNode) -> str | None:
    """The id of the segment that LiverUNet has made, if there is one."""
    segmentation = segmentationNode.GetSegmentation()
    for segmentId in segmentation.GetSegmentIDs():
        if segmentation.GetSegment(segmentId).HasTag(SEGMENT_TAG):
            return segmentId
    return None


def volumeOf(segmentationNode: vtkMRMLSegmentationNode) -> vtkMRMLScalarVolumeNode | None:
    """The volume in which our liver was found, or else the one that the segmentation was drawn on."""
    roles = (VOLUME_ROLE, segmentationNode.GetReferenceImageGeometryReferenceRole())
    return next(filter(None, map(segmentationNode.GetNodeReference, roles)), None)


def checkTarget(segmentationNode: vtkMRMLSegmentationNode) -> None:
    """Raise ScanError unless a liver can be put into an existing segmentation as voxels."""
    transformToWorld(segmentationNode)
    segmentation = segmentationNode.GetSegmentation()
    source = segmentation.GetSourceRepresentationName()
    if segmentation.GetNumberOfSegments() and source != LABELMAP:
        raise ScanError(
            f"{segmentationNode.GetName()} is made of {source}, which holds no voxels; choose another segmentation, "
            f"or make {LABELMAP} its source representation in the module Segmentations."
        )


def _newNode(volumeNode: vtkMRMLScalarVolumeNode) -> vtkMRMLSegmentationNode:
    """An empty segmentation over the volume, under its parent transform, beside it in the subject hierarchy."""
    scene = volumeNode.GetScene()
    name = scene.GenerateUniqueName(f"{volumeNode.GetName()} liver")
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    hierarchy = vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item, beside = (hierarchy.GetItemByDataNode(each) for each in (node, volumeNode))
    if item and beside:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(beside))
    return node


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
    """Only the voxels change; name, colour, terminology and display are what a person has made of them."""
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


def _attributes(result: Segmentation) -> dict[str, str]:
    """Where the liver comes from, as node attributes, which the scene keeps."""
    names = {
        "Model": "model",
        "ModelVersion": "model_version",
        "ModelChecksum": "model_checksum",
        "ModelLicense": "model_license",
        "Device": "device",
        "Precision": "dtype",
        "Scan": "scan",
    }
    madeBy = {name: str(result.provenance[key]) for name, key in names.items()}
    packages = ", ".join(f"{name} {version}" for name, version in result.provenance["packages"].items())
    settings = json.dumps(result.provenance["settings"])
    return madeBy | {"Settings": settings, "Packages": packages, "Warnings": " ".join(result.warnings)}
