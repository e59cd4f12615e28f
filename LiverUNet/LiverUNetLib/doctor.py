"""The doctor: information for a bug report. Every part is tested, and none that fails stops the others."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from .errors import LiverUNetError
from .models.folder import LiverModel
from .models.store import list_models
from .system.environment import HOW_TO_GET_TORCH, TRAINING_PACKAGES, check_devices, package_versions

__all__ = ["examine"]

FOR_COMMAND_LINE = ("tqdm",)


def examine() -> Iterator[str]:
    """Examine system, packages, devices and models; yield a line for each."""
    yield f"system       {platform.platform()}"
    versions = package_versions()
    for name, version in versions.items():
        yield f"{name:<12} {version}"
    yield from _advice(versions)
    try:
        for name, state in check_devices().items():
            yield f"device       {name}: {state}"
    except ImportError as error:
        yield f"device       not tried: {error}"
    for name, model in list_models().items():
        yield f"model        {name}: {model if isinstance(model, LiverUNetError) else _state(model)}"


def _advice(versions: dict[str, str]) -> Iterator[str]:
    """Name the missing packages, what needs them, and how to install them."""
    missing = [name for name, version in versions.items() if version == "not installed"]
    if needed := [name for name in missing if name not in (*TRAINING_PACKAGES, *FOR_COMMAND_LINE)]:
        yield f"missing      {', '.join(needed)}: install with pip; in Slicer, press Segment"
    if extra := [name for name in missing if name in TRAINING_PACKAGES]:
        yield (
            f"missing      {', '.join(extra)}: only training, reports and GPUs need them ({HOW_TO_GET_TORCH}; "
            "in Slicer, choose a GPU as device or use LiverUNetTrain)"
        )


def _state(model: LiverModel) -> str:
    try:
        model.check()
    except LiverUNetError as error:
        return str(error)
    except ImportError as error:
        return f"{model.card.version}, not tried: {error.name} is not installed"
    return f"{model.card.version}, weights verified, SHA-256 {model.card.checksum}"
