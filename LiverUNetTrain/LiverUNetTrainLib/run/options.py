"""The options of a training: what the user chooses in a panel becomes the arguments of `liver-unet-train train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["DEFAULT_RECIPE", "FINE_TUNING", "NEW_MODEL_RECIPES", "RECIPE_NAMES", "TrainingOptions"]

# The names of `recipes.RECIPES`, whose import needs torch.
DEFAULT_RECIPE, FINE_TUNING = "accurate", "fine-tuning"
NEW_MODEL_RECIPES = (DEFAULT_RECIPE, "notebook")
RECIPE_NAMES = (*NEW_MODEL_RECIPES, FINE_TUNING)


@dataclass(frozen=True)
class TrainingOptions:
    """What to train, on what, and for how long; None leaves a choice to the recipe.

    Attributes:
        parent: name or folder of the model to fine-tune; None for a new one.
        minutes: the time budget.
        held_out: names of cases to keep out of training and validation.
    """

    cache: Path
    run: Path
    recipe: str | None = None
    parent: str | None = None
    epochs: int | None = None
    minutes: float | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    validation: float | None = None
    patience: int | None = None
    held_out: tuple[str, ...] = ()
    device: str = "auto"

    def arguments(self) -> list[str]:
        """The arguments for `background.launch`."""
        chosen = {
            "--recipe": self.recipe,
            "--from": self.parent,
            "--epochs": self.epochs,
            "--minutes": self.minutes,
            "--batch-size": self.batch_size,
            "--learning-rate": self.learning_rate,
            "--validation": self.validation,
            "--patience": self.patience,
            "--device": self.device,
        }
        arguments = ["train", str(self.cache), "--run", str(self.run)]
        for option, value in chosen.items():
            arguments += [] if value is None else [option, str(value)]
        return arguments + (["--hold-out", *self.held_out] if self.held_out else [])
