"""ONNX Runtime and PyTorch compute the same network; segmenting needs no PyTorch."""

import contextlib
import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from helpers import save_two_looks
from LiverUNetLib.cli.main import main
from LiverUNetLib.errors import DeviceError, ModelError
from LiverUNetLib.models import bundle
from LiverUNetLib.models.bundle import save_model
from LiverUNetLib.models.card import COARSE, FINE, ModelCard, onnx_file
from LiverUNetLib.models.engines import OnnxNetwork, TorchNetwork
from LiverUNetLib.models.network import build_network
from LiverUNetLib.models.spec import CoarseLook, FineLook, ModelSpec, NetworkSpec
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.steps import finish
from LiverUNetLib.system import environment
from LiverUNetLib.system.environment import Device, choose_device

ONNX_ON_CPU, TORCH_ON_CPU = Device("cpu", "onnx"), Device("cpu", "torch")


def with_statistics(spec: NetworkSpec) -> dict[str, torch.Tensor]:
    """Random weights with running statistics that differ from 0 and 1."""
    torch.manual_seed(0)
    network = build_network(spec)
    for _ in range(3):
        network(torch.randn(2, spec.in_channels, *[16] * spec.spatial_dims))
    return network.state_dict()


@pytest.mark.slow
def test_both_engines_give_the_same_logits_in_both_looks(tmp_path):
    fine = NetworkSpec(in_channels=3, channels=(4, 8, 16), strides=(2, 2))
    coarse = NetworkSpec(in_channels=1, channels=(4, 8), strides=(2,), spatial_dims=3)
    spec = ModelSpec(FineLook(context_mm=(-4.0, 0.0, 4.0), network=fine), CoarseLook(network=coarse))
    weights = {FINE: with_statistics(fine), COARSE: with_statistics(coarse)}
    model = save_model(tmp_path / "both", ModelCard("both", "1", "", "MIT", spec), weights, "")
    onnx, pytorch = (model.networks(device) for device in (ONNX_ON_CPU, TORCH_ON_CPU))
    random = np.random.default_rng(0)
    for look, shape in (("fine", (5, 3, 24, 36)), ("coarse", (1, 1, 10, 12, 14))):
        image = random.uniform(-1, 1, shape).astype(np.float32)
        one, other = (getattr(networks, look)(image) for networks in (onnx, pytorch))
        assert one.shape == (shape[0], 1, *shape[2:])
        assert one.dtype == other.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=1e-5)
        assert one.std() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("model", ["threshold_model", "two_looks_model"])
def test_both_engines_find_the_same_voxels_and_are_named(model, a_phantom, request):
    model = request.getfixturevalue(model)
    results = [finish(segment(a_phantom[0], model, device)) for device in (ONNX_ON_CPU, TORCH_ON_CPU)]
    assert np.array_equal(*(result.mask_kji for result in results))
    assert [result.provenance.engine for result in results] == ["onnx", "torch"]


@pytest.mark.parametrize("look", [FINE, COARSE])
def test_a_model_on_which_the_engines_disagree_is_not_written(look, two_looks_model, tmp_path, monkeypatch):
    weights = {look: two_looks_model.state_dict(look) for look in two_looks_model.looks}
    changed = two_looks_model.state_dict(look)
    changed["1.bias"] += 0.01
    other = build_network(two_looks_model.network_spec(look))
    other.load_state_dict(changed)
    monkeypatch.setattr(bundle, "onnx_graph", partial(wrong_graph, bundle.onnx_graph, other))
    with pytest.raises(ModelError, match=r"do not agree on this model: their logits differ by up to 0\.01"):
        save_model(tmp_path / "model", two_looks_model.card, weights, "")
    assert not (tmp_path / "model").exists()


def wrong_graph(onnx_graph, other, network, spec) -> bytes:
    """The graph of another network that takes the same images."""
    same = [weight.shape for weight in network.parameters()] == [weight.shape for weight in other.parameters()]
    return onnx_graph(other if same else network, spec)


@pytest.mark.slow
@pytest.mark.parametrize("look", [FINE, COARSE])
def test_a_changed_graph_is_refused(look, tmp_path):
    model = save_two_looks(tmp_path / "model")
    graph = model.folder / onnx_file(look)
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(ModelError, match=rf"the SHA-256 of models/{look}\.onnx is"):
        model.networks(ONNX_ON_CPU)


@pytest.mark.parametrize("graph", [b"no graph", b""])
def test_a_graph_that_cannot_be_computed_is_refused(graph, cpu):
    with pytest.raises(ValueError, match=r".+"):
        OnnxNetwork(graph, 1, cpu)


