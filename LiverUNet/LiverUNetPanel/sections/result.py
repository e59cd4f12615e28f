"""The part of the panel that shows the last result and takes it further: 3D, Segment Editor, table, clipboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from LiverUNetLib.errors import ScanError
from LiverUNetLib.segmentation.summary import sentence, table_row

from ..logic import Outcome
from ..nodes.edits import millilitres
from ..nodes.segmentation import findLiver, isLiverEdited, volumeOf
from ..nodes.table import addMeasurements
from .buttons import enableOrSayWhy

__all__ = ["ResultSection"]

DEVICE_HINT = _("Auto takes a GPU that computes, or else the CPU; a run says which.")


class ResultSection:
    """Shows what became of a volume.

    Args:
        panel: has the widgets `ui`, the `settings`, `say`, and `start` for what takes time.
    """

    def __init__(self, panel: Any) -> None:
        self._panel, self._ui = panel, panel.ui
        ui = panel.ui
        self._outcome: Outcome | None = None
        self._edited = ""
        ui.editButton.clicked.connect(self._onEdit)
        ui.tableButton.clicked.connect(self._onAddToTable)
        ui.copyButton.clicked.connect(self._onCopy)
        ui.teachButton.clicked.connect(self._onTeach)

    def show(self, outcome: Outcome | None) -> None:
        """Show a result, or that there is none; it may be of a run long ago, kept with the segmentation."""
        self._outcome = outcome
        result = outcome.result if outcome else None
        self._edited = self._whatWasEdited()
        self._ui.resultLabel.text = self._text()
        self._ui.warningLabel.text = "\n".join(result.warnings) if result else ""
        self._ui.warningLabel.visible = bool(result and result.warnings)
        words = _("The last run was on {device} in {dtype}.").format(**result.provenance) if result else DEVICE_HINT
        self._ui.deviceStateLabel.text = words
        self._ui.show3DButton.setSegmentationNode(outcome.segmentationNode if outcome else None)
        self.updateButtons("")

    def _text(self) -> str:
        """The liver in some lines."""
        if self._outcome is None:
            return _("Nothing segmented yet.")
        lines = [self._outcome.name]
        if self._outcome.result:
            lines.append(sentence(self._outcome.result))
        else:
            lines.append(_("A liver was found here; what the run measured was not saved with it."))
        return "\n".join([*lines, self._edited] if self._edited else lines)

    def _whatWasEdited(self) -> str:
        """A radiologist reports the corrected volume; all other figures are those of the run, and should say so."""
        node = self._outcome.segmentationNode if self._outcome else None
        if node is None or not isLiverEdited(node):
            return ""
        volume_ml = millilitres(node, findLiver(node))
        if volume_ml is None:
            return _("The liver was edited since; these are the figures of the run.")
        return _(
            "The liver was edited since, it has {volume:.0f} ml now; the figures above are those of the run."
        ).format(volume=volume_ml)

    def updateButtons(self, busy: str) -> None:
        """What can be pressed now."""
        node = self._outcome.segmentationNode if self._outcome else None
        noLiver = "" if node and node.GetScene() and findLiver(node) else _("There is no liver yet.")
        noVolume = "" if noLiver or volumeOf(node) else _("The liver's volume is no longer in the scene.")
        noResult = "" if self._outcome and self._outcome.result else _("There is no result yet.")
        correct = _("Correct the liver first; no name of the patient is kept.")
        enableOrSayWhy(self._ui.editButton, noLiver, _("Correct the liver with Slicer's own tools."))
        enableOrSayWhy(self._ui.show3DButton, noLiver, _("Show the liver in 3D views."))
        enableOrSayWhy(self._ui.teachButton, busy or noLiver or noVolume, correct)
        enableOrSayWhy(self._ui.tableButton, noResult, _("Add the measurements to a table node."))
        enableOrSayWhy(self._ui.copyButton, noResult, _("Copy measurements and warnings as text."))

    def _onEdit(self) -> None:
        node = self._outcome.segmentationNode
        slicer.util.selectModule("SegmentEditor")
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        editor.setSegmentationNode(node)
        editor.setSourceVolumeNode(volumeOf(node))

    def _onAddToTable(self) -> None:
        row = table_row(self._outcome.result)
        row["warnings"] = " ".join(filter(None, [row["warnings"], self._edited]))
        node = addMeasurements(slicer.mrmlScene, [row])
        self._panel.say(_("Added to the table {name}.").format(name=node.GetName()))

    def _onCopy(self) -> None:
        slicer.app.clipboard().setText("\n".join([self._ui.resultLabel.text, *self._outcome.result.warnings]))
        self._panel.say(_("Copied."))

    def _onTeach(self) -> None:
        """Copy scan and liver to the training set, in a folder that is chosen once."""
        with slicer.util.tryWithErrorDisplay(_("The case was not added.")):
            from LiverUNetTrainPanel.logic import LiverUNetTrainLogic, SceneCase

            folder = self._panel.settings.folder("ownPath")
            if not folder:
                folder = qt.QFileDialog.getExistingDirectory(self._panel.parent, _("Folder for your training set"))
                self._panel.settings.setFolder("ownPath", folder)
            if folder:
                node = self._outcome.segmentationNode
                volume, liver = volumeOf(node), findLiver(node)
                if volume is None or liver is None:
                    raise ScanError(_("The liver or its volume is no longer in the scene."))
                case = SceneCase(volume, node, liver)
                steps = LiverUNetTrainLogic().addCaseSteps(case, Path(folder))
                self._panel.start(steps, lambda name: self._onTaught(name, folder))

    def _onTaught(self, name: str, folder: str) -> None:
        words = _("Added as {name} to {folder}; the module LiverUNetTrain learns from it.")
        self._panel.ended(words.format(name=name, folder=folder))
