"""`qt` and `ctk` on PySide6."""

import types

from PySide6 import QtCore, QtGui, QtWidgets

__all__ = ["application", "modules"]


class QTimer(QtCore.QTimer):
    """PythonQt connects a private signal by its signature."""

    def connect(self, signature, slot):
        assert signature == "timeout()"
        self.timeout.connect(slot)


class QFileDialog(QtWidgets.QFileDialog):
    """Answers with `chosen` instead of asking; PythonQt gives the name alone."""

    chosen = ""

    @staticmethod
    def getOpenFileName(*_arguments):
        return QFileDialog.chosen

    getExistingDirectory = getSaveFileName = getOpenFileName


class QDesktopServices:
    opened = []

    @staticmethod
    def openUrl(url):
        QDesktopServices.opened.append(url.toLocalFile())


def application():
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication(["panel", "-platform", "offscreen"])


def _find(name):
    for source in (QtCore, QtGui, QtWidgets):
        if hasattr(source, name):
            return getattr(source, name)
    raise AttributeError(name)


def modules():
    application()
    qt = types.ModuleType("qt")
    qt.__getattr__ = _find
    qt.QTimer, qt.QFileDialog, qt.QDesktopServices = QTimer, QFileDialog, QDesktopServices
    return {"qt": qt, "ctk": types.ModuleType("ctk")}
