"""The section *Evaluate*: scores of a model for each patient, and the comparison of two models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from LiverUNetLib.errors import LiverUNetError
from LiverUNetLib.models.store import list_models
from LiverUNetPanel.sections.buttons import enableOrSayWhy
from LiverUNetTrainLib.data.cases import Finding

from .rows import showRows

__all__ = ["EvaluateSection"]


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
            scores = case.scores
            figures = [
                f"{scores.dice:.4f}",
                f"{scores.hd95_mm:.2f}",
                f"{scores.assd_mm:.2f}",
                f"{scores.surface_dice_3mm:.3f}",
                f"{scores.volume_error_percent:+.1f}",
            ]
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
        from LiverUNetTrainLib.evaluation.tables import COMPARED, paired

        return "\n".join(" ".join(line.split()) for line in paired(*found, names=models)[: 1 + len(COMPARED)])

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
