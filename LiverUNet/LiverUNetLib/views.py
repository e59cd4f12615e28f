"""The same volume cut in three directions: one network sees each, and their probabilities are averaged.

Neighbouring axial slices know little of each other; where one view is in doubt, the others seldom are.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

__all__ = ["THICKEST_SLICE_MM", "VIEWS", "assemble", "cut", "isotropic", "usable_views"]

# Which axes of the model grid (slices, rows, columns) become slices, rows and columns of a view.
VIEWS = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
# Slices farther apart show nothing but steps from the front or the side.
THICKEST_SLICE_MM = 5.0


def usable_views(views: tuple[str, ...], slice_mm: float) -> tuple[str, ...]:
    """Those of a model's views that a scan with slices at this distance can show."""
    return views if slice_mm <= THICKEST_SLICE_MM else views[:1]


def isotropic(volume: np.ndarray, slice_mm: float, pixel_mm: float) -> np.ndarray:
    """Interpolate the slices of the model grid to the distance of its pixels, outer edges aligned; float32."""
    return _resampled(volume, max(round(len(volume) * slice_mm / pixel_mm), 1))


def cut(cube: np.ndarray, view: str) -> np.ndarray:
    """Slices of a view, (slices, rows, columns) as a view of memory, of an isotropic volume; heads are up."""
    turned = cube.transpose(VIEWS[view])
    return turned if view == "axial" else turned[:, ::-1]


def assemble(slices: np.ndarray, view: str, length: int) -> np.ndarray:
    """The reverse of `isotropic` and `cut`: back on the model grid with `length` slices; float32."""
    cube = (slices if view == "axial" else slices[:, ::-1]).transpose(np.argsort(VIEWS[view]))
    return _resampled(cube, length)


def _resampled(volume: np.ndarray, slices: int) -> np.ndarray:
    volume = volume.astype(np.float32, copy=False)
    if slices == len(volume):
        return volume
    factor = (slices / len(volume), 1, 1)
    return ndimage.zoom(volume, factor, order=1, grid_mode=True, mode="nearest")
