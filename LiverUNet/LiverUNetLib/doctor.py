"""The doctor: what a bug report needs, each part tried and none fatal."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from .environment import package_versions, proved_devices
from .errors import LiverUNetError
from .model import LiverModel, list_models

__all__ = ["examine"]


def examine() -> Iterator[str]:
    """Look at system, packages, devices and models; yields a line for each thing."""
    yield f"system       {platform.platform()}"
    for name, version in package_versions().items():
        yield f"{name:<12} {version}"
    try:
        for name, state in proved_devices().items():
            yield f"device       {name}: {state}"
    except ImportError as error:
        yield f"device       not tried: {error}"
    for name, model in list_models().items():
        yield f"model        {name}: {model if isinstance(model, LiverUNetError) else _state(model)}"


def _state(model: LiverModel) -> str:
    try:
        model.check()
    except (LiverUNetError, ImportError) as error:
        return str(error)
    return f"{model.card.version}, weights verified, SHA-256 {model.card.checksum}"
