"""The measurements of a run, kept in attributes of its segmentation, which are saved with the scene."""

from __future__ import annotations

import json

from slicer import vtkMRMLSegmentationNode

from LiverUNetLib.segmentation.result import Report, report_from_json

__all__ = ["MODEL_CHECKSUM", "REGION", "modelOf", "store", "stored"]

REPORT = "LiverUNet.Report"
REGION = "LiverUNet.Region"
MODEL, MODEL_VERSION, MODEL_CHECKSUM = "LiverUNet.Model", "LiverUNet.ModelVersion", "LiverUNet.ModelChecksum"
# Readable without parsing JSON: attribute -> field of the provenance.
PLAIN = {
    MODEL: "model",
    MODEL_VERSION: "model_version",
    MODEL_CHECKSUM: "model_checksum",
    "LiverUNet.ModelLicense": "model_license",
}


def store(node: vtkMRMLSegmentationNode, result: Report) -> None:
    """Keep everything but the mask."""
    for attribute, field in PLAIN.items():
        node.SetAttribute(attribute, getattr(result.provenance, field))
    node.SetAttribute(REPORT, json.dumps(result.to_json()))


def stored(node: vtkMRMLSegmentationNode) -> Report | None:
    """The result that was kept; None if there is none, or none that this version can read."""
    try:
        return report_from_json(json.loads(node.GetAttribute(REPORT) or "null"))
    except (ValueError, TypeError, KeyError):
        return None


def modelOf(node: vtkMRMLSegmentationNode) -> dict[str, str | None]:
    """The model that found the liver: its name, version and checksum; all None if a user drew it."""
    names = (MODEL, MODEL_VERSION, MODEL_CHECKSUM)
    return {name.removeprefix("LiverUNet."): node.GetAttribute(name) for name in names}
