"""The training of one look: epochs, validation, exact resuming, and what happens when it diverges.

Every random number depends on the seed, the epoch and the batch alone. A run that was killed and
resumed therefore ends with the same weights, given the same threads, dtype and torch version.
"""

from __future__ import annotations

import logging
import math
import platform
import time
from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np
import torch

from LiverUNetLib.errors import TrainingError
from LiverUNetLib.models.engines import Network, TorchNetwork
from LiverUNetLib.steps import Progress

from ..data.cache import CachedCase
from ..run.folder import Ending, EpochLog, RunFolder
from ..run.settings import TrainingSettings
from .learner import Learner, NotFiniteError, scores_of
from .pictures import draw_validation
from .sampler import Sampler
from .schedule import best_epoch, ending_of, is_validated, learning_rate

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)


class Trainer:
    """Train one look: `begin` or `resume`, then `epochs`.

    A loss that is not finite takes the training back to the last complete epoch, once, with half the
    learning rate. A file `stop` in the run folder ends it after the current batch.

    Args:
        learner: on the device that the training runs on.
        run: where its checkpoints and log are kept; exists.
        validation: cases that are validated every `settings.validate_every` epochs; the first is drawn.
        threshold: where the probability exceeds it there is liver.
    """

    def __init__(
        self,
        sampler: Sampler,
        learner: Learner,
        run: RunFolder,
        settings: TrainingSettings,
        *,
        threshold: float,
        validation: Sequence[CachedCase] = (),
    ) -> None:
        self._sampler, self._learner, self._run, self._settings = sampler, learner, run, settings
        self._threshold, self._validation = threshold, validation
        self._history: list[EpochLog] = []
        self._rate_factor = 1.0

    def begin(self) -> None:
        """Keep the start as a checkpoint, so that a training killed in its first epoch can be resumed."""
        self._keep(best=False)

    def resume(self) -> None:
        """Go back to the last complete epoch that the run folder keeps.

        Raises:
            TrainingError: there is no checkpoint, or it is damaged.
        """
        checkpoint, self._history = self._run.checkpoint(self._learner.device.name)
        self._warn_if_inexact(checkpoint["terms"])
        self._learner.load_state_dict(checkpoint)
        self._rate_factor = checkpoint["rate_factor"]
        self._run.write_log(self._history)

    @property
    def history(self) -> list[EpochLog]:
        """The epochs so far, those before a resume included."""
        return list(self._history)

    def network(self) -> Network:
        """The averaged weights, ready to compute."""
        return TorchNetwork(self._learner.averaged.module, self._learner.device)

    def epochs(self, *, until: float = math.inf) -> Generator[EpochLog | Progress, None, Ending]:
        """Train; yields Progress in batches of the epoch after every batch, and an EpochLog after every epoch.

        Args:
            until: no epoch is begun that would not end by this time of `time.monotonic`, judged by the one before.
        """
        while not (ending := ending_of(self._settings, self._history)):
            started = time.monotonic()
            try:
                log = yield from self._epoch(len(self._history))
            except NotFiniteError:
                self._roll_back()
                continue
            if log is None:
                self._run.withdraw_stop()
                return Ending("it was stopped; --resume continues after the last complete epoch", interrupted=True)
            late = 2 * time.monotonic() - started > until
            if self._validation and (late or is_validated(self._settings, log.epoch)):
                log = self._validated(log)
            log = replace(log, seconds=time.monotonic() - started)
            self._history.append(log)
            self._keep(best=not self._validation or log is best_epoch(self._history))
            yield log
            if late and log.epoch < self._settings.epochs:
                return Ending(f"the time is up after {log.epoch} epochs; --resume continues", interrupted=True)
        return ending

    def _epoch(self, epoch: int) -> Generator[Progress, None, EpochLog | None]:
        """Learn from one epoch, counted from 0; returns its log without validation, or None if it was stopped."""
        settings, size = self._settings, self._settings.batch_size
        augmentation = None
        if settings.refinement and epoch >= settings.first_epochs:
            augmentation = settings.refined_augmentation
            if epoch == settings.first_epochs:
                self._learner.restart(settings.refinement.share)
        shown = self._sampler.epoch(epoch)
        batches = math.ceil(len(shown) / size)
        if not batches:
            raise TrainingError(
                f"Epoch {epoch + 1} has nothing to show; add cases or a larger share of slices without liver."
            )
        sums, rate = np.zeros(3), 0.0
        for batch in range(batches):
            chosen = shown[batch * size : (batch + 1) * size]
            seed = _seed(settings.seed, epoch, batch)
            image, mask = self._sampler.batch(chosen, seed, self._learner.device.name, augmentation)
            rate = self._rate_factor * learning_rate(settings, epoch + batch / batches)
            scores = self._learner.step(image, mask, rate)
            sums += (scores.loss, scores.dice, scores.accuracy)
            yield Progress("Training", batch + 1, batches)
            if self._run.stop_requested():
                return None
        loss, dice, accuracy = (sums / batches).tolist()
        return EpochLog(epoch + 1, rate, loss, dice, accuracy, seconds=0.0)

    def _validated(self, log: EpochLog) -> EpochLog:
        """The log with loss, accuracy and 3D Dice of the averaged weights on every validation patient."""
        results, network = {}, self.network()
        for case in self._validation:
            probability, mask = self._sampler.probability(network, case), self._sampler.mask(case)
            results[case.name] = scores_of(self._learner.loss, probability, mask, self._threshold)
            if len(results) == 1:
                image = self._sampler.image(case)
                self._run.write_overlay(draw_validation(case.name, image, mask, probability))
        return replace(
            log,
            validation_loss=float(np.mean([result.loss for result in results.values()])),
            validation_accuracy=float(np.mean([result.accuracy for result in results.values()])),
            validation_dice={name: result.dice for name, result in results.items()},
        )

    def _roll_back(self) -> None:
        epoch = len(self._history) + 1
        if self._rate_factor < 1:
            raise TrainingError(
                f"The loss of epoch {epoch} is not finite again, at half the learning rate; start a new run with less "
                f"than {self._settings.learning_rate / 2:g}. The checkpoint of epoch {epoch - 1} is kept."
            )
        self.resume()
        self._rate_factor = 0.5
        logger.warning(
            "The loss of epoch %d is not finite; resuming after epoch %d with half the learning rate.", epoch, epoch - 1
        )

    def _keep(self, *, best: bool) -> None:
        checkpoint = {**self._learner.state_dict(), "rate_factor": self._rate_factor, "terms": self._conditions()}
        self._run.keep(checkpoint, self._history, self._learner.averaged.module.state_dict() if best else None)

    def _warn_if_inexact(self, before: dict[str, str]) -> None:
        for name, value in self._conditions().items():
            if before[name] != value:
                logger.warning(
                    "Resumed with %s %s, started with %s: the weights will differ a little from an undisturbed run's.",
                    *(name, value, before[name]),
                )

    def _conditions(self) -> dict[str, str]:
        """The conditions under which a resumed run equals an undisturbed one bit for bit."""
        device = self._learner.device
        return {
            "threads": str(torch.get_num_threads()),
            "dtype": device.dtype,
            "device": device.kind,
            "torch": str(torch.__version__),
            "processor": platform.machine(),
        }


def _seed(*parts: int) -> int:
    """A seed for torch that depends on all parts."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1
