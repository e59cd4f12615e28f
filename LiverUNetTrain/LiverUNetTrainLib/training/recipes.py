"""Named ways to train: LiverUNet's own, and that of the notebook that the project started from."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.models.spec import CoarseLook, FineLook, ModelSpec, NetworkSpec

from ..data.cache import Grids
from ..run.settings import AugmentationSettings, Refinement, StackSettings, TrainingSettings

__all__ = ["RECIPES", "Recipe", "choose_recipe"]


@dataclass(frozen=True)
class Recipe:
    """All of a training except its data.

    Attributes:
        spec: the model; its grids are those of the cache that it learns from.
        validation: share of the patients.
    """

    spec: ModelSpec = field(default_factory=lambda: ModelSpec(coarse=CoarseLook()))
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    validation: float = 0.2

    def with_settings(self, given: dict[str, Any]) -> Recipe:
        """This recipe with the settings of the user; None and unknown names are skipped."""
        names = {each.name for each in fields(TrainingSettings)}
        changed = {name: value for name, value in given.items() if name in names and value is not None}
        if given.get("coarse_epochs") is not None:
            changed["coarse"] = replace(self.settings.coarse, epochs=given["coarse_epochs"])
        share = given.get("validation")
        return replace(
            self,
            settings=replace(self.settings, **changed),
            validation=self.validation if share is None else share,
        )

    def on(self, grids: Grids, parent: LiverModel | None = None) -> ModelSpec:
        """The numbers of the model, on the grids of a cache; a parent's stay as they are."""
        if parent:
            return parent.card.spec
        fine = replace(self.spec.fine, pixel_mm=grids.pixel_mm, slice_mm=grids.slice_mm)
        coarse = self.spec.coarse and replace(self.spec.coarse, voxel_mm=grids.voxel_mm)
        return replace(self.spec, fine=fine, coarse=coarse, window_hu=grids.window_hu)


# What the notebook did, but split by patient: single slices, batch 10, 50 epochs at 1e-3, flips, rotation and blur.
NOTEBOOK = Recipe(
    spec=ModelSpec(
        FineLook(
            context_mm=(0.0,),
            network=NetworkSpec(in_channels=1, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2)),
        )
    ),
    settings=TrainingSettings(
        epochs=50,
        batch_size=10,
        learning_rate=1e-3,
        weight_decay=0.0,
        warmup_epochs=0.0,
        schedule="constant",
        ema_decay=0.0,
        empty_slices=1.0,
        canvas_mm=(400.0, 400.0),
        stacks=StackSettings(p_thick=0.0, p_short=0.0, p_alone=0.0),
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
            p_brightness=0.0,
            p_liver_brightness=0.0,
            p_lesion=0.0,
            p_mass=0.0,
            p_fluid=0.0,
            p_streaks=0.0,
            p_low_resolution=0.0,
        ),
    ),
)

# An existing model learns from a few new cases: small steps, mostly known cases among those shown, the mean of the
# weights before and after, and an early end when validation does not improve.
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

ACCURATE = Recipe(settings=TrainingSettings(refinement=Refinement()))

RECIPES = {"accurate": ACCURATE, "notebook": NOTEBOOK, "fine-tuning": FINE_TUNING}


def choose_recipe(name: str | None, parent: LiverModel | None, given: dict[str, Any]) -> Recipe:
    """The recipe of a training.

    Args:
        name: of RECIPES; None for "fine-tuning" with a parent and "accurate" without one.
        parent: the model to fine-tune.
        given: settings of the user, see `Recipe.with_settings`.
    """
    return RECIPES[name or ("fine-tuning" if parent else "accurate")].with_settings(given)
