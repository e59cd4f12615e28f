"""A model is a folder in MONAI Bundle layout.

configs/metadata.json    its card: numbers, lineage, scores, checksums of its weights
configs/inference.json   its networks for MONAI; never read here
models/model.pt          the fine look's weights: a plain state dict, kernels in float16
models/model.onnx        the same weights as a graph for ONNX Runtime, which needs no PyTorch
models/coarse.pt, .onnx  the coarse look's weights, if it looks coarsely
configs/quality.json     its calibration, see `calibration.py`, if it has one
docs/README.md           the model card
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from ..system.environment import Device
from ..system.files import from_json, read_json
from .calibration import Calibration, calibration_from_json
from .card import CALIBRATION, COARSE, FINE, WEIGHT_FILES, Lineage, ModelCard, onnx_file, weights_file
from .engines import Network, OnnxNetwork, TorchNetwork
from .network import build_network, fold_batch_norm
from .scores import evaluation_from_json
from .spec import NetworkSpec, Rules, spec_from_json

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "INFERENCE",
    "METADATA",
    "MODEL_FILES",
    "README",
    "SCHEMA_VERSION",
    "LiverModel",
    "Networks",
    "open_model",
]

# 2: content hashes do not depend on the order of axes. 3: all numbers in one place, two looks, ONNX forms.
SCHEMA_VERSION, OLDEST_SCHEMA_VERSION = 3, 2
METADATA, INFERENCE, README = "configs/metadata.json", "configs/inference.json", "docs/README.md"
MODEL_FILES = (METADATA, INFERENCE, README, CALIBRATION, *WEIGHT_FILES)


@dataclass(frozen=True)
class Networks:
    """The networks of a model, ready to compute; `coarse` is None if it has no coarse look."""

    fine: Network
    coarse: Network | None


@dataclass(frozen=True)
class LiverModel:
    """A model folder and its card.

    Attributes:
        note: a warning for all its users, one sentence; empty if there is none.
    """

    folder: Path
    card: ModelCard
    note: str = ""

    def network_spec(self, look: str) -> NetworkSpec:
        """The network of a look."""
        looks = {FINE: self.card.spec.fine, COARSE: self.card.spec.coarse}
        return {name: part.network for name, part in looks.items() if part}[look]

    @property
    def looks(self) -> tuple[str, ...]:
        """FINE, and COARSE if it has a coarse look."""
        return (FINE, COARSE) if self.card.spec.coarse else (FINE,)

    @property
    def has_onnx(self) -> bool:
        """Whether it has the ONNX form of all its weights."""
        return all(onnx_file(look) in self.card.checksums for look in self.looks)

    def files(self) -> tuple[str, ...]:
        """The files of the folder."""
        return METADATA, INFERENCE, README, *self.card.checksums

    def verify(self) -> None:
        """Raise ModelError unless all files of weights have the checksums of the card."""
        for name in {*map(weights_file, self.looks), *self.card.checksums}:
            self.read(name)

    def read(self, name: str) -> bytes:
        """Read and verify a file of weights.

        Raises:
            ModelError: it cannot be read, or was changed.
        """
        try:
            content = (self.folder / name).read_bytes()
        except OSError as error:
            raise ModelError(f"The model {self.folder} has no readable {name} ({error.strerror}).") from error
        checksum, known = hashlib.sha256(content).hexdigest(), self.card.checksums.get(name, "")
        if checksum != known:
            raise ModelError(
                f"The weights of the model {self.folder} were changed: the SHA-256 of {name} is {checksum[:12]}…, "
                f"the card says {known[:12] or 'nothing'}…; install the model again."
            )
        return content

    def calibration(self) -> Calibration | None:
        """How its results are judged, verified; None if it was never calibrated.

        Raises:
            ModelError: changed or damaged.
        """
        if CALIBRATION not in self.card.checksums:
            return None
        try:
            return calibration_from_json(json.loads(self.read(CALIBRATION)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{self.folder / CALIBRATION} is not a calibration ({error}).") from error

    def state_dict(self, look: str = FINE) -> dict[str, torch.Tensor]:
        """Read and verify the weights of a look; nothing in their file is executed.

        Raises:
            ModelError: they were changed, are damaged, or the file holds anything but tensors.
        """
        import torch

        name = weights_file(look)
        content = io.BytesIO(self.read(name))
        try:
            weights: dict[str, torch.Tensor] = torch.load(content, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ModelError(f"{self.folder / name} holds code, not only weights; it was not loaded.") from error
        except (RuntimeError, EOFError, ValueError) as error:
            raise ModelError(f"{self.folder / name} is damaged; install the model again.") from error
        return weights

    def torch_network(self, look: str = FINE) -> nn.Module:
        """The network of a look for PyTorch: weights verified, batch normalization folded.

        Raises:
            ModelError: as `state_dict`, or the weights do not fit the network of the card.
        """
        state_dict = self.state_dict(look)
        try:
            network = build_network(self.network_spec(look))
            network.load_state_dict(state_dict)
        except (RuntimeError, TypeError, AttributeError, ValueError) as error:
            raise ModelError(
                f"The weights of the model {self.folder} do not fit its network; install it again."
            ) from error
        return fold_batch_norm(network)

    def networks(self, device: Device, *, threads: int | None = None) -> Networks:
        """Load all networks. Warnings for the user are added to the note of their device.

        PyTorch computes them if the model has no ONNX form.

        Args:
            threads: of ONNX Runtime; None for one per core.

        Raises:
            ModelError: the weights were changed, are damaged, do not fit the networks of the card, or need PyTorch,
                which is not installed.
        """
        if device.engine == "onnx" and not self.has_onnx:
            missing = " and ".join(name for name in map(onnx_file, self.looks) if name not in self.card.checksums)
            if find_spec("torch") is None:
                raise ModelError(
                    f"The model {self.card.name} has no {missing}, so it needs PyTorch: install "
                    "liver-unet[train], or export the model again."
                )
            device = _noted(device, f"The model {self.card.name} has no {missing}; it was computed with PyTorch.")
            device = replace(device, engine="torch")
        device = _noted(device, self.note)
        made = {look: self._network(look, device, threads) for look in self.looks}
        return Networks(made[FINE], made.get(COARSE))

    def check(self) -> None:
        """Raise ModelError unless every file of weights is complete and fits the card.

        Without PyTorch, files in its format are only compared with their checksums.
        """
        self.verify()
        for look in self.looks:
            if self.has_onnx:
                self._network(look, Device("cpu", "onnx"), None)
            if find_spec("torch"):
                self.torch_network(look)

    def _network(self, look: str, device: Device, threads: int | None) -> Network:
        if device.engine == "torch":
            return TorchNetwork(self.torch_network(look), device)
        name = onnx_file(look)
        try:
            return OnnxNetwork(self.read(name), self.network_spec(look).in_channels, device, threads=threads)
        except ValueError as error:
            raise ModelError(f"{self.folder / name} is damaged ({error}); install the model again.") from error


def _noted(device: Device, note: str) -> Device:
    return replace(device, note=" ".join(filter(None, [device.note, note])))


def open_model(folder: Path) -> LiverModel:
    """Read the card of a model folder; the weights are verified when they are loaded.

    Raises:
        ModelError: it is not a model folder, or this version of LiverUNet cannot read it.
    """
    metadata = read_json(folder / METADATA, ModelError)
    try:
        ours = metadata["liver_unet"]
        version = ours["schema_version"]
        if version < OLDEST_SCHEMA_VERSION:
            raise ModelError(
                f"The model {folder} was made by an older LiverUNet, whose hashes of its training and held-out scans "
                "cannot be compared with today's; install a newer version of it or train it again."
            )
        if version > SCHEMA_VERSION:
            raise ModelError(
                f"The model {folder} has schema version {version}, this LiverUNet reads {SCHEMA_VERSION}; update it."
            )
        note = ""
        if version < SCHEMA_VERSION:
            note = _note_on_views(metadata["name"], ours)
            ours = _as_today(ours)
        card = ModelCard(
            **{key: metadata[key] for key in ("name", "version", "description", "license")},
            **{key: ours[key] for key in ("training", "notes", "checksums")},
            spec=spec_from_json(ours["spec"]),
            lineage=from_json(Lineage, ours["lineage"]),
            scores=evaluation_from_json(ours["scores"]),
        )
        card.check()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(f"{folder / METADATA} is not the card of a LiverUNet model ({error}).") from error
    return LiverModel(folder, card, note)


def _note_on_views(name: str, ours: dict[str, Any]) -> str:
    if list(ours["preprocessing"]["views"]) == ["axial"]:
        return ""
    return f"The model {name} was trained on three views; only axial slices are used, which costs accuracy."


def _as_today(ours: dict[str, Any]) -> dict[str, Any]:
    """Convert a card of schema 2, whose models had one look, at whole slices in up to three planes."""
    seen = {key: value for key, value in ours["preprocessing"].items() if key != "views"}
    window = seen.pop("window_hu")
    return ours | {
        "spec": {
            "fine": seen | {"network": ours["network"]},
            "coarse": None,
            "rules": asdict(Rules(threshold=ours["threshold"])),
            "window_hu": window,
        },
        "training": {"refinement": None, "parent": None} | ours["training"],
        "checksums": {weights_file(FINE): ours["checksum"]},
    }
