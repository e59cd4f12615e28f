"""A model is trained look by look, in one run folder; whatever ends it, it can be resumed to the same weights."""

import itertools
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import SETTINGS, SPEC, TWO_LOOKS, assert_same_weights, unix_only, weights_of, write_pair
from LiverUNetLib.errors import TrainingError
from LiverUNetLib.models.card import COARSE, FINE
from LiverUNetLib.scan.formats import read_volume
from LiverUNetLib.segmentation.grid import canonical_scan
from LiverUNetLib.segmentation.looks import look_finely
from LiverUNetLib.segmentation.measurement import bounding_box
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.steps import Progress, finish
from LiverUNetTrainLib.data.cache import open_cache, prepare
from LiverUNetTrainLib.data.layouts import find_cases
from LiverUNetTrainLib.data.splits import split_by_patient, split_for_finetuning
from LiverUNetTrainLib.evaluation.export import ModelInfo, export_run
from LiverUNetTrainLib.run.folder import COARSE_FOLDER, COARSE_TITLE, Ending, EpochLog, RunFolder
from LiverUNetTrainLib.run.lock import is_locked
from LiverUNetTrainLib.training.coarse_sampling import CoarseSampler
from LiverUNetTrainLib.training.fine_sampling import FineSampler
from LiverUNetTrainLib.training.model_training import ModelTraining
from LiverUNetTrainLib.training.plan import Plan

FOLDERS = ("", COARSE_FOLDER)
BOTH = {"spec": TWO_LOOKS, "settings": replace(SETTINGS, epochs=2, coarse=replace(SETTINGS.coarse, epochs=2))}
# What the progress of each look is called.
STAGES = (COARSE_TITLE, "Training")


@pytest.fixture
def whole(a_trainer, tmp_path):
    """An undisturbed training of both looks."""
    training = a_trainer("whole", **BOTH)
    training.events = []
    training.ending = finish(training.epochs(), training.events.append)
    return training


def assert_same_run(one, other) -> None:
    for folder in FOLDERS:
        assert_same_weights(weights_of(one / folder), weights_of(other / folder))
        best = (torch.load(run / folder / "best.pt", weights_only=True) for run in (one, other))
        assert_same_weights(*best)


@pytest.mark.slow
def test_the_coarse_look_is_trained_before_the_fine_one(whole):
    logs = [(log.stage, log.epoch) for log in whole.events if isinstance(log, EpochLog)]
    assert logs == [(COARSE_TITLE, 1), (COARSE_TITLE, 2), ("", 1), ("", 2)]
    told = [event.stage for event in whole.events if isinstance(event, Progress)]
    assert [stage for stage, _ in itertools.groupby(told)] == list(STAGES)
    assert [log.epoch for log in whole.history] == [1, 2]
    assert whole.ending == Ending("all 2 epochs are done", interrupted=False)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [CoarseSampler, FineSampler])
def test_both_looks_learn_from_the_patients_of_the_split_alone(sampler, a_trainer, tmp_path, monkeypatch):
    shown, batch = set(), sampler.batch

    def record(self, chosen, *given):
        shown.update(each.case.name for each in chosen)
        return batch(self, chosen, *given)

    monkeypatch.setattr(sampler, "batch", record)
    list(a_trainer("run", spec=TWO_LOOKS, settings=replace(SETTINGS, epochs=1)).epochs())
    assert shown == set(RunFolder(tmp_path / "run").settings().split.training)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_stopped_in_any_stage_and_resumed_it_ends_with_the_same_weights(stage, whole, a_trainer, tmp_path):
    stopped = a_trainer("stopped", **BOTH)
    for event in stopped.epochs():
        assert is_locked(tmp_path / "stopped")
        if event.stage == stage and not (tmp_path / "stopped/stop").exists():
            (tmp_path / "stopped/stop").touch()
    assert RunFolder(tmp_path / "stopped").end().interrupted
    assert not list((tmp_path / "stopped").rglob("stop")), "the training has removed it"
    assert not is_locked(tmp_path / "stopped")
    resumed = a_trainer("stopped", **BOTH, resume=True)
    assert not finish(resumed.epochs()).interrupted
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


