"""A model is a folder in MONAI Bundle layout.

configs/metadata.json    what it is, what it was trained on, its scores, the checksum of its weights
configs/inference.json   how MONAI builds the network; never read here
models/model.pt          a plain state dict, kernels in float16
docs/README.md           the model card
"""

from __future__ import annotations

import hashlib
import pickle
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .environment import package_versions
from .errors import ModelError
from .files import exists, from_json, read_json, save_tensors, staged, write_json
from .geometry import PreprocessingSpec
from .network import NetworkSpec, build_network, fold_batch_norm
from .resources import model_folders

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "DEFAULT_MODEL",
    "MODEL_FILES",
    "PERMISSIVE_LICENSES",
    "README",
    "THRESHOLD",
    "Lineage",
    "LiverModel",
    "ModelCard",
    "check_name",
    "find_model",
    "list_models",
    "open_model",
    "save_model",
]

DEFAULT_MODEL = "liver-ct"
# Probability of liver; the mean of three views is low where one of them misses a part. Chosen on the folds of a
# cross-validation, see Testing/benchmarks/inference_choices.md.
THRESHOLD = 0.4
PERMISSIVE_LICENSES = ("Apache-2.0", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0", "MIT")
# 2: content hashes know a scan in any order of axes.
SCHEMA_VERSION = 2
METADATA, INFERENCE, WEIGHTS, README = MODEL_FILES = (
    "configs/metadata.json",
    "configs/inference.json",
    "models/model.pt",
    "docs/README.md",
)


@dataclass(frozen=True)
class Lineage:
    """What a model and its teachers have seen, and what none of them may ever train on: name -> content hash.

    Attributes:
        masks: of what was seen, content hash of the scan -> that of its mask; a corrected mask is told by it.
    """

    training: dict[str, str] = field(default_factory=dict)
    validation: dict[str, str] = field(default_factory=dict)
    held_out: dict[str, str] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)

    def roles(self) -> dict[str, str]:
        """Content hash -> "training", "validation" or "held out", whichever of them binds most."""
        parts = {"validation": self.validation, "training": self.training, "held out": self.held_out}
        return {hash_: role for role, cases in parts.items() for hash_ in cases.values()}


@dataclass(frozen=True)
class ModelCard:
    """What there is to know about a model.

    Attributes:
        preprocessing, threshold: how its input is made and its probability is cut.
        training: the settings of its training, for the record.
        scores: the command that measured it, its summary and cases; empty if not measured.
        notes: what else a person has to know, Markdown.
        checksum: SHA-256 of the weights.
    """

    name: str
    version: str
    description: str
    license: str
    network: NetworkSpec
    preprocessing: PreprocessingSpec
    threshold: float = THRESHOLD
    lineage: Lineage = field(default_factory=Lineage)
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    notes: str = ""
    checksum: str = ""

    @property
    def needs_consent(self) -> bool:
        """Whether a person has to agree to the licence before the weights are used: unless it permits all uses."""
        return self.license not in PERMISSIVE_LICENSES


@dataclass(frozen=True)
class LiverModel:
    """A model folder whose card was read."""

    folder: Path
    card: ModelCard

    def verify(self) -> None:
        """Raise ModelError unless the weights are those that the card was written for."""
        path = self.folder / WEIGHTS
        try:
            checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise ModelError(f"The model {self.folder} has no readable {WEIGHTS} ({error.strerror}).") from error
        if checksum != self.card.checksum:
            raise ModelError(
                f"The weights of the model {self.folder} were changed: their SHA-256 is {checksum[:12]}…, "
                f"the card says {self.card.checksum[:12] or 'nothing'}…; install the model again."
            )

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The weights, verified; nothing stored with them is executed.

        Raises:
            ModelError: changed, damaged, or holding anything but tensors.
        """
        import torch

        self.verify()
        try:
            return torch.load(self.folder / WEIGHTS, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ModelError(f"{self.folder / WEIGHTS} holds code, not only weights; it was not loaded.") from error
        except (RuntimeError, EOFError, ValueError) as error:
            raise ModelError(f"{self.folder / WEIGHTS} is damaged; install the model again.") from error

    def network(self) -> nn.Module:
        """The network for inference: weights verified, batch normalisation folded.

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


def open_model(folder: Path) -> LiverModel:
    """Read the card of a model folder; the weights are verified when they are used.

    Raises:
        ModelError: it is no model folder, or of a version this LiverUNet cannot read.
    """
    metadata = read_json(folder / METADATA, ModelError)
    try:
        ours = metadata["liver_unet"]
        version = ours["schema_version"]
        if version < SCHEMA_VERSION:
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
        plain |= {key: ours[key] for key in ("threshold", "training", "scores", "notes", "checksum")}
        card = ModelCard(**plain, **nested)
        _check_usable(card)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(f"{folder / METADATA} is not the card of a LiverUNet model ({error}).") from error
    return LiverModel(folder, card)


def _check_usable(card: ModelCard) -> None:
    """Raise ValueError, KeyError or TypeError unless everything that is computed with has a sense."""
    from .views import VIEWS

    spec = card.preprocessing
    low, high = spec.window_hu
    sound = {
        "views": bool(spec.views) and set(spec.views) <= set(VIEWS),
        "context_mm": len(spec.context_mm) == card.network.in_channels,
        "pixel_mm": spec.pixel_mm > 0,
        "slice_mm": spec.slice_mm > 0,
        "window_hu": low < high,
        "threshold": 0 < card.threshold < 1,
        "scores": not card.scores or card.scores["summary"]["dice"].keys() >= {"mean", "worst"},
        "cases": not card.scores or bool(card.scores["cases"]),
    }
    faulty = [name for name, good in sound.items() if not good]
    if faulty:
        raise ValueError(f"unusable {', '.join(faulty)}")


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


def check_name(name: str) -> None:
    """Raise ModelError unless `name` can be that of a model and of its folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ModelError(f"A model cannot be called {name!r}; use letters, digits, dots, dashes and underscores.")


def save_model(folder: Path, card: ModelCard, state_dict: dict[str, torch.Tensor], readme: str) -> LiverModel:
    """Write a model folder, whole or not at all.

    Kernels are stored as float16. All else stays float32: the variances that batch normalisation
    keeps exceed float16's range (3e5 seen), and take no room.

    Args:
        card: its checksum is set here.
        readme: the text of the model card.

    Raises:
        ModelError: the name is not one.
        OutputError: the folder cannot be written.
    """
    check_name(card.name)
    weights = {key: tensor.detach().cpu() for key, tensor in state_dict.items()}
    weights |= {key: tensor.half() for key, tensor in weights.items() if tensor.ndim > 1}
    faulty = [key for key, tensor in weights.items() if not tensor.isfinite().all()]
    if faulty:
        raise ModelError(f"The weights {', '.join(faulty)} are not finite or beyond float16; train the model again.")
    with staged(folder) as temporary:
        for name in MODEL_FILES:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        save_tensors(temporary / WEIGHTS, weights)
        checksum = hashlib.sha256((temporary / WEIGHTS).read_bytes()).hexdigest()
        write_json(temporary / METADATA, _metadata(card, checksum))
        write_json(temporary / INFERENCE, _inference(card))
        (temporary / README).write_text(readme, encoding="utf-8")
    return open_model(folder)


def _metadata(card: ModelCard, checksum: str) -> dict[str, Any]:
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
        "liver_unet": {"schema_version": SCHEMA_VERSION} | ours | {"checksum": checksum},
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
