"""What a run measured, kept in the attributes of the segmentation, where a saved scene keeps it too."""

from __future__ import annotations

import json

from slicer import vtkMRMLSegmentationNode

from LiverUNetLib.segmentation.result import Report, report_from_json

__all__ = ["MODEL_CHECKSUM", "REGION", "store", "stored"]

REPORT = "LiverUNet.Report"
REGION = "LiverUNet.Region"
MODEL_CHECKSUM = "LiverUNet.ModelChecksum"
# What a reader of the scene should see without parsing JSON: attribute -> field of the provenance.
PLAIN = {
    "LiverUNet.Model": "model",
    "LiverUNet.ModelVersion": "model_version",
    MODEL_CHECKSUM: "model_checksum",
    "LiverUNet.ModelLicense": "model_license",
}


def store(node: vtkMRMLSegmentationNode, result: Report) -> None:
    """Keep everything but the voxels."""
    for attribute, field in PLAIN.items():
        node.SetAttribute(attribute, getattr(result.provenance, field))
    node.SetAttribute(REPORT, json.dumps(result.to_json()))


def stored(node: vtkMRMLSegmentationNode) -> Report | None:
    """What was kept; None if there is nothing, or nothing that this version can read."""
    try:
        return report_from_json(json.loads(node.GetAttribute(REPORT) or "null"))
    except (ValueError, TypeError, KeyError):
        return None
