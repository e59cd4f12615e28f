"""A model is a folder in MONAI Bundle layout.

configs/metadata.json    what it is, what it was trained on, its scores, the checksums of its weights
configs/inference.json   how MONAI builds the network; never read here
models/model.pt          a plain state dict, kernels in float16
models/model.onnx        the same weights as a graph for ONNX Runtime, which needs no PyTorch
docs/README.md           the model card
"""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .card import ONNX, WEIGHTS, Lineage, ModelCard, check_usable
from .engines import Network, OnnxNetwork, TorchNetwork
from .environment import Device
from .errors import ModelError
from .files import exists, from_json, read_json
from .geometry import PreprocessingSpec
from .network import NetworkSpec, build_network, fold_batch_norm
from .resources import model_folders

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "DEFAULT_MODEL",
    "INFERENCE",
    "METADATA",
    "MODEL_FILES",
    "README",
    "SCHEMA_VERSION",
    "LiverModel",
    "find_model",
    "list_models",
    "open_model",
]

DEFAULT_MODEL = "liver-ct"
# 2: content hashes know a scan in any order of axes. 3: there may be an ONNX form, and a checksum of each form.
SCHEMA_VERSION, OLDEST_SCHEMA_VERSION = 3, 2
METADATA, INFERENCE, README = "configs/metadata.json", "configs/inference.json", "docs/README.md"
MODEL_FILES = (METADATA, INFERENCE, WEIGHTS, README, ONNX)


@dataclass(frozen=True)
class LiverModel:
    """A model folder whose card was read."""

    folder: Path
    card: ModelCard

    @property
    def has_onnx(self) -> bool:
        """Whether the weights are there as a graph for ONNX Runtime."""
        return ONNX in self.card.checksums

    def files(self) -> tuple[str, ...]:
        """Those of MODEL_FILES that this model consists of."""
        return tuple(name for name in MODEL_FILES if name != ONNX or self.has_onnx)

    def verify(self) -> None:
        """Raise ModelError unless all forms of the weights are those that the card was written for."""
        for name in (WEIGHTS, *self.card.checksums):
            self.read(name)

    def read(self, name: str) -> bytes:
        """A form of the weights, verified.

        Raises:
            ModelError: it cannot be read or was changed.
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

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The weights, verified; nothing stored with them is executed.

        Raises:
            ModelError: changed, damaged, or holding anything but tensors.
        """
        import torch

        content = io.BytesIO(self.read(WEIGHTS))
        try:
            return torch.load(content, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ModelError(f"{self.folder / WEIGHTS} holds code, not only weights; it was not loaded.") from error
        except (RuntimeError, EOFError, ValueError) as error:
            raise ModelError(f"{self.folder / WEIGHTS} is damaged; install the model again.") from error

    def torch_network(self) -> nn.Module:
        """The network of PyTorch for inference: weights verified, batch normalisation folded.

        Raises:
            ModelError: as `state_dict`, or the weights do not fit the network of the card.
        """
        state_dict = self.state_dict()
        try:
            network = build_network(self.card.network)
            network.load_state_dict(state_dict)
        except (RuntimeError, TypeError, AttributeError, ValueError) as error:
            raise ModelError(
                f"The weights of the model {self.folder} do not fit its network; install it again."
            ) from error
        return fold_batch_norm(network)

    def network(self, device: Device, *, threads: int | None = None) -> Network:
        """The network, ready to compute; without an ONNX form PyTorch computes it, which its device's note says.

        Args:
            threads: of ONNX Runtime; None for as many as there are cores.

        Raises:
            ModelError: changed, damaged, the weights do not fit the network of the card, or they need a PyTorch that
                is not installed.
        """
        if device.engine == "torch":
            return TorchNetwork(self.torch_network(), device)
        if not self.has_onnx:
            if find_spec("torch") is None:
                raise ModelError(
                    f"The model {self.card.name} has no {ONNX}, so it needs PyTorch: install liver-unet[train], or "
                    "export the model again."
                )
            note = f"The model {self.card.name} has no {ONNX}; PyTorch has computed it."
            return self.network(replace(device, engine="torch", note=" ".join(filter(None, [device.note, note]))))
        try:
            return OnnxNetwork(self.read(ONNX), self.card.network.in_channels, device, threads=threads)
        except ValueError as error:
            raise ModelError(f"{self.folder / ONNX} is damaged ({error}); install the model again.") from error

    def check(self) -> None:
        """Raise ModelError unless every form of the weights is whole and fits the card, as far as it can be tried here.

        Without PyTorch, its own form is only compared with its checksum.
        """
        self.verify()
        if self.has_onnx:
            self.network(Device("cpu", "onnx"))
        if find_spec("torch"):
            self.torch_network()


def open_model(folder: Path) -> LiverModel:
    """Read the card of a model folder; the weights are verified when they are used.

    Raises:
        ModelError: it is no model folder, or of a version this LiverUNet cannot read.
    """
    metadata = read_json(folder / METADATA, ModelError)
    try:
        ours = metadata["liver_unet"]
        version = ours["schema_version"]
        if version < OLDEST_SCHEMA_VERSION:
            raise ModelError(
                f"The model {folder} was made by an older LiverUNet, whose scan hashes do not recognise what it has "
                "learned from and what it holds out; install a newer version of it or train it again."
            )
        if version > SCHEMA_VERSION:
            raise ModelError(
                f"The model {folder} has schema version {version}, this LiverUNet reads {SCHEMA_VERSION}; update it."
            )
        nested = {
            "network": from_json(NetworkSpec, ours["network"]),
            "preprocessing": from_json(PreprocessingSpec, ours["preprocessing"]),
            "lineage": from_json(Lineage, ours["lineage"]),
        }
        plain = {key: metadata[key] for key in ("name", "version", "description", "license")}
        plain |= {key: ours[key] for key in ("threshold", "training", "scores", "notes")}
        plain["checksums"] = {WEIGHTS: ours["checksum"]} if version < SCHEMA_VERSION else dict(ours["checksums"])
        card = ModelCard(**plain, **nested)
        check_usable(card)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(f"{folder / METADATA} is not the card of a LiverUNet model ({error}).") from error
    return LiverModel(folder, card)


def list_models() -> dict[str, LiverModel | ModelError]:
    """All installed models by the names of their folders; a broken one as its error."""
    models: dict[str, LiverModel | ModelError] = {}
    for parent in model_folders():
        for path in sorted(parent.glob(f"*/{METADATA}")):
            folder = path.parent.parent
            try:
                models.setdefault(folder.name, open_model(folder))
            except ModelError as error:
                models.setdefault(folder.name, error)
    return models


def find_model(name_or_folder: str) -> LiverModel:
    """The installed model of that name, or the one in that folder.

    Raises:
        ModelError: there is neither, or it is broken.
    """
    models = list_models()
    if name_or_folder in models:
        model = models[name_or_folder]
        if isinstance(model, ModelError):
            raise model
        return model
    if exists(Path(name_or_folder) / METADATA, ModelError):
        return open_model(Path(name_or_folder))
    known = ", ".join(models) or "none"
    raise ModelError(f"There is no model {name_or_folder!r}: neither installed (known: {known}) nor a model folder.")
