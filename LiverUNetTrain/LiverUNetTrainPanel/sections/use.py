"""The section *Use*: installs a run as a model, and exchanges models as zips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from LiverUNetLib.models.folder import LiverModel
from LiverUNetPanel.sections.buttons import enableOrSayWhy
from LiverUNetPanel.sections.run import RunSection
from LiverUNetTrainLib.run.folder import RunFolder

from ..choices import TrainingChoices
from ..logic import LiverUNetTrainLogic

if TYPE_CHECKING:
    from LiverUNetTrainLib.evaluation.before_after import Verdict

__all__ = ["UseSection"]


class UseSection:
    """From a run to a model in the module LiverUNet.

    Args:
        ui: the widgets of the panel by name.
        onInstalled: called when a model was installed.
    """

    def __init__(
        self,
        ui: Any,
        logic: LiverUNetTrainLogic,
        run: RunSection,
        choices: TrainingChoices,
        *,
        onInstalled: Callable[[], None],
    ) -> None:
        self._ui, self._logic, self._run, self._choices = ui, logic, run, choices
        self._reportInstalled = onInstalled
        ui.installButton.clicked.connect(self._onInstall)
        ui.zipOutButton.clicked.connect(self._onZipOut)
        ui.zipInButton.clicked.connect(self._onZipIn)

    def updateButtons(self, busy: str) -> None:
        """Enable what is possible now."""
        ui, run = self._ui, self._choices.runFolder()
        noRun = "" if run and RunFolder(run).has_weights() else _("There is no run with a validated epoch.")
        noModel = "" if self._logic.isInstalled(self._name()) else _("No model of that name is installed.")
        enableOrSayWhy(ui.installButton, busy or noRun, _("It is available in the module LiverUNet at once."))
        enableOrSayWhy(ui.zipOutButton, busy or noModel, _("Write the model of that name, to use it elsewhere."))
        enableOrSayWhy(ui.zipInButton, busy, _("Install a model from a zip; nothing in it is executed."))

    def _name(self) -> str:
        return self._ui.nameEdit.text.strip()

    def _onInstall(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The model was not installed.")):
            self._logic.checkName(self._name())
        steps = self._logic.judgeSteps(self._choices.runFolder(), self._choices.folders())
        self._run.start(steps, self._onJudged)

    def _onJudged(self, verdict: Verdict | None) -> None:
        """Install the model; ask first if fine-tuning made it worse, or may have."""
        if verdict and not verdict.good:
            question = _("{verdict} Install it all the same?").format(verdict=verdict.message)
            if not slicer.util.confirmYesNoDisplay(question):
                self._run.say(_("Not installed. {verdict}").format(verdict=verdict.message))
                return
        ui = self._ui
        steps = self._logic.installSteps(
            self._choices.runFolder(),
            self._name(),
            description=ui.descriptionEdit.text.strip(),
            terms=ui.licenseEdit.text.strip(),
        )
        self._run.start(steps, lambda model: self._onInstalled(model, verdict))

    def _onZipOut(self) -> None:
        name, window = self._name(), slicer.util.mainWindow()
        path = qt.QFileDialog.getSaveFileName(window, _("Write model"), f"{name}.zip", "Zip (*.zip)")
        if path:
            steps = self._logic.packSteps(name, Path(path))
            self._run.start(steps, lambda _none: self._run.say(_("Wrote {path}.").format(path=path)))

    def _onZipIn(self) -> None:
        path = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Add model"), "", "Zip (*.zip)")
        if path:
            self._run.start(self._logic.addModelSteps(Path(path)), lambda model: self._onInstalled(model, None))

    def _onInstalled(self, model: LiverModel, verdict: Verdict | None) -> None:
        message = _("Installed {name}; choose it in the module LiverUNet.").format(name=model.card.name)
        self._run.say(f"{message} {verdict.message}" if verdict else message)
        self._reportInstalled()
