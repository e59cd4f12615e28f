"""Segment the liver in CT with a 2D U-Net; needs no Slicer.

    >>> from LiverUNetLib import choose_device, find_model, finish, segment
    >>> from LiverUNetLib.scan.phantom import abdomen, axial_affine
    >>> size = 100, 76, 48
    >>> scan, liver = abdomen(axial_affine((4.0, 4.0, 5.0), size), size[::-1])  # or read_volume(Path("CT.nii.gz"))
    >>> result = finish(segment(scan, find_model("liver-ct"), choose_device("cpu")))
    >>> result.mask_kji.shape == scan.hu_kji.shape
    True
    >>> round(result.measurement.volume_ml / (liver.sum() * scan.voxel_ml), 1)
    1.0

A generator such as `segment` yields Progress; `finish` runs it to its end. A mask is written by `write_mask`, on the
grid of its scan. Where things are, along the way of the data:

scan/          a CT comes in, a mask goes out
models/        what a model is, and where models are
segmentation/  from HU to a liver, its measures and warnings; one scan or many
system/        the machine: devices, files, packages
cli/           the command line
doctor.py      what a bug report needs
steps.py       work in steps, for progress bars and event loops
errors.py      everything that is raised on purpose
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .models.store import find_model
    from .scan.formats import read_volume, write_mask, write_volume
    from .segmentation.pipeline import segment
    from .steps import finish
    from .system.environment import choose_device

__all__ = ["choose_device", "find_model", "finish", "read_volume", "segment", "write_mask", "write_volume"]

# Nothing leaves this computer. The builds of ONNX Runtime keep an identifier of the computer and send events to
# Microsoft, unless this is set before it is imported (its Privacy.md).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Imported when they are asked for: importing the library alone takes no time.
HOMES = {
    "choose_device": "system.environment",
    "find_model": "models.store",
    "finish": "steps",
    "read_volume": "scan.formats",
    "segment": "segmentation.pipeline",
    "write_mask": "scan.formats",
    "write_volume": "scan.formats",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
