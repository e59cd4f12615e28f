"""Grids of samples in a scan, and interpolation from one grid to another.

All grids of a scan share its canonical axes, LPS: slices run to superior, rows to posterior, columns
to the patient's left. The scan's array is turned to them only by permuting and flipping its axes.
Positions are in mm from the scan's outer edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..scan.volume import CTVolume
from ..steps import Counts
from ..types import Box, Shape, Spacing, triple

if TYPE_CHECKING:
    from scipy import sparse

__all__ = [
    "Axis",
    "Grid",
    "body_slices",
    "canonical_scan",
    "canonical_view",
    "orientation_to_lps",
    "reoriented",
    "resample",
    "stored_indices",
]

# Fat is near -100 HU; everything below this is air or lung, also in data clipped at -160 HU.
BODY_HU = -130.0
# A slice with a smaller share of body is empty; even a newborn on the grid of a PET fills more.
EMPTY_SHARE = 0.01
# Slices of the result per step; memory is needed for one such slab at a time.
SLICES_AT_ONCE = 16


@dataclass(frozen=True)
class Axis:
    """Samples along an axis, each in the middle of a cell: `size` cells of `step_mm`, the first from `start_mm`."""

    start_mm: float
    step_mm: float
    size: int

    @property
    def stop_mm(self) -> float:
        """Where the last cell ends."""
        return self.start_mm + self.size * self.step_mm

    def part(self, cells: slice) -> Axis:
        """The axis of some of the cells."""
        return Axis(self.start_mm + cells.start * self.step_mm, self.step_mm, cells.stop - cells.start)

    def covered(self, step_mm: float) -> Axis:
        """Cells of another size that cover this axis from its start."""
        # With a tolerance, so that 100 cells of 0.1 mm are 10 cells of 1 mm.
        return Axis(self.start_mm, step_mm, max(math.ceil(self.size * self.step_mm / step_mm - 1e-6), 1))

    def cells(self, start_mm: float, stop_mm: float) -> slice:
        """The cells that overlap an interval, at least one."""
        start = math.floor((start_mm - self.start_mm) / self.step_mm + 1e-6)
        stop = math.ceil((stop_mm - self.start_mm) / self.step_mm - 1e-6)
        start = min(max(start, 0), self.size - 1)
        return slice(start, min(max(stop, start + 1), self.size))

    def weights(self, source: Axis, *, antialias: bool) -> tuple[slice, sparse.csr_array]:
        """Weights of linear interpolation from another axis.

        Beyond the ends of the source, its last sample is repeated.

        Args:
            antialias: if this axis is coarser than the source, average the samples around each new one.

        Returns:
            The range of source samples that are used, and a matrix of shape (samples of this axis, samples in range).
        """
        from scipy import sparse

        scale = self.step_mm / source.step_mm
        reach = max(scale, 1.0) if antialias else 1.0  # of a triangle around each new sample
        center = (self.start_mm - source.start_mm) / source.step_mm + (np.arange(self.size) + 0.5) * scale - 0.5
        # Farther out no sample would be in reach; here only the last one is.
        center = center.clip(1 - reach, source.size - 2 + reach)
        near = np.floor(center - reach).astype(int)[:, None] + np.arange(math.ceil(2 * reach) + 1)
        weight = np.maximum(1 - abs(near - center[:, None]) / reach, 0) * ((near >= 0) & (near < source.size))
        weight /= weight.sum(axis=1, keepdims=True)
        counts = near[weight > 0]
        used = slice(int(counts.min()), int(counts.max()) + 1)
        places = (
            np.repeat(np.arange(self.size), near.shape[1]),
            (near.clip(used.start, used.stop - 1) - used.start).ravel(),
        )
        matrix = sparse.csr_array(
            (weight.ravel().astype(np.float32), places), shape=(self.size, used.stop - used.start)
        )
        matrix.eliminate_zeros()
        return used, matrix


@dataclass(frozen=True)
class Grid:
    """Samples in a scan."""

    slices: Axis
    rows: Axis
    columns: Axis

    @property
    def axes(self) -> tuple[Axis, Axis, Axis]:
        """Slices, rows, columns."""
        return self.slices, self.rows, self.columns

    @property
    def shape(self) -> Shape:
        """Shape of an array of its samples."""
        return triple(axis.size for axis in self.axes)

    @property
    def spacing_mm(self) -> Spacing:
        """Distance of its samples along each axis."""
        return triple(axis.step_mm for axis in self.axes)

    @property
    def voxel_ml(self) -> float:
        """The volume of one cell."""
        return math.prod(self.spacing_mm) / 1000

    @property
    def whole(self) -> Box:
        """The box of the whole grid."""
        return triple(slice(0, axis.size) for axis in self.axes)

    def part(self, box: Box) -> Grid:
        """The grid of a box."""
        return Grid(*(axis.part(cells) for axis, cells in zip(self.axes, box, strict=True)))

    def around(self, other: Grid, box: Box, margin_mm: float) -> Box:
        """The box of this grid that covers a box of another grid with a margin, clipped to this grid."""
        parts = zip(self.axes, (axis.part(cells) for axis, cells in zip(other.axes, box, strict=True)), strict=True)
        return triple(axis.cells(part.start_mm - margin_mm, part.stop_mm + margin_mm) for axis, part in parts)

    def cubes(self, side_mm: float) -> Grid:
        """A grid of cubes that covers this grid."""
        return Grid(*(axis.covered(side_mm) for axis in self.axes))

    def pixels(self, pixel_mm: float, slice_mm: float) -> Grid:
        """A grid of pixels that covers this grid; blocks of slices, at most `slice_mm` thick, become one slice."""
        # With a tolerance, so that slices of 1.0000001 mm are still averaged in pairs on a grid of 2 mm.
        block = min(max(int(slice_mm / self.slices.step_mm + 1e-3), 1), self.slices.size)
        return Grid(
            self.slices.covered(block * self.slices.step_mm),
            self.rows.covered(pixel_mm),
            self.columns.covered(pixel_mm),
        )


def canonical_scan(volume: CTVolume) -> tuple[np.ndarray, Grid]:
    """The HU of a scan with canonical axes (a view), and its grid."""
    hu = canonical_view(volume.hu_kji, volume.affine)
    steps_ijk = np.array(volume.spacing_kji_mm[::-1])
    # Row n of the orientation says which LPS axis the axis n of (i, j, k) becomes; argsort inverts it.
    steps = steps_ijk[np.argsort(orientation_to_lps(volume.affine)[:, 0])][::-1]
    return hu, Grid(*(Axis(0.0, float(step), size) for step, size in zip(steps, hu.shape, strict=True)))


def canonical_view(array_kji: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """A view of an array (k, j, i) with canonical axes; writing to the view writes to the array."""
    return reoriented(array_kji, orientation_to_lps(affine))


def stored_indices(volume: CTVolume, point_mm: tuple[float, float, float]) -> np.ndarray:
    """The indices i, j, k, not rounded, of a point of a canonical scan, told along its slices, rows and columns."""
    from nibabel.orientations import inv_ornt_aff

    orientation = orientation_to_lps(volume.affine)
    _, scan = canonical_scan(volume)
    cells = [place / axis.step_mm - 0.5 for place, axis in zip(point_mm, scan.axes, strict=True)]
    indices: np.ndarray = (inv_ornt_aff(orientation, volume.hu_kji.shape[::-1]) @ [*cells[::-1], 1])[:3]
    return indices


def body_slices(hu: np.ndarray) -> slice:
    """The slices of a canonical scan without empty ones at its ends; all slices if all are empty."""
    # Every fourth pixel is enough.
    shown = np.flatnonzero([np.mean(part > BODY_HU) > EMPTY_SHARE for part in hu[:, ::4, ::4]])
    return slice(int(shown[0]), int(shown[-1]) + 1) if shown.size else slice(0, len(hu))


def orientation_to_lps(affine: np.ndarray) -> np.ndarray:
    """Nibabel's orientation array (3, 2) from the i, j, k of an affine (to RAS) to the nearest LPS axes."""
    from nibabel import orientations

    nearest = orientations.io_orientation(affine)
    orientation: np.ndarray = orientations.ornt_transform(nearest, orientations.axcodes2ornt("LPS"))
    return orientation


