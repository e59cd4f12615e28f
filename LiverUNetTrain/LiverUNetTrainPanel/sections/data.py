"""The part of the panel that finds and prepares cases, from folders and from the scene."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from LiverUNetPanel.sections.buttons import enableOrSayWhy
from LiverUNetTrainLib.data.cases import Finding
from LiverUNetTrainLib.data.layouts import SCAN_ENDING

from ..logic import SceneCase
from .rows import showRows

__all__ = ["DataSection"]


class DataSection:
    """Folders of cases, the cases found in them, and the cases of this scene.

    Args:
        panel: has the widgets `ui`, the `logic`, and `start` for what takes time.
    """

    def __init__(self, panel: Any) -> None:
        self._panel, self._ui = panel, panel.ui
        self._sceneCases: list[SceneCase] = []
        self._findings: list[Finding] = []
        self._parts: dict[str, str] = {}
        self._preview: qt.QLabel | None = None
        self._ui.prepareButton.clicked.connect(self._onPrepare)
        self._ui.pairsButton.clicked.connect(self._onWritePairs)
        self._ui.zipPairsButton.clicked.connect(self._onUnpack)
        self._ui.previewButton.clicked.connect(self._onPreview)
        self._ui.addCaseButton.clicked.connect(self._onAddCase)
        self._ui.caseTable.cellDoubleClicked.connect(self._onLoadCase)

    def folders(self) -> list[Path]:
        """The folders that hold cases."""
        data, own = self._ui.dataPath.currentPath, self._ui.ownPath.currentPath
        chosen = [Path(data)] if data else []
        # One's own is empty in the beginning, and may be the only folder there is.
        if own and Path(own) not in chosen and any(Path(own).glob(f"*{SCAN_ENDING}")):
            chosen.append(Path(own))
        return chosen

    def cache(self) -> Path:
        """Where the prepared slices are."""
        return Path(self._ui.cachePath.currentPath)

    def showScene(self) -> None:
        """List what the scene could teach; the chosen row stays chosen, at first the likeliest."""
        table, before = self._ui.sceneTable, self._sceneCases
        chosen = before[table.currentRow()] if 0 <= table.currentRow() < len(before) else None
        self._sceneCases = self._panel.logic.sceneCases()
        showRows(table, [[case.name] for case in self._sceneCases])
        if self._sceneCases:
            table.setCurrentCell(self._sceneCases.index(chosen) if chosen in self._sceneCases else 0, 0)

    def showParts(self, parts: dict[str, str]) -> None:
        """Show what each case is for, by name."""
        if parts != self._parts:
            self._parts = parts
            self._showCases()

    def _showCases(self) -> None:
        rows = []
        for found in self._findings:
            facts = found.facts
            volume, *grid = [f"{facts.liver_ml:.0f}", facts.grid, facts.spacing] if facts else ["", "", ""]
            rows.append([found.name, volume, self._parts.get(found.name, ""), *grid, found.words])
        showRows(self._ui.caseTable, rows)

    def updateButtons(self, busy: str) -> None:
        """What can be pressed now."""
        ui = self._ui
        noData = "" if ui.dataPath.currentPath or ui.ownPath.currentPath else _("Choose a folder of cases.")
        noCache = "" if ui.cachePath.currentPath else _("Choose a folder for the prepared slices.")
        noOwn = "" if ui.ownPath.currentPath else _("Choose a folder for your training set.")
        noCase = "" if self._chosenCase() else _("Prepare the cases first.")
        enableOrSayWhy(ui.previewButton, busy or noCase, _("Draw what augmentation does to the chosen case."))
        noScene = "" if self._sceneCases else _("No segmentation of this scene was drawn on a volume.")
        enableOrSayWhy(ui.prepareButton, busy or noData or noCache, _("Check every case."))
        noSource = "" if ui.dataPath.currentPath else _("Choose a folder of cases.")
        enableOrSayWhy(ui.pairsButton, busy or noSource or noOwn, _("Write the cases of the folder as pairs of NIfTI."))
        enableOrSayWhy(
            ui.zipPairsButton, busy or noOwn, _("Write 3D-IRCADb-01, one zip as downloaded, as pairs of NIfTI.")
        )
        enableOrSayWhy(ui.addCaseButton, busy or noScene or noOwn, _("No name of the patient is kept."))

    def _onPrepare(self) -> None:
        parent = self._panel.train.parent()
        steps = self._panel.logic.prepareSteps(self.folders(), self.cache(), parent=parent)
        self._panel.start(steps, self._onPrepared)

    def _onPrepared(self, findings: list[Finding]) -> None:
        self._findings = findings
        self._showCases()
        usable = sum(found.usable for found in findings)
        words = _("{usable} of {all} cases can be used.").format(usable=usable, all=len(findings))
        if usable == 1:
            words += _(" With a single patient there is no validation: nothing will show whether it is only memorised.")
        self._panel.say(words)

    def _onWritePairs(self) -> None:
        self._writePairs(self._ui.dataPath.currentPath)

    def _onUnpack(self) -> None:
        title = _("3D-IRCADb-01 as downloaded")
        path = qt.QFileDialog.getOpenFileName(self._panel.parent, title, "", "Zip (*.zip)")
        if path:
            self._writePairs(path)

    def _writePairs(self, source: str) -> None:
        steps = self._panel.logic.pairsSteps(Path(source), Path(self._ui.ownPath.currentPath))
        self._panel.start(steps, self._onPairsWritten)

    def _onPairsWritten(self, findings: list[Finding]) -> None:
        """The pairs are the data from now on; together with their source every case would be there twice."""
        self._ui.dataPath.currentPath = self._ui.ownPath.currentPath
        self._onPrepared(findings)

    def _chosenCase(self) -> str:
        """The case of the chosen row, or of the first one; empty if there is none that can be used."""
        chosen = self._ui.caseTable.currentRow()
        usable = [row for row, found in enumerate(self._findings) if found.usable]
        row = chosen if chosen in usable else next(iter(usable), None)
        return "" if row is None else self._findings[row].name

    def _onPreview(self) -> None:
        picture = Path(tempfile.gettempdir()) / "liver-unet-augmentation.png"
        with slicer.util.tryWithErrorDisplay(_("Nothing can be drawn.")):
            recipe = self._panel.train.options().recipe
        steps = self._panel.logic.previewSteps(self.cache(), self._chosenCase(), recipe, picture)
        self._panel.start(steps, self._onPreviewed)

    def _onPreviewed(self, picture: Path) -> None:
        self._preview = qt.QLabel()
        self._preview.pixmap = qt.QPixmap(str(picture)).scaledToHeight(800)
        self._preview.windowTitle = _("Augmentation")
        self._preview.show()
        picture.unlink()

    def _onAddCase(self) -> None:
        row = self._ui.sceneTable.currentRow()
        folder = Path(self._ui.ownPath.currentPath)
        steps = self._panel.logic.addCaseSteps(self._sceneCases[row], folder)
        self._panel.start(steps, lambda name: self._panel.say(_("Added as {name}.").format(name=name)))

    def _onLoadCase(self, row: int, _column: int) -> None:
        if not self._panel.runner.running:
            steps = self._panel.logic.loadCaseSteps(self.folders(), self._findings[row].name)
            self._panel.start(steps, lambda _node: None)
