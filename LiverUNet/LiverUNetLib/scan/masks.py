"""Find the voxels inside a stored mask."""

from __future__ import annotations

import numpy as np

from ..errors import ScanError

__all__ = ["inside"]

# Rescaled labels differ less from whole numbers; a soft border differs more.
ROUNDING = 0.01
# Values 0 and 100, or 0 and 255, are a scale, not labels; few masks have so many labels.
SMALLEST_SCALE = 99
# A mask in bytes with a soft border has nearly all of the 256 values.
SOFT_BYTES = 128


def inside(values: np.ndarray, labels: tuple[int, ...] | None, name: str) -> tuple[np.ndarray, str]:
    """Return which voxels are inside a mask, and a note if its values had to be changed, otherwise "".

    Values that are not finite are outside. A soft border, as interpolation leaves it, is cut at half its height.

    Args:
        labels: the values inside; None for all but 0.

    Raises:
        ScanError: labels are given, but the mask holds fractions.
    """
    if not np.issubdtype(values.dtype, np.floating):
        if labels is None and _has_soft_bytes(values):
            return values > 127, _soft(name, 127.5)
        return (values != 0 if labels is None else np.isin(values, labels)), ""
    values = np.where(np.isfinite(values), values, np.float32(0))
    whole = np.rint(values)
    if np.abs(values - whole).max() <= ROUNDING:
        return (whole != 0 if labels is None else np.isin(whole, labels)), ""
    if labels is not None:
        raise ScanError(
            f"{name} holds fractions, as interpolation leaves them, so that the labels {', '.join(map(str, labels))} "
            "cannot be told apart; resample it again with nearest neighbors."
        )
    top = float(values.max())
    if not ((values > ROUNDING * top) & (values < (1 - ROUNDING) * top)).any():
        return values > top / 2, ""  # 0 and one other value
    cut = 0.5 if top < SMALLEST_SCALE else top / 2
    return values > cut, _soft(name, cut)


def _soft(name: str, cut: float) -> str:
    return f"{name} has a soft border, as interpolation leaves it; it is cut at {cut:g}."


def _has_soft_bytes(values: np.ndarray) -> bool:
    if values.dtype == bool or values.min() < 0 or values.max() != 255:
        return False
    found = np.zeros(256, dtype=bool)
    for slice_ in values:
        found |= np.bincount(slice_.ravel(), minlength=256) > 0
    return int(found.sum()) > SOFT_BYTES
