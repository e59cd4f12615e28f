"""Compute networks with ONNX Runtime, which is light and for CPUs, or with PyTorch, for GPUs and training.

Both take the same images and give the same logits, up to rounding.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..system.environment import Device, usable_cores

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Network", "OnnxNetwork", "TorchNetwork"]

logger = logging.getLogger(__name__)

# Fixed for each kind of device, so that a scan gives the same mask on every run.
BATCH_SIZE = {"cpu": 4, "mps": 16, "cuda": 32}


class Network(Protocol):
    """A network that is ready to compute.

    Attributes:
        device: the device and engine that compute it; its note is a warning for the user.
        batch_size: the number of slices to pass at once.
    """

    device: Device
    batch_size: int

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Logits, float32 (batch, 1, *sides), of normalized images, float32 (batch, channels, *sides)."""
        ...


class OnnxNetwork:
    """A network computed by ONNX Runtime.

    Args:
        graph: an ONNX file as bytes, so that it cannot refer to other files.
        in_channels: the number of channels of the images.
        threads: None for one per core.

    Raises:
        ValueError: the graph is damaged or takes other images.
    """

    def __init__(self, graph: bytes, in_channels: int, device: Device, *, threads: int | None = None) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()  # for Windows; on other systems `LiverUNetLib/__init__.py` disables it
        self.device, self.batch_size = device, BATCH_SIZE[device.kind]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or usable_cores()
        options.enable_mem_pattern = False  # a memory plan for each shape needs much memory and saves little time
        options.log_severity_level = 4  # errors are raised anyway
        # Waiting threads sleep; otherwise they occupy cores that others need, see Testing/benchmarks/busy_machine.md.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            (image,) = self._session.get_inputs()
        except Exception as error:  # the errors of ONNX Runtime have no other common type
            raise ValueError(str(error)) from error
        if image.shape[1] != in_channels:
            raise ValueError(f"it takes {image.shape[1]} channels, not {in_channels}")
        self._name = image.name

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """See `Network`."""
        logits: np.ndarray = self._session.run(None, {self._name: image})[0]
        return logits


class TorchNetwork:
    """A network computed by PyTorch.

    If the memory of a GPU is too small, batches are halved; if that is not enough, the CPU is used. Both are logged.

    Args:
        network: takes images (batch, channels, *sides), gives logits (batch, 1, *sides).
    """

    def __init__(self, network: nn.Module, device: Device) -> None:
        self.device, self.batch_size = device, BATCH_SIZE[device.kind]
        self._network = _placed(network, device)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """See `Network`."""
        import torch

        while True:
            try:
                return np.concatenate(
                    [
                        self._logits(image[first : first + self.batch_size])
                        for first in range(0, len(image), self.batch_size)
                    ]
                )
            except torch.OutOfMemoryError:
                if self.device.kind == "cpu":
                    raise
                self._use_less_memory()

    def _logits(self, image: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode(), self.device.autocast():
            order = torch.channels_last if image.ndim == 4 else torch.channels_last_3d
            logits = self._network(torch.from_numpy(image).to(self.device.name, memory_format=order))
            found: np.ndarray = logits.float().cpu().numpy()
            return found

    def _use_less_memory(self) -> None:
        """Halve the batches or, if they are single slices, use the CPU."""
        name = self.device.name
        if self.batch_size > 1:
            self.batch_size //= 2
            logger.warning(
                "The memory of %s is too small; continuing with batches of %d slices.", name, self.batch_size
            )
        else:
            logger.warning("The memory of %s is too small for one slice; continuing on the CPU.", name)
            self.device = replace(self.device, name="cpu", dtype="float32")
            self.batch_size, self._network = BATCH_SIZE["cpu"], _placed(self._network, self.device)


def _placed(network: nn.Module, device: Device) -> nn.Module:
    """Move the network to the device, for inference; channels last is a quarter faster for slices on CPUs."""
    import torch

    network = network.eval().to(device.name)
    flat = all(weight.ndim != 5 for weight in network.parameters())
    return network.to(memory_format=torch.channels_last) if flat else network  # type: ignore[call-overload] # not in torch's stubs
