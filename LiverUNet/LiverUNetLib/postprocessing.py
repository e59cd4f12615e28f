"""One liver out of a probability volume."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .measurement import bounding_box

__all__ = ["fill_holes", "largest_component", "without_other_components"]


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest part of a 3D mask whose voxels share faces; empty if the mask is."""
    labels, parts = ndimage.label(mask)
    if parts < 2:
        return mask
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])


def without_other_components(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Set the probability to 0 in all components above `threshold` but the largest one.

    What lies below the threshold stays, so that the border can still be interpolated.
    """
    found = probability > threshold
    box = bounding_box(found)
    if box is None:
        return probability
    cleaned = probability.copy()
    cleaned[box][found[box] & ~largest_component(found[box])] = 0
    return cleaned


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill the background that a 3D mask encloses on all sides."""
    labels, parts = ndimage.label(np.pad(~mask, 1, constant_values=True))
    # The padding makes everything outside one component, and it comes first.
    return mask if parts < 2 else (labels != 1)[1:-1, 1:-1, 1:-1]
