"""A run folder: everything that a training reports and keeps, readable while it runs.

arguments.json  the arguments of `train`, if it was launched in the background; resuming needs them
settings.json   what was asked for, the split and the content hashes
log.jsonl       one line for each epoch
last.pt         everything that resuming needs
best.pt         the averaged weights with the best validation Dice
stop            once this file is there, the training ends after the current batch and removes it
overlay.png     the first validation case, with its mask and what the last validated epoch found
end.json        why it ended; missing while it runs, and after a crash
running         locked by the process that works here, see `lock`

Watching a run does not import torch.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from LiverUNetLib.errors import TrainingError
from LiverUNetLib.system.files import exists, from_json, read_json, save_tensors, staged, write_json

from .run_settings import RunSettings

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

__all__ = ["COARSE_FOLDER", "COARSE_TITLE", "CURVES", "Ending", "EpochLog", "RunFolder"]

SCHEMA_VERSION = 4
# Where in a run folder the coarse look is trained, and its name in progress messages.
COARSE_FOLDER, COARSE_TITLE = "coarse", "Coarse look"


@dataclass(frozen=True)
class EpochLog:
    """One epoch: means over its batches, and how the averaged weights did in validation, per patient in 3D.

    Attributes:
        stage: what was trained, if it was not the fine look.
    """

    epoch: int
    learning_rate: float
    training_loss: float
    training_dice: float
    training_accuracy: float
    seconds: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    validation_dice: dict[str, float] | None = None
    stage: str = ""

    @property
    def mean_validation_dice(self) -> float | None:
        """Mean over the validation patients."""
        return float(np.mean(list(self.validation_dice.values()))) if self.validation_dice else None


# The curves of a training: title -> the attributes of EpochLog for training and validation.
CURVES = {
    "loss": ("training_loss", "validation_loss"),
    "accuracy": ("training_accuracy", "validation_accuracy"),
    "Dice": ("training_dice", "mean_validation_dice"),
}


@dataclass(frozen=True)
class Ending:
    """Why a training has ended, in a sentence, and whether it can be resumed."""

    message: str
    interrupted: bool = False


@dataclass(frozen=True)
class RunFolder:
    """The files of one training; every one is written whole or not at all.

    Attributes:
        within: for a coarse look: the enclosing run folder; a stop request there counts too.
    """

    path: Path
    within: Path | None = None

    @property
    def _settings(self) -> Path:
        return self.path / "settings.json"

    @property
    def _arguments(self) -> Path:
        return self.path / "arguments.json"

    @property
    def _stop_folders(self) -> tuple[Path, ...]:
        return (self.path, self.within) if self.within else (self.path,)

    @property
    def overlay(self) -> Path:
        """The picture of a validation case; missing before the first validated epoch."""
        return self.path / "overlay.png"

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return exists(self._settings, TrainingError)

    def begin(self, settings: RunSettings) -> None:
        """Start a new run.

        Raises:
            TrainingError: there is a run already.
        """
        if self.exists():
            raise TrainingError(f"{self.path} holds a run already; resume it with --resume or name another folder.")
        write_json(self._settings, {"schema_version": SCHEMA_VERSION, **asdict(settings)})

    def check_resumable(self, asked: RunSettings) -> None:
        """Raise TrainingError unless the run that is here was begun with the same settings and data."""
        found = self.settings()
        changed = asked.changes(found)
        if {"split", "masks"} & set(changed):
            names = ", ".join(sorted({name for name, *_ in found.contents() ^ asked.contents()}))
            raise TrainingError(
                f"{self.path} cannot be resumed: the data set or its split has changed ({names}); prepare the cases "
                "that it began with or start a new run."
            )
        if changed:
            raise TrainingError(
                f"{self.path} cannot be resumed: its {', '.join(changed)} differ from what is asked for now; "
                "ask for the same or start a new run."
            )

    def settings(self) -> RunSettings:
        """What was asked for, and the content hashes of the split.

        Raises:
            TrainingError: no run was begun here, another version of LiverUNet began it, or the file was changed.
        """
        content = read_json(self._settings, TrainingError)
        try:
            if content["schema_version"] != SCHEMA_VERSION:
                raise TrainingError(f"{self.path} was begun by another version of LiverUNet; start a new run.")
            return RunSettings.from_json(content)
        except (AttributeError, KeyError, TypeError) as error:
            raise TrainingError(
                f"{self._settings} holds no settings of a training ({error}); start a new run."
            ) from error

    def write_arguments(self, arguments: Sequence[str]) -> None:
        """Keep the arguments of the launch."""
        write_json(self._arguments, {"schema_version": SCHEMA_VERSION, "arguments": list(arguments)})

    def arguments(self) -> list[str]:
        """The arguments of the launch.

        Raises:
            TrainingError: the training was started on the command line.
        """
        if not self._arguments.exists():
            raise TrainingError(f"{self.path} was started on the command line; resume it there with --resume.")
        arguments: list[str] = read_json(self._arguments, TrainingError)["arguments"]
        return arguments

    def launched_at(self) -> float:
        """When it was launched, in seconds since 1970; 0 if it was started on the command line."""
        return self._arguments.stat().st_mtime if self._arguments.exists() else 0.0

    def keep(self, checkpoint: dict[str, Any], history: Sequence[EpochLog], best: dict[str, Any] | None) -> None:
        """Keep the state after an epoch; a kill between two of the files loses nothing.

        Args:
            checkpoint: what resuming needs beside the history: `Learner.state_dict`, "rate_factor" and "terms".
            best: weights that replace the best ones; None to leave those.
        """
        if best is not None:
            self.keep_best(best)
        self._save("last.pt", checkpoint | {"history": [asdict(entry) for entry in history]})
        self.write_log(history)

    def keep_best(self, weights: dict[str, torch.Tensor]) -> None:
        """Keep weights as the best ones."""
        self._save("best.pt", weights)

    def write_log(self, history: Sequence[EpochLog]) -> None:
        """Write the whole log again."""
        with staged(self.path / "log.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(asdict(entry)) + "\n" for entry in history))

    def write_overlay(self, figure: Figure) -> None:
        """Keep the picture of a validation case."""
        from LiverUNetLib.segmentation.picture import write_figure

        write_figure(self.overlay, figure)

    def history(self) -> list[EpochLog]:
        """The epochs in the log; a last line that is still being written is skipped.

        Raises:
            TrainingError: the log was changed by another program.
        """
        path = self.path / "log.jsonl"
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
            return [EpochLog(**json.loads(line)) for line in lines if line.endswith("\n")]
        except FileNotFoundError:
            return []
        except (TypeError, ValueError) as error:
            raise TrainingError(
                f"{path} is not the log of a training ({error}); delete it, --resume writes it again."
            ) from error

    def request_stop(self) -> None:
        """Ask the training to end after the current batch.

        Raises:
            TrainingError: the folder was deleted.
        """
        self._check_there()
        (self.path / "stop").touch()

    def stop_requested(self) -> bool:
        """Whether the training was asked to end.

        Raises:
            TrainingError: the folder was deleted.
        """
        self._check_there()
        return any((path / "stop").exists() for path in self._stop_folders)

    def withdraw_stop(self) -> None:
        """Withdraw a request to stop."""
        for path in self._stop_folders:
            if exists(path / "stop", TrainingError):  # on a read-only disk, unlinking a missing file is an error
                (path / "stop").unlink(missing_ok=True)

    def write_end(self, ending: Ending) -> None:
        """Keep why the training has ended."""
        write_json(self.path / "end.json", asdict(ending))

    def end(self) -> Ending | None:
        """What `write_end` wrote; None if the training runs or has crashed."""
        path = self.path / "end.json"
        return from_json(Ending, read_json(path, TrainingError)) if path.exists() else None

    def forget_end(self) -> None:
        """Remove the ending, since the training runs again."""
        (self.path / "end.json").unlink(missing_ok=True)

    def checkpoint(self, device: str) -> tuple[dict[str, Any], list[EpochLog]]:
        """The last checkpoint and the epochs up to it; there is one before the first epoch."""
        checkpoint = self._load("last.pt", device)
        return checkpoint, [EpochLog(**entry) for entry in checkpoint["history"]]

    def has_weights(self, which: str = "best") -> bool:
        """Whether there are weights to read, see `weights`; the "best" ones follow the first validated epoch."""
        return (self.path / f"{which}.pt").exists()

    def weights(self, which: str) -> dict[str, torch.Tensor]:
        """The averaged weights: "best" by validation Dice, or "last".

        Raises:
            TrainingError: there are none, or they are damaged.
        """
        state = self._load(f"{which}.pt", "cpu")
        if which == "best":
            return state
        prefix = "module."  # what averaging puts before every name
        return {key.removeprefix(prefix): value for key, value in state["averaged"].items() if key.startswith(prefix)}

    def _check_there(self) -> None:
        if not self.path.is_dir():
            raise TrainingError(f"The run folder {self.path} is gone; what was trained in it is lost, start a new run.")

    def _save(self, name: str, content: dict[str, Any]) -> None:
        self._check_there()
        with staged(self.path / name) as temporary:
            save_tensors(temporary, content)

    def _load(self, name: str, device: str) -> dict[str, Any]:
        import torch

        path = self.path / name
        try:
            content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except FileNotFoundError as error:
            raise TrainingError(f"{path} does not exist: the run has not finished the epoch that writes it.") from error
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise TrainingError(f"{path} is damaged; start a new run.") from error
        return content
