"""What only a machine with an NVIDIA GPU can show; skipped elsewhere."""

import logging

import numpy as np
import pytest
import torch

from helpers import dice
from LiverUNetLib.models.engines import TorchNetwork
from LiverUNetLib.models.network import build_network
from LiverUNetLib.models.spec import NetworkSpec
from LiverUNetLib.models.store import find_model
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.steps import finish
from LiverUNetLib.system.environment import Device, check_devices, choose_device, gpu_in_sight

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU of NVIDIA here")


def test_auto_takes_the_gpu_in_half_precision():
    assert gpu_in_sight()
    device = choose_device()
    assert (device.name, device.engine, device.dtype) == ("cuda:0", "torch", "float16")
    assert check_devices()["cuda:0"] == "works, PyTorch in float16"


def test_the_gpu_finds_what_the_cpu_finds(a_phantom):
    model = find_model("liver-ct")
    gpu, cpu = (finish(segment(a_phantom[0], model, device)) for device in (choose_device(), Device("cpu", "onnx")))
    assert dice(gpu.mask_kji, cpu.mask_kji) > 0.999
    assert gpu.provenance.device == "cuda:0"


def test_half_precision_moves_no_probability_far():
    torch.manual_seed(0)
    network = build_network(NetworkSpec()).eval()
    image = np.random.default_rng(0).uniform(-1, 1, (4, 5, 64, 96)).astype(np.float32)
    logits = [TorchNetwork(network, device)(image) for device in (Device("cpu"), choose_device())]
    one, other = (1 / (1 + np.exp(-part)) for part in logits)
    assert abs(one - other).max() < 0.01


def test_a_gpu_that_is_too_small_halves_its_batches(caplog):
    torch.cuda.empty_cache()
    network = TorchNetwork(build_network(NetworkSpec()).eval(), choose_device())
    image = np.zeros((32, 5, 512, 512), np.float32)
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(600e6 / total)
    try:
        with caplog.at_level(logging.WARNING):
            logits = network(image)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert logits.shape == (32, 1, 512, 512)
    assert "is too small" in caplog.text
