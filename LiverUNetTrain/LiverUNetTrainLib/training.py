"""The training loop: epochs, validation, when to stop, exact resume, and what happens when it diverges.

Every random number depends on the seed, the epoch and the batch alone. A run that was killed and
resumed therefore ends with the same weights, given the same threads, dtype and torch version.
"""

from __future__ import annotations

import contextlib
import logging
import math
import platform
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from LiverUNetLib.environment import Device
from LiverUNetLib.errors import TrainingError
from LiverUNetLib.model import LiverModel
from LiverUNetLib.network import NetworkSpec, build_network
from LiverUNetLib.steps import Progress

from .augmentation import augment
from .cache import Cache
from .dataset import Split
from .learner import Agreement, Learner, NotFiniteError
from .occupancy import claimed
from .request import descent, request
from .run_folder import EpochLog, RunFolder
from .sampling import SliceSampler
from .settings import TrainingSettings
from .world import World

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)


class Trainer:
    """Train one network on the cases of a cache.

    A loss that is not finite takes the training back to the last whole epoch, once, with half the
    learning rate. A file `stop` in the run folder ends it after the batch in hand.

    Args:
        run: the run folder; made if missing.
        resume: go on after the last whole epoch found in `run`.
        world: the processes that share the work; all make the same trainer, the first one writes.
        parent: start from the weights of this model instead of fresh ones.
        replayed: training cases that the parent knows, of which an epoch shows `replay` slices for each new one.

    Raises:
        TrainingError: the folder holds a run and `resume` is not set, there is nothing to resume,
            what it was made with differs from what is asked for now, or `parent` holds out a case
            that would train.
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
        parent: LiverModel | None = None,
        replayed: Collection[str] = (),
        world: World | None = None,
    ) -> None:
        if cache.canvas_px % network.multiple:
            raise TrainingError(
                f"The slices of {cache.folder} have {cache.canvas_px} x {cache.canvas_px} pixels, which this network "
                f"cannot take; prepare them with a multiple of {network.multiple}."
            )
        world = world or World()
        if settings.batch_size % world.size:
            raise TrainingError(f"{world.size} processes cannot share batches of {settings.batch_size} equally.")
        self._settings, self._device, self._run, self._world = settings, device, RunFolder(run), world
        self._training = SliceSampler(cache, cache.select(split.training))
        self._validation_cases = cache.select(split.validation)
        self._preprocessing, self._multiple = cache.preprocessing, network.multiple
        self._replayed = tuple(replayed)
        self._history: list[EpochLog] = []
        self._rate_factor = 1.0
        self._end, self._interrupted = "", False
        asked = request(cache, split, network, settings) | {
            "parent": descent(parent, cache, split),
            "replayed": list(replayed),
        }
        self._learner = Learner(
            _network(network, settings.seed, parent),
            device,
            loss=settings.loss,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            ema_decay=settings.ema_decay,
            gradient_norm=settings.gradient_norm,
            start_share=settings.parent_share if parent else 0.0,
            world=world,
        )
        if resume:
            self._run.check_resumable(asked)
            self._restore()
        elif world.speaks:
            self._run.begin(asked)
            self._keep(best=False)
        if world.speaks and not split.validation:
            logger.warning(
                "No patient is left to validate: nothing will show when the network only remembers what it has seen, "
                "and the weights of the last epoch are kept."
            )
        world.agree(None)  # nobody goes on before the folder is there

    @property
    def history(self) -> list[EpochLog]:
        """The epochs so far, those before a resume included."""
        return list(self._history)

    @property
    def end(self) -> str:
        """Why the training ended, in words; empty while it has not."""
        return self._end

    @property
    def interrupted(self) -> bool:
        """Whether it ended before it should: it was stopped, or the time was up."""
        return self._interrupted

    def epochs(self, *, minutes: float | None = None) -> Iterator[EpochLog | Progress]:
        """Train; yields Progress in batches of the epoch after every batch, and an EpochLog after every epoch.

        Args:
            minutes: no epoch is begun that would not end in this time, judged by the one before.
        """
        with claimed(self._run.path) if self._world.speaks else contextlib.nullcontext():
            if self._world.speaks:
                self._run.forget_end()
            yield from self._train(minutes)
            if self._world.speaks:
                self._run.write_end(self._end, interrupted=self._interrupted)

    def _train(self, minutes: float | None) -> Iterator[EpochLog | Progress]:
        begun = time.monotonic()
        while not self._ended():
            started = time.monotonic()
            try:
                result = yield from self._epoch(len(self._history))
            except NotFiniteError:
                self._roll_back()
                continue
            if result is None:
                if self._world.speaks:
                    self._run.withdraw_stop()
                self._end, self._interrupted = "it was stopped; --resume goes on after the last whole epoch", True
                return
            mean, rate = result
            epoch, now = len(self._history) + 1, time.monotonic()
            out_of_time = self._world.agree(minutes is not None and (now - begun) + (now - started) > 60 * minutes)
            due = epoch == self._settings.epochs or epoch % self._settings.validate_every == 0 or out_of_time
            due = due and bool(self._validation_cases)
            validation = self._world.agree(self._validate() if due and self._world.speaks else {})
            seconds = time.monotonic() - started
            log = EpochLog(epoch, rate, mean.loss, mean.dice, mean.accuracy, seconds, **validation)
            self._history.append(log)
            self._keep(best=not self._validation_cases or (bool(validation) and log is _best(self._history)))
            yield log
            if out_of_time:
                self._end, self._interrupted = f"the time is up after {epoch} epochs; --resume goes on", True
                return

    def _epoch(self, epoch: int) -> Iterator[Progress]:
        """One epoch; returns the mean agreement and the last learning rate, or None if it was stopped."""
        size, seed = self._settings.batch_size, self._settings.seed
        slices = self._training.epoch(
            seed,
            epoch,
            empty_slices=self._settings.empty_slices,
            replayed=self._replayed,
            replay=self._settings.replay,
        )
        batches = math.ceil(len(slices) // self._world.size * self._world.size / size)
        if not batches:
            raise TrainingError(
                f"Epoch {epoch + 1} has drawn {len(slices)} slices, too few to train on; add cases or a larger share "
                "of empty slices."
            )
        sums = np.zeros(3)
        for batch in range(batches):
            chosen = slices[batch * size : (batch + 1) * size]
            image, mask = self._training.batch(chosen[: len(chosen) // self._world.size * self._world.size])
            random = torch.Generator().manual_seed(_seed(seed, epoch, batch))
            device = self._device.name
            image, mask = augment(image.to(device), mask.to(device), self._settings.augmentation, random)
            rate = self._rate_factor * self._learning_rate(epoch + batch / batches)
            result = self._learner.step(image, mask, rate)
            sums += (result.loss, result.dice, result.accuracy)
            yield Progress("Training", batch + 1, batches)
            if self._world.agree(self._run.stop_requested()):
                return None
        return Agreement(*(sums / batches).tolist()), rate

    def _ended(self) -> bool:
        """Whether all epochs are done or the validation has not become better for too long."""
        if len(self._history) >= self._settings.epochs:
            self._end = f"all {len(self._history)} epochs are done"
        validated = [log for log in self._history if log.validation_dice]
        if self._settings.patience and len(validated) - 1 - _index(validated) >= self._settings.patience:
            best = validated[_index(validated)]
            self._end = (
                f"the validation has not become better since epoch {best.epoch} "
                f"(3D Dice {best.mean_validation_dice:.4f}, patience {self._settings.patience})"
            )
        return bool(self._end)

    def _roll_back(self) -> None:
        epoch = len(self._history) + 1
        if self._rate_factor < 1:
            raise TrainingError(
                f"The loss of epoch {epoch} is not finite again, at half the learning rate; start a new run with less "
                f"than {self._settings.learning_rate / 2:g}. The checkpoint of epoch {epoch - 1} is kept."
            )
        self._restore()
        self._rate_factor = 0.5
        logger.warning(
            "The loss of epoch %d is not finite; going on after epoch %d with half the learning rate.", epoch, epoch - 1
        )

    def _validate(self) -> dict[str, Any]:
        """Loss, accuracy and 3D Dice on every validation patient; the first one is drawn."""
        results = {}
        for case in self._validation_cases:
            results[case.name], probability = self._learner.validate(case, self._preprocessing, multiple=self._multiple)
            if len(results) == 1:
                self._run.draw(case, probability)
        return {
            "validation_loss": float(np.mean([result.loss for result in results.values()])),
            "validation_accuracy": float(np.mean([result.accuracy for result in results.values()])),
            "validation_dice": {name: result.dice for name, result in results.items()},
        }

    def _learning_rate(self, epoch: float) -> float:
        settings = self._settings
        warmup = min(settings.warmup_epochs, settings.epochs / 5)
        if epoch < warmup:
            return settings.learning_rate * max(epoch / warmup, 0.01)
        if settings.schedule == "constant":
            return settings.learning_rate
        course = (epoch - warmup) / (settings.epochs - warmup)
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * course))

    def _keep(self, *, best: bool) -> None:
        if not self._world.speaks:
            return
        checkpoint = {**self._learner.state_dict(), "rate_factor": self._rate_factor, "terms": self._terms()}
        self._run.keep(checkpoint, self._history, self._learner.averaged.module.state_dict() if best else None)

    def _restore(self) -> None:
        checkpoint, self._history = self._run.checkpoint(self._device.name)
        for term, value in self._terms().items():
            before = checkpoint["terms"][term]
            if before != value and self._world.speaks:
                logger.warning(
                    "Resumed with %s %s, started with %s: the weights will differ a little from an undisturbed run's.",
                    *(term, value, before),
                )
        self._learner.load_state_dict(checkpoint)
        self._rate_factor = checkpoint["rate_factor"]
        if self._world.speaks:
            self._run.write_log(self._history)

    def _terms(self) -> dict[str, str]:
        """Under which a resumed run equals an undisturbed one bit for bit."""
        return {
            "threads": str(torch.get_num_threads()),
            "dtype": self._device.dtype,
            "device": self._device.kind,
            "torch": str(torch.__version__),
            "processor": platform.machine(),
            "processes": str(self._world.size),
        }


def _network(spec: NetworkSpec, seed: int, parent: LiverModel | None) -> torch.nn.Module:
    """Fresh weights that depend on the seed, or those of the parent."""
    with torch.random.fork_rng():  # leaves the generator of whoever runs us as it was
        torch.manual_seed(seed)
        network = build_network(spec)
    if parent:
        network.load_state_dict(parent.state_dict())
    return network


def _index(validated: Sequence[EpochLog]) -> int:
    """The first of the best validations; -1 if there is none."""
    return max(range(len(validated)), key=lambda n: (validated[n].mean_validation_dice, -n), default=-1)


def _best(history: Sequence[EpochLog]) -> EpochLog | None:
    validated = [log for log in history if log.validation_dice]
    return validated[_index(validated)] if validated else None


def _seed(*parts: int) -> int:
    """A seed for torch that depends on all parts."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
