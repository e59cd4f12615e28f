"""The measurements of a run, kept in attributes of its segmentation, which are saved with the scene."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from slicer import vtkMRMLSegmentationNode

from LiverUNetLib.segmentation.measurement import Measurement
from LiverUNetLib.segmentation.pipeline import Segmentation
from LiverUNetLib.system.files import from_json

__all__ = ["MODEL_CHECKSUM", "REGION", "StoredResult", "store", "stored"]

REPORT = "LiverUNet.Report"
REGION = "LiverUNet.Region"
MODEL_CHECKSUM = "LiverUNet.ModelChecksum"
# Readable without parsing JSON: attribute -> key of the provenance.
PLAIN = {
    "LiverUNet.Model": "model",
    "LiverUNet.ModelVersion": "model_version",
    MODEL_CHECKSUM: "model_checksum",
    "LiverUNet.ModelLicense": "model_license",
}


@dataclass(frozen=True)
class StoredResult:
    """A `Segmentation` without its mask."""

    measurement: Measurement
    warnings: tuple[str, ...]
    provenance: dict[str, Any]


def store(node: vtkMRMLSegmentationNode, result: Segmentation) -> None:
    """Keep everything but the mask."""
    for attribute, key in PLAIN.items():
        node.SetAttribute(attribute, str(result.provenance[key]))
    node.SetAttribute(REPORT, json.dumps(result.report()))


def stored(node: vtkMRMLSegmentationNode) -> StoredResult | None:
    """The result that was kept; None if there is none, or none that this version can read."""
    try:
        report = json.loads(node.GetAttribute(REPORT) or "null")
        measurement = from_json(Measurement, report["measurement"])
        return StoredResult(measurement, tuple(report["warnings"]), report["provenance"])
    except (ValueError, TypeError, KeyError):
        return None
