"""Show a case of a data set as nodes: the scan as a volume, its masks as segments."""

from __future__ import annotations

import hashlib

import numpy as np
import slicer
from slicer import vtkMRMLSegmentationNode, vtkSegment

from LiverUNetLib.scan.volume import CTVolume
from LiverUNetPanel.nodes.edits import LABELMAP, checksumOf
from LiverUNetPanel.nodes.segmentation import labelmapOf, volumeOf

__all__ = ["showCase", "shownHeight"]

# The attribute of nodes that this module shows: the name of the case.
CASE = "LiverUNetTrain.Case"
# A checksum of the segments as they were shown; it differs once the user has edited them.
DRAWN = "LiverUNetTrain.Drawn"
COLORS = {"reference": (0.31, 0.76, 0.97), "prediction": (0.87, 0.51, 0.40)}


def showCase(name: str, scan: CTVolume, masks: dict[str, np.ndarray | None]) -> vtkMRMLSegmentationNode:
    """Show a scan and its masks; the slice views jump to the slice of interest.

    A case that is shown again replaces its nodes, except those that the user has edited.

    Args:
        masks: arrays (k, j, i) by name; None for a mask that does not exist.
    """
    _forget(name)
    volume = slicer.util.addVolumeFromArray(scan.hu_kji, scan.affine, name)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} liver")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    shown = {title: mask for title, mask in masks.items() if mask is not None and mask.any()}
    for title, mask in shown.items():
        segment = vtkSegment()
        segment.SetName(title)
        segment.SetColor(*COLORS[title])
        segment.AddRepresentation(LABELMAP, labelmapOf(mask, (0, 0, 0), scan.affine))
        node.GetSegmentation().AddSegment(segment, title)
    for each in (volume, node):
        each.SetAttribute(CASE, name)
    node.SetAttribute(DRAWN, _drawn(node))
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    if "reference" in shown:
        _jumpTo(scan, shown)
    return node


def shownHeight(name: str) -> float | None:
    """The height of the red view in a volume of that name, from 0 at its lowest point to 1; None if outside."""
    volume = slicer.mrmlScene.GetFirstNode(name, "vtkMRMLScalarVolumeNode")
    view = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    if volume is None or view is None:
        return None
    bounds = [0.0] * 6
    volume.GetRASBounds(bounds)
    height = (view.GetSliceOffset() - bounds[4]) / (bounds[5] - bounds[4])
    return height if 0 <= height < 1 else None


def _forget(name: str) -> None:
    """Remove the nodes of a case, but keep a segmentation that was edited, and its volume."""
    segmentations = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    shown = [node for node in segmentations if node.GetAttribute(CASE) == name]
    removed = [node for node in shown if node.GetAttribute(DRAWN) == _drawn(node)]
    needed = {volumeOf(node) for node in segmentations if node not in removed}
    for volume in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if volume.GetAttribute(CASE) == name:
            shown.append(volume)
            removed += [] if volume in needed else [volume]
    for node in shown:
        node.RemoveAttribute(CASE)
    for node in removed:
        slicer.mrmlScene.RemoveNode(node)


def _drawn(node: vtkMRMLSegmentationNode) -> str:
    """One checksum of all segments."""
    segmentation = node.GetSegmentation()
    known = [(segmentId, checksumOf(segmentation.GetSegment(segmentId))) for segmentId in segmentation.GetSegmentIDs()]
    return hashlib.sha256(repr(sorted(known)).encode()).hexdigest()


def _jumpTo(scan: CTVolume, masks: dict[str, np.ndarray]) -> None:
    """Move the slice views to the largest disagreement of reference and prediction."""
    from LiverUNetTrainLib.evaluation.metrics import largest_disagreement

    k = largest_disagreement(masks.get("prediction", masks["reference"]), masks["reference"])
    ijk = [size / 2 for size in scan.hu_kji.shape[:0:-1]] + [k]
    markups = getattr(slicer.modules, "markups", None)
    if markups:
        markups.logic().JumpSlicesToLocation(*(scan.affine @ [*ijk, 1])[:3], True)
