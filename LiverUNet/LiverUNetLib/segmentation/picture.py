"""Draw masks on slices of a scan."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..scan.volume import CTVolume
from ..system.files import staged
from .grid import canonical_scan, canonical_view

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_montage", "write_figure"]

COLORS = ("#dd8265", "#4fc3f7")  # the liver's color in Slicer, and a contrasting one
WINDOW_HU = (-160, 240)


def draw_montage(volume: CTVolume, masks: dict[str, np.ndarray], *, title: str = "", tiles: int = 12) -> Figure:
    """Draw axial slices at equal distances through the masks, with each mask as a named outline.

    Args:
        masks: name -> mask of the scan's shape, at most two.
    """
    from matplotlib.figure import Figure

    hu, grid = canonical_scan(volume)
    outlines = {name: canonical_view(mask, volume.affine) for name, mask in masks.items()}
    shown = np.flatnonzero(sum(mask.any(axis=(1, 2)) for mask in outlines.values()))
    first, last = (shown[0], shown[-1]) if shown.size else (0, len(hu) - 1)
    slices = np.unique(np.linspace(first, last, tiles).round().astype(int))
    columns = 4
    rows = -(-len(slices) // columns)
    _, row_mm, column_mm = grid.spacing_mm
    figure = Figure(figsize=(3 * columns, 2.6 * rows + 0.5), facecolor="black", layout="constrained")
    figure.suptitle(title, color="white")
    for n, k in enumerate(reversed(slices)):
        axes = figure.add_subplot(rows, columns, n + 1)
        axes.imshow(hu[k], cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], aspect=row_mm / column_mm)
        for color, mask in zip(COLORS, outlines.values(), strict=False):
            if mask[k].any() and not mask[k].all():
                axes.contour(mask[k], [0.5], colors=color, linewidths=1.2)
        axes.set_title(f"slice {k + 1}", color="gray", fontsize=8)
        axes.axis("off")
    for n, (color, name) in enumerate(zip(COLORS, outlines, strict=False)):
        figure.text(0.01 + 0.2 * n, 0.985, name, color=color, va="top", weight="bold")
    return figure


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, completely or not at all."""
    buffer = io.BytesIO()  # Python writes the bytes, since PIL does not report a full disk at the last ones
    figure.savefig(buffer, dpi=100, format="png")
    with staged(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
