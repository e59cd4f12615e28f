"""The result of segmenting a scan: mask, measurements, warnings and provenance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..models.spec import ModelSpec, spec_from_json
from ..system.files import from_json
from .measurement import Measurement
from .signals import Signals
from .verdict import Verdict, verdict_from_json

__all__ = ["Provenance", "Report", "Segmentation", "report_from_json"]


@dataclass(frozen=True)
class Provenance:
    """How a segmentation was made.

    Attributes:
        scan: name of the scan.
        settings: the numbers of the model.
        engine, dtype: of the computed networks, see `Device`.
        packages: name -> version.
    """

    scan: str
    model: str
    model_version: str
    model_checksum: str
    model_license: str
    settings: ModelSpec
    device: str
    engine: str
    dtype: str
    seconds: float
    packages: dict[str, str]


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """A segmentation without its voxels.

    Attributes:
        warnings: for the user, before the result is used; full sentences, the verdict's reasons among them.
        signals: what the estimate of the Dice is made of; None if no liver was found.
    """

    measurement: Measurement
    verdict: Verdict
    signals: Signals | None
    warnings: tuple[str, ...]
    provenance: Provenance

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object, see `report_from_json`."""
        return {
            "schema_version": 1,
            "measurement": asdict(self.measurement),
            "verdict": self.verdict.to_json(),
            "signals": asdict(self.signals) if self.signals else None,
            "warnings": list(self.warnings),
            "provenance": asdict(self.provenance),
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class Segmentation(Report):
    """A segmented scan.

    Attributes:
        mask_kji: uint8, 1 is liver, on exactly the voxels of the scan.
        probability_kji: of liver, before one component was selected; uint8 in steps of 1/255; None unless requested.
    """

    mask_kji: np.ndarray
    probability_kji: np.ndarray | None


def report_from_json(content: dict[str, Any]) -> Report:
    """Make a Report from the JSON object of `Report.to_json`.

    Raises:
        KeyError, TypeError: something is missing or unknown.
    """
    made = content["provenance"]
    return Report(
        measurement=from_json(Measurement, content["measurement"]),
        verdict=verdict_from_json(content["verdict"]),
        signals=from_json(Signals, content["signals"]) if content["signals"] else None,
        warnings=tuple(content["warnings"]),
        provenance=from_json(Provenance, made | {"settings": spec_from_json(made["settings"])}),
    )
