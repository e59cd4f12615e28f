"""Fixtures of the tests that run in a real Slicer, see slicer_process.py; outside, only the names of tests are read."""

import os
from pathlib import Path

import pytest

if "IN_SLICER_FOLDER" in os.environ:
    import qt
    import slicer

    from LiverUNetLib.models.exchange import install_model
    from panel_helpers import Dialogs, open_panel
else:

    def pytest_pycollect_makemodule(module_path, parent):
        from slicer_process import SlicerFile

        return SlicerFile.from_parent(parent, path=module_path)


@pytest.fixture
def scene():
    """The application's scene, empty."""
    slicer.mrmlScene.Clear()
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear()


@pytest.fixture
def dialogs():
    """Answers message boxes like a user, and records their texts."""
    dialogs = Dialogs()
    yield dialogs
    dialogs.stop()


@pytest.fixture
def settings():
    """The settings of the application, without those of LiverUNet."""
    settings = slicer.app.userSettings()
    settings.remove("LiverUNet")
    yield settings
    settings.remove("LiverUNet")


@pytest.fixture
def chosen_file(monkeypatch):
    """The result of file dialogs: set its `path`."""

    class FileDialog(qt.QFileDialog):
        path = ""
        getOpenFileName = getSaveFileName = getExistingDirectory = staticmethod(lambda *_: FileDialog.path)

    monkeypatch.setattr(qt, "QFileDialog", FileDialog)
    return FileDialog


@pytest.fixture
def panel(scene, dialogs, settings, threshold_model, own_models):
    """The module LiverUNet, just opened, with the threshold model and the CPU."""
    install_model(threshold_model.folder)
    settings.setValue("LiverUNet/Device", "cpu")
    panel = open_panel("LiverUNet")
    panel.parameterNode.model = "threshold"
    yield panel
    panel.run.stop()


@pytest.fixture
def train_panel(scene, dialogs, settings, own_models):
    """The module LiverUNetTrain, just opened; its trainings end with the test."""
    panel = open_panel("LiverUNetTrain")
    yield panel
    panel.run.stop()
    run = Path(panel.ui.runPath.currentPath)
    if panel.ui.runPath.currentPath and run.is_dir():
        (run / "stop").touch()
    for process in panel.logic.trainings.values():
        process.kill()
        process.wait()
    panel.train.leave()
