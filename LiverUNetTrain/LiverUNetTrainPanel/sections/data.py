"""The section *Data*: finds and prepares cases, from folders and from the scene."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from LiverUNetPanel.sections.buttons import enableOrSayWhy
from LiverUNetPanel.sections.run import RunSection
from LiverUNetTrainLib.data.cases import Finding

from ..choices import TrainingChoices
from ..logic import LiverUNetTrainLogic
from ..nodes.segments import SceneCase
from .rows import showRows

__all__ = ["DataSection"]

PREVIEW_HEIGHT = 800


class DataSection:
    """Folders of cases, what was found in them, and the cases of the scene.

    Args:
        ui: the widgets of the panel by name.

    Attributes:
        preview: the window with the picture of augmentation; None before the first one.
    """

    def __init__(self, ui: Any, logic: LiverUNetTrainLogic, run: RunSection, choices: TrainingChoices) -> None:
        self._ui, self._logic, self._run, self._choices = ui, logic, run, choices
        self._sceneCases: list[SceneCase] = []
        self._findings: list[Finding] = []
        self._parts: Mapping[str, str] = {}
        self.preview: qt.QLabel | None = None
        ui.prepareButton.clicked.connect(self._onPrepare)
        ui.pairsButton.clicked.connect(self._onWritePairs)
        ui.zipPairsButton.clicked.connect(self._onUnpack)
        ui.previewButton.clicked.connect(self._onPreview)
        ui.addCaseButton.clicked.connect(self._onAddCase)
        ui.caseTable.cellDoubleClicked.connect(self._onLoadCase)

    def showScene(self) -> None:
        """List the cases of the scene. The chosen row stays chosen; at first it is the most likely liver."""
        table, before = self._ui.sceneTable, self._sceneCases
        chosen = before[table.currentRow()] if 0 <= table.currentRow() < len(before) else None
        self._sceneCases = self._logic.sceneCases()
        showRows(table, [[case.name] for case in self._sceneCases])
        if self._sceneCases:
            table.setCurrentCell(self._sceneCases.index(chosen) if chosen in self._sceneCases else 0, 0)

    def showParts(self, parts: Mapping[str, str]) -> None:
        """Show to which part of the split each case belongs, by name."""
        if parts != self._parts:
            self._parts = parts
            self._showCases()

    def _showCases(self) -> None:
        rows = []
        for found in self._findings:
            facts = found.facts
            volume, *grid = [f"{facts.liver_ml:.0f}", facts.grid, facts.spacing] if facts else ["", "", ""]
            rows.append([found.name, volume, self._parts.get(found.name, ""), *grid, found.message])
        showRows(self._ui.caseTable, rows)

    def updateButtons(self, busy: str) -> None:
        """Enable what is possible now."""
        ui = self._ui
        noData = "" if ui.dataPath.currentPath or ui.ownPath.currentPath else _("Choose a folder of cases.")
        noSource = "" if ui.dataPath.currentPath else _("Choose a folder of cases.")
        noCache = "" if ui.cachePath.currentPath else _("Choose a folder for the prepared slices.")
        noOwn = "" if ui.ownPath.currentPath else _("Choose a folder for your training set.")
        noCase = "" if self._chosenCase() else _("Prepare the cases first.")
        noScene = "" if self._sceneCases else _("The scene has no segmentation that was drawn on a volume.")
        zipPurpose = _("Write 3D-IRCADb-01, as the one zip that was downloaded, as pairs of NIfTI files.")
        enableOrSayWhy(ui.prepareButton, busy or noData or noCache, _("Check every case."))
        enableOrSayWhy(
            ui.pairsButton, busy or noSource or noOwn, _("Write the cases of the folder as pairs of NIfTI files.")
        )
        enableOrSayWhy(ui.zipPairsButton, busy or noOwn, zipPurpose)
        enableOrSayWhy(ui.previewButton, busy or noCase, _("Draw what augmentation does to the chosen case."))
        enableOrSayWhy(ui.addCaseButton, busy or noScene or noOwn, _("The patient's name is not copied."))

    def _onPrepare(self) -> None:
        choices = self._choices
        steps = self._logic.prepareSteps(choices.folders(), choices.cache(), parent=choices.parent())
        self._run.start(steps, self._onPrepared)

    def _onPrepared(self, findings: list[Finding]) -> None:
        self._findings = findings
        self._showCases()
        usable = sum(found.usable for found in findings)
        message = _("{usable} of {all} cases can be used.").format(usable=usable, all=len(findings))
        if usable == 1:
            message += _(" With a single patient there is no validation: nothing will tell whether it is memorized.")
        self._run.say(message)

    def _onWritePairs(self) -> None:
        self._writePairs(self._ui.dataPath.currentPath)

    def _onUnpack(self) -> None:
        title = _("3D-IRCADb-01 as downloaded")
        path = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, "", "Zip (*.zip)")
        if path:
            self._writePairs(path)

    def _writePairs(self, source: str) -> None:
        steps = self._logic.pairsSteps(Path(source), Path(self._ui.ownPath.currentPath))
        self._run.start(steps, self._onPairsWritten)

    def _onPairsWritten(self, findings: list[Finding]) -> None:
        """Use the pairs as the data from now on; together with their source, every case would be there twice."""
        self._ui.dataPath.currentPath = self._ui.ownPath.currentPath
        self._onPrepared(findings)

    def _chosenCase(self) -> str:
        """The case of the chosen row, otherwise the first usable one; empty if there is none."""
        chosen = self._ui.caseTable.currentRow()
        usable = [row for row, found in enumerate(self._findings) if found.usable]
        row = chosen if chosen in usable else next(iter(usable), None)
        return "" if row is None else self._findings[row].name

    def _onPreview(self) -> None:
        picture = Path(tempfile.gettempdir()) / "liver-unet-augmentation.png"
        choices = self._choices
        steps = self._logic.previewSteps(choices.cache(), self._chosenCase(), choices.recipe(), picture)
        self._run.start(steps, self._onPreviewed)

    def _onPreviewed(self, picture: Path) -> None:
        self.preview = qt.QLabel()
        self.preview.pixmap = qt.QPixmap(str(picture)).scaledToHeight(PREVIEW_HEIGHT)
        self.preview.windowTitle = _("Augmentation")
        self.preview.show()
        picture.unlink()

    def _onAddCase(self) -> None:
        case = self._sceneCases[self._ui.sceneTable.currentRow()]
        steps = self._logic.addCaseSteps(case, Path(self._ui.ownPath.currentPath))
        self._run.start(steps, lambda name: self._run.say(_("Added as {name}.").format(name=name)))

    def _onLoadCase(self, row: int, _column: int) -> None:
        if not self._run.running:
            self._run.start(self._logic.loadCaseSteps(self._choices.folders(), self._findings[row].name))
