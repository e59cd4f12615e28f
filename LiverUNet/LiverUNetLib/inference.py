"""Slices in batches through the network, step by step."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np

from .environment import Device
from .geometry import Canvas, PreprocessingSpec, context_indices
from .views import VIEWS, assemble, cut, isotropic, usable_views

if TYPE_CHECKING:
    from torch import nn

__all__ = ["BATCH_SIZE", "predict", "predict_volume"]

logger = logging.getLogger(__name__)

# Fixed for each kind of device, so that a scan gives the same mask on every run.
BATCH_SIZE = {"cpu": 8, "mps": 16, "cuda": 32}


def predict_volume(
    network: nn.Module, image: np.ndarray, slice_mm: float, spec: PreprocessingSpec, device: Device, *, multiple: int
) -> Generator[tuple[int, int], None, np.ndarray]:
    """Run the network over a volume in every view and average; yields slices done and slices in all.

    Args:
        image: normalised, on the model grid, float32 (slices, rows, columns).
        slice_mm: distance of the slices.
        multiple: rows and columns that the network takes are multiples of this.

    Returns:
        The probability of liver, float32, shape of the image.
    """
    views = usable_views(spec.views, slice_mm)
    cube = isotropic(image, slice_mm, spec.pixel_mm) if views != ("axial",) else image
    lengths = {view: len(image) if view == "axial" else cube.shape[VIEWS[view][0]] for view in views}
    total, before = sum(lengths.values()), 0
    probability = np.zeros(image.shape, dtype=np.float32)
    for view in views:
        slices, mm = (image, slice_mm) if view == "axial" else (cut(cube, view), spec.pixel_mm)
        size = slices.shape[1:]
        canvas = Canvas.around((size[0] / 2, size[1] / 2), tuple(-(-length // multiple) * multiple for length in size))
        context = context_indices(len(slices), mm, spec.context_mm)
        steps = predict(network, canvas.crop(slices, fill=-1.0), context, device)
        while True:
            try:
                yield before + next(steps), total
            except StopIteration as end:
                found = canvas.paste(end.value, size, fill=0.0)
                break
        probability += (found if view == "axial" else assemble(found, view, len(image))) / len(views)
        before += lengths[view]
    return probability


def predict(
    network: nn.Module, image: np.ndarray, context: np.ndarray, device: Device
) -> Generator[int, None, np.ndarray]:
    """Run the network over all slices; yields the number of slices done after every batch.

    When a GPU's memory is too small, batches are halved, and at last the CPU goes on; both are logged.

    Args:
        network: takes (batch, channels, rows, columns), gives logits (batch, 1, rows, columns).
        image: normalised slices, float32 (slices, rows, columns).
        context: which slices are the channels of each, int64 (slices, channels).

    Returns:
        The probability of liver, float32 (slices, rows, columns).
    """
    import torch

    network = _placed(network, device)
    probability = np.empty(image.shape, dtype=np.float32)
    batch, done = BATCH_SIZE[device.kind], 0
    while done < len(image):
        channels = torch.from_numpy(image[context[done : done + batch]])
        try:
            with torch.inference_mode(), device.autocast():
                logits = network(channels.to(device.name, memory_format=torch.channels_last))
            probability[done : done + batch] = logits.float().sigmoid()[:, 0].cpu().numpy()
        except torch.OutOfMemoryError:
            if device.kind == "cpu":
                raise
            if batch > 1:
                batch //= 2
                logger.warning("The memory of %s is too small; going on with batches of %d slices.", device.name, batch)
            else:
                logger.warning("The memory of %s is too small for one slice; going on with the CPU.", device.name)
                device = Device("cpu")
                batch, network = BATCH_SIZE["cpu"], _placed(network, device)
            continue
        done = min(done + batch, len(image))
        yield done
    return probability


def _placed(network: nn.Module, device: Device) -> nn.Module:
    """The network on the device, for inference; channels last is a quarter faster on CPUs."""
    import torch

    return network.eval().to(device.name, memory_format=torch.channels_last)
