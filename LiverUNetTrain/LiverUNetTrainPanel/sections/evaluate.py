"""The section *Evaluate*: scores of a model for each patient, and the comparison of two models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from LiverUNetPanel.sections.buttons import enableOrSayWhy
from LiverUNetPanel.sections.run import RunSection
from LiverUNetTrainLib.data.cases import Finding
from LiverUNetTrainLib.evaluation.measures import MAIN_MEASURES
from LiverUNetTrainLib.evaluation.metrics import CaseScores

from ..choices import TrainingChoices
from ..logic import LiverUNetTrainLogic
from .rows import showRows

__all__ = ["EvaluateSection"]

HEADINGS = ["case", *(measure.heading for measure in MAIN_MEASURES), "other Dice"]


class EvaluateSection:
    """Scores of a model, the worst patient first.

    Args:
        ui: the widgets of the panel by name.
    """

    def __init__(self, ui: Any, logic: LiverUNetTrainLogic, run: RunSection, choices: TrainingChoices) -> None:
        self._ui, self._logic, self._run, self._choices = ui, logic, run, choices
        self._scores: list[CaseScores] = []
        self._model = ""
        ui.scoreTable.columnCount = len(HEADINGS)
        ui.scoreTable.setHorizontalHeaderLabels(HEADINGS)
        ui.comparisonLabel.visible = False
        ui.evaluateButton.clicked.connect(self._onEvaluate)
        ui.csvButton.clicked.connect(self._onCsv)
        ui.reportButton.clicked.connect(self._onReport)
        ui.scoreTable.cellDoubleClicked.connect(self._onLoadCase)

    def enter(self) -> None:
        """List the models that are installed now."""
        usable = self._logic.usableModels()
        choices = {self._ui.evaluateModelSelector: usable, self._ui.compareSelector: [_("no other model"), *usable]}
        for selector, names in choices.items():
            chosen = selector.currentText
            selector.clear()
            selector.addItems(names)
            selector.currentIndex = max(selector.findText(chosen), 0)

    def updateButtons(self, busy: str) -> None:
        """Enable what is possible now."""
        noData = "" if self._choices.folders() else _("Choose a folder of cases above.")
        noScores = "" if self._scores else _("Evaluate a model first.")
        enableOrSayWhy(
            self._ui.evaluateButton, busy or noData, _("Segment every case and compare the result with its mask.")
        )
        enableOrSayWhy(self._ui.csvButton, noScores, _("Write the scores as a table."))
        enableOrSayWhy(self._ui.reportButton, noScores, _("Write one HTML file with the scores and their plots."))

    def _onEvaluate(self) -> None:
        models = [self._ui.evaluateModelSelector.currentText]
        if self._ui.compareSelector.currentIndex > 0:
            models.append(self._ui.compareSelector.currentText)
        faults: list[Finding] = []
        steps = self._logic.evaluateAllSteps(
            models, self._choices.folders(), heldOutOnly=self._ui.heldOutCheck.checked, faults=faults
        )
        self._run.start(steps, lambda found: self._onEvaluated(models, found, faults))

    def _onEvaluated(self, models: list[str], found: list[list[CaseScores]], faults: list[Finding]) -> None:
        self._model = models[0]
        self._scores = sorted(found[0], key=lambda case: case.scores.dice)
        two = len(models) > 1
        others = {case.case: f"{case.scores.dice:.4f}" for case in found[1]} if two else {}
        rows = []
        for case in self._scores:
            figures = [measure.text(getattr(case.scores, measure.name)) for measure in MAIN_MEASURES]
            rows.append([case.case, *figures, others.get(case.case, "")])
        showRows(self._ui.scoreTable, rows)
        self._logic.showScores(models[0], self._scores)
        mean = sum(case.scores.dice for case in self._scores) / len(self._scores)
        message = _("{count} cases, mean Dice {dice:.4f}.").format(count=len(self._scores), dice=mean)
        self._run.say(" ".join([message, *map(str, faults)]))
        self._ui.comparisonLabel.text = self._logic.comparison(*found, names=(models[0], models[1])) if two else ""
        self._ui.comparisonLabel.visible = two

    def _onCsv(self) -> None:
        window = slicer.util.mainWindow()
        path = qt.QFileDialog.getSaveFileName(window, _("Write scores"), "scores.csv", "CSV (*.csv)")
        if path:
            with slicer.util.tryWithErrorDisplay(_("The scores were not written.")):
                self._logic.writeScores(Path(path), self._scores)

    def _onReport(self) -> None:
        window = slicer.util.mainWindow()
        path = qt.QFileDialog.getSaveFileName(window, _("Write report"), "report.html", "HTML (*.html)")
        if path:
            with slicer.util.tryWithErrorDisplay(_("The report was not written.")):
                self._logic.writeReport(Path(path), self._model, self._scores)

    def _onLoadCase(self, row: int, _column: int) -> None:
        if not self._run.running:
            case = self._scores[row].case
            self._run.start(self._logic.loadCaseSteps(self._choices.folders(), case, self._model))
