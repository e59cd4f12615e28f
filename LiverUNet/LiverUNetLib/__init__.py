"""Segment the liver in CT with two small U-Nets; needs no Slicer.

    >>> from LiverUNetLib import choose_device, find_model, finish, segment
    >>> from LiverUNetLib.scan.phantom import abdomen, axial_affine
    >>> shape_ijk = 128, 100, 48
    >>> scan, liver = abdomen(axial_affine((3.0, 3.0, 5.0), shape_ijk), shape_ijk[::-1])
    >>> result = finish(segment(scan, find_model("liver-ct"), choose_device("cpu")))
    >>> bool(2 * (result.mask_kji & liver).sum() > 0.9 * (result.mask_kji.sum() + liver.sum()))  # Dice above 0.9
    True

`read_volume(Path("CT.nii.gz"))` reads your own scan, and `write_mask(Path("liver.nii.gz"), result.mask_kji, scan)`
writes its liver. `segment` is a generator that yields Progress; `finish` runs it to its end.

The files, in the order in which data pass through them:

scan/          reads a CT and writes its mask
models/        what a model consists of, and where models are installed
segmentation/  from HU to a liver with measurements and warnings, for one scan or many
system/        the machine: devices, files, packages
cli/           the command line
doctor.py      information for a bug report
steps.py       work in steps, for progress bars and event loops
types.py       names for shapes, spacings and boxes
errors.py      the errors that a user can fix
version.py     the version of the package, the extension and the bundled model
py.typed       marks the package as annotated, for type checkers
"""

from __future__ import annotations

import importlib
import os

TYPE_CHECKING = False  # type checkers treat it as True; importing typing for it would take longer than this file
if TYPE_CHECKING:
    from .errors import LiverUNetError
    from .models.folder import LiverModel
    from .models.store import find_model
    from .scan.formats import read_volume, write_mask, write_volume
    from .scan.volume import CTVolume
    from .segmentation.pipeline import segment
    from .segmentation.result import Segmentation
    from .steps import Progress, finish
    from .system.environment import Device, choose_device
    from .version import __version__

__all__ = [
    "CTVolume",
    "Device",
    "LiverModel",
    "LiverUNetError",
    "Progress",
    "Segmentation",
    "__version__",
    "choose_device",
    "find_model",
    "finish",
    "read_volume",
    "segment",
    "write_mask",
    "write_volume",
]

# Nothing leaves this computer. Unless this is set before its import, ONNX Runtime stores an identifier of the computer
# and sends events to Microsoft (see its Privacy.md).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Imported on first use, so that importing the library itself is fast.
HOMES = {
    "CTVolume": "scan.volume",
    "Device": "system.environment",
    "LiverModel": "models.folder",
    "LiverUNetError": "errors",
    "Progress": "steps",
    "Segmentation": "segmentation.result",
    "__version__": "version",
    "choose_device": "system.environment",
    "find_model": "models.store",
    "finish": "steps",
    "read_volume": "scan.formats",
    "segment": "segmentation.pipeline",
    "write_mask": "scan.formats",
    "write_volume": "scan.formats",
}


if not TYPE_CHECKING:  # which would take it for a promise that every name is there

    def __getattr__(name: str) -> object:
        if name not in HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f".{HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
