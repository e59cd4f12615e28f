"""Read DICOM attributes as numbers and text, as they occur in real files."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import MutableSequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pydicom

__all__ = ["BadAttribute", "bad_value", "numbers", "raw_text", "reason", "text", "unreadable"]

# Longer values and reasons are cut in messages.
LONGEST_VALUE = 120


class BadAttribute(Exception):
    """The message names the attribute and its value."""


def unreadable(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """The exceptions that pydicom raises for damaged files, and those given."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (
        ArithmeticError,
        AttributeError,
        BytesLengthException,
        EOFError,
        InvalidDicomError,
        LookupError,
        MemoryError,
        NotImplementedError,
        OSError,
        TypeError,
        ValueError,
        struct.error,
        zlib.error,
        *more,
    )


def reason(error: Exception) -> str:
    """The last line of an error's message; its type if there is none."""
    lines = str(getattr(error, "strerror", None) or error).strip().splitlines()
    return shortened(lines[-1]) if lines else type(error).__name__


def shortened(value: str) -> str:
    """A text of at most LONGEST_VALUE characters."""
    return value if len(value) <= LONGEST_VALUE else f"{value[:LONGEST_VALUE]}..."


def numbers(dataset: pydicom.Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Decimal strings as numbers; None if the attribute is missing. A comma is read as a decimal point.

    Raises:
        BadAttribute: the values are not numbers, not finite, or not `count` many.
    """
    stated = raw_text(dataset, keyword)
    if not stated:
        return None
    try:
        values = tuple(float(value.replace(",", ".")) for value in stated.split("\\"))
    except ValueError as error:
        raise bad_value(dataset, keyword) from error
    if len(values) != count or not all(map(math.isfinite, values)):
        raise bad_value(dataset, keyword)
    return values


def bad_value(dataset: pydicom.Dataset, keyword: str) -> BadAttribute:
    """The error for an attribute whose value cannot be used."""
    return BadAttribute(f"attribute {keyword} holds {shortened(raw_text(dataset, keyword))}")


def raw_text(dataset: pydicom.Dataset, keyword: str) -> str:
    """A decimal string as stored: pydicom would refuse one with a comma."""
    element = dataset.get_item(keyword)
    value = None if element is None else element.value
    return _stripped(value.decode("latin-1") if isinstance(value, bytes) else value)


def text(dataset: pydicom.Dataset, keyword: str) -> str:
    """An attribute as text; empty if it is missing, as stored if pydicom refuses it."""
    try:
        return _stripped(dataset.get(keyword))
    except unreadable():
        return raw_text(dataset, keyword)


def _stripped(value: object) -> str:
    values = value if isinstance(value, MutableSequence) else [value]
    return "\\".join(str(one) for one in values if one is not None).strip(" \0")
