"""The part of the panel that chooses a model, says what it is, and brings models in and out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from LiverUNetLib.errors import LiverUNetError
from LiverUNetLib.models.exchange import is_own, remove_model
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.models.store import find_model, list_models
from LiverUNetLib.segmentation.summary import model_score

__all__ = ["ModelSection"]


class ModelSection:
    """Shows the installed models; which one is chosen is told by `onChosen`.

    Args:
        ui: the panel's widgets by name.
        onChosen: called with the name when the user chooses another model.
    """

    def __init__(self, ui: Any, onChosen: Callable[[str], None]) -> None:
        self._ui, self._onChosen = ui, onChosen
        self._filling = False
        ui.modelSelector.currentIndexChanged.connect(self._onIndexChanged)
        ui.openModelButton.clicked.connect(self._onOpen)
        ui.removeModelButton.clicked.connect(self._onRemove)

    @property
    def name(self) -> str:
        """The chosen model's."""
        return self._ui.modelSelector.currentText

    def model(self) -> LiverModel:
        """The chosen model.

        Raises:
            ModelError: there is none of that name, or it is broken.
        """
        return find_model(self.name)

    def show(self, name: str) -> None:
        """List what is installed now and choose `name`, which is listed even if it is gone."""
        self._filling = True
        selector = self._ui.modelSelector
        selector.clear()
        for known in dict.fromkeys([*list_models(), name]):
            selector.addItem(known)
        selector.currentIndex = selector.findText(name)
        self._filling = False
        self._describe()

    def _describe(self) -> None:
        """The card in a line; for a broken model what is wrong with it."""
        try:
            model = self.model()
        except LiverUNetError as error:
            words = str(error)
        else:
            words = _("{description}\n{score}\nLicense: {license}").format(
                description=model.card.description, score=model_score(model), license=model.card.license
            )
        own = is_own(self.name)
        self._ui.modelCardLabel.text = words
        self._ui.removeModelButton.enabled = own
        self._ui.removeModelButton.toolTip = (
            _("Delete this model from your own models.")
            if own
            else _("Only models that you have added can be removed.")
        )

    def _onIndexChanged(self) -> None:
        if not self._filling:
            self._describe()
            self._onChosen(self.name)

    def _onOpen(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The model's folder cannot be opened.")):
            folder: Path = self.model().folder
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))

    def _onRemove(self) -> None:
        name = self.name
        if slicer.util.confirmYesNoDisplay(_("Delete the model {name} from this computer?").format(name=name)):
            with slicer.util.tryWithErrorDisplay(_("The model was not removed.")):
                remove_model(name)
                self.show(next(iter(list_models()), name))
                self._onChosen(self.name)
