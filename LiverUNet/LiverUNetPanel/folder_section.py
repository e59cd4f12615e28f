"""The part of the panel that segments the files of a folder; the scene is not touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from LiverUNetLib.segmentation.batch import TABLE_NAME
from LiverUNetLib.segmentation.batch_table import FAILED, BatchRow

from .buttons import enableOrSayWhy

__all__ = ["FolderSection"]

# Nothing, and the rules that `read_volume` knows; all else can be typed in.
SERIES = ["", "thinnest", "largest"]


class FolderSection:
    """Two folders, and which series is taken where there are several.

    Args:
        panel: has the widgets `ui`, the `logic`, `readyToRun`, `start`, `ended` and `updateButtons`.
    """

    def __init__(self, panel: Any) -> None:
        self._panel, self._ui = panel, panel.ui
        self._ui.seriesSelector.addItems(SERIES)
        self._ui.seriesSelector.lineEdit().placeholderText = _("the only one")
        self._ui.segmentFolderButton.clicked.connect(self._onSegment)
        self._ui.sourcePath.currentPathChanged.connect(panel.updateButtons)
        self._ui.targetPath.currentPathChanged.connect(panel.updateButtons)

    def updateButtons(self, busy: str, noModel: str) -> None:
        """What can be pressed now."""
        chosen = self._ui.sourcePath.currentPath and self._ui.targetPath.currentPath
        noFolder = "" if chosen else _("Choose both folders.")
        missing = busy or noFolder or noModel
        enableOrSayWhy(self._ui.segmentFolderButton, missing, _("Resumes where it stopped."))

    def _onSegment(self) -> None:
        source, target = Path(self._ui.sourcePath.currentPath), Path(self._ui.targetPath.currentPath)
        series = self._ui.seriesSelector.currentText.strip() or None
        if options := self._panel.readyToRun():
            steps = self._panel.logic.segmentFolderSteps(source, target, series=series, **options)
            self._panel.start(steps, lambda rows: self._onSegmented(rows, target))

    def _onSegmented(self, rows: list[BatchRow], target: Path) -> None:
        failures = [f"{row.file}: {row.error}" for row in rows if row.state == FAILED]
        words = _("{good} of {all} scans segmented; the table is {table}.")
        words = words.format(good=len(rows) - len(failures), all=len(rows), table=target / TABLE_NAME)
        self._panel.ended("\n".join([words, *failures]))
