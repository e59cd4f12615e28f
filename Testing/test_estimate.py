"""What a training will cost, from a few steps of it."""

from dataclasses import replace

import pytest

from helpers import SETTINGS, SPEC, TWO_LOOKS
from LiverUNetLib.steps import finish
from LiverUNetTrainLib.run.options import TrainingOptions
from LiverUNetTrainLib.training.cost import Cost, estimate_options, estimate_training
from LiverUNetTrainLib.training.fine_sampling import FineSampler
from LiverUNetTrainLib.training.recipes import RECIPES, Recipe


@pytest.fixture
def cost_of(a_cache, cpu):
    def measure(validated=(), **changes):
        settings = replace(SETTINGS, **changes)
        sampler = FineSampler(a_cache.cases, SPEC, settings)
        return finish(estimate_training(sampler, SPEC.fine.network, settings, cpu, validated=validated))

    return measure


@pytest.mark.slow
def test_an_epoch_is_counted_in_batches_and_the_whole_in_epochs(cost_of, monkeypatch):
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr("LiverUNetTrainLib.training.cost.time.perf_counter", lambda: next(clock))
    cost = cost_of(epochs=10, batch_size=4, empty_slices=1.0)
    assert cost.epoch_seconds == 2 * 12, "4 cases of 12 slices in batches of 4, 2 s each by this clock"
    assert cost.total_seconds == 240


@pytest.mark.slow
def test_validation_is_part_of_an_epoch_as_often_as_it_happens(cost_of, a_cache, monkeypatch):
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr("LiverUNetTrainLib.training.cost.time.perf_counter", lambda: next(clock))
    cost = cost_of(a_cache.cases[:3], epochs=10, batch_size=4, empty_slices=1.0, validate_every=5)
    assert cost.total_seconds == pytest.approx(240 + 2 * 3 * 2), "two validations of three cases, 2 s each"


@pytest.mark.slow
def test_larger_batches_and_canvases_need_more_memory(cost_of):
    one, larger = cost_of(), cost_of(batch_size=8, canvas_mm=(512.0, 640.0))
    assert larger.memory_gib > 4 * one.memory_gib


def test_a_line_summarizes_the_cost_and_what_a_budget_allows():
    line = Cost(60.0, 600.0, 1.0).summary(5)
    assert line == "about 10 min (60 s an epoch), 1.0 GiB of memory; 5 min are enough for 5 epochs"
    assert Cost(60.0, 600.0, 1.0).summary(10) == "about 10 min (60 s an epoch), 1.0 GiB of memory"
    after_the_coarse_look = Cost(60.0, 780.0, 1.0, coarse_seconds=180.0)
    assert after_the_coarse_look.summary(5).endswith("; 5 min are enough for 2 epochs")
    assert after_the_coarse_look.summary(2).endswith("; 2 min are enough for 0 epochs")


@pytest.mark.slow
def test_both_looks_of_a_model_are_counted(a_cache, tmp_path, cpu, monkeypatch):
    monkeypatch.setitem(RECIPES, "accurate", Recipe(spec=TWO_LOOKS, settings=SETTINGS))
    monkeypatch.setitem(RECIPES, "notebook", Recipe(spec=SPEC, settings=SETTINGS))
    given = a_cache, None, cpu
    two = finish(estimate_options(TrainingOptions(a_cache.folder, tmp_path / "run"), *given))
    one = finish(estimate_options(TrainingOptions(a_cache.folder, tmp_path / "run", recipe="notebook"), *given))
    assert two.coarse_seconds > 0
    assert two.total_seconds == pytest.approx(two.coarse_seconds + SETTINGS.epochs * two.epoch_seconds)
    assert one.coarse_seconds == 0


@pytest.mark.slow
def test_the_coarse_look_is_counted_by_what_it_shows(a_cache, tmp_path, cpu, monkeypatch):
    monkeypatch.setitem(RECIPES, "accurate", Recipe(spec=TWO_LOOKS, settings=SETTINGS, validation=0.2))
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr("LiverUNetTrainLib.training.cost.time.perf_counter", lambda: next(clock))
    cost = finish(estimate_options(TrainingOptions(a_cache.folder, tmp_path / "run"), a_cache, None, cpu))
    assert cost.coarse_seconds == 2 * (3 * 2 / 2), "3 cases, each shown twice, in batches of 2, 2 s each"
