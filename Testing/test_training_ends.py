"""When a training ends, what it does when it diverges or runs out of memory, and where it may start."""

import contextlib
import logging
import math
from dataclasses import replace

import pytest
import torch

from helpers import SETTINGS, assert_same_weights, weights_of
from LiverUNetLib.errors import TrainingError
from LiverUNetLib.steps import finish
from LiverUNetLib.system.environment import Device
from LiverUNetTrainLib.run.folder import Ending, EpochLog, RunFolder
from LiverUNetTrainLib.run.settings import CoarseSettings, TrainingSettings
from LiverUNetTrainLib.training import learner
from LiverUNetTrainLib.training.fine_sampling import FineSampler
from LiverUNetTrainLib.training.learner import Learner
from LiverUNetTrainLib.training.model_training import ModelTraining

PLAIN = TrainingSettings(loss="dice", learning_rate=1, weight_decay=0, ema_decay=0, gradient_norm=1)


def logs_of(trainer: ModelTraining, **options: float) -> list[EpochLog]:
    return [event for event in trainer.epochs(**options) if isinstance(event, EpochLog)]


@pytest.mark.slow
def test_a_complete_training_says_so(a_trainer):
    trainer = a_trainer("run")
    assert finish(trainer.epochs()) == Ending("all 3 epochs are done", interrupted=False)


@pytest.mark.slow
def test_a_time_budget_ends_the_training_with_a_validated_epoch_and_resumes(a_trainer, tmp_path):
    trainer = a_trainer("short", settings=replace(SETTINGS, validate_every=3))
    logs = logs_of(trainer, minutes=0)
    assert [log.epoch for log in logs] == [1]
    assert logs[0].validation_dice
    ending = RunFolder(tmp_path / "short").end()
    assert ending == Ending("the time is up after 1 epochs; --resume continues", interrupted=True)
    list(a_trainer("short", settings=replace(SETTINGS, validate_every=3), resume=True).epochs())
    list(a_trainer("whole", settings=replace(SETTINGS, validate_every=3)).epochs())
    assert_same_weights(weights_of(tmp_path / "short"), weights_of(tmp_path / "whole"))


@pytest.mark.slow
def test_a_stop_file_ends_the_training_after_the_batch_and_resuming_forgets_it(a_trainer, tmp_path):
    trainer = a_trainer("run")
    steps = trainer.epochs()
    while not isinstance(next(steps), EpochLog):
        pass
    next(steps)
    (tmp_path / "run/stop").touch()
    assert list(steps) == []
    assert (len(trainer.history), RunFolder(tmp_path / "run").end().interrupted) == (1, True)
    resumed = a_trainer("run", resume=True)
    assert len(logs_of(resumed)) == 2


@pytest.mark.slow
def test_training_stops_early_when_validation_does_not_improve(a_trainer, tmp_path):
    settings = replace(SETTINGS, epochs=30, learning_rate=1e-12, validate_every=1, patience=3)
    trainer = a_trainer("run", settings=settings)
    logs = logs_of(trainer)
    assert 4 <= len(logs) < 30
    dices = [log.mean_validation_dice for log in logs]
    assert max(dices[-3:]) <= max(dices[:-3])
    assert "has not improved since epoch" in RunFolder(tmp_path / "run").end().message
    again = a_trainer("run", settings=settings, resume=True)
    assert logs_of(again) == []


def steps_of_first_epoch(trainer: ModelTraining) -> int:
    return math.ceil(len(trainer._fine._sampler.epoch(0)) / SETTINGS.batch_size)


