"""Named ways to train: ours, and that of the notebook this began with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from LiverUNetLib.geometry import PreprocessingSpec
from LiverUNetLib.model import LiverModel
from LiverUNetLib.network import NetworkSpec

from .augmentation import AugmentationSettings
from .cache import Cache
from .dataset import Split, split_by_patient
from .finetuning import split_for_finetuning
from .settings import TrainingSettings

__all__ = ["RECIPES", "Recipe", "choose_recipe", "split_cases"]


@dataclass(frozen=True)
class Recipe:
    """Everything of a training but its data.

    Attributes:
        context_mm: the slices that form the channels.
        views: the directions of the slices; both are chosen here, since the cache depends on neither.
        validation: share of the patients.
    """

    context_mm: tuple[float, ...] = PreprocessingSpec().context_mm
    views: tuple[str, ...] = ("axial", "coronal", "sagittal")
    network: NetworkSpec = field(default_factory=NetworkSpec)
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    validation: float = 0.2

    def with_settings(self, given: dict[str, Any]) -> Recipe:
        """The same with what a person has set; None and names of other things are passed over."""
        names = {each.name for each in fields(TrainingSettings)}
        changed = {name: value for name, value in given.items() if name in names and value is not None}
        share = given.get("validation")
        return replace(
            self,
            settings=replace(self.settings, **changed),
            validation=self.validation if share is None else share,
        )

    def of(self, model: LiverModel) -> Recipe:
        """The same with the network, channels and views of a model that is to learn more."""
        seen = model.card.preprocessing
        return replace(self, network=model.card.network, context_mm=seen.context_mm, views=seen.views)

    def view(self, cache: Cache) -> Cache:
        """The cache with the channels and views of this recipe."""
        return replace(cache, preprocessing=replace(cache.preprocessing, context_mm=self.context_mm, views=self.views))


# A third of the slices to predict, and of the epochs to learn.
FAST = Recipe(views=("axial",), settings=TrainingSettings(epochs=16))

# What the notebook did, under honest splits: single slices, batch 10, 50 epochs at 1e-3, flips, rotation and blur.
NOTEBOOK = Recipe(
    context_mm=(0.0,),
    views=("axial",),
    network=NetworkSpec(in_channels=1, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2)),
    settings=TrainingSettings(
        epochs=50,
        batch_size=10,
        learning_rate=1e-3,
        weight_decay=0.0,
        warmup_epochs=0.0,
        schedule="constant",
        ema_decay=0.0,
        empty_slices=1.0,
        augmentation=AugmentationSettings(
            p_flip_left_right=0.5,
            p_flip_top_bottom=0.5,
            p_affine=0.5,
            rotation_degrees=15.0,
            scaling=0.0,
            shift=0.0,
            p_blur=0.5,
            p_noise=0.0,
            p_contrast=0.0,
            p_gamma=0.0,
            p_shift=0.0,
            p_liver_shift=0.0,
            p_lesion=0.0,
            p_fluid=0.0,
            p_streaks=0.0,
            p_low_resolution=0.0,
            p_context_dropout=0.0,
        ),
    ),
)

# A model that exists learns from a few new cases: small steps, most of what is shown known to it, the mean of its
# weights before and after, and an early end when nothing gets better.
FINE_TUNING = Recipe(
    settings=TrainingSettings(
        epochs=12,
        learning_rate=3e-4,
        ema_decay=0.99,
        replay=3.0,
        parent_share=0.5,
        validate_every=3,
        patience=3,
    )
)

RECIPES = {"accurate": Recipe(), "fast": FAST, "notebook": NOTEBOOK, "fine-tuning": FINE_TUNING}


def choose_recipe(name: str | None, parent: LiverModel | None, given: dict[str, Any]) -> Recipe:
    """The recipe that a person means.

    Args:
        name: of RECIPES; None for "fine-tuning" with a parent and "accurate" without one.
        parent: the model that is to learn more; its network stays.
        given: what is set, see `Recipe.with_settings`.
    """
    recipe = RECIPES[name or ("fine-tuning" if parent else "accurate")].with_settings(given)
    return recipe.of(parent) if parent else recipe


def split_cases(
    cache: Cache, recipe: Recipe, parent: LiverModel | None, held_out: Iterable[str]
) -> tuple[Split, tuple[str, ...]]:
    """What each case is for, and which of those that train are replayed; see `split_for_finetuning`.

    Raises:
        TrainingError: what is to be held out does not exist or was learned from, or nothing is left to learn from.
    """
    chosen = {"held_out": held_out, "validation": recipe.validation, "seed": recipe.settings.seed}
    if parent:
        return split_for_finetuning(cache, parent, **chosen)
    return split_by_patient([case.name for case in cache.cases], **chosen), ()
