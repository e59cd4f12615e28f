"""Interpolate stacks of slices in their plane."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy import sparse

__all__ = ["resample_plane"]


def resample_plane(slices: np.ndarray, size: tuple[int, int], *, antialias: bool = False) -> np.ndarray:
    """Interpolate slices linearly to another number of rows and columns, outer edges aligned.

    The same as torch's `interpolate(mode="bilinear")` with and without `antialias`.

    Args:
        slices: float32 (slices, rows, columns).
        size: rows and columns of the result.
        antialias: where pixels get larger, take the mean of all that they cover, as Pillow's `resize` does.

    Returns:
        float32 (slices, *size).
    """
    count, rows, columns = slices.shape
    # A sparse matrix times a wide dense one; the axis that is interpolated has to come first.
    tall = _weights(rows, size[0], antialias=antialias) @ slices.transpose(1, 0, 2).reshape(rows, count * columns)
    wide = _weights(columns, size[1], antialias=antialias) @ tall.reshape(size[0] * count, columns).T
    return wide.T.reshape(size[0], count, size[1]).transpose(1, 0, 2)


def _weights(length: int, size: int, *, antialias: bool) -> sparse.csr_array:
    """How much each of `length` pixels in a row counts for each of `size` pixels that cover the same row."""
    from scipy import sparse

    scale = length / size
    reach = max(scale, 1.0) if antialias else 1.0  # of a triangle around the centre of each new pixel
    centre = ((np.arange(size) + 0.5) * scale - 0.5)[:, None]
    source = np.floor(centre - reach).astype(int) + 1 + np.arange(math.ceil(2 * reach))
    weight = np.maximum(1 - abs(source - centre) / reach, 0) * ((source >= 0) & (source < length))
    weight /= weight.sum(axis=1, keepdims=True)
    target = np.broadcast_to(np.arange(size)[:, None], source.shape)
    places = (target.ravel(), source.clip(0, length - 1).ravel())
    return sparse.csr_array((weight.ravel().astype(np.float32), places), shape=(size, length))
