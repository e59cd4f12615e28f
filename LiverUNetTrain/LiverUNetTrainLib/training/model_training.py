"""The training of a model: its coarse look, then its fine look, in one run folder.

RUN/         the fine look, see `run.folder`
RUN/coarse   the coarse look, likewise
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Generator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from LiverUNetLib.models.card import COARSE, FINE
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.models.spec import ModelSpec
from LiverUNetLib.steps import Progress, mapped
from LiverUNetLib.system.environment import Device
from LiverUNetLib.system.files import make_folder

from ..data.cache import Cache
from ..data.splits import Split
from ..run.folder import COARSE_FOLDER, COARSE_TITLE, EpochLog, RunFolder
from ..run.lock import locked
from .coarse_sampling import CoarseSampler
from .fine_sampling import FineSampler
from .run_settings import descent, request
from .settings import TrainingSettings
from .trainer import Ending, Trainer

__all__ = ["ModelTraining"]

logger = logging.getLogger(__name__)


class ModelTraining:
    """Train all looks of a model; resumed, it continues with the one it was at.

    Args:
        run: the run folder; made if missing.
        resume: what was begun in `run`.
        parent: start from this model instead of fresh weights; its fine look is tuned, its coarse one stays.
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
        spec: ModelSpec,
        settings: TrainingSettings,
        device: Device,
        resume: bool = False,
        parent: LiverModel | None = None,
        replayed: Collection[str] = (),
    ) -> None:
        self._cache, self._split, self._run = cache, split, RunFolder(run)
        self._spec, self._settings, self._device, self._parent = spec, settings, device, parent
        asked = request(cache, split, spec, settings) | {
            "parent": descent(parent, cache, split),
            "replayed": list(replayed),
        }
        if resume:
            self._run.check_resumable(asked)
        else:
            self._run.begin(asked)
        self._fine = Trainer(
            FineSampler(cache.select(split.training), spec, settings, replayed=replayed),
            self._run,
            network=spec.fine.network,
            settings=settings,
            device=device,
            threshold=spec.rules.threshold,
            validation=cache.select(split.validation),
            weights=parent.state_dict(FINE) if parent else None,
            resume=resume,
        )
        self._ending: Ending | None = None
        if not split.validation:
            logger.warning(
                "No patient is left to validate: nothing will show when the network only remembers what it has seen, "
                "and the weights of the last epoch are kept."
            )

    @property
    def history(self) -> list[EpochLog]:
        """The epochs of the fine look so far, those before a resume included."""
        return self._fine.history

    @property
    def ending(self) -> Ending | None:
        """Why the training has ended; None while it has not."""
        return self._ending

    def epochs(self, *, minutes: float | None = None) -> Iterator[EpochLog | Progress]:
        """Train; yields Progress in batches of the epoch after every batch, and an EpochLog after every epoch.

        Args:
            minutes: no epoch is begun that would not end in this time, judged by the one before.
        """
        until = math.inf if minutes is None else time.monotonic() + 60 * minutes
        with locked(self._run.path):
            self._run.forget_end()
            self._ending = (yield from self._train_coarsely(until)) or (yield from self._fine.epochs(until=until))
            self._run.write_end(self._ending.words, interrupted=self._ending.interrupted)

    def _train_coarsely(self, until: float) -> Generator[EpochLog | Progress, None, Ending | None]:
        """The coarse look, if there is one; returns why the training ended before the fine one."""
        if self._spec.coarse is None:
            return None
        run = RunFolder(self._run.path / COARSE_FOLDER, within=self._run.path)
        begun = (run.path / "last.pt").exists()
        make_folder(run.path)
        if self._parent:
            run.keep_best(self._parent.state_dict(COARSE))
            return None
        coarse = self._settings.coarse
        trainer = Trainer(
            CoarseSampler(self._cache.select(self._split.training), self._spec, self._settings),
            run,
            network=self._spec.coarse.network,
            settings=replace(
                self._settings,
                epochs=coarse.epochs,
                batch_size=coarse.batch_size,
                validate_every=coarse.epochs,
                refinement=None,
            ),
            device=self._device,
            threshold=self._spec.rules.threshold,
            validation=self._cache.select(self._split.validation),
            resume=begun,
        )
        before = len(trainer.history)
        ending = yield from mapped(trainer.epochs(until=until), partial(replace, stage=COARSE_TITLE))
        if ending.interrupted:
            return ending
        if time.monotonic() > until and len(trainer.history) > before:
            return Ending("the time is up after the coarse look; --resume continues", interrupted=True)
        return None
