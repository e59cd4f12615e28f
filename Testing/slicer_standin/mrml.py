"""Module classes, translation and parameter nodes over Slicer's real scene."""

import sys
import types
import typing
import unittest

import slicer
import vtk
from slicer.util import VTKObservationMixin

__all__ = ["modules", "new_scene"]


def new_scene():
    scene = slicer.vtkMRMLScene()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    slicer.vtkSlicerSegmentationsModuleLogic().SetMRMLScene(scene)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def add_item(caller, event, node):
        shown = ("vtkMRMLVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLMarkupsNode", "vtkMRMLTableNode")
        if any(node.IsA(kind) for kind in shown):
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    scene.AddObserver(scene.NodeAddedEvent, add_item)
    return scene


def modules():
    """By the names that product code imports."""
    loadable = types.ModuleType("slicer.ScriptedLoadableModule")
    for each in (ScriptedLoadableModule, ScriptedLoadableModuleWidget, ScriptedLoadableModuleLogic):
        setattr(loadable, each.__name__, each)
    loadable.ScriptedLoadableModuleTest = unittest.TestCase
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = lambda text: text
    i18n.translate = lambda context, text: text
    wrapper = types.ModuleType("slicer.parameterNodeWrapper")
    wrapper.parameterNodeWrapper = parameter_node_wrapper
    return {module.__name__: module for module in (loadable, i18n, wrapper)}


class ScriptedLoadableModule:
    def __init__(self, parent):
        self.parent = parent


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self):
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag(self.moduleName)
            node.SetAttribute("ModuleName", self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        return node


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent
        self.layout = parent.layout() if parent else None

    def setup(self):
        pass

    def onReload(self):
        pass

    def resourcePath(self, name):
        folder = sys.modules[type(self).__module__].__file__
        return str(__import__("pathlib").Path(folder).parents[1] / "Resources" / name)


def parameter_node_wrapper(cls):
    """Properties that are kept in a vtkMRMLScriptedModuleNode: references of nodes, and text."""
    hints = typing.get_type_hints(cls)
    defaults = {name: getattr(cls, name, None) for name in hints}

    def init(self, node):
        self.parameterNode = node
        self._guis = []

    def field(name, hint):
        if hint is str:
            read = lambda self: self.parameterNode.GetParameter(name) or defaults[name]  # noqa: E731
            write = lambda self, value: self.parameterNode.SetParameter(name, value)  # noqa: E731
        else:
            read = lambda self: self.parameterNode.GetNodeReference(name)  # noqa: E731
            write = lambda self, node: self.parameterNode.SetNodeReferenceID(name, node.GetID() if node else None)  # noqa: E731
        return property(read, write)

    members = {name: field(name, hint) for name, hint in hints.items()}
    members |= {"__init__": init, "__doc__": cls.__doc__, "connectGui": connect_gui, "disconnectGui": disconnect_gui}
    for name in ("AddObserver", "RemoveObserver", "HasObserver"):
        members[name] = lambda self, *args, _name=name: getattr(self.parameterNode, _name)(*args)
    return type(cls.__name__, (), members)


def connect_gui(self, ui):
    """Bind node selectors by their dynamic property SlicerParameterName, both ways."""
    bound = {}
    for widget in vars(ui).values():
        name = widget.property("SlicerParameterName") if hasattr(widget, "currentNodeChanged") else None
        if name:
            bound[widget] = (name, lambda node, name=name: _changed(self, name, node))

    def show(*_):
        for widget, (name, _slot) in bound.items():
            widget.setCurrentNode(getattr(self, name))

    show()
    for widget, (_name, slot) in bound.items():
        widget.currentNodeChanged.connect(slot)
    observer = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, show)
    self._guis.append((bound, observer))
    return len(self._guis) - 1


def _changed(self, name, node):
    if getattr(self, name) is not node:
        setattr(self, name, node)


def disconnect_gui(self, tag):
    bound, observer = self._guis[tag]
    for widget, (_name, slot) in bound.items():
        widget.currentNodeChanged.disconnect(slot)
    self.parameterNode.RemoveObserver(observer)


slicer.util.VTKObservationMixin = VTKObservationMixin
