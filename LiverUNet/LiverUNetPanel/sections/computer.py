"""The section *Installation and help*, and the choice of a device: everything that belongs to this computer."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from ..logic import LiverUNetLogic
from ..settings import DEVICES, Settings
from .buttons import enableOrSayWhy
from .run import RunSection

__all__ = ["ComputerSection"]


class ComputerSection:
    """Device, folder of wheels, doctor, and the licenses that the user has agreed to.

    Args:
        ui: the widgets of the panel by name.
    """

    def __init__(self, ui: Any, logic: LiverUNetLogic, run: RunSection, settings: Settings) -> None:
        self._ui, self._logic, self._run, self._settings = ui, logic, run, settings
        for device, title in DEVICES.items():
            ui.deviceSelector.addItem(title, device)
        ui.deviceSelector.currentIndex = max(ui.deviceSelector.findData(settings.device), 0)
        ui.wheelPath.currentPath = settings.wheelFolder
        ui.deviceSelector.currentIndexChanged.connect(self._onDeviceChosen)
        ui.wheelPath.currentPathChanged.connect(self._onWheelFolderChosen)
        ui.doctorButton.clicked.connect(self._onDoctor)
        ui.withdrawButton.clicked.connect(self._onWithdraw)

    def updateButtons(self, busy: str) -> None:
        """Enable what is possible now."""
        enableOrSayWhy(
            self._ui.doctorButton, busy, _("Test devices and models, and copy the findings for a bug report.")
        )
        self._updateWithdraw()

    def _updateWithdraw(self) -> None:
        noConsent = "" if self._settings.hasConsents() else _("You have agreed to no license.")
        enableOrSayWhy(self._ui.withdrawButton, noConsent, _("The next run asks for your consent again."))

    def _onDeviceChosen(self) -> None:
        self._settings.device = self._ui.deviceSelector.itemData(self._ui.deviceSelector.currentIndex)

    def _onWheelFolderChosen(self, folder: str) -> None:
        self._settings.wheelFolder = folder

    def _onDoctor(self) -> None:
        self._run.start(self._logic.examineSteps(), self._onExamined)

    def _onExamined(self, findings: str) -> None:
        slicer.app.clipboard().setText(findings)
        self._run.say(_("Copied for a bug report:\n{text}").format(text=findings))

    def _onWithdraw(self) -> None:
        self._settings.withdrawConsents()
        self._run.say(_("The next run asks for your consent again."))
        self._updateWithdraw()
