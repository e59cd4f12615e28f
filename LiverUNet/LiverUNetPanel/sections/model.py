"""The choice of a model, with its card; adds and removes models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from LiverUNetLib.errors import LiverUNetError
from LiverUNetLib.models.exchange import is_own
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.models.store import find_model, list_models
from LiverUNetLib.segmentation.summary import model_score

from ..logic import LiverUNetLogic
from .buttons import enableOrSayWhy
from .run import RunSection

__all__ = ["ModelSection"]


class ModelSection:
    """Shows the installed models and the card of the chosen one.

    Args:
        ui: the widgets of the panel by name.
        onChosen: called with the name when the user chooses another model.
    """

    def __init__(self, ui: Any, logic: LiverUNetLogic, run: RunSection, onChosen: Callable[[str], None]) -> None:
        self._ui, self._logic, self._run, self._onChosen = ui, logic, run, onChosen
        self._filling = False
        ui.modelSelector.currentIndexChanged.connect(self._onIndexChanged)
        ui.addModelButton.clicked.connect(self._onAdd)
        ui.openModelButton.clicked.connect(self._onOpen)
        ui.removeModelButton.clicked.connect(self._onRemove)

    @property
    def name(self) -> str:
        """Of the chosen model."""
        return self._ui.modelSelector.currentText

    def model(self) -> LiverModel:
        """The chosen model.

        Raises:
            ModelError: it is not installed, or it is broken.
        """
        return find_model(self.name)

    def fault(self) -> str:
        """Why the chosen model cannot be used; empty if it can."""
        try:
            self.model()
        except LiverUNetError as error:
            return str(error)
        return ""

    def show(self, name: str) -> None:
        """List the installed models and choose `name`, which is listed even if it is not installed."""
        self._filling = True
        selector = self._ui.modelSelector
        selector.clear()
        for known in dict.fromkeys([*list_models(), name]):
            selector.addItem(known)
        selector.currentIndex = selector.findText(name)
        self._filling = False
        self._describe()

    def updateButtons(self, busy: str) -> None:
        """Enable what is possible now."""
        enableOrSayWhy(self._ui.addModelButton, busy, _("Install a model from a zip; nothing in it is executed."))

    def _describe(self) -> None:
        """Show the card in short, or what is wrong with the model."""
        try:
            model = self.model()
        except LiverUNetError as error:
            text = str(error)
        else:
            text = _("{description}\n{score}\nLicense: {license}").format(
                description=model.card.description, score=model_score(model), license=model.card.license
            )
        self._ui.modelCardLabel.text = text
        notOwn = "" if is_own(self.name) else _("Only models that you have added can be removed.")
        enableOrSayWhy(self._ui.removeModelButton, notOwn, _("Delete this model from your own models."))

    def _onIndexChanged(self) -> None:
        if not self._filling:
            self._describe()
            self._onChosen(self.name)

    def _onAdd(self) -> None:
        path = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Add a model"), "", _("Models (*.zip)"))
        with slicer.util.tryWithErrorDisplay(_("The model was not added.")):
            ready = path and self._run.ensureInstalled("onnx")
        if ready:
            self._run.start(self._logic.installModelSteps(Path(path)), self._onAdded)

    def _onAdded(self, model: LiverModel) -> None:
        self._run.say(_("Installed {name} {version}.").format(name=model.card.name, version=model.card.version))
        self.show(model.card.name)
        self._onChosen(model.card.name)

    def _onOpen(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The model's folder cannot be opened.")):
            folder: Path = self.model().folder
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))

    def _onRemove(self) -> None:
        name = self.name
        if slicer.util.confirmYesNoDisplay(_("Delete the model {name} from this computer?").format(name=name)):
            with slicer.util.tryWithErrorDisplay(_("The model was not removed.")):
                self._logic.removeModel(name)
                self.show(next(iter(list_models()), name))
                self._onChosen(self.name)