def reoriented(array_kji: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """A view of an array (k, j, i) with i, j, k permuted and flipped by an `orientation` (3, 2)."""
    from nibabel.orientations import apply_orientation

    view: np.ndarray = apply_orientation(array_kji.T, orientation).T
    return view


def resample(
    values: np.ndarray,
    source: Grid,
    target: Grid,
    *,
    clip: tuple[float, float] | None = None,
    antialias: bool = True,
    finish: Callable[[np.ndarray], np.ndarray] = lambda slab: slab,
) -> Counts[np.ndarray]:
    """Interpolate linearly from one grid to another, see `Axis.weights`; count slices.

    The work is done in slabs; no full-size copy of `values` is made.

    Args:
        values: on `source`, (slices, rows, columns), any real dtype.
        clip: range to which values are clipped before they are averaged, so that a scan clipped beforehand gives
            the same result.
        finish: applied to the float32 values of each slab, for example a threshold.

    Returns:
        The values on `target`.
    """
    result = np.empty(target.shape, finish(np.empty((0, 0, 0), np.float32)).dtype)
    used_rows, rows = target.rows.weights(source.rows, antialias=antialias)
    used_columns, columns = target.columns.weights(source.columns, antialias=antialias)
    for first in range(0, target.slices.size, SLICES_AT_ONCE):
        last = min(first + SLICES_AT_ONCE, target.slices.size)
        part = target.slices.part(slice(first, last))
        used_slices, slices = part.weights(source.slices, antialias=antialias)
        slab = values[used_slices, used_rows, used_columns].astype(np.float32)
        if clip:
            np.clip(slab, *clip, out=slab)
        result[first:last] = finish(_along_first(columns, _along_first(rows, _along_first(slices, slab))))
        yield last, target.slices.size
    return result


def _along_first(weights: sparse.csr_array, values: np.ndarray) -> np.ndarray:
    """Interpolate along the first of three axes, which becomes the last; after three calls the order is as before."""
    mixed: np.ndarray = weights @ values.reshape(len(values), -1)
    return mixed.reshape(-1, *values.shape[1:]).transpose(1, 2, 0)
