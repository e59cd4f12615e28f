"""Types that hold one value for each axis of a scan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

__all__ = ["Box", "Shape", "Spacing", "triple"]

T = TypeVar("T")

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]
Box = tuple[slice, slice, slice]


def triple(values: Iterable[T]) -> tuple[T, T, T]:
    """Return three values as a tuple; raise ValueError if there are more or fewer."""
    first, second, third = values
    return first, second, third
