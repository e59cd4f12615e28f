"""The parts of the panel after a training: evaluate a model, and put it to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from LiverUNetLib.errors import LiverUNetError
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.models.store import list_models
from LiverUNetPanel.buttons import enableOrSayWhy
from LiverUNetTrainLib.data.cases import Finding
from LiverUNetTrainLib.evaluation.measures import MAIN_MEASURES

from .rows import showRows

__all__ = ["EvaluateSection", "UseSection"]


class EvaluateSection:
    """Scores of a model per patient, the worst first."""

    def __init__(self, panel: Any) -> None:
        self._panel, self._ui = panel, panel.ui
        self._scores: list = []
        self._model = ""
        self._ui.comparisonLabel.visible = False
        self._ui.evaluateButton.clicked.connect(self._onEvaluate)
        self._ui.csvButton.clicked.connect(self._onCsv)
        self._ui.reportButton.clicked.connect(self._onReport)
        self._ui.scoreTable.cellDoubleClicked.connect(self._onLoadCase)

    def enter(self) -> None:
        """List the models that are installed now."""
        usable = [name for name, model in list_models().items() if not isinstance(model, LiverUNetError)]
        choices = {self._ui.evaluateModelSelector: usable, self._ui.compareSelector: [_("no other model"), *usable]}
        for selector, names in choices.items():
            chosen = selector.currentText
            selector.clear()
            selector.addItems(names)
            selector.currentIndex = max(selector.findText(chosen), 0)

    def updateButtons(self, busy: str) -> None:
        """What can be pressed now."""
        noData = "" if self._panel.data.folders() else _("Choose a folder of cases above.")
        noScores = "" if self._scores else _("Evaluate a model first.")
        enableOrSayWhy(self._ui.evaluateButton, busy or noData, _("Segment every case and compare with its mask."))
        enableOrSayWhy(self._ui.csvButton, noScores, _("Write the scores as a table."))
        enableOrSayWhy(self._ui.reportButton, noScores, _("Write one HTML file."))

    def _onEvaluate(self) -> None:
        models = [self._ui.evaluateModelSelector.currentText]
        if self._ui.compareSelector.currentIndex > 0:
            models.append(self._ui.compareSelector.currentText)
        faults: list[Finding] = []
        steps = self._panel.logic.evaluateAllSteps(
            models, self._panel.data.folders(), heldOutOnly=self._ui.heldOutCheck.checked, faults=faults
        )
        self._panel.start(steps, lambda found: self._onEvaluated(models, found, faults))

    def _onEvaluated(self, models: list[str], found: list[list], faults: list[Finding]) -> None:
        self._model = models[0]
        self._scores = sorted(found[0], key=lambda case: case.scores.dice)
        others = {case.case: f"{case.scores.dice:.4f}" for case in found[1]} if len(found) > 1 else {}
        rows = []
        for case in self._scores:
            figures = [measure.number(getattr(case.scores, measure.name)) for measure in MAIN_MEASURES]
            rows.append([case.case, *figures, others.get(case.case, "")])
        showRows(self._ui.scoreTable, rows)
        self._panel.logic.showScores(models[0], self._scores)
        mean = sum(case.scores.dice for case in self._scores) / len(self._scores)
        words = _("{count} cases, mean Dice {dice:.4f}.").format(count=len(self._scores), dice=mean)
        self._panel.say(" ".join([words, *map(str, faults)]))
        self._ui.comparisonLabel.text = self._comparison(models, found)
        self._ui.comparisonLabel.visible = len(found) > 1

    def _comparison(self, models: list[str], found: list[list]) -> str:
        """Two models in words: means, differences and Wilcoxon's test."""
        if len(found) < 2:
            return ""
        from LiverUNetTrainLib.evaluation.tables import paired

        return "\n".join(" ".join(line.split()) for line in paired(*found, names=models)[: 1 + len(MAIN_MEASURES)])

    def _onCsv(self) -> None:
        path = qt.QFileDialog.getSaveFileName(self._panel.parent, _("Write scores"), "scores.csv", "CSV (*.csv)")
        if path:
            with slicer.util.tryWithErrorDisplay(_("The scores were not written.")):
                from LiverUNetTrainLib.evaluation.tables import write_csv

                write_csv(Path(path), self._scores)

    def _onReport(self) -> None:
        path = qt.QFileDialog.getSaveFileName(self._panel.parent, _("Write report"), "report.html", "HTML (*.html)")
        if path:
            with slicer.util.tryWithErrorDisplay(_("The report was not written.")):
                from LiverUNetTrainLib.evaluation.report import Report

                Report(self._model, {}, self._scores, {}).write(Path(path))

    def _onLoadCase(self, row: int, _column: int) -> None:
        if not self._panel.runner.running:
            case = self._scores[row].case
            steps = self._panel.logic.loadCaseSteps(self._panel.data.folders(), case, self._model)
            self._panel.start(steps, lambda _node: None)


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
