"""Write a model folder in MONAI Bundle layout."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .card import ONNX, WEIGHTS, ModelCard
from .engines import OnnxNetwork, TorchNetwork
from .environment import Device, package_versions
from .errors import ModelError
from .files import save_tensors, staged, write_json
from .model import INFERENCE, METADATA, MODEL_FILES, README, SCHEMA_VERSION, LiverModel, open_model
from .network import build_network, onnx_graph

if TYPE_CHECKING:
    import torch

__all__ = ["check_name", "save_model"]

# What two engines may differ in: roundings of float32 are ten times smaller, and none of it moves a voxel.
LARGEST_DIFFERENCE = 1e-4


def check_name(name: str) -> None:
    """Raise ModelError unless `name` can be that of a model and of its folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ModelError(f"A model cannot be called {name!r}; use letters, digits, dots, dashes and underscores.")


def save_model(folder: Path, card: ModelCard, state_dict: dict[str, torch.Tensor], readme: str) -> LiverModel:
    """Write a model folder, whole or not at all.

    Kernels are stored as float16. All else stays float32: the variances that batch normalisation
    keeps exceed float16's range (3e5 seen), and take no room.

    Args:
        card: its checksums are set here.
        readme: the text of the model card.

    Raises:
        ModelError: the name is not one, the weights are not finite, or the engines disagree on them.
        OutputError: the folder cannot be written.
    """
    check_name(card.name)
    weights = {key: tensor.detach().cpu() for key, tensor in state_dict.items()}
    weights |= {key: tensor.half() for key, tensor in weights.items() if tensor.ndim > 1}
    faulty = [key for key, tensor in weights.items() if not tensor.isfinite().all()]
    if faulty:
        raise ModelError(f"The weights {', '.join(faulty)} are not finite or beyond float16; train the model again.")
    graph = _graph(card, weights)
    with staged(folder) as temporary:
        for name in MODEL_FILES:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        save_tensors(temporary / WEIGHTS, weights)
        (temporary / ONNX).write_bytes(graph)
        forms = {name: hashlib.sha256((temporary / name).read_bytes()).hexdigest() for name in (WEIGHTS, ONNX)}
        write_json(temporary / METADATA, _metadata(replace(card, checksums=forms)))
        write_json(temporary / INFERENCE, _inference(card))
        (temporary / README).write_text(readme, encoding="utf-8")
    return open_model(folder)


def _graph(card: ModelCard, weights: dict[str, torch.Tensor]) -> bytes:
    """The ONNX form of the weights, which gives the logits that PyTorch does."""
    network = build_network(card.network)
    network.load_state_dict(weights)
    graph = onnx_graph(network, card.network)
    side = 2 * card.network.multiple
    slices = np.random.default_rng(0).uniform(-1, 1, (2, card.network.in_channels, side, side)).astype(np.float32)
    engines = (
        OnnxNetwork(graph, card.network.in_channels, Device("cpu", "onnx")),
        TorchNetwork(network, Device("cpu")),
    )
    onnx, torch = (engine(slices) for engine in engines)
    difference = float(abs(onnx - torch).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise ModelError(
            f"ONNX Runtime and PyTorch do not agree on this model: their logits differ by up to {difference:g}, more "
            f"than {LARGEST_DIFFERENCE:g}. Nothing was written; please report this with the output of doctor."
        )
    return graph


def _metadata(card: ModelCard) -> dict[str, Any]:
    """The card as MONAI's metadata, our part under `liver_unet`."""
    versions = package_versions()
    ours = {
        key: value for key, value in asdict(card).items() if key not in ("name", "version", "description", "license")
    }
    channels = card.network.in_channels
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
            "inputs": {
                "image": _format(
                    "image",
                    channels,
                    {str(n): f"slice at {mm:g} mm" for n, mm in enumerate(card.preprocessing.context_mm)},
                    (-1, 1),
                    card,
                )
            },
            "outputs": {"pred": _format("segmentation", 1, {"0": "logit of liver"}, (-100, 100), card)},
        },
        "liver_unet": {"schema_version": SCHEMA_VERSION} | ours,
    }


def _format(
    kind: str, channels: int, meaning: dict[str, str], values: tuple[int, int], card: ModelCard
) -> dict[str, Any]:
    """A tensor in the words of MONAI's metadata schema."""
    return {
        "type": kind,
        "format": "hounsfield" if kind == "image" else "logits",
        "modality": "CT",
        "num_channels": channels,
        "spatial_shape": [f"{card.network.multiple}*n"] * 2,
        "dtype": "float32",
        "value_range": list(values),
        "is_patch_data": False,
        "channel_def": meaning,
    }


def _inference(card: ModelCard) -> dict[str, Any]:
    """How `monai.bundle` builds the network."""
    spec = {"_target_": "LiverUNetLib.network.NetworkSpec"} | asdict(card.network)
    return {
        "imports": ["$import LiverUNetLib.network"],
        "network_def": {"_target_": "LiverUNetLib.network.build_network", "spec": spec},
    }