def test_a_graph_of_another_network_is_refused(threshold_model):
    network = replace(threshold_model.network_spec(FINE), in_channels=3)
    spec = threshold_model.card.spec
    card = replace(threshold_model.card, spec=replace(spec, fine=replace(spec.fine, network=network)))
    with pytest.raises(ModelError, match=r"is damaged \(it takes 1 channels, not 3\); install"):
        replace(threshold_model, card=card).networks(ONNX_ON_CPU)


@pytest.mark.parametrize(
    ("name", "engine", "expected"),
    [("auto", "auto", "onnx"), ("cpu", "auto", "onnx"), ("cpu", "torch", "torch"), ("auto", "onnx", "onnx")],
)
def test_the_engine_that_fits_is_taken(name, engine, expected):
    assert choose_device(name, engine).engine == expected


def test_onnx_runtime_on_a_gpu_is_refused():
    with pytest.raises(DeviceError, match=r"on the CPU only, not on cuda; choose cpu, or the engine torch"):
        choose_device("cuda", "onnx")


@pytest.mark.parametrize(
    ("name", "engine", "words"), [("cuda", "auto", "The device cuda"), ("cpu", "torch", "The engine torch")]
)
def test_devices_and_engines_that_need_torch_are_refused_without_it(name, engine, words, without_torch):
    with pytest.raises(DeviceError, match=f"{words} needs PyTorch"):
        choose_device(name, engine)


def test_a_gpu_that_fails_leaves_the_cpu_to_onnx_runtime(monkeypatch):
    monkeypatch.setattr(environment, "gpu_in_sight", lambda: True)
    monkeypatch.setattr(environment, "_present_gpus", lambda: ["cuda:0"])
    device = choose_device()
    assert (device.name, device.engine) == ("cpu", "onnx")
    assert "cuda:0 is present but cannot be used" in device.note


@pytest.mark.slow
def test_segmenting_imports_neither_torch_nor_monai(a_ct_file, two_looks_model, tmp_path):
    code = (
        "import sys; from LiverUNetLib.cli.main import main;"
        f"code = main(['segment', {str(a_ct_file)!r}, '--model', {str(two_looks_model.folder)!r}]);"
        "sys.exit(code or ' '.join({'torch', 'monai', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_onnx_runtime_keeps_no_records_for_its_maker(a_ct_file, threshold_model, tmp_path):
    """By default it stores an identifier and events in the user's folder, and sends them."""
    home = tmp_path / "home"
    home.mkdir()
    names = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in names} | {"HOME": str(home)}
    command = ["-m", "LiverUNetLib", "segment", str(a_ct_file), "--model", str(threshold_model.folder)]
    subprocess.run([sys.executable, *command], env=environment, capture_output=True, check=True)
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_an_engine_is_chosen_on_the_command_line(a_ct_file, threshold_model, tmp_path, capsys):
    report = tmp_path / "report.json"
    asked = ["segment", str(a_ct_file), "--model", str(threshold_model.folder)]
    assert main([*asked, "--engine", "torch", "--json", str(report)]) == 0
    assert json.loads(report.read_text())["provenance"]["engine"] == "torch"
    assert main([*asked, "--engine", "onnx", "--device", "mps", "--overwrite"]) == 1
    assert "ONNX Runtime computes on the CPU only" in capsys.readouterr().err


class SmallGpu(Device):
    """A GPU whose memory holds `most` slices, simulated by the CPU."""

    kind = property(lambda self: "cpu" if self.note else "cuda")

    def autocast(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()


class Greedy(torch.nn.Module):
    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.seen = most, []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(batch))
        if len(batch) > self.most:
            raise torch.OutOfMemoryError
        return batch[:, :1]


def test_out_of_memory_on_a_gpu_halves_the_batch_and_is_logged(caplog):
    image = np.linspace(-1, 1, 40 * 4, dtype=np.float32).reshape(40, 1, 2, 2)
    network = Greedy(most=10)
    with caplog.at_level(logging.WARNING):
        logits = TorchNetwork(network, SmallGpu("cpu"))(image)
    assert network.seen == [32, 16, 8, 8, 8, 8, 8]
    assert np.array_equal(logits, image)
    assert "continuing with batches of 8 slices" in caplog.text


def test_out_of_memory_for_one_slice_continues_on_the_cpu(caplog):
    class NeedsCpu(Greedy):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            if len(self.seen) < 6:
                return super().forward(batch)
            return batch[:, :1]

    with caplog.at_level(logging.WARNING):
        network = TorchNetwork(NeedsCpu(most=0), SmallGpu("cpu"))
        image = np.ones((3, 1, 2, 2), np.float32)
        assert np.array_equal(network(image), image)
    assert network.device.name == "cpu"
    assert "continuing on the CPU" in caplog.text
