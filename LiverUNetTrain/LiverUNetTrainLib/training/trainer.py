"""The training of one look: epochs, validation, when to stop, exact resume, and what happens when it diverges.

Every random number depends on the seed, the epoch and the batch alone. A run that was killed and
resumed therefore ends with the same weights, given the same threads, dtype and torch version.
"""

from __future__ import annotations

import logging
import math
import platform
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from LiverUNetLib.errors import TrainingError
from LiverUNetLib.models.engines import Network, TorchNetwork
from LiverUNetLib.models.network import build_network
from LiverUNetLib.models.spec import NetworkSpec
from LiverUNetLib.steps import Progress
from LiverUNetLib.system.environment import Device

from ..data.cache import CachedCase
from ..run.folder import EpochLog, RunFolder
from .augmentation import AugmentationSettings
from .learner import BatchScores, Learner, NotFiniteError, scores_of
from .pictures import draw_validation
from .settings import TrainingSettings

__all__ = ["Ending", "Sampler", "Trainer"]

logger = logging.getLogger(__name__)


class Sampler(Protocol):
    """What a look learns from."""

    def epoch(self, epoch: int) -> list[Any]:
        """What an epoch shows, in its order."""
        ...

    def batch(
        self, shown: Sequence[Any], seed: int, device: str, augmentation: AugmentationSettings | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Some of it as the network takes it, and the share of liver; augmented as the settings say if not told."""
        ...

    def probability(self, network: Network, case: CachedCase) -> np.ndarray:
        """What the network finds in a whole case, float32."""
        ...

    def image(self, case: CachedCase) -> np.ndarray:
        """The HU of a whole case, on the grid of `probability`."""
        ...

    def mask(self, case: CachedCase) -> np.ndarray:
        """The share of liver in it, uint8."""
        ...


@dataclass(frozen=True)
class Ending:
    """Why a training has ended, and whether it could be resumed."""

    words: str
    interrupted: bool = False


class Trainer:
    """Train one network.

    A loss that is not finite takes the training back to the last complete epoch, once, with half the
    learning rate. A file `stop` in the run folder ends it after the batch in hand.

    Args:
        run: where its checkpoints and log are kept; exists.
        validation: cases that are looked at every `settings.validate_every` epochs; the first is drawn.
        threshold: where the probability exceeds it there is liver.
        weights: to start from instead of fresh ones.
        resume: after the last complete epoch found in `run`.

    Raises:
        TrainingError: there is nothing to resume.
    """

    def __init__(
        self,
        sampler: Sampler,
        run: RunFolder,
        *,
        network: NetworkSpec,
        settings: TrainingSettings,
        device: Device,
        threshold: float,
        validation: Sequence[CachedCase] = (),
        weights: dict[str, torch.Tensor] | None = None,
        resume: bool = False,
    ) -> None:
        self._sampler, self._run, self._settings, self._device = sampler, run, settings, device
        self._validation, self._threshold = validation, threshold
        self._history: list[EpochLog] = []
        self._rate_factor = 1.0
        self._learner = Learner(_network(network, settings.seed, weights), device, settings, tuned=weights is not None)
        if resume:
            self._restore()
        else:
            self._keep(best=False)

    @property
    def history(self) -> list[EpochLog]:
        """The epochs so far, those before a resume included."""
        return list(self._history)

    def network(self) -> Network:
        """The averaged weights, ready to compute."""
        return TorchNetwork(self._learner.averaged.module, self._device)

    def epochs(self, *, until: float = math.inf) -> Generator[EpochLog | Progress, None, Ending]:
        """Train; yields Progress in batches of the epoch after every batch, and an EpochLog after every epoch.

        Args:
            until: no epoch is begun that would not end by this time of `time.monotonic`, judged by the one before.
        """
        while not (ending := self._ending()):
            started = time.monotonic()
            try:
                result = yield from self._epoch(len(self._history))
            except NotFiniteError:
                self._roll_back()
                continue
            if result is None:
                self._run.withdraw_stop()
                return Ending("it was stopped; --resume continues after the last complete epoch", interrupted=True)
            mean, rate = result
            epoch, now = len(self._history) + 1, time.monotonic()
            late = 2 * now - started > until
            due = epoch == self._settings.epochs or epoch % self._settings.validate_every == 0 or late
            validation = self._validate() if due and self._validation else {}
            log = EpochLog(epoch, rate, mean.loss, mean.dice, mean.accuracy, time.monotonic() - started, **validation)
            self._history.append(log)
            self._keep(best=not self._validation or (bool(validation) and log is _best(self._history)))
            yield log
            if late and epoch < self._settings.epochs:
                return Ending(f"the time is up after {epoch} epochs; --resume continues", interrupted=True)
        return ending

    def _epoch(self, epoch: int) -> Generator[Progress, None, tuple[BatchScores, float] | None]:
        """One epoch; returns the mean scores and the last learning rate, or None if it was stopped."""
        size = self._settings.batch_size
        augmentation = None
        if epoch >= self._settings.first_epochs:
            augmentation = self._settings.refined_augmentation
            if epoch == self._settings.first_epochs:
                self._learner.restart(self._settings.refinement.share)
        shown = self._sampler.epoch(epoch)
        batches = math.ceil(len(shown) / size)
        if not batches:
            raise TrainingError(
                f"Epoch {epoch + 1} has nothing to show; add cases or a larger share of slices without liver."
            )
        sums = np.zeros(3)
        for batch in range(batches):
            chosen = shown[batch * size : (batch + 1) * size]
            seed = _seed(self._settings.seed, epoch, batch)
            image, mask = self._sampler.batch(chosen, seed, self._device.name, augmentation)
            rate = self._rate_factor * self._learning_rate(epoch + batch / batches)
            scores = self._learner.step(image, mask, rate)
            sums += (scores.loss, scores.dice, scores.accuracy)
            yield Progress("Training", batch + 1, batches)
            if self._run.stop_requested():
                return None
        return BatchScores(*(sums / batches).tolist()), rate

    def _ending(self) -> Ending | None:
        """Why there is no further epoch, if there is none."""
        if len(self._history) >= self._settings.epochs:
            return Ending(f"all {len(self._history)} epochs are done")
        validated = [log for log in self._history if log.validation_dice]
        if self._settings.patience and len(validated) - 1 - _index(validated) >= self._settings.patience:
            best = validated[_index(validated)]
            return Ending(
                f"the validation has not become better since epoch {best.epoch} "
                f"(3D Dice {best.mean_validation_dice:.4f}, patience {self._settings.patience})"
            )
        return None

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
            "The loss of epoch %d is not finite; resuming after epoch %d with half the learning rate.", epoch, epoch - 1
        )

    def _validate(self) -> dict[str, Any]:
        """Loss, accuracy and 3D Dice on every validation patient; the first one is drawn."""
        results, network = {}, self.network()
        for case in self._validation:
            probability, mask = self._sampler.probability(network, case), self._sampler.mask(case)
            results[case.name] = scores_of(self._learner.loss, probability, mask, self._threshold)
            if len(results) == 1:
                image = self._sampler.image(case)
                self._run.write_overlay(draw_validation(case.name, image, mask, probability))
        return {
            "validation_loss": float(np.mean([result.loss for result in results.values()])),
            "validation_accuracy": float(np.mean([result.accuracy for result in results.values()])),
            "validation_dice": {name: result.dice for name, result in results.items()},
        }

    def _learning_rate(self, epoch: float) -> float:
        """It rises and falls in each of the two courses."""
        settings = self._settings
        highest, warmup, length = settings.learning_rate, settings.warmup_epochs, settings.first_epochs
        if epoch >= length and settings.refinement:
            highest, warmup = (settings.refinement.rate * figure for figure in (highest, warmup))
            epoch, length = epoch - length, settings.epochs - length
        warmup = min(warmup, length / 5)
        if epoch < warmup:
            return highest * max(epoch / warmup, 0.01)
        if settings.schedule == "constant":
            return highest
        return highest * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (length - warmup)))

    def _keep(self, *, best: bool) -> None:
        checkpoint = {**self._learner.state_dict(), "rate_factor": self._rate_factor, "terms": self._terms()}
        self._run.keep(checkpoint, self._history, self._learner.averaged.module.state_dict() if best else None)

    def _restore(self) -> None:
        checkpoint, self._history = self._run.checkpoint(self._device.name)
        for term, value in self._terms().items():
            before = checkpoint["terms"][term]
            if before != value:
                logger.warning(
                    "Resumed with %s %s, started with %s: the weights will differ a little from an undisturbed run's.",
                    *(term, value, before),
                )
        self._learner.load_state_dict(checkpoint)
        self._rate_factor = checkpoint["rate_factor"]
        self._run.write_log(self._history)

    def _terms(self) -> dict[str, str]:
        """Under which a resumed run equals an undisturbed one bit for bit."""
        return {
            "threads": str(torch.get_num_threads()),
            "dtype": self._device.dtype,
            "device": self._device.kind,
            "torch": str(torch.__version__),
            "processor": platform.machine(),
        }


def _network(spec: NetworkSpec, seed: int, weights: dict[str, torch.Tensor] | None) -> torch.nn.Module:
    """A network with these weights, or with fresh ones that depend on the seed."""
    with torch.random.fork_rng():  # leaves the caller's generator as it was
        torch.manual_seed(seed)
        network = build_network(spec)
    if weights:
        network.load_state_dict(weights)
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
