"""Slices in batches through the network, step by step."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np

from .environment import Device

if TYPE_CHECKING:
    from torch import nn

__all__ = ["BATCH_SIZE", "predict"]

logger = logging.getLogger(__name__)

# Fixed for each kind of device, so that a scan gives the same mask on every run.
BATCH_SIZE = {"cpu": 8, "mps": 16, "cuda": 32}


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
