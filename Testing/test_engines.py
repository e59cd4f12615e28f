"""ONNX Runtime and PyTorch compute the same network; segmenting needs no PyTorch."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from LiverUNetLib import bundle, environment
from LiverUNetLib import model as model_folder
from LiverUNetLib.bundle import save_model
from LiverUNetLib.card import ONNX, ModelCard
from LiverUNetLib.cli import main
from LiverUNetLib.engines import OnnxNetwork
from LiverUNetLib.environment import Device, choose_device
from LiverUNetLib.errors import DeviceError, ModelError
from LiverUNetLib.exchange import install_model, pack_model
from LiverUNetLib.geometry import PreprocessingSpec
from LiverUNetLib.model import METADATA, LiverModel, open_model
from LiverUNetLib.network import NetworkSpec, build_network
from LiverUNetLib.pipeline import segment
from LiverUNetLib.steps import finish

ONNX_ON_CPU, TORCH_ON_CPU = Device("cpu", "onnx"), Device("cpu", "torch")


@pytest.fixture
def an_old_model(threshold_model, tmp_path) -> LiverModel:
    """As LiverUNet wrote them before there were ONNX forms."""
    folder = save_model(tmp_path / "old", threshold_model.card, threshold_model.state_dict(), "").folder
    (folder / ONNX).unlink()
    metadata = json.loads((folder / METADATA).read_text())
    checksums = metadata["liver_unet"].pop("checksums")
    metadata["liver_unet"] |= {"schema_version": 2, "checksum": checksums["models/model.pt"]}
    (folder / METADATA).write_text(json.dumps(metadata))
    return open_model(folder)


@pytest.fixture
def without_torch(monkeypatch):
    """As if PyTorch were not installed."""
    for module in (environment, model_folder):
        monkeypatch.setattr(module, "find_spec", {}.get)


def test_both_engines_give_the_same_logits(tmp_path):
    torch.manual_seed(0)
    spec = NetworkSpec(in_channels=3, channels=(4, 8, 16), strides=(2, 2))
    network = build_network(spec)
    for _ in range(3):
        network(torch.randn(2, 3, 16, 16))  # running statistics that differ from 0 and 1
    card = ModelCard("both", "1", "", "MIT", spec, PreprocessingSpec(context_mm=(-4.0, 0.0, 4.0)))
    model = save_model(tmp_path / "both", card, network.state_dict(), "")
    slices = np.random.default_rng(0).uniform(-1, 1, (5, 3, 24, 36)).astype(np.float32)
    onnx, pytorch = (model.network(device)(slices) for device in (ONNX_ON_CPU, TORCH_ON_CPU))
    assert onnx.shape == (5, 1, 24, 36)
    np.testing.assert_allclose(onnx, pytorch, atol=1e-5)


def test_both_engines_find_the_same_voxels_and_say_which_they_are(a_phantom, threshold_model):
    results = [finish(segment(a_phantom[0], threshold_model, device)) for device in (ONNX_ON_CPU, TORCH_ON_CPU)]
    assert np.array_equal(*(result.mask_kji for result in results))
    assert [result.provenance["engine"] for result in results] == ["onnx", "torch"]


def test_a_model_on_which_the_engines_disagree_is_not_written(threshold_model, tmp_path, monkeypatch):
    changed = threshold_model.state_dict()
    changed["1.bias"] += 0.01
    other = build_network(threshold_model.card.network)
    other.load_state_dict(changed)
    monkeypatch.setattr(bundle, "onnx_graph", partial(wrong_graph, bundle.onnx_graph, other))
    with pytest.raises(ModelError, match=r"do not agree on this model: their logits differ by up to 0\.01"):
        save_model(tmp_path / "model", threshold_model.card, threshold_model.state_dict(), "")
    assert not (tmp_path / "model").exists()


def wrong_graph(onnx_graph, other, _network, spec) -> bytes:
    return onnx_graph(other, spec)


def test_a_model_without_an_onnx_form_is_computed_by_torch_and_says_so(a_phantom, an_old_model, threshold_model):
    result = finish(segment(a_phantom[0], an_old_model, ONNX_ON_CPU))
    assert any("has no models/model.onnx; PyTorch has computed it." in warning for warning in result.warnings)
    assert result.provenance["engine"] == "torch"
    assert np.array_equal(result.mask_kji, finish(segment(a_phantom[0], threshold_model, ONNX_ON_CPU)).mask_kji)


def test_a_model_without_an_onnx_form_travels(an_old_model, tmp_path, monkeypatch):
    monkeypatch.setenv("LIVER_UNET_MODELS", str(tmp_path / "installed"))
    pack_model(an_old_model, tmp_path / "old.zip")
    assert install_model(tmp_path / "old.zip").card == an_old_model.card


def test_a_model_without_an_onnx_form_says_what_it_needs_where_there_is_no_torch(an_old_model, without_torch):
    with pytest.raises(ModelError, match=r"needs PyTorch: install liver-unet\[train\], or export the model again"):
        an_old_model.network(ONNX_ON_CPU)


def test_a_changed_graph_is_refused(threshold_model, tmp_path):
    model = save_model(tmp_path / "model", threshold_model.card, threshold_model.state_dict(), "")
    graph = model.folder / ONNX
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"the SHA-256 of models/model\.onnx is"):
        model.network(ONNX_ON_CPU)


@pytest.mark.parametrize("graph", [b"no graph", b""])
def test_a_graph_that_cannot_be_computed_is_refused(graph, cpu):
    with pytest.raises(ValueError, match=r".+"):
        OnnxNetwork(graph, 1, cpu)


def test_a_graph_of_another_network_is_refused(threshold_model):
    card = replace(threshold_model.card, network=replace(threshold_model.card.network, in_channels=3))
    with pytest.raises(ModelError, match=r"is damaged \(it takes 1 channels, not 3\); install"):
        replace(threshold_model, card=card).network(ONNX_ON_CPU)


@pytest.mark.parametrize(
    ("name", "engine", "expected"),
    [("auto", "auto", "onnx"), ("cpu", "auto", "onnx"), ("cpu", "torch", "torch"), ("auto", "onnx", "onnx")],
)
def test_the_engine_that_fits_is_taken(name, engine, expected):
    assert choose_device(name, engine).engine == expected


def test_onnx_runtime_is_not_asked_for_a_gpu():
    with pytest.raises(DeviceError, match=r"on the CPU alone, not on cuda; choose cpu, or the engine torch"):
        choose_device("cuda", "onnx")


@pytest.mark.parametrize(
    ("name", "engine", "words"), [("cuda", "auto", "The device cuda"), ("cpu", "torch", "The engine torch")]
)
def test_what_needs_torch_says_so(name, engine, words, without_torch):
    with pytest.raises(DeviceError, match=f"{words} needs PyTorch"):
        choose_device(name, engine)


def test_a_gpu_that_fails_leaves_the_cpu_to_onnx_runtime(monkeypatch):
    monkeypatch.setattr(environment, "gpu_in_sight", lambda: True)
    monkeypatch.setattr(environment, "_present_gpus", lambda: ["cuda:0"])
    device = choose_device()
    assert (device.name, device.engine) == ("cpu", "onnx")
    assert "cuda:0 is present but cannot be used" in device.note


def test_segmenting_imports_neither_torch_nor_monai(a_ct_file, threshold_model, tmp_path):
    code = (
        "import sys; from LiverUNetLib.cli import main;"
        f"code = main(['segment', {str(a_ct_file)!r}, '--model', {str(threshold_model.folder)!r}]);"
        "sys.exit(code or ' '.join({'torch', 'monai', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_onnx_runtime_keeps_no_records_for_its_maker(a_ct_file, threshold_model, tmp_path):
    """Left alone it makes an identifier and a store of events in the user's folder, and sends them."""
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
    assert "ONNX Runtime computes on the CPU alone" in capsys.readouterr().err
