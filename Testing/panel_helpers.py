"""Helpers for tests of panels in a real Slicer."""

import time

import qt
import slicer


class Dialogs:
    """Closes every message box, from a timer that runs in the event loop of the box.

    Attributes:
        answer: whether questions are answered with yes or OK.
        asked, shown: the texts of questions and of other messages so far.
    """

    def __init__(self):
        self.answer, self.asked, self.shown = True, [], []
        self._timer = qt.QTimer()
        self._timer.interval = 10
        self._timer.connect("timeout()", self._close)
        self._timer.start()

    def stop(self):
        self._timer.stop()

    def _close(self):
        box = qt.QApplication.activeModalWidget()
        if box is None or not box.inherits("QMessageBox"):
            return
        yes = box.button(qt.QMessageBox.Yes) or box.button(qt.QMessageBox.Ok)
        no = box.button(qt.QMessageBox.No) or box.button(qt.QMessageBox.Cancel)
        (self.asked if no else self.shown).append(box.text)
        (yes if self.answer or no is None else no).click()


def open_panel(name):
    """A new widget of a module in the main window, as after *Reload*, but without importing the packages anew."""
    representation = getattr(slicer.modules, name.lower()).widgetRepresentation()
    slicer.util.selectModule("Data")
    slicer.util.reloadScriptedModule(name)
    slicer.util.selectModule(name)
    return representation.self()


def turn(panel, until, seconds=120):
    """Run the event loop until a condition is true."""
    end = time.monotonic() + seconds
    while not until():
        slicer.app.processEvents()
        time.sleep(0.001)
        assert time.monotonic() < end, f"still {panel.ui.statusLabel.text!r}"


def run_to_the_end(panel, seconds=120):
    """Run the event loop until the run has ended."""
    turn(panel, lambda: not panel.run.running, seconds)


def run_until(panel, stage):
    """Run the event loop until the status line names a stage of the run."""
    turn(panel, lambda: stage in panel.ui.statusLabel.text or not panel.run.running)
    assert panel.run.running


def state(button):
    """Whether a button is enabled, and its tooltip without the paragraph tags that Slicer adds."""
    return button.enabled, button.toolTip.removeprefix("<p>").removesuffix("</p>")


def assert_nothing_is_cut_off(panel, width):
    """The panel fits into this width, and every visible text gets the height it needs."""
    assert panel.parent.minimumSizeHint.width() <= width
    labels = {name: label for name, label in vars(panel.ui).items() if label.inherits("QLabel") and label.visible}

    def cut_off():
        return [name for name, label in labels.items() if label.height < label.heightForWidth(label.width)]

    for _ in range(50):  # layouts are updated by events
        slicer.app.processEvents()
    assert labels
    assert cut_off() == []
