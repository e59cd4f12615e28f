"""The section *Result*: shows the last result, and passes it on to 3D, Segment Editor, table or clipboard."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import Any

import slicer
from slicer.i18n import tr as _

from LiverUNetLib.segmentation.summary import sentence, verdict_lines

from ..case_action import caseAction
from ..logic import LiverUNetLogic, Outcome
from ..nodes.edits import milliliters
from ..nodes.segmentation import findLiver, isLiverEdited, volumeOf
from .buttons import enableOrSayWhy
from .run import RunSection

__all__ = ["ResultSection"]

DEVICE_HINT = _("Auto uses a GPU that works, otherwise the CPU; the result names the device.")


class ResultSection:
    """Shows the result of a volume.

    Args:
        ui: the widgets of the panel by name.
    """

    def __init__(self, ui: Any, logic: LiverUNetLogic, run: RunSection) -> None:
        self._ui, self._logic, self._run = ui, logic, run
        self._outcome: Outcome | None = None
        self._edited = ""
        ui.editButton.clicked.connect(self._onEdit)
        ui.tableButton.clicked.connect(self._onAddToTable)
        ui.copyButton.clicked.connect(self._onCopy)
        ui.addCaseButton.clicked.connect(self._onAddCase)
        ui.verdictLabel.linkActivated.connect(self._onSlice)
        self.show(None)

    def show(self, outcome: Outcome | None) -> None:
        """Show a result, of the last run or of an earlier one that is kept with its segmentation; None if none."""
        self._outcome = outcome
        result = outcome.result if outcome else None
        self._edited = self._describeEdit()
        self._ui.resultLabel.text = self._text()
        self._ui.verdictLabel.text = self._verdictText()
        self._ui.verdictLabel.visible = bool(result)
        self._ui.warningLabel.text = "\n".join(result.warnings) if result else ""
        self._ui.warningLabel.visible = bool(result and result.warnings)
        self._ui.deviceStateLabel.text = self._deviceText()
        self._ui.show3DButton.setSegmentationNode(outcome.segmentationNode if outcome else None)
        self.updateButtons("")

    def _text(self) -> str:
        """The measurements of the liver, in a few lines."""
        if self._outcome is None:
            return _("Nothing segmented yet.")
        lines = [self._outcome.name]
        if self._outcome.result:
            lines.append(sentence(self._outcome.result))
        else:
            lines.append(_("There is a liver from an earlier run; its measurements were not saved with it."))
        return "\n".join([*lines, self._edited] if self._edited else lines)

    def _verdictText(self) -> str:
        """The verdict, with the slices worth a look as links that hold their number in the list."""
        if not (self._outcome and self._outcome.result):
            return ""
        verdict = self._outcome.result.verdict
        (line,) = verdict_lines(replace(verdict, slices=()))
        slices = ", ".join(f'<a href="{n}">{each.number}</a>' for n, each in enumerate(verdict.slices))
        return f"{escape(line)}<br>{_('Slices worth a look:')} {slices}" if slices else escape(line)

    def _deviceText(self) -> str:
        if not (self._outcome and self._outcome.result):
            return DEVICE_HINT
        provenance = self._outcome.result.provenance
        return _("The last run was on {device} in {dtype}.").format(device=provenance.device, dtype=provenance.dtype)

    def _describeEdit(self) -> str:
        """The volume of an edited liver, in a sentence; empty if it was not edited."""
        node = self._outcome.segmentationNode if self._outcome else None
        if node is None or not isLiverEdited(node):
            return ""
        volume_ml = milliliters(node, findLiver(node))
        if volume_ml is None:
            return _("The liver was edited after the run; these are the figures of the run.")
        return _(
            "The liver was edited after the run and has {volume:.0f} ml now; the figures above are those of the run."
        ).format(volume=volume_ml)

    def updateButtons(self, busy: str) -> None:
        """Enable what is possible now."""
        node = self._outcome.segmentationNode if self._outcome else None
        noLiver = "" if node and node.GetScene() and findLiver(node) else _("There is no liver yet.")
        noVolume = "" if noLiver or volumeOf(node) else _("The liver's volume is no longer in the scene.")
        noResult = "" if self._outcome and self._outcome.result else _("There is no result yet.")
        addCase = _("Correct the liver first. The patient's name is not copied.")
        self._ui.addCaseButton.visible = caseAction() is not None
        enableOrSayWhy(self._ui.editButton, noLiver, _("Correct the liver in Slicer's Segment Editor."))
        enableOrSayWhy(self._ui.show3DButton, noLiver, _("Show the liver in 3D views."))
        enableOrSayWhy(self._ui.addCaseButton, busy or noLiver or noVolume, addCase)
        enableOrSayWhy(self._ui.tableButton, noResult, _("Add the measurements to a table node."))
        enableOrSayWhy(self._ui.copyButton, noResult, _("Copy measurements and warnings as text."))

    def _onSlice(self, link: str) -> None:
        """Show the most doubtful point of a slice in all slice views."""
        point = self._outcome.result.verdict.slices[int(link)].point_ras_mm
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *point)

    def _onEdit(self) -> None:
        node = self._outcome.segmentationNode
        slicer.util.selectModule("SegmentEditor")
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        editor.setSegmentationNode(node)
        editor.setSourceVolumeNode(volumeOf(node))

    def _onAddToTable(self) -> None:
        node = self._logic.addToTable([self._outcome.result], note=self._edited)
        self._run.say(_("Added to the table {name}.").format(name=node.GetName()))

    def _onCopy(self) -> None:
        result = self._outcome.result
        lines = [self._ui.resultLabel.text, *verdict_lines(result.verdict), *result.warnings]
        slicer.app.clipboard().setText("\n".join(lines))
        self._run.say(_("Copied."))

    def _onAddCase(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The case was not added.")):
            steps = caseAction()(self._outcome.segmentationNode)
        if steps:
            self._run.start(steps, self._run.say)
