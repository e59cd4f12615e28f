"""The action "Add to my training set" of the panel, which the module LiverUNetTrain provides.

LiverUNet imports nothing of LiverUNetTrain: without that module the button is hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import slicer
from slicer import vtkMRMLSegmentationNode

from LiverUNetLib.steps import Progress

__all__ = ["CaseAction", "caseAction", "provideCaseAction"]

# Takes a segmentation with a liver; its steps return a message to the user. None if the user declined.
CaseAction = Callable[[vtkMRMLSegmentationNode], Generator[Progress, None, str] | None]
# Kept beside Slicer's modules, where it survives a reload of this package.
NAME = "LiverUNetCaseAction"


def provideCaseAction(action: CaseAction) -> None:
    """Offer the action in LiverUNet's panel."""
    setattr(slicer.modules, NAME, action)


def caseAction() -> CaseAction | None:
    """The action, if a module provides it."""
    return getattr(slicer.modules, NAME, None)
