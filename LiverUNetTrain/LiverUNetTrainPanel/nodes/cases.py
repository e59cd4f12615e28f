"""A case of a data set as nodes: the scan, and masks as segments over it."""

from __future__ import annotations

import hashlib

import numpy as np
import slicer
from slicer import vtkMRMLSegmentationNode, vtkSegment

from LiverUNetLib.scan.volume import CTVolume
from LiverUNetPanel.nodes.edits import LABELMAP, checksumOf
from LiverUNetPanel.nodes.segmentation import labelmapOf, volumeOf

__all__ = ["showCase", "shownHeight"]

# The attribute by which what this module shows is known.
CASE = "LiverUNetTrain.Case"
# And whether it is still what was shown.
DRAWN = "LiverUNetTrain.Drawn"
COLOURS = {"reference": (0.31, 0.76, 0.97), "prediction": (0.87, 0.51, 0.40)}


def showCase(name: str, scan: CTVolume, masks: dict[str, np.ndarray | None]) -> vtkMRMLSegmentationNode:
    """Show a volume with a segmentation that has a segment for each mask; views go to the slice to look at.

    Shown again it takes the place of what was shown before, but what the user has drawn since stays.

    Args:
        masks: (k, j, i) by name, None for one that there is not.
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
        segment.SetColor(*COLOURS[title])
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
    """Where the red view cuts a volume of that name, as a share of it from its lowest point; None if it does not."""
    volume = slicer.mrmlScene.GetFirstNode(name, "vtkMRMLScalarVolumeNode")
    view = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    if volume is None or view is None:
        return None
    bounds = [0.0] * 6
    volume.GetRASBounds(bounds)
    height = (view.GetSliceOffset() - bounds[4]) / (bounds[5] - bounds[4])
    return height if 0 <= height < 1 else None


def _forget(name: str) -> None:
    """Remove what was shown of a case, but no segmentation that was changed since, and no volume with one."""
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
    """What the segments hold, as one checksum."""
    segmentation = node.GetSegmentation()
    known = [(segmentId, checksumOf(segmentation.GetSegment(segmentId))) for segmentId in segmentation.GetSegmentIDs()]
    return hashlib.sha256(repr(sorted(known)).encode()).hexdigest()


def _jumpTo(scan: CTVolume, masks: dict[str, np.ndarray]) -> None:
    from LiverUNetTrainLib.evaluation.metrics import largest_disagreement

    k = largest_disagreement(masks.get("prediction", masks["reference"]), masks["reference"])
    ijk = [size / 2 for size in scan.hu_kji.shape[:0:-1]] + [k]
    markups = getattr(slicer.modules, "markups", None)
    if markups:
        markups.logic().JumpSlicesToLocation(*(scan.affine @ [*ijk, 1])[:3], True)
