"""The panel: models and their licenses, packages, and each way in which a start can fail."""

import sys
import time
from types import ModuleType, SimpleNamespace

import qt
import slicer

from LiverUNetLib.models.exchange import install_model, pack_model
from panel_helpers import run_to_the_end, run_until, state


def test_consent_is_asked_once_remembered_and_can_be_withdrawn(panel, a_volume, dialogs):
    panel.parameterNode.volume = a_volume
    panel.parameterNode.model = "liver-ct"
    dialogs.answer = False
    panel.ui.segmentButton.click()
    assert not panel.run.running
    assert "Non-commercial research only" in dialogs.asked[-1]
    assert "you did not agree to the license" in panel.ui.statusLabel.text
    dialogs.answer = True
    panel.ui.segmentButton.click()
    panel.ui.segmentButton.click()
    asked = len(dialogs.asked)
    panel.ui.segmentButton.click()
    panel.ui.segmentButton.click()
    assert len(dialogs.asked) == asked, "asked once"
    assert state(panel.ui.withdrawButton)[0]
    panel.ui.withdrawButton.click()
    panel.ui.segmentButton.click()
    panel.ui.segmentButton.click()
    assert len(dialogs.asked) == asked + 1


class TestingMode:
    """The application, started with `--testing`."""

    def __init__(self, app):
        self._app = app

    def testingEnabled(self):
        return True

    def __getattr__(self, name):
        return getattr(self._app, name)


def test_consent_is_never_asked_in_testing_mode(panel, a_volume, monkeypatch):
    asked = []
    panel.parameterNode.volume = a_volume
    panel.parameterNode.model = "liver-ct"
    monkeypatch.setattr(slicer, "app", TestingMode(slicer.app))
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda *given, **named: asked.append(given))
    panel.ui.segmentButton.click()
    assert panel.run.running
    panel.run.cancel()
    assert asked == []


def test_a_permissive_license_asks_nothing(panel, a_volume, dialogs):
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    assert panel.run.running
    assert dialogs.asked == []


def test_a_failed_installation_is_reported_once_and_can_be_repeated(panel, a_volume, monkeypatch, dialogs):
    from LiverUNetPanel.installer import InstallationError

    def fail(_folder, *, engine):
        raise InstallationError(f"{engine} could not be installed: the disk is full.")

    panel.parameterNode.volume = a_volume
    monkeypatch.setattr(panel.installer, "ensure", fail)
    panel.ui.segmentButton.click()
    assert dialogs.shown == ["LiverUNet cannot start.\n\nonnx could not be installed: the disk is full."]
    assert state(panel.ui.segmentButton) == (True, "Find the liver.")
    monkeypatch.setattr(panel.installer, "ensure", lambda *_, **__: False)
    panel.ui.segmentButton.click()
    assert len(dialogs.shown) == 1, "a user who declines sees no message box"
    assert panel.ui.statusLabel.text == "Nothing was done: packages are missing and were not installed."
    assert not panel.run.running


def test_while_packages_are_installed_no_second_installation_begins(panel, a_volume, monkeypatch, dialogs):
    """Slicer's event loop runs while pip works."""
    from LiverUNetPanel import installer

    missing, shown, pip = ["nibabel>=5"], [], ModuleType("slicer.packaging")

    def install(_lines, **_options):
        shown.append(panel.ui.statusLabel.text)
        panel.ui.segmentButton.click()
        missing.clear()

    pip.pip_ensure = install
    monkeypatch.setitem(sys.modules, "slicer.packaging", pip)
    monkeypatch.setattr(installer, "unmet", lambda lines: [line for line in lines if line in missing])
    panel.parameterNode.volume = a_volume
    panel.ui.segmentButton.click()
    assert shown == ["Installing nibabel>=5."]
    assert dialogs.shown == [
        "LiverUNet cannot start.\n\nPackages are being installed already; wait until the installation has ended."
    ]
    run_to_the_end(panel)
    assert panel.parameterNode.segmentation


def test_models_are_removed_and_added(panel, threshold_model, own_models, tmp_path, chosen_file, monkeypatch):
    assert state(panel.ui.removeModelButton) == (True, "Delete this model from your own models.")
    pack_model(threshold_model, tmp_path / "threshold.zip")
    panel.ui.removeModelButton.click()
    assert not (own_models / "threshold").exists()
    assert panel.ui.modelSelector.currentText == "liver-ct"
    assert panel.parameterNode.model == "liver-ct"
    assert state(panel.ui.removeModelButton) == (False, "Only models that you have added can be removed.")
    chosen_file.path = str(tmp_path / "threshold.zip")
    panel.ui.addModelButton.click()
    run_to_the_end(panel)
    assert panel.parameterNode.model == "threshold"
    assert panel.ui.statusLabel.text == "Installed threshold 1."
    opened = []
    monkeypatch.setattr(qt, "QDesktopServices", SimpleNamespace(openUrl=lambda url: opened.append(url.toLocalFile())))
    panel.ui.openModelButton.click()
    assert opened == [str(own_models / "threshold")]


def test_a_missing_model_is_named_and_nothing_can_be_segmented(panel, a_volume):
    panel.parameterNode.volume = a_volume
    panel.parameterNode.model = "vanished"
    panel.models.show("vanished")
    panel.updateButtons()
    assert panel.ui.modelCardLabel.text.startswith("There is no model 'vanished'")
    assert state(panel.ui.segmentButton) == (False, panel.ui.modelCardLabel.text)


def test_a_run_that_writes_its_result_cannot_be_cancelled(
    panel, threshold_model, tmp_path, own_models, chosen_file, monkeypatch
):
    pack_model(threshold_model, tmp_path / "threshold.zip")
    panel.ui.removeModelButton.click()
    chosen_file.path = str(tmp_path / "threshold.zip")
    install = lambda *given, **named: time.sleep(0.5) or install_model(*given, **named)  # noqa: E731
    monkeypatch.setattr("LiverUNetPanel.logic.install_model", install)
    panel.ui.addModelButton.click()
    run_until(panel, "Verifying the model; this cannot be cancelled")
    panel.run.cancel()
    assert panel.run.running
    run_to_the_end(panel)
    assert panel.ui.statusLabel.text == "Installed threshold 1."


def test_a_broken_model_can_be_removed(panel, own_models):
    (own_models / "threshold/configs/metadata.json").write_text("{}")
    panel.models.show("threshold")
    assert "is not the card" in panel.ui.modelCardLabel.text
    panel.ui.removeModelButton.click()
    assert not (own_models / "threshold").exists()


def test_the_doctor_copies_its_findings(panel):
    panel.ui.doctorButton.click()
    run_to_the_end(panel)
    assert "liver-ct" in slicer.app.clipboard().text()
    assert panel.ui.statusLabel.text.startswith("Copied for a bug report")


def test_consent_is_asked_before_every_kind_of_run_and_for_every_license(panel, a_volume, tmp_path, dialogs):
    panel.parameterNode.volume = a_volume
    panel.parameterNode.model = "liver-ct"
    panel.ui.sourcePath.currentPath = str(tmp_path)
    panel.ui.targetPath.currentPath = str(tmp_path / "livers")
    panel.settings.addConsent("another license")
    dialogs.answer = False
    for button in (panel.ui.segmentButton, panel.ui.segmentAllButton, panel.ui.segmentFolderButton):
        asked = len(dialogs.asked)
        button.click()
        assert len(dialogs.asked) == asked + 1
        assert not panel.run.running
