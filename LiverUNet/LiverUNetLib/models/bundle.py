"""Write a model folder in MONAI Bundle layout."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelError
from ..system.environment import Device, package_versions
from ..system.files import save_tensors, staged, write_json
from .calibration import Calibration
from .card import CALIBRATION, COARSE, FINE, ModelCard, onnx_file, weights_file
from .engines import OnnxNetwork, TorchNetwork
from .folder import INFERENCE, METADATA, README, SCHEMA_VERSION, LiverModel, open_model
from .network import build_network, onnx_graph
from .spec import NetworkSpec

if TYPE_CHECKING:
    import torch

__all__ = ["check_name", "save_model"]

# Largest difference of logits between two engines: rounding of float32 is ten times smaller, and no voxel changes.
LARGEST_DIFFERENCE = 1e-4


def check_name(name: str) -> None:
    """Raise ModelError unless `name` is possible for a model and its folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ModelError(f"A model cannot be called {name!r}; use letters, digits, dots, dashes and underscores.")


def save_model(
    folder: Path,
    card: ModelCard,
    weights: dict[str, dict[str, torch.Tensor]],
    readme: str,
    *,
    calibration: Calibration | None = None,
) -> LiverModel:
    """Write a model folder, completely or not at all.

    Kernels are stored as float16. The rest stays float32: the variances of batch normalization can exceed
    the range of float16 (3e5 was seen), and need little space.

    Args:
        card: its checksums are set here.
        weights: the state dict of each look.
        readme: the text of the model card.
        calibration: of these very weights, if they have one.

    Raises:
        ModelError: the name is not possible, the weights are not finite, or the engines give different logits.
        OutputError: the folder cannot be written.
    """
    check_name(card.name)
    model, stored = LiverModel(folder, card), {look: _stored(weights[look]) for look in weights}
    graphs = {look: _graph(model.network_spec(look), stored[look]) for look in model.looks}
    with staged(folder) as temporary:
        for name in ("configs", "docs", "models"):
            (temporary / name).mkdir(parents=True, exist_ok=True)
        for look, graph in graphs.items():
            save_tensors(temporary / weights_file(look), stored[look])
            (temporary / onnx_file(look)).write_bytes(graph)
        if calibration:
            write_json(temporary / CALIBRATION, calibration.to_json())
        checksums = {
            path.relative_to(temporary).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in [*sorted((temporary / "models").iterdir()), *temporary.glob(CALIBRATION)]
        }
        write_json(temporary / METADATA, _metadata(replace(card, checksums=checksums)))
        write_json(temporary / INFERENCE, _inference(model))
        (temporary / README).write_text(readme, encoding="utf-8")
    return open_model(folder)


def _stored(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights as they are stored."""
    stored = {key: tensor.detach().cpu() for key, tensor in weights.items()}
    stored |= {key: tensor.half() for key, tensor in stored.items() if tensor.ndim > 1}
    faulty = [key for key, tensor in stored.items() if not tensor.isfinite().all()]
    if faulty:
        raise ModelError(f"The weights {', '.join(faulty)} are not finite or beyond float16; train the model again.")
    return stored


def _graph(spec: NetworkSpec, weights: dict[str, torch.Tensor]) -> bytes:
    """The ONNX form of the weights; checked to give the same logits as PyTorch."""
    network = build_network(spec)
    network.load_state_dict(weights)
    graph = onnx_graph(network, spec)
    sides = [2 * spec.multiple] * spec.spatial_dims
    image = np.random.default_rng(0).uniform(-1, 1, (2, spec.in_channels, *sides)).astype(np.float32)
    engines = OnnxNetwork(graph, spec.in_channels, Device("cpu", "onnx")), TorchNetwork(network, Device("cpu"))
    onnx, torch = (engine(image) for engine in engines)
    difference = float(abs(onnx - torch).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise ModelError(
            f"ONNX Runtime and PyTorch do not agree on this model: their logits differ by up to {difference:g}, more "
            f"than {LARGEST_DIFFERENCE:g}. Nothing was written; please report this with the output of doctor."
        )
    return graph


def _metadata(card: ModelCard) -> dict[str, Any]:
    """The card as MONAI's metadata, with LiverUNet's own part under `liver_unet`."""
    versions = package_versions()
    monais = ("name", "version", "description", "license")
    fine = card.spec.fine
    channels = [f"slice at {mm:g} mm" for mm in fine.context_mm]
    return {
        "name": card.name,
        "version": card.version,
        "changelog": {card.version: card.description},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": {"nibabel": versions["nibabel"], "scipy": versions["scipy"]},
        "task": "Segmentation of the liver in CT",
        "description": card.description,
        "authors": "The LiverUNet developers",
        "copyright": "The LiverUNet developers",
        "license": card.license,
        "network_data_format": {
            "inputs": {"image": _format("image", dict(enumerate(channels)), (-1, 1), fine.network)},
            "outputs": {"pred": _format("segmentation", {0: "logit of liver"}, (-100, 100), fine.network)},
        },
        "liver_unet": {"schema_version": SCHEMA_VERSION}
        | {key: value for key, value in asdict(card).items() if key not in monais},
    }


def _format(kind: str, meaning: dict[int, str], values: tuple[int, int], network: NetworkSpec) -> dict[str, Any]:
    """The description of a tensor in MONAI's metadata schema."""
    return {
        "type": kind,
        "format": "hounsfield" if kind == "image" else "logits",
        "modality": "CT",
        "num_channels": len(meaning),
        "spatial_shape": [f"{network.multiple}*n"] * network.spatial_dims,
        "dtype": "float32",
        "value_range": list(values),
        "is_patch_data": False,
        "channel_def": {str(channel): text for channel, text in meaning.items()},
    }


def _inference(model: LiverModel) -> dict[str, Any]:
    """The configuration with which `monai.bundle` builds the networks; it calls that of the fine look `network_def`."""
    names = {FINE: "network_def", COARSE: "coarse_network_def"}
    built = {
        names[look]: {
            "_target_": "LiverUNetLib.models.network.build_network",
            "spec": {"_target_": "LiverUNetLib.models.spec.NetworkSpec"} | asdict(model.network_spec(look)),
        }
        for look in model.looks
    }
    return {"imports": ["$import LiverUNetLib.models.network", "$import LiverUNetLib.models.spec"]} | built
