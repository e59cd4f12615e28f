"""Which voxels of a stored mask are inside."""

from __future__ import annotations

import numpy as np

from ..errors import ScanError

__all__ = ["inside"]

# Labels that were rescaled are off by less; a soft border is not.
ROUNDING = 0.01
# Masks that are scaled rather than labelled are 0 and 100 or 0 and 255; few have as many labels.
SMALLEST_SCALE = 99
# A mask in bytes with a soft border has nearly all of the 256 values.
SOFT_BYTES = 128


def inside(values: np.ndarray, labels: tuple[int, ...] | None, name: str) -> tuple[np.ndarray, str]:
    """Say which voxels of a mask are inside, and what had to be done about its values, "" if nothing.

    What is not finite is outside. A soft border, as interpolation leaves it, is cut at half.

    Args:
        labels: the values that count; None for all but 0.

    Raises:
        ScanError: fractions where labels are to be told apart.
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
            "cannot be told apart; resample it again with nearest neighbours."
        )
    top = float(values.max())
    if not ((values > ROUNDING * top) & (values < (1 - ROUNDING) * top)).any():
        return values > top / 2, ""  # 0 and one other value, whatever it is
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
