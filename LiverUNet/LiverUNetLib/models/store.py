"""The installed models: those that ship with LiverUNet, and those that the user has added."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ModelError
from ..system.files import exists
from .folder import METADATA, LiverModel, open_model

__all__ = ["DEFAULT_MODEL", "find_model", "list_models", "model_folders", "resource_folder"]

DEFAULT_MODEL = "liver-ct"


def resource_folder() -> Path:
    """The folder `Resources`: inside the library in a wheel, beside it in a source tree and in Slicer."""
    library = Path(__file__).parents[1]
    inside = library / "Resources"
    return inside if inside.is_dir() else library.parent / "Resources"


def model_folders() -> list[Path]:
    """The folders that are searched for models: first that of the bundled ones, then the user's own.

    The user's is `~/.liver-unet/models`, or the value of the variable LIVER_UNET_MODELS. It is never
    inside the installation, which an update replaces.
    """
    own = os.environ.get("LIVER_UNET_MODELS")
    return [resource_folder() / "Models", Path(own) if own else Path.home() / ".liver-unet" / "models"]


def list_models() -> dict[str, LiverModel | ModelError]:
    """All installed models by the names of their folders; for a broken one, its error."""
    models: dict[str, LiverModel | ModelError] = {}
    for name, folder in _installed().items():
        try:
            models[name] = open_model(folder)
        except ModelError as error:
            models[name] = error
    return models


def find_model(name_or_folder: str) -> LiverModel:
    """The installed model of that name, or the one in that folder.

    Raises:
        ModelError: there is neither, or it is broken.
    """
    folders = _installed()
    if name_or_folder in folders:
        return open_model(folders[name_or_folder])
    if exists(Path(name_or_folder) / METADATA, ModelError):
        return open_model(Path(name_or_folder))
    known = ", ".join(folders) or "none"
    raise ModelError(f"There is no model {name_or_folder!r}: neither installed (known: {known}) nor a model folder.")


def _installed() -> dict[str, Path]:
    """Name -> folder of every installed model; none is opened. A bundled model hides one of the user's of its name."""
    folders: dict[str, Path] = {}
    for parent in model_folders():
        for metadata in sorted(parent.glob(f"*/{METADATA}")):
            folders.setdefault(metadata.parents[1].name, metadata.parents[1])
    return folders
