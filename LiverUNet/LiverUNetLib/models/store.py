"""The models that are there: those that ship with LiverUNet, and what the user has added."""

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
    """Where models are looked for: the bundled ones, then the user's own.

    The user's are in `~/.liver-unet/models`, or where the variable LIVER_UNET_MODELS says; never
    inside the installation, which an update replaces.
    """
    own = os.environ.get("LIVER_UNET_MODELS")
    return [resource_folder() / "Models", Path(own) if own else Path.home() / ".liver-unet" / "models"]


def list_models() -> dict[str, LiverModel | ModelError]:
    """All installed models by the names of their folders; a broken one as its error."""
    models: dict[str, LiverModel | ModelError] = {}
    for parent in model_folders():
        for path in sorted(parent.glob(f"*/{METADATA}")):
            folder = path.parent.parent
            try:
                models.setdefault(folder.name, open_model(folder))
            except ModelError as error:
                models.setdefault(folder.name, error)
    return models


def find_model(name_or_folder: str) -> LiverModel:
    """The installed model of that name, or the one in that folder.

    Raises:
        ModelError: there is neither, or it is broken.
    """
    models = list_models()
    if name_or_folder in models:
        model = models[name_or_folder]
        if isinstance(model, ModelError):
            raise model
        return model
    if exists(Path(name_or_folder) / METADATA, ModelError):
        return open_model(Path(name_or_folder))
    known = ", ".join(models) or "none"
    raise ModelError(f"There is no model {name_or_folder!r}: neither installed (known: {known}) nor a model folder.")