KILLED = """
import os, pathlib, pickle, signal, sys
from LiverUNetTrainLib.data.cache import open_cache
from LiverUNetTrainLib.training.model_training import ModelTraining
from LiverUNetTrainLib.training.plan import Plan
folder, run, stage, count, given = *map(pathlib.Path, sys.argv[1:3]), sys.argv[3], int(sys.argv[4]), sys.argv[5]
split, spec, settings, device = pickle.loads(bytes.fromhex(given))
for event in ModelTraining.begin(Plan(open_cache(folder), split, spec, settings), run, device).epochs():
    count -= event.stage == stage
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@unix_only
@pytest.mark.parametrize(("stage", "event"), [(STAGES[0], 1), (STAGES[0], 3), (STAGES[1], 3)])
def test_killed_in_any_stage_and_resumed_it_ends_with_the_same_weights(
    stage, event, whole, a_trainer, a_cache, tmp_path, cpu
):
    given = pickle.dumps((whole._plan.split, *BOTH.values(), cpu)).hex()
    command = [sys.executable, "-c", KILLED, a_cache.folder, tmp_path / "killed", stage, str(event), given]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    assert subprocess.run(command, env=os.environ | threads).returncode == -9
    assert RunFolder(tmp_path / "killed").end() is None
    resumed = a_trainer("killed", **BOTH, resume=True)
    list(resumed.epochs())
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_a_time_budget_ends_it_in_the_coarse_look_and_each_resume_continues(whole, a_trainer, tmp_path):
    endings = []
    for n in range(20):
        training = a_trainer("short", **BOTH, resume=n > 0)
        ending = finish(training.epochs(minutes=0))
        endings.append(ending.message)
        assert RunFolder(tmp_path / "short").end() == ending
        if not ending.interrupted:
            break
    assert endings[0] == "the time is up after 1 epochs; --resume continues"
    assert endings[1] == "the time is up after the coarse look; --resume continues"
    assert endings[-1] == "all 2 epochs are done"
    for folder in FOLDERS:
        assert_same_weights(weights_of(tmp_path / "whole" / folder), weights_of(tmp_path / "short" / folder))
    models = [
        export_run(tmp_path / run, tmp_path / f"{run}-model", ModelInfo(run), weights="last")
        for run in ("whole", "short")
    ]
    assert_same_weights(*(model.state_dict(COARSE) for model in models))


@pytest.mark.slow
def test_resuming_with_another_model_other_settings_or_other_cases_is_refused_by_name(
    a_trainer, a_cache, pairs, tmp_path, cpu
):
    steps = a_trainer("run", **BOTH).epochs()
    next(steps)
    steps.close()
    other = replace(TWO_LOOKS, coarse=replace(TWO_LOOKS.coarse, margin_mm=20.0))
    with pytest.raises(TrainingError, match="cannot be resumed: its spec differ"):
        a_trainer("run", spec=other, settings=BOTH["settings"], resume=True)
    with pytest.raises(TrainingError, match="cannot be resumed: its training differ"):
        a_trainer("run", spec=TWO_LOOKS, settings=SETTINGS, resume=True)
    write_pair(pairs, "patient1", seed=77)
    list(prepare(find_cases([pairs]), a_cache.folder, a_cache.grids))
    split = split_by_patient([case.name for case in a_cache.cases], held_out=["patient3"], validation=0.3)
    with pytest.raises(TrainingError, match=r"its split has changed \(patient1\)"):
        ModelTraining.resume(Plan(open_cache(a_cache.folder), split, **BOTH), tmp_path / "run", cpu)


def test_a_model_on_other_grids_than_the_cache_is_refused(a_trainer):
    other = replace(TWO_LOOKS, coarse=replace(TWO_LOOKS.coarse, voxel_mm=12.0))
    with pytest.raises(TrainingError, match="was prepared on other grids than this model's"):
        a_trainer("run", spec=other)
    assert a_trainer("one", spec=SPEC), "a model without a coarse look does not use the cubes of a cache"


@pytest.mark.slow
def test_the_exported_model_has_both_looks_and_segments(a_trainer, tmp_path, pairs, cpu):
    taught = replace(SETTINGS, epochs=25, learning_rate=5e-3, ema_decay=0.95, validate_every=25)
    taught = replace(taught, coarse=replace(SETTINGS.coarse, epochs=10))
    list(a_trainer("run", spec=TWO_LOOKS, settings=taught).epochs())
    model = export_run(tmp_path / "run", tmp_path / "model", ModelInfo("both"))
    assert model.looks == (FINE, COARSE)
    kept, trained = model.state_dict(COARSE), RunFolder(tmp_path / "run/coarse").weights("last")
    assert_same_weights(kept, {key: value.to(kept[key].dtype) for key, value in trained.items()})
    scan, reference = find_cases([pairs])[3].read()
    found = finish(segment(scan, model, cpu)).mask_kji
    assert 2 * (found & reference.hu_kji).sum() / (found.sum() + reference.hu_kji.sum()) > 0.8


@pytest.mark.slow
def test_what_validation_sees_is_what_segmenting_sees(whole, a_cache, pairs, cpu):
    """The files have the voxels of the fine grid, so both look at the same numbers in a box around the liver."""
    (case,) = a_cache.select(["patient3"])
    sampler, network = whole._fine._sampler, whole._fine.network()
    scan = canonical_scan(read_volume(pairs / "patient3_orig.nii.gz"))
    box = scan[1].around(scan[1], bounding_box(case.mask > 127), TWO_LOOKS.coarse.margin_mm)
    grid = scan[1].part(box).pixels(8.0, 18.0)
    expected = np.zeros(case.image.shape, np.float32)
    expected[box] = finish(look_finely(*scan, grid, TWO_LOOKS, network))
    np.testing.assert_allclose(sampler.probability(network, case), expected, atol=1e-4)


@pytest.fixture
def a_parent(a_trainer, tmp_path):
    def make(**given):
        list(a_trainer("parent-run", **given).epochs())
        return export_run(tmp_path / "parent-run", tmp_path / "parent", ModelInfo("parent"))

    return make


def tune(parent, pairs, cache, run, cpu):
    """Fine-tune a model on one new case; returns the child."""
    write_pair(pairs, "new", seed=42)
    list(prepare(find_cases([pairs]), cache.folder, cache.grids))
    cache = open_cache(cache.folder)
    split, replayed = split_for_finetuning(cache, parent)
    settings = replace(SETTINGS, epochs=1, learning_rate=1e-2)
    training = ModelTraining.begin(Plan(cache, split, parent.card.spec, settings, parent, replayed), run, cpu)
    assert not any(event.stage == COARSE_TITLE for event in training.epochs())
    return export_run(run, run.with_name("child"), ModelInfo("child"))


@pytest.mark.slow
def test_fine_tuning_keeps_the_coarse_look_of_the_parent_and_says_so(a_parent, pairs, a_cache, tmp_path, cpu):
    parent = a_parent(**BOTH)
    child = tune(parent, pairs, a_cache, tmp_path / "run", cpu)
    assert_same_weights(parent.state_dict(COARSE), child.state_dict(COARSE))
    assert any(not torch.equal(value, child.state_dict()[key]) for key, value in parent.state_dict().items())
    readme = (child.folder / "docs/README.md").read_text()
    assert "Fine-tuned from parent 0.1.0; the coarse look is that of the parent, unchanged." in readme
    assert "2 epochs, each shows 2 crops per patient" in (parent.folder / "docs/README.md").read_text()


@pytest.mark.slow
def test_fine_tuning_of_a_model_without_a_coarse_look(a_parent, pairs, a_cache, tmp_path, cpu):
    parent = a_parent(settings=replace(SETTINGS, epochs=1))
    child = tune(parent, pairs, a_cache, tmp_path / "run", cpu)
    assert child.looks == (FINE,)
    assert "Fine-tuned from parent 0.1.0. All" in (child.folder / "docs/README.md").read_text()
    assert not (tmp_path / "run/coarse").exists()
