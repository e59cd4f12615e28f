"""The training of a model: its coarse look, then its fine look, in one run folder.

RUN/         the fine look, see `run.folder`
RUN/coarse   the coarse look, likewise
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator
from dataclasses import replace
from functools import partial
from pathlib import Path

from LiverUNetLib.models.card import COARSE, FINE
from LiverUNetLib.models.spec import CoarseLook
from LiverUNetLib.steps import Progress, mapped
from LiverUNetLib.system.environment import Device
from LiverUNetLib.system.files import make_folder

from ..run.folder import COARSE_FOLDER, COARSE_TITLE, Ending, EpochLog, RunFolder
from ..run.lock import locked
from .coarse_sampling import CoarseSampler
from .fine_sampling import FineSampler
from .learner import Learner
from .plan import Plan
from .trainer import Trainer

__all__ = ["ModelTraining"]

logger = logging.getLogger(__name__)


class ModelTraining:
    """The training of all looks of a model, made by `begin` or `resume`."""

    def __init__(self, plan: Plan, run: Path, device: Device) -> None:
        self._plan, self._run, self._device = plan, RunFolder(run), device
        self._fine = self._fine_trainer()
        if not plan.validation:
            logger.warning(
                "No patient is left to validate: nothing will show when the network only remembers what it has seen, "
                "and the weights of the last epoch are kept."
            )

    @classmethod
    def begin(cls, plan: Plan, run: Path, device: Device) -> ModelTraining:
        """Begin in a folder that holds no run; it is made if missing.

        Raises:
            TrainingError: it holds one, the cache was prepared on other grids, or the parent holds out a case that
                would train.
        """
        RunFolder(run).begin(plan.record())
        training = cls(plan, run, device)
        training._fine.begin()
        return training

    @classmethod
    def resume(cls, plan: Plan, run: Path, device: Device) -> ModelTraining:
        """Resume after the last complete epoch in a run folder, of whichever look was trained then.

        Raises:
            TrainingError: there is nothing to resume, or it was begun with another plan.
        """
        RunFolder(run).check_resumable(plan.record())
        training = cls(plan, run, device)
        training._fine.resume()
        return training

    @property
    def history(self) -> list[EpochLog]:
        """The epochs of the fine look so far, those before a resume included."""
        return self._fine.history

    def epochs(self, *, minutes: float | None = None) -> Generator[EpochLog | Progress, None, Ending]:
        """Train; yields Progress in batches of the epoch after every batch, and an EpochLog after every epoch.

        Args:
            minutes: no epoch is begun that would not end in this time, judged by the one before.

        Returns:
            Why the training has ended.
        """
        until = math.inf if minutes is None else time.monotonic() + 60 * minutes
        with locked(self._run.path):
            self._run.forget_end()
            ending = (yield from self._train_coarsely(until)) or (yield from self._fine.epochs(until=until))
            self._run.write_end(ending)
        return ending

    def _train_coarsely(self, until: float) -> Generator[EpochLog | Progress, None, Ending | None]:
        """The coarse look, if there is one; returns why the training ended before the fine one."""
        if self._plan.spec.coarse is None:
            return None
        run = RunFolder(self._run.path / COARSE_FOLDER, within=self._run.path)
        begun = run.has_weights("last")
        make_folder(run.path)
        if self._plan.parent:
            run.keep_best(self._plan.parent.state_dict(COARSE))
            return None
        trainer = self._coarse_trainer(self._plan.spec.coarse, run)
        if begun:
            trainer.resume()
        else:
            trainer.begin()
        before = len(trainer.history)
        ending = yield from mapped(trainer.epochs(until=until), partial(replace, stage=COARSE_TITLE))
        if ending.interrupted:
            return ending
        if time.monotonic() > until and len(trainer.history) > before:
            return Ending("the time is up after the coarse look; --resume continues", interrupted=True)
        return None

    def _fine_trainer(self) -> Trainer:
        spec, settings, parent = self._plan.spec, self._plan.settings, self._plan.parent
        weights = parent.state_dict(FINE) if parent else None
        return Trainer(
            FineSampler(self._plan.training, spec, settings, replayed=self._plan.replayed),
            Learner.start(spec.fine.network, self._device, settings, weights),
            self._run,
            settings,
            threshold=spec.rules.threshold,
            validation=self._plan.validation,
        )

    def _coarse_trainer(self, coarse: CoarseLook, run: RunFolder) -> Trainer:
        spec, chosen = self._plan.spec, self._plan.settings.coarse
        settings = replace(
            self._plan.settings,
            epochs=chosen.epochs,
            batch_size=chosen.batch_size,
            validate_every=chosen.epochs,
            refinement=None,
        )
        return Trainer(
            CoarseSampler(self._plan.training, spec, self._plan.settings),
            Learner.start(coarse.network, self._device, settings),
            run,
            settings,
            threshold=spec.rules.threshold,
            validation=self._plan.validation,
        )
