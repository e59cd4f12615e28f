"""The training loop: Dice + cross-entropy, AdamW, averaged weights, 3D validation, exact resume.

Every random number depends on the seed, the epoch and the batch alone. A run that was killed and
resumed therefore ends with the same weights, given the same threads, dtype and torch version.
"""

from __future__ import annotations

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
from LiverUNetLib.inference import predict
from LiverUNetLib.network import NetworkSpec, build_network
from LiverUNetLib.pipeline import Progress, finish

from .augmentation import AugmentationSettings, augment
from .cache import Cache
from .dataset import Split
from .run_folder import EpochLog, RunFolder
from .sampling import Slice, SliceSampler

__all__ = ["Trainer", "TrainingSettings"]

logger = logging.getLogger(__name__)

THRESHOLD = 0.5


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        empty_slices: share of the slices without liver that an epoch shows; all others are shown once.
        warmup_epochs: the learning rate rises linearly to its highest.
        schedule: then it falls to zero along a "cosine", or stays "constant".
        ema_decay: of the averaged weights, which are the ones validated and kept.
        validate_every: epochs between validations; the last one is always validated.
    """

    epochs: int = 50
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup_epochs: float = 1.0
    schedule: str = "cosine"
    gradient_norm: float = 5.0
    ema_decay: float = 0.999
    empty_slices: float = 0.25
    validate_every: int = 4
    seed: int = 0
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)


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
        if cache.canvas_px % network.multiple:
            raise TrainingError(
                f"The slices of {cache.folder} have {cache.canvas_px} x {cache.canvas_px} pixels, which this network "
                f"cannot take; prepare them with a multiple of {network.multiple}."
            )
        self._settings, self._device, self._run = settings, device, RunFolder(run)
        self._training = SliceSampler(cache, cache.select(split.training))
        self._validation_cases = cache.select(split.validation)
        self._validation = SliceSampler(cache, self._validation_cases)
        with torch.random.fork_rng():  # leaves the generator of whoever runs us as it was
            torch.manual_seed(settings.seed)
            self._network = build_network(network)
        self._network.to(device.name, memory_format=torch.channels_last)
        self._averaged = AveragedModel(self._network, avg_fn=_moving_average(settings.ema_decay), use_buffers=True)
        self._loss = DiceCELoss(sigmoid=True, batch=True)
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._scaler = torch.amp.GradScaler(device.kind, enabled=device.dtype == "float16")
        self._history: list[EpochLog] = []
        asked = _asked(cache, split, network, settings)
        if resume:
            self._run.check_resumable(asked)
            self._restore()
        else:
            self._run.begin(asked)

    @property
    def history(self) -> list[EpochLog]:
        """The epochs so far, those before a resume included."""
        return list(self._history)

    def epochs(self) -> Iterator[EpochLog | Progress]:
        """Train; yields Progress in batches of the epoch after every batch, and an EpochLog after every epoch."""
        for epoch in range(len(self._history), self._settings.epochs):
            started = time.monotonic()
            sums = np.zeros(3)
            slices = self._training.epoch(self._settings.seed, epoch, empty_slices=self._settings.empty_slices)
            batches = math.ceil(len(slices) / self._settings.batch_size)
            self._network.train()
            for batch in range(batches):
                chosen = slices[batch * self._settings.batch_size : (batch + 1) * self._settings.batch_size]
                rate = self._learning_rate(epoch + batch / batches)
                sums += self._step(chosen, rate, _seed(self._settings.seed, epoch, batch))
                yield Progress("Training", batch + 1, batches)
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

    def _step(self, slices: list[Slice], rate: float, seed: int) -> np.ndarray:
        """One step of the optimizer; returns loss, Dice and accuracy of the batch."""
        image, mask = (part.to(self._device.name) for part in self._training.batch(slices))
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

    def _validate(self) -> dict[str, Any]:
        """Loss, accuracy and 3D Dice of the averaged weights on every validation patient."""
        losses, accuracies, dices = [], [], {}
        for case in self._validation_cases:
            image, context, mask = self._validation.whole(case)
            probability = torch.from_numpy(finish(predict(self._averaged.module, image, context, self._device)))
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
        if self._settings.schedule == "constant":
            return self._settings.learning_rate
        course = (epoch - self._settings.warmup_epochs) / max(
            self._settings.epochs - self._settings.warmup_epochs, 1e-9
        )
        return self._settings.learning_rate * 0.5 * (1 + math.cos(math.pi * course))

    def _keep(self, log: EpochLog) -> None:
        earlier = [entry.mean_validation_dice for entry in self._history if entry.validation_dice]
        self._history.append(log)
        improved = log.validation_dice and log.mean_validation_dice > max(earlier, default=-1.0)
        checkpoint = {name: part.state_dict() for name, part in self._parts().items()} | {"terms": self._terms()}
        self._run.keep(checkpoint, self._history, self._averaged.module.state_dict() if improved else None)

    def _restore(self) -> None:
        found = self._run.checkpoint(self._device.name)
        if found is None:
            return
        checkpoint, self._history = found
        for term, value in self._terms().items():
            before = checkpoint["terms"][term]
            if before != value:
                logger.warning(
                    "Resumed with %s %s, started with %s: the weights will differ a little from an undisturbed run's.",
                    *(term, value, before),
                )
        for name, part in self._parts().items():
            part.load_state_dict(checkpoint[name])
        self._run.write_log(self._history)

    def _parts(self) -> dict[str, Any]:
        """What changes from step to step."""
        return {
            "network": self._network,
            "averaged": self._averaged,
            "optimizer": self._optimizer,
            "scaler": self._scaler,
        }

    def _terms(self) -> dict[str, str]:
        """Under which a resumed run equals an undisturbed one bit for bit."""
        return {
            "threads": str(torch.get_num_threads()),
            "dtype": self._device.dtype,
            "device": self._device.kind,
            "torch": str(torch.__version__),
            "processor": platform.machine(),
        }


def _asked(cache: Cache, split: Split, network: NetworkSpec, settings: TrainingSettings) -> dict[str, Any]:
    """What a run folder keeps of what was asked for."""
    hashes = {case.name: case.content_hash for case in cache.cases}
    return {
        "preprocessing": asdict(cache.preprocessing),
        "network": asdict(network),
        "training": asdict(settings),
        "split": {part: {name: hashes[name] for name in names} for part, names in asdict(split).items()},
    }


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
