"""The parts of Slicer that slicer-core lacks and the logic needs: base classes, translation, settings, dialogs.

The scene and its nodes are Slicer's real MRML. Panels are tested in a real Slicer, see `in_slicer`.
"""

import sys
import types
from pathlib import Path

import slicer
import vtk

__all__ = ["install", "new_scene"]

REPOSITORY = Path(__file__).resolve().parent.parent


class Base:
    """The base class of a module, a logic or a widget."""

    def __init__(self, parent=None):
        self.parent = parent


class Settings(dict):
    """The settings of the application."""

    value = dict.get
    setValue = dict.__setitem__


class Application:
    """Answers every question with `answer`; `asked` and `shown` record the texts of questions and errors."""

    applicationVersion = "5.12 (slicer-core)"

    def __init__(self):
        self.settings, self.testing, self.answer, self.asked, self.shown = Settings(), False, True, [], []

    def testingEnabled(self):
        return self.testing

    def userSettings(self):
        return self.settings

    def layoutManager(self):
        """None, as in Slicer without a main window."""
        return

    def confirm(self, text, *_args, **_options):
        self.asked.append(text)
        return self.answer

    def show(self, text, *_args, **_options):
        self.shown.append(text)


def install():
    """Complete `slicer` for logic and nodes, with a new application without settings."""
    slicer.app, slicer.modules = Application(), types.SimpleNamespace()
    slicer.util.confirmOkCancelDisplay = slicer.util.confirmYesNoDisplay = slicer.app.confirm
    slicer.util.errorDisplay = slicer.app.show
    if "slicer.ScriptedLoadableModule" in sys.modules:
        return
    sys.path[:0] = [str(REPOSITORY / name) for name in ("LiverUNet", "LiverUNetTrain")]
    loadable = types.ModuleType("slicer.ScriptedLoadableModule")
    loadable.ScriptedLoadableModuleLogic = Base
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = lambda text: text
    wrapper = types.ModuleType("slicer.parameterNodeWrapper")
    wrapper.parameterNodeWrapper = lambda cls: cls
    sys.modules |= {module.__name__: module for module in (loadable, i18n, wrapper)}


def new_scene():
    """An empty scene in `slicer.mrmlScene`; it adds items to the subject hierarchy, as Slicer's Qt part does."""
    scene = slicer.mrmlScene = slicer.vtkMRMLScene()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    slicer.vtkSlicerSegmentationsModuleLogic().SetMRMLScene(scene)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def add_item(caller, event, node):
        shown = ("vtkMRMLVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLMarkupsNode", "vtkMRMLTableNode")
        if any(node.IsA(kind) for kind in shown):
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    scene.AddObserver(scene.NodeAddedEvent, add_item)
    return scene
