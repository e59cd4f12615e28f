"""Buttons that say what is missing."""

from __future__ import annotations

import qt

__all__ = ["enableOrSayWhy"]


def enableOrSayWhy(button: qt.QPushButton, missing: str, what: str) -> None:
    """Enable a button, whose tooltip then says what it does, or say in the tooltip what is missing."""
    button.enabled = not missing
    button.toolTip = missing or what
