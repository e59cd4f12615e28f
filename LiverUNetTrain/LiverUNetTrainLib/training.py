"""The training loop: Dice + cross-entropy, AdamW, averaged weights, 3D validation, exact resume.

    RUN/settings.json   what was asked for, the split and the content hashes
    RUN/log.jsonl       one line an epoch
    RUN/last.pt         everything that resuming needs
    RUN/best.pt         the averaged weights with the best validation Dice

Every random number depends on the seed, the epoch and the batch alone. A run that was killed and
resumed therefore ends with the same weights, given the same threads, dtype and torch version.
"""

from __future__ import annotations

import json
import logging
import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss
from torch.optim.swa_utils import AveragedModel

from LiverUNetLib.environment import Device
from LiverUNetLib.errors import TrainingError
from LiverUNetLib.files import read_json, staged, write_json
from LiverUNetLib.geometry import context_indices
from LiverUNetLib.inference import predict
from LiverUNetLib.network import NetworkSpec, build_network
from LiverUNetLib.pipeline import finish

from .augmentation import AugmentationSettings, augment
from .cache import Cache, CachedCase
from .dataset import Split

__all__ = ["EpochLog", "Trainer", "TrainingSettings"]

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
THRESHOLD = 0.5


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        empty_slices: share of the slices without liver that an epoch shows; all others are shown once.
        warmup_epochs: the learning rate rises linearly, then falls to zero along a cosine.
        ema_decay: of the averaged weights, which are the ones validated and kept.
        validate_every: epochs between validations; the last one is always validated.
    """

    epochs: int = 50
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup_epochs: float = 1.0
    gradient_norm: float = 5.0
    ema_decay: float = 0.999
    empty_slices: float = 0.25
    validate_every: int = 4
    seed: int = 0
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)


@dataclass(frozen=True)
class EpochLog:
    """One epoch: means over its batches; validation on the model grid by the averaged weights, per patient in 3D."""

    epoch: int
    learning_rate: float
    training_loss: float
    training_dice: float
    training_accuracy: float
    seconds: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    validation_dice: dict[str, float] | None = None

    @property
    def mean_validation_dice(self) -> float | None:
        """Mean over the validation patients."""
        return float(np.mean(list(self.validation_dice.values()))) if self.validation_dice else None


class Trainer:
    """Train one network on the cases of a cache.

    Args:
        run: the run folder; made if missing.
        resume: go on after the last whole epoch found in `run`.

    Raises:
        TrainingError: the folder holds a run and `resume` is not set, there is nothing to resume, or
            what it was made with differs from what is asked for now.
    """

    def __init__(
        self,
        cache: Cache,
        split: Split,
        run: Path,
        *,
        network: NetworkSpec,
        settings: TrainingSettings,
        device: Device,
        resume: bool = False,
    ) -> None:
        self._cache, self._split, self._run = cache, split, run
        self._settings, self._device = settings, device
        self._training = cache.select(split.training)
        self._validation = cache.select(split.validation)
        torch.manual_seed(settings.seed)
        self._network = build_network(network).to(device.name, memory_format=torch.channels_last)
        self._averaged = AveragedModel(self._network, avg_fn=_moving_average(settings.ema_decay), use_buffers=True)
        self._loss = DiceCELoss(sigmoid=True, batch=True)
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._scaler = torch.amp.GradScaler(device.kind, enabled=device.dtype == "float16")
        self._history: list[EpochLog] = []
        self._begin(network, resume=resume)

    @property
    def history(self) -> list[EpochLog]:
        """The epochs so far, those before a resume included."""
        return list(self._history)

    def epochs(self) -> Iterator[EpochLog | tuple[int, int]]:
        """Train; yields (batches done, batches of the epoch) after every batch and an EpochLog after every epoch."""
        for epoch in range(len(self._history), self._settings.epochs):
            started = time.monotonic()
            sums = np.zeros(3)
            slices = self._order(epoch)
            batches = math.ceil(len(slices) / self._settings.batch_size)
            self._network.train()
            for batch in range(batches):
                chosen = slices[batch * self._settings.batch_size : (batch + 1) * self._settings.batch_size]
                rate = self._learning_rate(epoch + batch / batches)
                sums += self._step(chosen, rate, _seed(self._settings.seed, epoch, batch))
                yield batch + 1, batches
            loss, dice, accuracy = (float(value) for value in sums / batches)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"The loss of epoch {epoch + 1} is {loss}; resume with a lower learning rate than "
                    f"{self._settings.learning_rate:g}. The checkpoint of the epoch before is kept."
                )
            last = epoch + 1 == self._settings.epochs
            validation = self._validate() if last or (epoch + 1) % self._settings.validate_every == 0 else {}
            seconds = time.monotonic() - started
            log = EpochLog(epoch + 1, rate, loss, dice, accuracy, seconds, **validation)
            self._keep(log)
            yield log

    def _order(self, epoch: int) -> list[tuple[CachedCase, int]]:
        """The slices of an epoch in random order: all with liver, and a share of those without."""
        random = np.random.default_rng([self._settings.seed, epoch])
        slices = []
        for case, has_liver in zip(self._training, self._liver_slices, strict=True):
            chosen = has_liver | (random.random(len(has_liver)) < self._settings.empty_slices)
            slices += [(case, int(index)) for index in np.flatnonzero(chosen)]
        random.shuffle(slices)
        return slices

    def _step(self, slices: list[tuple[CachedCase, int]], rate: float, seed: int) -> np.ndarray:
        """One step of the optimizer; returns loss, Dice and accuracy of the batch."""
        image, mask = (part.to(self._device.name) for part in self._batch(slices))
        image, mask = augment(image, mask, self._settings.augmentation, torch.Generator().manual_seed(seed))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        with self._device.autocast():
            logits = self._network(image.contiguous(memory_format=torch.channels_last))
        logits = logits.float()
        loss = self._loss(logits, mask)
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._settings.gradient_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._averaged.update_parameters(self._network)
        return np.array([loss.item(), *_agreement(logits.detach() > 0, mask > THRESHOLD)])

    def _batch(self, slices: list[tuple[CachedCase, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        hu = np.stack([case.image[self._context[case.name][index]] for case, index in slices])
        mask = np.stack([case.mask[index][None] for case, index in slices])
        image = self._cache.preprocessing.normalise(torch.from_numpy(hu).float())
        return image, torch.from_numpy(mask).float() / 255

    def _validate(self) -> dict[str, Any]:
        """Loss, accuracy and 3D Dice of the averaged weights on every validation patient."""
        losses, accuracies, dices = [], [], {}
        for case in self._validation:
            image = self._cache.preprocessing.normalise(case.image.astype(np.float32))
            steps = predict(self._averaged.module, image, self._context[case.name], self._device)
            probability = torch.from_numpy(finish(steps))
            mask = torch.from_numpy(case.mask.astype(np.float32) / 255)
            dices[case.name], accuracy = _agreement(probability > THRESHOLD, mask > THRESHOLD)
            accuracies.append(accuracy)
            losses.append(self._loss(torch.logit(probability, 1e-6)[:, None], mask[:, None]).item())
        return {
            "validation_loss": float(np.mean(losses)),
            "validation_accuracy": float(np.mean(accuracies)),
            "validation_dice": dices,
        }

    def _learning_rate(self, epoch: float) -> float:
        if epoch < self._settings.warmup_epochs:
            return self._settings.learning_rate * max(epoch / self._settings.warmup_epochs, 0.01)
        course = (epoch - self._settings.warmup_epochs) / max(
            self._settings.epochs - self._settings.warmup_epochs, 1e-9
        )
        return self._settings.learning_rate * 0.5 * (1 + math.cos(math.pi * course))

    def _keep(self, log: EpochLog) -> None:
        """Best weights, checkpoint, log: in this order, so that a kill between them loses nothing."""
        earlier = [entry.mean_validation_dice for entry in self._history if entry.validation_dice]
        self._history.append(log)
        if log.validation_dice and log.mean_validation_dice > max(earlier, default=-1.0):
            with staged(self._run / "best.pt") as temporary:
                torch.save(self._averaged.module.state_dict(), temporary)
        checkpoint = {
            "network": self._network.state_dict(),
            "averaged": self._averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "history": [asdict(entry) for entry in self._history],
            "terms": self._terms(),
        }
        with staged(self._run / "last.pt") as temporary:
            torch.save(checkpoint, temporary)
        self._write_log()

    def _write_log(self) -> None:
        with staged(self._run / "log.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(asdict(entry)) + "\n" for entry in self._history))

    def _begin(self, network: NetworkSpec, *, resume: bool) -> None:
        """Start a new run folder, or take up the one that is there."""
        self._context = {
            case.name: context_indices(len(case.image), case.slice_mm, self._cache.preprocessing.context_mm)
            for case in self._training + self._validation
        }
        self._liver_slices = [(case.mask > 255 * THRESHOLD).any(axis=(1, 2)) for case in self._training]
        hashes = {case.name: case.content_hash for case in self._cache.cases}
        asked = {
            "schema_version": SCHEMA_VERSION,
            "preprocessing": asdict(self._cache.preprocessing),
            "network": asdict(network),
            "training": asdict(self._settings),
            "split": {part: {name: hashes[name] for name in names} for part, names in asdict(self._split).items()},
        }
        asked = json.loads(json.dumps(asked))
        checkpoint = self._run / "last.pt"
        if not resume:
            if (self._run / "settings.json").exists():
                raise TrainingError(
                    f"{self._run} holds a run already; go on with it by --resume or name another folder."
                )
            self._run.mkdir(parents=True, exist_ok=True)
            write_json(self._run / "settings.json", asked)
            return
        found = _read_settings(self._run)
        changed = [key for key in asked if asked[key] != found.get(key)]
        if changed:
            raise TrainingError(
                f"{self._run} cannot be resumed: its {', '.join(changed)} differ from what is asked for now; "
                "ask for the same or start a new run."
            )
        if checkpoint.exists():
            self._restore(checkpoint)

    def _restore(self, path: Path) -> None:
        checkpoint = torch.load(path, map_location=self._device.name, weights_only=True)
        for term, value in self._terms().items():
            if checkpoint["terms"][term] != value:
                logger.warning(
                    "Resumed with %s %s, started with %s: the weights will differ a little from those of an "
                    "undisturbed run.",
                    term,
                    value,
                    checkpoint["terms"][term],
                )
        self._network.load_state_dict(checkpoint["network"])
        self._averaged.load_state_dict(checkpoint["averaged"])
        self._optimizer.load_state_dict(checkpoint["optimizer"])
        self._scaler.load_state_dict(checkpoint["scaler"])
        self._history = [EpochLog(**entry) for entry in checkpoint["history"]]
        self._write_log()

    def _terms(self) -> dict[str, str]:
        """Under which a resumed run equals an undisturbed one bit for bit."""
        return {
            "threads": str(torch.get_num_threads()),
            "dtype": self._device.dtype,
            "device": self._device.kind,
            "torch": str(torch.__version__),
            "processor": platform.machine(),
        }


def _read_settings(run: Path) -> dict[str, Any]:
    return read_json(run / "settings.json", TrainingError)


def _moving_average(decay: float) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """An exponential moving average whose decay rises to `decay`, so that the first steps are soon forgotten."""

    def average(averaged: torch.Tensor, current: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        reached = min(decay, (1 + int(updates)) / (10 + int(updates)))
        return averaged + (current - averaged) * (1 - reached)

    return average


def _seed(*parts: int) -> int:
    """A seed for torch that depends on all parts."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def _agreement(found: torch.Tensor, reference: torch.Tensor) -> tuple[float, float]:
    """Dice (1 if both are empty) and accuracy over all voxels."""
    total = int(found.sum()) + int(reference.sum())
    dice = 2 * int((found & reference).sum()) / total if total else 1.0
    return dice, float((found == reference).float().mean())
