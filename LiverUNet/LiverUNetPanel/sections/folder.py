"""The section *Several scans*: segments the files of a folder, without the scene."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from LiverUNetLib.segmentation.batch import TABLE_NAME
from LiverUNetLib.segmentation.batch_table import FAILED, BatchRow

from ..logic import LiverUNetLogic
from .buttons import enableOrSayWhy
from .run import RunSection

__all__ = ["FolderSection"]

# Nothing, and the rules of `read_volume`; numbers, descriptions and UIDs are typed in.
SERIES = ["", "thinnest", "largest"]


class FolderSection:
    """Two folders, and which DICOM series to take where a folder holds several.

    Args:
        ui: the widgets of the panel by name.
        prepareRun: returns the model and the device for a run, or nothing if the user declined.
        onChanged: called with the new path when a folder is chosen.
    """

    def __init__(
        self,
        ui: Any,
        logic: LiverUNetLogic,
        run: RunSection,
        prepareRun: Callable[[], dict[str, str]],
        *,
        onChanged: Callable[..., None],
    ) -> None:
        self._ui, self._logic, self._run, self._prepareRun = ui, logic, run, prepareRun
        ui.seriesSelector.addItems(SERIES)
        ui.seriesSelector.lineEdit().placeholderText = _("the only one")
        ui.segmentFolderButton.clicked.connect(self._onSegment)
        for path in (ui.sourcePath, ui.targetPath):
            path.currentPathChanged.connect(onChanged)

    def updateButtons(self, busy: str, modelFault: str) -> None:
        """Enable what is possible now."""
        chosen = self._ui.sourcePath.currentPath and self._ui.targetPath.currentPath
        noFolder = "" if chosen else _("Choose both folders.")
        missing = busy or noFolder or modelFault
        enableOrSayWhy(self._ui.segmentFolderButton, missing, _("Resumes where it stopped."))

    def _onSegment(self) -> None:
        source, target = Path(self._ui.sourcePath.currentPath), Path(self._ui.targetPath.currentPath)
        series = self._ui.seriesSelector.currentText.strip() or None
        if options := self._prepareRun():
            steps = self._logic.segmentFolderSteps(source, target, series=series, **options)
            self._run.start(steps, lambda rows: self._onSegmented(rows, target))

    def _onSegmented(self, rows: list[BatchRow], target: Path) -> None:
        failures = [f"{row.file}: {row.error}" for row in rows if row.state == FAILED]
        message = _("{good} of {all} scans segmented; the table is {table}.").format(
            good=len(rows) - len(failures), all=len(rows), table=target / TABLE_NAME
        )
        self._run.say("\n".join([message, *failures]))
