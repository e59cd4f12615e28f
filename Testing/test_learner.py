"""One step of learning: its rate, its limits, and the average of the weights."""

import copy

import numpy as np
import pytest
import torch

from LiverUNetLib.system.environment import Device
from LiverUNetTrainLib.run.settings import TrainingSettings
from LiverUNetTrainLib.training.learner import LOSSES, Learner, scores_of


@pytest.fixture
def a_learner():
    def make(**settings):
        usual = {"loss": "dice", "learning_rate": 1.0, "weight_decay": 0.0, "ema_decay": 0.0, "gradient_norm": 1.0}
        return Learner(torch.nn.Conv2d(1, 1, 1), Device("cpu"), TrainingSettings(**(usual | settings)))

    return make


def learn(learner, rate=0.1):
    random = torch.Generator().manual_seed(0)
    learner.step(torch.randn(2, 1, 4, 4, generator=random), torch.ones(2, 1, 4, 4), rate)
    return learner._network.weight.item()


def test_the_optimizer_takes_the_rate_of_the_step_and_the_decay_that_was_asked_for(a_learner):
    one = a_learner(weight_decay=0.03)
    learn(one, rate=0.25)
    (group,) = one._optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.03)


def test_gradients_are_clipped(a_learner):
    one = a_learner(gradient_norm=1e-6)
    learn(one)
    norm = torch.stack([weight.grad.norm() for weight in one._network.parameters()]).norm().item()
    assert norm == pytest.approx(1e-6, rel=0.01)


def test_the_average_follows_the_weights_slower_and_slower(a_learner):
    one = a_learner(ema_decay=0.2)
    expected = learn(one)
    for updates in (1, 2, 3):
        weight, reached = learn(one), min(0.2, (1 + updates) / (10 + updates))
        expected = reached * expected + (1 - reached) * weight
        assert one.averaged.module.weight.item() == pytest.approx(expected, rel=1e-5)


def test_a_restart_begins_with_the_averaged_weights_and_forgets_all_moments(a_learner):
    one = a_learner(ema_decay=0.9)
    for _ in range(3):
        learn(one)
    one.restart(0.0)
    begun = one.averaged.module.weight.item()
    assert one._network.weight.item() == begun
    other = a_learner(ema_decay=0.9)
    other._network.load_state_dict(one._network.state_dict())
    assert learn(one) == learn(other) != begun
    assert one.averaged.module.weight.item() == one._network.weight.item(), "the average starts again"


def test_a_share_of_the_weights_before_a_restart_is_kept_also_when_it_is_restored(a_learner):
    one, other = a_learner(), a_learner()
    begun = learn(one)
    one.restart(0.5)
    learn(one)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for learner in (one, other):
        assert learner.averaged.module.weight.item() == pytest.approx((begun + learner._network.weight.item()) / 2)
    assert learn(one) == learn(other)
    assert one.averaged.module.weight.item() == other.averaged.module.weight.item()
    assert one.averaged.module.weight.item() == pytest.approx((begun + one._network.weight.item()) / 2)


def test_the_scores_of_a_whole_case_use_the_threshold_that_is_given():
    probability = np.zeros((1, 2, 4), np.float32)
    probability[0, 0] = 0.6, 0.8, 0.8, 0.3
    mask = np.zeros((1, 2, 4), np.uint8)
    mask[0, 0] = 0, 255, 128, 127  # half of a voxel is liver
    loss = LOSSES["dice"](sigmoid=True)
    assert scores_of(loss, probability, mask, 0.5).dice == pytest.approx(2 * 2 / (3 + 2))
    assert scores_of(loss, probability, mask, 0.5).accuracy == pytest.approx(7 / 8)
    assert scores_of(loss, probability, mask, 0.7).dice == 1
    assert scores_of(loss, probability * 0, mask * 0, 0.5).dice == 1, "both are empty"
    right = scores_of(loss, mask.astype(np.float32) / 255, mask, 0.5)
    wrong = scores_of(loss, 1 - mask.astype(np.float32) / 255, mask, 0.5)
    assert right.loss < wrong.loss


def test_the_dice_of_a_whole_case_counts_its_voxels_together_not_slice_by_slice():
    probability, mask = np.zeros((2, 2, 4), np.float32), np.zeros((2, 2, 4), np.uint8)
    probability[0], mask[0] = 1, 255
    mask[1, 0, 0] = 255  # in the second slice the only voxel of liver is missed
    scores = scores_of(LOSSES["dice"](sigmoid=True), probability, mask, 0.5)
    assert scores.dice == pytest.approx(2 * 8 / (8 + 9))


def test_volumes_are_learned_from_as_slices_are(cpu):
    one = Learner(torch.nn.Conv3d(1, 1, 1), cpu, TrainingSettings(loss="dice", ema_decay=0.0))
    before = one._network.weight.item()
    scores = one.step(torch.randn(2, 1, 4, 4, 4), torch.ones(2, 1, 4, 4, 4), 0.1)
    assert 0 < scores.loss < 1
    assert one._network.weight.item() != before
