"""Stand-ins for the custom widgets of a .ui file, and the loader that knows them."""

from types import SimpleNamespace
from xml.etree import ElementTree as ET

from PySide6 import QtCore, QtUiTools, QtWidgets

__all__ = ["install"]


class qMRMLWidget(QtWidgets.QWidget):
    """Hands its scene to its children; in Slicer the .ui file's connections do, which a test reads."""

    isEntered = True
    alive = []  # Slicer's panels live until it quits; one that Python collects in mid-event crashes Qt

    def __init__(self, parent=None):
        super().__init__(parent)
        self.alive.append(self)

    def setMRMLScene(self, scene):
        for child in self.findChildren(qMRMLNodeComboBox):
            child.setMRMLScene(scene)


class ctkCollapsibleButton(QtWidgets.QWidget):
    """A header that hides what is below it."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._text, self._collapsed = "", False
        self._header = QtWidgets.QPushButton(self)
        self._header.setFlat(True)
        self._header.setStyleSheet("text-align: left; font-weight: bold; background: palette(mid)")
        self._header.clicked.connect(lambda: self._collapse(not self._collapsed))

    def _collapse(self, collapsed):
        self._collapsed = collapsed
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget) and child is not self._header:
                child.setVisible(not collapsed)
        self._show()

    def _show(self):
        self._header.setText(("+ " if self._collapsed else "− ") + self._text)

    def resizeEvent(self, event):
        height = self._header.sizeHint().height()
        self._header.setGeometry(0, 0, self.width(), height)
        if self.layout():
            self.layout().setContentsMargins(4, height + 4, 4, 4)
        if self._collapsed:
            self._collapse(True)

    def _set_text(self, text):
        self._text = text
        self._show()

    text = QtCore.Property(str, lambda self: self._text, _set_text)
    collapsed = QtCore.Property(bool, lambda self: self._collapsed, _collapse)


class ctkPathLineEdit(QtWidgets.QLineEdit):
    currentPathChanged = QtCore.Signal(str)

    def __init__(self, parent=None):
        super().__init__(parent)
        self.textChanged.connect(self.currentPathChanged)

    currentPath = QtCore.Property(str, QtWidgets.QLineEdit.text, QtWidgets.QLineEdit.setText)


class qMRMLSegmentationShow3DButton(QtWidgets.QPushButton):
    def __init__(self, parent=None):
        super().__init__("Show 3D", parent)
        self.node = None

    def setSegmentationNode(self, node):
        self.node = node


class qMRMLNodeComboBox(QtWidgets.QComboBox):
    """Lists the nodes of its types; has a line for none if `noneEnabled`."""

    currentNodeChanged = QtCore.Signal(object)
    nodeAddedByUser = QtCore.Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene, self._nodes, self._filling = None, [], False
        self.currentIndexChanged.connect(self._changed)

    def setMRMLScene(self, scene):
        self._scene = scene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent):
            scene.AddObserver(event, self._fill)
        self._fill()

    def currentNode(self):
        return self._nodes[self.currentIndex()] if 0 <= self.currentIndex() < len(self._nodes) else None

    def setCurrentNode(self, node):
        index = self._nodes.index(node) if node in self._nodes else -1
        if index != self.currentIndex():
            self.setCurrentIndex(index)

    def _fill(self, *_):
        before, self._filling = self.currentNode(), True
        self.clear()
        kinds = self.property("nodeTypes") or []
        found = [self._scene.GetNthNodeByClass(n, kind) for kind in kinds for n in range(_count(self._scene, kind))]
        if not self.property("showChildNodeTypes"):
            found = [node for node in found if node.GetClassName() in kinds]
        self._nodes = ([None] if self.property("noneEnabled") else []) + found
        for node in self._nodes:
            self.addItem(node.GetName() if node else self.property("noneDisplay") or "None")
        self.setCurrentIndex(self._nodes.index(before) if before in self._nodes else -1)
        self._filling = False
        if self.currentNode() is not before:
            self._changed()

    def _changed(self, *_):
        if not self._filling:
            self.currentNodeChanged.emit(self.currentNode())


def _count(scene, kind):
    return scene.GetNumberOfNodesByClass(kind)


CUSTOM = (qMRMLWidget, ctkCollapsibleButton, ctkPathLineEdit, qMRMLSegmentationShow3DButton, qMRMLNodeComboBox)


def install(slicer):
    for widget in CUSTOM:
        setattr(slicer, widget.__name__, widget)
    slicer.util.loadUI = load_ui
    slicer.util.childWidgetVariables = child_widget_variables


def load_ui(path):
    """Load without what only CTK and MRML widgets understand: their flags, and signals that carry a scene."""
    tree = ET.parse(path)
    for parent in list(tree.iter()):
        for child in list(parent):
            if child.tag == "connections" or "ctkPathLineEdit::" in (child.findtext("set") or ""):
                parent.remove(child)
    loader = QtUiTools.QUiLoader()
    for widget in CUSTOM:
        loader.registerCustomWidget(widget)
    buffer = QtCore.QBuffer()
    buffer.setData(ET.tostring(tree.getroot()))
    panel = loader.load(buffer)
    assert panel, loader.errorString()
    return panel


def child_widget_variables(widget):
    return SimpleNamespace(
        **{child.objectName(): child for child in widget.findChildren(QtWidgets.QWidget) if child.objectName()}
    )
