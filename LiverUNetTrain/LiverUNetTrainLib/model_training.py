"""The training of a model: its coarse look, what that tells the fine look, and the fine look, in one run folder.

RUN/                 the fine look, see `run_folder`
RUN/coarse           the coarse look, trained on all training cases
RUN/coarse/half1     one trained on half of them; what it finds in the other half is what the fine look is told there.
RUN/coarse/half2     Told what a network finds that has learned from the very case, it would trust it too much.
RUN/coarse/priors    what was found, NAME.npy of each case
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from LiverUNetLib.card import COARSE, FINE
from LiverUNetLib.engines import Network
from LiverUNetLib.environment import Device
from LiverUNetLib.errors import TrainingError
from LiverUNetLib.files import make_folder, save_array, staged
from LiverUNetLib.looks import Prior
from LiverUNetLib.model import LiverModel
from LiverUNetLib.spec import ModelSpec
from LiverUNetLib.steps import Progress, mapped

from .cache import Cache
from .coarse_sampling import CoarseSampler
from .dataset import Split
from .fine_sampling import FineSampler
from .occupancy import claimed
from .request import descent, request
from .run_folder import COARSE_STAGES, EpochLog, RunFolder
from .settings import TrainingSettings
from .training import Ending, Trainer

__all__ = ["ModelTraining", "Stage"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """What is trained: which look, and which of how many trainings of it.

    Attributes:
        folder: its run folder, seen from that of the model.
        training, predicted: cases that it learns from, and those whose prior it makes.
    """

    folder: str
    training: tuple[str, ...]
    predicted: tuple[str, ...]

    @property
    def title(self) -> str:
        """What the user sees."""
        return COARSE_STAGES[self.folder]


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
            FineSampler(
                cache.select(split.training),
                spec,
                settings,
                priors=self._prior if spec.coarse else None,
                replayed=replayed,
            ),
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
        with claimed(self._run.path):
            self._run.forget_end()
            self._ending = (yield from self._train_coarsely(until)) or (yield from self._fine.epochs(until=until))
            self._run.write_end(self._ending.words, interrupted=self._ending.interrupted)

    def _train_coarsely(self, until: float) -> Generator[EpochLog | Progress, None, Ending | None]:
        """Everything that the fine look is told; returns why it ended before that was there."""
        if self._spec.coarse is None:
            return None
        if self._parent:
            network = self._parent.networks(self._device).coarse
            make_folder(self._run.path / "coarse")
            RunFolder(self._run.path / "coarse").keep_best(self._parent.state_dict(COARSE))
            yield from self._write_priors(network, [case.name for case in self._cache.cases])
            return None
        for stage in self._stages():
            trainer = self._coarse_trainer(stage)
            before = len(trainer.history)
            ending = yield from mapped(trainer.epochs(until=until), partial(replace, stage=stage.title))
            if ending.interrupted:
                return ending
            yield from self._write_priors(trainer.network(), stage.predicted)
            if time.monotonic() > until and len(trainer.history) > before:
                return Ending(f"the time is up after the {stage.title.lower()}; --resume continues", interrupted=True)
        return None

    def _stages(self) -> list[Stage]:
        """Both halves, then all; what neither half has learned from is predicted by the last."""
        training = self._split.training
        order = np.random.default_rng(self._settings.seed).permutation(len(training))
        halves = [tuple(training[n] for n in sorted(order[start::2])) for start in (0, 1)]
        others = tuple(case.name for case in self._cache.cases if case.name not in training)
        if not all(halves):  # of a single case there are none
            return [Stage("coarse", training, (*training, *others))]
        return [
            Stage("coarse/half1", halves[0], halves[1]),
            Stage("coarse/half2", halves[1], halves[0]),
            Stage("coarse", training, others),
        ]

    def _coarse_trainer(self, stage: Stage) -> Trainer:
        run = RunFolder(self._run.path / stage.folder, within=self._run.path)
        begun = (run.path / "last.pt").exists()
        make_folder(run.path)
        coarse = self._settings.coarse
        validated = self._split.validation if set(self._split.validation) <= set(stage.predicted) else ()
        return Trainer(
            CoarseSampler(self._cache.select(stage.training), self._spec, self._settings),
            run,
            network=self._spec.coarse.network,
            settings=replace(
                self._settings, epochs=coarse.epochs, batch_size=coarse.batch_size, validate_every=coarse.epochs
            ),
            device=self._device,
            threshold=self._spec.rules.threshold,
            validation=self._cache.select(validated),
            resume=begun,
        )

    def _write_priors(self, network: Network, names: Sequence[str]) -> Iterator[Progress]:
        """What a coarse network finds in these cases."""
        make_folder(self._priors)
        sampler = CoarseSampler([], self._spec, self._settings)
        cases = [case for case in self._cache.select(names) if not self._prior_file(case.name).exists()]
        for number, case in enumerate(cases):
            yield Progress("Looking coarsely", number, len(cases))
            with staged(self._prior_file(case.name)) as temporary:
                save_array(temporary, sampler.probability(network, case).astype(np.float16))

    @property
    def _priors(self) -> Path:
        return self._run.path / "coarse" / "priors"

    def _prior_file(self, name: str) -> Path:
        return self._priors / f"{name}.npy"

    def _prior(self, name: str) -> Prior:
        (case,) = self._cache.select([name])
        try:
            return Prior(case.coarse_grid, np.load(self._prior_file(name)).astype(np.float32))
        except (OSError, ValueError) as error:
            raise TrainingError(f"{self._prior_file(name)} cannot be read ({error}); start a new run.") from error
