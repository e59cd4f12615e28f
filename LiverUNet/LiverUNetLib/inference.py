"""Slices in batches through the network, step by step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .environment import Device
from .geometry import Canvas, PreprocessingSpec, context_indices
from .model import THRESHOLD
from .postprocessing import without_other_components
from .steps import in_background
from .views import VIEWS, assemble, cut, isotropic, usable_views

if TYPE_CHECKING:
    from torch import nn

__all__ = ["BATCH_SIZE", "predict", "predict_volume"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Of the largest section of the liver; a dome or tip that just touches the end of the scan has less.
CUT_SHARE = 0.2
# Fixed for each kind of device, so that a scan gives the same mask on every run.
BATCH_SIZE = {"cpu": 8, "mps": 16, "cuda": 32}


def predict_volume(
    network: nn.Module, image: np.ndarray, slice_mm: float, spec: PreprocessingSpec, device: Device, *, multiple: int
) -> Generator[tuple[int, int], None, np.ndarray]:
    """Run the network over a volume in every view and average; yields slices done and slices in all.

    Where the axial view finds that the scan ends inside the liver, coronal and sagittal slices are not
    asked: they would show a body that is cut across where models have seldom seen it.

    Args:
        image: normalised, on the model grid, float32 (slices, rows, columns).
        slice_mm: distance of the slices.
        multiple: rows and columns that the network takes are multiples of this.

    Returns:
        The probability of liver, float32, shape of the image.
    """
    views, cube = usable_views(spec.views, slice_mm), None
    lengths = {view: image.shape[VIEWS[view][0]] for view in views}
    total, before = sum(lengths.values()), 0
    probability = np.zeros(image.shape, dtype=np.float32)
    for view in views:
        if view != "axial" and cube is None:
            cube = yield from _aside(partial(isotropic, image, slice_mm, spec.pixel_mm), (before, total))
        slices, mm = (image, slice_mm) if view == "axial" else (cut(cube, view), spec.pixel_mm)
        size = slices.shape[1:]
        canvas = Canvas.around((size[0] / 2, size[1] / 2), tuple(-(-length // multiple) * multiple for length in size))
        context = context_indices(len(slices), mm, spec.context_mm)
        cropped = yield from _aside(partial(canvas.crop, slices, fill=-1.0), (before, total))
        steps = predict(network, cropped, context, device)
        while True:
            try:
                yield before + next(steps), total
            except StopIteration as end:
                found = end.value
                break
        before += lengths[view]
        found = yield from _aside(partial(canvas.paste, found, size, fill=0.0), (before, total))
        if view != "axial":
            found = yield from _aside(partial(assemble, found, view, len(image)), (before, total))
        elif len(views) > 1 and (yield from _aside(partial(_ends_inside_the_liver, found), (before, total))):
            return found
        probability += found / len(views)
    return probability


def _ends_inside_the_liver(probability: np.ndarray) -> bool:
    """Whether the likeliest part of what was found fills the first or the last slice as it does others."""
    liver = without_other_components(probability, THRESHOLD) > THRESHOLD
    pixels = np.count_nonzero(liver, axis=(1, 2))
    return bool(max(pixels[0], pixels[-1]) > CUT_SHARE * pixels.max())


def _aside(work: Callable[[], T], counts: tuple[int, int]) -> Generator[tuple[int, int], None, T]:
    """Do in a thread what would hold an event loop too long, and yield the counts meanwhile."""
    steps = in_background("predict", work)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        yield counts


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