def diverge(monkeypatch, *, times: int, after: int) -> None:
    """Make the loss not finite `times` times, after so many steps."""
    honest, count = Learner._learn, iter(range(10**6))

    def learn(self, image, mask, rate):
        if after <= next(count) < after + times:
            raise learner.NotFiniteError
        return honest(self, image, mask, rate)

    monkeypatch.setattr(Learner, "_learn", learn)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_goes_back_once_with_half_the_learning_rate(a_trainer, monkeypatch, caplog):
    trainer = a_trainer("run", settings=replace(SETTINGS, schedule="constant", warmup_epochs=0))
    diverge(monkeypatch, times=1, after=steps_of_first_epoch(trainer) + 1)
    logs = logs_of(trainer)
    assert [log.epoch for log in logs] == [1, 2, 3]
    assert [log.learning_rate for log in logs] == [2e-3, 1e-3, 1e-3]
    assert "resuming after epoch 1 with half the learning rate" in caplog.text


@pytest.mark.slow
def test_a_loss_that_is_not_finite_again_stops_and_keeps_the_checkpoint(a_trainer, tmp_path, monkeypatch):
    trainer = a_trainer("run")
    diverge(monkeypatch, times=2, after=steps_of_first_epoch(trainer) + 1)
    steps = trainer.epochs()
    while not isinstance(next(steps), EpochLog):
        pass
    before = weights_of(tmp_path / "run")
    with pytest.raises(TrainingError, match=r"not finite again, at half the learning rate; .* less than 0.001"):
        list(steps)
    assert_same_weights(before, weights_of(tmp_path / "run"))


def test_a_loss_of_nan_is_seen_before_it_changes_the_weights():
    network = torch.nn.Conv2d(1, 1, 1)
    one = Learner(network, Device("cpu"), PLAIN)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(learner.NotFiniteError):
        one.step(torch.full((2, 1, 4, 4), float("nan")), torch.zeros(2, 1, 4, 4), 0.1)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


class SmallGpu(Device):
    """A GPU simulated on the CPU."""

    kind = property(lambda self: "cuda" if not self.note else "cpu")

    def autocast(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()


class Greedy(torch.nn.Module):
    """A network too large for batches of more than five."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.seen = torch.nn.Parameter(torch.ones(1, 1, 1, 1)), []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(image))
        if len(image) > 5:
            raise torch.OutOfMemoryError
        return image * self.scale


def test_out_of_memory_halves_the_batch_and_logs_it(caplog):
    network = Greedy()
    one = Learner(network, SmallGpu("cpu"), PLAIN)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            one.step(torch.randn(16, 1, 4, 4), torch.ones(16, 1, 4, 4), 0.1)
    assert network.seen == [16, 8, 4, 4, 4, 4, 4, 4, 4, 4]
    assert "continuing with 4 slices at once" in caplog.text
    assert network.scale.item() != 1


def test_of_the_averaged_weights_a_share_stays_as_it_was():
    network = torch.nn.Conv2d(1, 1, 1)
    start = network.weight.item()
    one = Learner(network, Device("cpu"), replace(PLAIN, parent_share=0.25), tuned=True)
    one.step(torch.randn(2, 1, 4, 4), torch.ones(2, 1, 4, 4), 0.1)
    assert network.weight.item() != start
    expected = 0.25 * start + 0.75 * network.weight.item()
    assert one.averaged.module.weight.item() == pytest.approx(expected)


def test_an_epoch_without_slices_says_so(a_trainer, monkeypatch):
    trainer = a_trainer("run")
    monkeypatch.setattr(FineSampler, "epoch", lambda *_: [])
    with pytest.raises(TrainingError, match="Epoch 1 has nothing to show; add cases"):
        list(trainer.epochs())


@pytest.mark.parametrize("name", ["epochs", "batch_size", "validate_every", "patience", "learning_rate"])
def test_invalid_settings_are_refused(name):
    with pytest.raises(TrainingError, match=f"The setting {name} must be .*, not -1"):
        replace(SETTINGS, **{name: -1})


@pytest.mark.parametrize("name", ["epochs", "shown", "batch_size"])
def test_invalid_settings_of_the_coarse_look_are_refused(name):
    with pytest.raises(TrainingError, match=f"The setting coarse.{name} must be at least 1, not 0"):
        CoarseSettings(**{name: 0})
