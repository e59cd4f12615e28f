"""A stand-in for what slicer-core lacks: the module classes, parameter nodes, application, and on request Qt widgets.

The scene and its nodes are Slicer's real MRML. Everything here only imitates API that Slicer 5.12
has; product code never knows.
"""

import sys
from pathlib import Path

import slicer

from . import application, mrml

__all__ = ["install", "install_qt"]

# The modules that Slicer loads, and their panels.
PANEL = (
    "LiverUNet",
    "LiverUNetTrain",
    *(f"{path.parent.name}.{path.stem}" for path in Path(__file__).parents[2].glob("*/*Panel/*.py")),
)


def install() -> None:
    """Make `slicer` complete enough for logic and nodes."""
    if "slicer.ScriptedLoadableModule" in sys.modules:
        return
    modules = Path(__file__).parents[2]
    sys.path[:0] = [str(modules / "LiverUNet"), str(modules / "LiverUNetTrain")]
    sys.modules |= mrml.modules()
    slicer.app = application.Application()
    slicer.modules = application.Modules()
    application.replace_dialogs(slicer.util)
    new_scene()


def new_scene() -> slicer.vtkMRMLScene:
    """An empty scene in `slicer.mrmlScene`; its subject hierarchy gets its items, which a part in Qt does in Slicer."""
    slicer.mrmlScene = mrml.new_scene()
    return slicer.mrmlScene


def install_qt() -> None:
    """Add `qt`, `ctk` and widgets on PySide6, whose properties behave as PythonQt's in the modules of the panel."""
    install()
    if "qt" in sys.modules:
        return
    from . import qt_modules, widgets  # first, since PySide6 brings shibokensupport

    from shibokensupport import feature

    # PySide6 reads the source of every loaded module, which torch's modules of classes do not survive.
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("torch.")}
    for name in PANEL:
        # Without this `button.enabled = False` would set an attribute of the Python object and nothing else.
        feature.set_selection(0x02, name)
    sys.modules |= hidden
    sys.modules |= qt_modules.modules()
    widgets.install(slicer)
