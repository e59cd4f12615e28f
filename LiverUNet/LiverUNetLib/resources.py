"""Find what ships with LiverUNet and what a person has added."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["model_folders", "resource_folder"]


def resource_folder() -> Path:
    """The folder `Resources`: inside this package in a wheel, beside it in a source tree and in Slicer."""
    inside = Path(__file__).parent / "Resources"
    return inside if inside.is_dir() else inside.parent.parent / "Resources"


def model_folders() -> list[Path]:
    """Where models are looked for: the bundled ones, then the user's own.

    The user's are in `~/.liver-unet/models`, or where the variable LIVER_UNET_MODELS says; never
    inside the installation, which an update replaces.
    """
    own = os.environ.get("LIVER_UNET_MODELS")
    return [resource_folder() / "Models", Path(own) if own else Path.home() / ".liver-unet" / "models"]
