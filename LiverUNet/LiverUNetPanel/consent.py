"""What the user is asked before a run: to agree to the license of a model, and whether a GPU is worth PyTorch."""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _

from LiverUNetLib.models.card import ModelCard
from LiverUNetLib.system.dependencies import TORCH_ENGINE, unmet
from LiverUNetLib.system.environment import gpu_driver_present, gpu_in_sight, likely_engine

from .settings import Settings

__all__ = ["agreesToLicense", "chooseDevice"]

LICENSE_QUESTION = _(
    "The weights of the model {name} may be used under these terms only:\n\n{license}\n\nDo you agree?"
)
GPU_QUESTION = _(
    "This computer seems to have a GPU. LiverUNet can compute on it with PyTorch, which takes some minutes to "
    "install and up to several GB of disk. Without it the CPU computes, in some seconds for each scan.\n\n"
    "Install PyTorch and use the GPU? You can change your mind by the device in the panel."
)


def agreesToLicense(card: ModelCard, settings: Settings) -> bool:
    """Whether the user agrees, or has agreed before, to the license of a model, if it asks for that."""
    if not card.needs_consent or slicer.app.testingEnabled() or settings.hasConsent(card.license):
        return True
    question = LICENSE_QUESTION.format(name=card.name, license=card.license)
    if not slicer.util.confirmYesNoDisplay(question, _("License")):
        return False
    settings.addConsent(card.license)
    return True


def chooseDevice(settings: Settings) -> tuple[str, str]:
    """The device, as `choose_device` takes it, and the engine whose packages it needs.

    The user is asked if the choice is theirs: with the device "auto", a GPU in this computer, and no PyTorch yet.
    The answer counts until another device is chosen.
    """
    device = settings.device
    if device != "auto" or not _gpuNeedsPackages():
        return device, likely_engine(device, "auto")
    if slicer.app.testingEnabled():
        return "cpu", "onnx"
    if settings.usesGpu is None:
        settings.usesGpu = bool(slicer.util.confirmYesNoDisplay(GPU_QUESTION, _("GPU")))
    return (device, "torch") if settings.usesGpu else ("cpu", "onnx")


def _gpuNeedsPackages() -> bool:
    """Whether there is a GPU that only packages keep from computing; a PyTorch for CPUs alone is the user's choice."""
    return bool(unmet(TORCH_ENGINE)) and (gpu_driver_present() if unmet(TORCH_ENGINE[:1]) else gpu_in_sight())
