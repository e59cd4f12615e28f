"""The settings of a training: epochs, learning rate, augmentation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from LiverUNetLib.errors import TrainingError
from LiverUNetLib.system.files import from_json

__all__ = [
    "AugmentationSettings",
    "CoarseSettings",
    "Refinement",
    "StackSettings",
    "TrainingSettings",
    "refined_epochs",
    "training_settings_from_json",
]

LEAST = {"epochs": 1, "batch_size": 1, "validate_every": 1, "patience": 0}
COARSE_LEAST = {"epochs": 1, "shown": 1, "batch_size": 1}


@dataclass(frozen=True)
class StackSettings:
    """How thick and short stacks, as scanners make them, are drawn from the thin and complete ones of the data.

    Attributes:
        p_thick: share of slices that are shown as means of their neighbors, up to `thickest_mm`.
        p_short: share shown as a short stack of at most `longest_short` slices; its end slices are repeated, as where
            a scan begins or ends inside the liver.
        p_alone: share of slices that are their own context, as in a scan of one slice.
    """

    p_thick: float = 0.4
    thinnest_mm: float = 2.5
    thickest_mm: float = 10.0
    p_short: float = 0.25
    longest_short: int = 20
    p_alone: float = 0.05


@dataclass(frozen=True)
class AugmentationSettings:
    """Probabilities (`p_…`, per slice) and ranges of every change; p = 0 switches one off.

    Intensities are given as the networks see them, with the window mapped to [-1, 1]: 1 is half its width, which is
    200 HU of [-160, 240].

    Attributes:
        p_flip_left_right, p_flip_top_bottom: mirror a slice. Off by default: the liver lies on the right.
        rotation_degrees, scaling, shift: of one affine map; scaling in factors around 1, shift in shares of the side.
        blur_px: largest standard deviation of a Gaussian, in pixels of the model grid.
        noise: largest standard deviation. Neighboring pixels of a slice are correlated, as in a reconstruction.
        contrast, gamma: factors are drawn from [1 / (1 + x), 1 + x].
        brightness: largest amount that is added to all but air.
        liver_brightness: the same for the liver alone: fatty livers, and other phases of contrast.
        lesion: largest radius of an ellipse of another density, in shares of the side. It is drawn inside the liver or
            outside of it: a tumor, a cyst, or a mass of another organ. The mask never shows it.
        mass: largest radius of a round mass of another organ that touches the liver, in shares of the columns.
        p_fluid: fat around the liver becomes fluid, as in ascites.
        streaks: largest amplitude of rays from a point, as metal and arms cause.
        low_resolution: pixels are enlarged by up to this factor and interpolated back.
    """

    p_flip_left_right: float = 0.0
    p_flip_top_bottom: float = 0.0
    p_affine: float = 0.8
    rotation_degrees: float = 20.0
    scaling: float = 0.25
    shift: float = 0.08
    p_blur: float = 0.15
    blur_px: float = 1.2
    p_noise: float = 0.3
    noise: float = 0.4
    p_contrast: float = 0.5
    contrast: float = 0.3
    p_gamma: float = 0.35
    gamma: float = 0.35
    p_brightness: float = 0.5
    brightness: float = 0.2
    p_liver_brightness: float = 0.5
    liver_brightness: float = 0.45
    p_lesion: float = 0.2
    lesion: float = 0.2
    p_mass: float = 0.25
    mass: float = 0.22
    p_fluid: float = 0.12
    p_streaks: float = 0.1
    streaks: float = 0.4
    p_low_resolution: float = 0.1
    low_resolution: float = 2.5


@dataclass(frozen=True)
class CoarseSettings:
    """How the coarse look is trained, where that differs from the fine one.

    Attributes:
        epochs: passes; in each every case is shown `shown` times.
        size_mm: size of the part of a scan that is shown: across the slices, along rows and columns.
        p_short: share of these parts that are short.
    """

    epochs: int = 10
    shown: int = 10
    batch_size: int = 2
    size_mm: tuple[float, float, float] = (256.0, 320.0, 384.0)
    p_short: float = 0.35
    shortest_mm: float = 16.0
    longest_short_mm: float = 120.0

    def __post_init__(self) -> None:
        _check_least(self, COARSE_LEAST, "coarse.")


@dataclass(frozen=True)
class Refinement:
    """A second, gentler course that starts from the averaged weights, see Loshchilov & Hutter, SGDR (ICLR 2017).

    A share of the weights before it is kept, see Wortsman et al., Robust fine-tuning of zero-shot models (CVPR 2022).

    Attributes:
        epochs: the last epochs of a training, at most a fifth of them.
        rate: its highest learning rate and its warm-up, as shares of those of the first course.
        share: share of the weights before it in the weights that are kept.
        masses, lesions: factors for `p_mass` and `p_lesion`, so that what is switched off stays off. A network that
            has seen many masses beside the liver leaves out parts of the liver that lie apart, such as the left lobe;
            fewer masses at the end make up for that.
    """

    epochs: int = 8
    rate: float = 0.3
    share: float = 0.5
    masses: float = 0.5
    lesions: float = 1.25


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        loss: one of `learner.LOSSES`.
        canvas_mm: height and width of the part of a slice that is shown, around the liver.
        empty_slices: share of the slices without liver that an epoch shows; all others are shown once.
        warmup_epochs: the learning rate rises linearly to its highest, for a fifth of the training at most.
        schedule: then it falls to zero along a "cosine", or stays "constant".
        ema_decay: of the averaged weights, which are the ones validated and kept.
        replay: in fine-tuning, slices of known cases for each slice of a new one.
        parent_share: in fine-tuning, share of the parent's weights in the averaged ones.
        validate_every: epochs between validations; the last one is always validated.
        patience: stop after so many validations without improvement; 0 for never.
        coarse: settings of the coarse look, if there is one.
        refinement: a second course at the end of the fine look's training; None for a single course.

    Raises:
        TrainingError: a setting is smaller than in LEAST, or the learning rate is not positive.
    """

    epochs: int = 40
    batch_size: int = 16
    loss: str = "dice+cross-entropy"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup_epochs: float = 1.0
    schedule: str = "cosine"
    gradient_norm: float = 5.0
    ema_decay: float = 0.998
    canvas_mm: tuple[float, float] = (240.0, 280.0)
    empty_slices: float = 0.25
    replay: float = 1.0
    parent_share: float = 0.0
    validate_every: int = 4
    patience: int = 0
    seed: int = 0
    stacks: StackSettings = field(default_factory=StackSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    coarse: CoarseSettings = field(default_factory=CoarseSettings)
    refinement: Refinement | None = None

    def __post_init__(self) -> None:
        _check_least(self, LEAST)
        if not self.learning_rate > 0:
            raise TrainingError(f"The setting learning_rate must be positive, not {self.learning_rate:g}.")

    @property
    def first_epochs(self) -> int:
        """Epochs before the refinement."""
        return self.epochs - (refined_epochs(self.epochs, self.refinement.epochs) if self.refinement else 0)

    @property
    def refined_augmentation(self) -> AugmentationSettings:
        """The augmentation of the refinement; without one that of all epochs."""
        chosen, usual = self.refinement, self.augmentation
        if chosen is None:
            return usual
        return replace(usual, p_mass=chosen.masses * usual.p_mass, p_lesion=chosen.lesions * usual.p_lesion)


def refined_epochs(epochs: int, wanted: int) -> int:
    """How many of the epochs are the refinement: as many as wanted, at most a fifth of them."""
    return min(wanted, epochs // 5)


def training_settings_from_json(content: dict[str, Any]) -> TrainingSettings:
    """Settings from what `dataclasses.asdict` made of them, and JSON of that.

    Raises:
        KeyError, TypeError: something is missing or unknown.
    """
    refinement = content["refinement"]
    return from_json(
        TrainingSettings,
        content
        | {
            "stacks": from_json(StackSettings, content["stacks"]),
            "augmentation": from_json(AugmentationSettings, content["augmentation"]),
            "coarse": from_json(CoarseSettings, content["coarse"]),
            "refinement": refinement and from_json(Refinement, refinement),
        },
    )


def _check_least(settings: object, smallest: dict[str, int], within: str = "") -> None:
    for name, least in smallest.items():
        if getattr(settings, name) < least:
            raise TrainingError(f"The setting {within}{name} must be at least {least}, not {getattr(settings, name)}.")
