"""Enable a button, or let its tooltip tell what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import qt

__all__ = ["enableOrSayWhy"]


def enableOrSayWhy(button: qt.QPushButton, missing: str, purpose: str) -> None:
    """Enable a button with its purpose as the tooltip, or disable it with what is missing as the tooltip."""
    button.enabled = not missing
    button.toolTip = missing or purpose
