"""The section *Use*: a run becomes a model, and models travel as zips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from LiverUNetLib.models.folder import LiverModel
from LiverUNetPanel.sections.buttons import enableOrSayWhy

__all__ = ["UseSection"]


class UseSection:
    """From a run to a model that the module LiverUNet offers."""

    def __init__(self, panel: Any) -> None:
        self._panel, self._ui = panel, panel.ui
        self._ui.installButton.clicked.connect(self._onInstall)
        self._ui.zipOutButton.clicked.connect(self._onZipOut)
        self._ui.zipInButton.clicked.connect(self._onZipIn)
        self._ui.nameEdit.textChanged.connect(lambda _name: self._panel.updateButtons())

    def updateButtons(self, busy: str) -> None:
        """What can be pressed now."""
        run = self._panel.train.run()
        noRun = "" if run and (run / "best.pt").exists() else _("There is no run with a validated epoch.")
        noModel = (
            ""
            if self._ui.evaluateModelSelector.findText(self._name()) >= 0
            else _("No model of that name is installed.")
        )
        enableOrSayWhy(self._ui.installButton, busy or noRun, _("The module LiverUNet offers it at once."))
        enableOrSayWhy(
            self._ui.zipOutButton, busy or noModel, _("Write the model of that name, to carry it elsewhere.")
        )
        enableOrSayWhy(self._ui.zipInButton, busy, _("Install a model from a zip; nothing in it is executed."))

    def _name(self) -> str:
        return self._ui.nameEdit.text.strip()

    def _onInstall(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The model was not installed.")):
            self._panel.logic.checkName(self._name())
        steps = self._panel.logic.judgeSteps(self._panel.train.run(), self._panel.data.folders())
        self._panel.start(steps, self._onJudged)

    def _onJudged(self, verdict: Any) -> None:
        """A model that got worse, or may have, is not offered without saying so."""
        if verdict and not verdict.good:
            question = _("{words} Install it all the same?").format(words=verdict.words)
            if not slicer.util.confirmYesNoDisplay(question):
                self._panel.say(_("Not installed. {words}").format(words=verdict.words))
                return
        ui = self._ui
        steps = self._panel.logic.installSteps(
            self._panel.train.run(),
            self._name(),
            description=ui.descriptionEdit.text.strip(),
            terms=ui.licenseEdit.text.strip(),
        )
        self._panel.start(steps, lambda model: self._onInstalled(model, verdict))

    def _onZipOut(self) -> None:
        name = self._name()
        path = qt.QFileDialog.getSaveFileName(self._panel.parent, _("Write model"), f"{name}.zip", "Zip (*.zip)")
        if path:
            steps = self._panel.logic.packSteps(name, Path(path))
            self._panel.start(steps, lambda _none: self._panel.say(_("Wrote {path}.").format(path=path)))

    def _onZipIn(self) -> None:
        path = qt.QFileDialog.getOpenFileName(self._panel.parent, _("Add model"), "", "Zip (*.zip)")
        if path:
            self._panel.start(self._panel.logic.addModelSteps(Path(path)), lambda model: self._onInstalled(model, None))

    def _onInstalled(self, model: LiverModel, verdict: Any) -> None:
        words = _("Installed {name}; choose it in the module LiverUNet.").format(name=model.card.name)
        self._panel.say(f"{words} {verdict.words}" if verdict else words)
        self._panel.evaluate.enter()
