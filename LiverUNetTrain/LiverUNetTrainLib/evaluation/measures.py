"""The measures of agreement in the order in which they are shown, with title, unit, format and which way is better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from LiverUNetLib.models.scores import Figures

__all__ = ["MAIN_MEASURES", "MEASURES", "Measure"]


@dataclass(frozen=True)
class Measure:
    """How a field of `MaskScores` is shown and judged.

    Attributes:
        name: of the field; also a column of CSV and JSON.
        unit: "mm", "ml", "%", or empty for a share.
        number_format: of its numbers, see Python's format specification.
        better: "high", "low", "zero" for errors, or empty for what is neither good nor bad.
        short_heading: its heading where columns are narrow; empty if it is not shown there.
        main: it is among the few that are shown first and compared.
        drawn: it has a bar chart in the report.
    """

    name: str
    title: str
    unit: str
    number_format: str
    better: str
    short_heading: str = ""
    main: bool = False
    drawn: bool = False

    @property
    def heading(self) -> str:
        """The title with its unit, but for percent, which `text` puts after the number."""
        return self.title if self.unit in ("", "%") else f"{self.title} {self.unit}"

    def number(self, value: float | None) -> str:
        """A value as it is shown under a heading with the unit; empty if there is none."""
        return "" if value is None else format(value, self.number_format)

    def text(self, value: float | None) -> str:
        """A value as it is shown under `heading`; empty if there is none."""
        return f"{self.number(value)} %" if self.unit == "%" and value is not None else self.number(value)

    def mean_text(self, figures: Figures | None) -> str:
        """The mean as it is shown under `heading`, of errors that of their sizes; empty if there is none."""
        if figures is None:
            return ""
        if figures.mean_absolute is None:
            return self.text(figures.mean)
        return f"{self.text(figures.mean_absolute).removeprefix('+')} (absolute)"

    def worst(self, values: np.ndarray) -> float | None:
        """The worst of several values; None if none is better than another."""
        if not self.better:
            return None
        return float({"high": values.min(), "low": values.max(), "zero": values[np.abs(values).argmax()]}[self.better])


MEASURES = (
    Measure("dice", "Dice", "", ".4f", "high", "Dice", main=True, drawn=True),
    Measure("jaccard", "Jaccard", "", ".4f", "high"),
    Measure("precision", "precision", "", ".4f", "high"),
    Measure("recall", "recall", "", ".4f", "high"),
    Measure("hd95_mm", "HD95", "mm", ".2f", "low", "HD95 mm", main=True, drawn=True),
    Measure("assd_mm", "ASSD", "mm", ".2f", "low", "ASSD mm", main=True),
    Measure("surface_dice_1mm", "surface Dice 1 mm", "", ".3f", "high", "NSD 1 mm"),
    Measure("surface_dice_3mm", "surface Dice 3 mm", "", ".3f", "high", "NSD 3 mm", main=True),
    Measure("volume_ml", "volume", "ml", ".0f", "", "ml"),
    Measure("reference_ml", "reference volume", "ml", ".0f", ""),
    Measure("volume_error_ml", "volume error", "ml", "+.0f", "zero", "error ml"),
    Measure("volume_error_percent", "volume error", "%", "+.1f", "zero", "error %", main=True, drawn=True),
)
MAIN_MEASURES = tuple(measure for measure in MEASURES if measure.main)
