"""The action "Add to my training set" in LiverUNet's panel."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import qt
import slicer
from slicer import vtkMRMLSegmentationNode
from slicer.i18n import tr as _

from LiverUNetLib.errors import ScanError
from LiverUNetLib.steps import Progress
from LiverUNetPanel.nodes.segmentation import findLiver, volumeOf
from LiverUNetPanel.settings import Settings

from .logic import LiverUNetTrainLogic
from .nodes.segments import SceneCase

__all__ = ["addLiverCase"]


def addLiverCase(segmentationNode: vtkMRMLSegmentationNode) -> Generator[Progress, None, str] | None:
    """Copy a liver and its scan to the training set, whose folder the user chooses once.

    Returns:
        Steps that end with a message; None if the user chose no folder.

    Raises:
        ScanError: the liver or its volume is no longer in the scene.
    """
    settings = Settings()
    folder = settings.folder("ownPath")
    if not folder:
        title = _("Folder for your training set")
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title)
        settings.setFolder("ownPath", folder)
    if not folder:
        return None
    volume, liver = volumeOf(segmentationNode), findLiver(segmentationNode)
    if volume is None or liver is None:
        raise ScanError(_("The liver or its volume is no longer in the scene."))
    return _steps(SceneCase(volume, segmentationNode, liver), folder)


def _steps(case: SceneCase, folder: str) -> Generator[Progress, None, str]:
    name = yield from LiverUNetTrainLogic().addCaseSteps(case, Path(folder))
    return _("Added as {name} to {folder}; the module LiverUNetTrain can train on it.").format(name=name, folder=folder)
