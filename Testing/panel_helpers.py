"""What tests of the panel need."""

import time


def run_to_the_end(panel, seconds=60):
    """Let the event loop turn until the run is over."""
    import qt

    end = time.monotonic() + seconds
    while panel.runner.running:
        qt.QApplication.processEvents()
        assert time.monotonic() < end, panel.ui.statusLabel.text()


def run_until(panel, stage):
    import qt

    while stage not in panel.ui.statusLabel.text():
        qt.QApplication.processEvents()
        assert panel.runner.running


def state(button):
    import qt  # noqa: F401 - by this PySide6 learns of this module, which then gets methods and not properties

    return button.isEnabled(), button.toolTip()
