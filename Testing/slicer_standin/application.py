"""The application as far as the product asks for it: settings, clipboard, dialogs, installed extensions."""

import types

__all__ = ["Application", "Modules", "replace_dialogs"]


class Settings:
    def __init__(self):
        self.values = {}

    def value(self, key, default=None):
        return self.values.get(key, default)

    def setValue(self, key, value):
        self.values[key] = value


class Clipboard:
    text = ""

    def setText(self, text):
        self.text = text


class Application:
    """Not in testing mode, in which Slicer answers its own questions.

    Attributes:
        asked, shown: the texts of questions and errors so far; questions are answered with `answer`.
    """

    applicationVersion = "stand-in"

    def __init__(self):
        self.reset()

    def reset(self):
        self._settings, self._clipboard = Settings(), Clipboard()
        self.testing, self.answer, self.asked, self.shown = False, True, [], []

    def testingEnabled(self):
        return self.testing

    def userSettings(self):
        return self._settings

    def clipboard(self):
        return self._clipboard

    def layoutManager(self):
        """None, as in Slicer without a main window."""
        return


class Modules:
    """`slicer.modules`; the Segment Editor records what it is told."""

    def __init__(self):
        self.segmenteditor = SegmentEditorModule()


class SegmentEditorModule:
    def __init__(self):
        self.editor = SegmentEditor()

    def widgetRepresentation(self):
        """Opens the module, by whose name its widget is then found."""
        import slicer

        slicer.modules.SegmentEditorWidget = types.SimpleNamespace(editor=self.editor)
        return types.SimpleNamespace(self=lambda: types.SimpleNamespace(editor=self.editor))


class SegmentEditor:
    def __init__(self):
        self.node = self.volume = self.history = None

    def segmentationNode(self):
        return self.node

    def setSegmentationNode(self, node):
        import slicer

        self.node, self.history = node, slicer.vtkSegmentationHistory()
        self.history.SetSegmentation(node.GetSegmentation())

    def setSourceVolumeNode(self, node):
        self.volume = node

    def saveStateForUndo(self):
        self.history.SaveState()


def replace_dialogs(util):
    """Questions are answered and errors recorded by the application; all else of `slicer.util` stays real."""
    import slicer

    def confirm(text, *_args, **_options):
        slicer.app.asked.append(text)
        return slicer.app.answer

    def show(text, *_args, **_options):
        slicer.app.shown.append(text)

    util.confirmOkCancelDisplay = util.confirmYesNoDisplay = confirm
    util.errorDisplay = show
    util.selectModule = lambda name: slicer.app.asked.append(f"module {name}")
