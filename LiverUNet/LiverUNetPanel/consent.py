"""Questions to the user before a run: agree to the license of a model, install PyTorch for a GPU."""

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
    "This computer seems to have a GPU. LiverUNet can use it with PyTorch, which takes some minutes to install and up "
    "to several GB of disk. Without PyTorch it uses the CPU, which takes some seconds for each scan.\n\n"
    "Install PyTorch and use the GPU? You can change this later by choosing another device in the panel."
)


def agreesToLicense(card: ModelCard, settings: Settings) -> bool:
    """Ask the user to agree to the license of a model, if it needs consent and the user has not agreed before."""
    if not card.needs_consent or slicer.app.testingEnabled() or settings.hasConsent(card.license):
        return True
    question = LICENSE_QUESTION.format(name=card.name, license=card.license)
    if not slicer.util.confirmYesNoDisplay(question, _("License")):
        return False
    settings.addConsent(card.license)
    return True


def chooseDevice(settings: Settings) -> tuple[str, str]:
    """Return the device for `choose_device`, and the engine whose packages it needs.

    The user is asked only with the device "auto", a GPU in this computer and no PyTorch. The answer is
    kept until another device is chosen.
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
    """Whether there is a GPU that lacks only packages; a PyTorch for CPUs was the user's choice and stays."""
    return bool(unmet(TORCH_ENGINE)) and (gpu_driver_present() if unmet(TORCH_ENGINE[:1]) else gpu_in_sight())
