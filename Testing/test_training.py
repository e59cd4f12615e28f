"""A training learns, is deterministic, and ends with the same weights when it was killed and resumed."""

import errno
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from helpers import FINE_LOOK, SETTINGS, SPEC, assert_same_weights, dice, unix_only, weights_of, write_pair
from LiverUNetLib.errors import OutputError, TrainingError
from LiverUNetLib.models.engines import TorchNetwork
from LiverUNetLib.models.folder import open_model
from LiverUNetLib.models.network import build_network
from LiverUNetTrainLib.cli.main import main
from LiverUNetTrainLib.data.cache import prepare
from LiverUNetTrainLib.data.layouts import find_cases
from LiverUNetTrainLib.data.splits import split_by_patient
from LiverUNetTrainLib.run import folder
from LiverUNetTrainLib.run.folder import EpochLog, RunFolder
from LiverUNetTrainLib.run.settings import Refinement
from LiverUNetTrainLib.training import fine_sampling
from LiverUNetTrainLib.training.fine_sampling import FineSampler
from LiverUNetTrainLib.training.learner import Learner
from LiverUNetTrainLib.training.schedule import learning_rate
from LiverUNetTrainLib.training.trainer import Trainer


@pytest.mark.slow
def test_a_training_learns_the_phantom(a_trainer):
    trainer = a_trainer("run", settings=replace(SETTINGS, epochs=25, batch_size=6, learning_rate=5e-3, ema_decay=0.95))
    for _ in trainer.epochs():
        pass
    first, last = trainer.history[0], trainer.history[-1]
    assert last.training_loss < first.training_loss / 2
    assert last.mean_validation_dice > 0.85


@pytest.mark.slow
def test_every_epoch_is_logged_and_validated_when_due(a_trainer, tmp_path):
    trainer = a_trainer("run")
    events = list(trainer.epochs())
    logs = [event for event in events if isinstance(event, EpochLog)]
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [log.epoch for log in logs] == [line["epoch"] for line in lines] == [1, 2, 3]
    assert [log.mean_validation_dice is not None for log in logs] == [False, True, True]
    assert list(logs[-1].validation_dice) == list(
        json.loads((tmp_path / "run/settings.json").read_text())["split"]["validation"]
    )
    assert events[-2].done == events[-2].total


def test_the_learning_rate_warms_up_and_falls_to_zero():
    settings = replace(SETTINGS, epochs=10, warmup_epochs=2)
    rates = [learning_rate(settings, epoch) for epoch in (0, 1, 2, 6, 10)]
    assert rates == pytest.approx([2e-5, 1e-3, 2e-3, 1e-3, 0])


REFINED = replace(SETTINGS, epochs=10, warmup_epochs=1, refinement=Refinement(epochs=2, rate=0.5, masses=0.0))


def test_a_refinement_is_a_second_course_of_the_learning_rate():
    # The first course has 8 epochs; the second one would have a warm-up of half an epoch, and has a fifth of its two.
    rates = [learning_rate(REFINED, epoch) for epoch in (0, 0.5, 1, 4.5, 7.9999, 8, 8.2, 8.4, 9.2, 10)]
    assert rates == pytest.approx([2e-5, 1e-3, 2e-3, 1e-3, 0, 1e-5, 5e-4, 1e-3, 5e-4, 0], abs=1e-7)


@pytest.mark.slow
def test_a_refinement_draws_fewer_masses_and_takes_a_fifth_of_a_training_at_most(a_trainer, monkeypatch):
    drawn, batch = [], FineSampler.batch
    monkeypatch.setattr(FineSampler, "batch", lambda *given: drawn.append(given[-1]) or batch(*given))
    trainer = a_trainer("run", settings=replace(REFINED, epochs=5, batch_size=100))
    list(trainer.epochs())
    assert [settings and settings.p_mass for settings in drawn] == [None, None, None, None, 0.0]
    off = replace(
        REFINED, augmentation=replace(REFINED.augmentation, p_mass=0.0, p_lesion=0.0), refinement=Refinement()
    )
    assert off.refined_augmentation == off.augmentation, "what is switched off stays off"
    assert SETTINGS.first_epochs == SETTINGS.epochs
    assert replace(REFINED, epochs=4).first_epochs == 4


@pytest.mark.slow
@pytest.mark.parametrize("whole_epochs", [3, 4])
def test_stopped_around_the_beginning_of_its_refinement_it_ends_with_the_same_weights(
    whole_epochs, a_trainer, tmp_path
):
    settings = replace(REFINED, epochs=5)
    list(a_trainer("whole", settings=settings).epochs())
    steps = a_trainer("broken", settings=settings).epochs()
    while len((tmp_path / "broken/log.jsonl").read_text().splitlines()) < whole_epochs:
        next(steps)
    next(steps)
    steps.close()
    list(a_trainer("broken", settings=settings, resume=True).epochs())
    assert_same_weights(weights_of(tmp_path / "whole"), weights_of(tmp_path / "broken"))


@pytest.mark.slow
def test_two_trainings_with_one_seed_are_equal_and_with_another_differ(a_trainer, tmp_path):
    for run, seed in (("one", 0), ("same", 0), ("other", 1)):
        list(a_trainer(run, settings=replace(SETTINGS, epochs=1, seed=seed)).epochs())
    one, same, other = (weights_of(tmp_path / run) for run in ("one", "same", "other"))
    assert_same_weights(one, same)
    assert not torch.equal(one["1.weight"], other["1.weight"])


@pytest.mark.slow
def test_stopped_in_mid_epoch_and_resumed_it_ends_with_the_same_weights(a_trainer, tmp_path):
    list(a_trainer("whole").epochs())
    steps = a_trainer("broken").epochs()
    while not isinstance(next(steps), EpochLog):
        pass
    next(steps)
    steps.close()
    resumed = a_trainer("broken", resume=True)
    assert len(resumed.history) == 1
    list(resumed.epochs())
    assert_same_weights(weights_of(tmp_path / "whole"), weights_of(tmp_path / "broken"))
    whole, broken = (
        [json.loads(line) for line in (tmp_path / run / "log.jsonl").open()] for run in ("whole", "broken")
    )
    assert [line["training_loss"] for line in whole] == [line["training_loss"] for line in broken]


@pytest.mark.slow
@unix_only
def test_killed_with_sigkill_and_resumed_it_ends_with_the_same_weights(a_cache, tmp_path):
    """The command line, as a user would see it; SIGKILL leaves no time to tidy up."""

    def train(run: str, *more: str) -> subprocess.Popen:
        command = [
            "train",
            a_cache.folder,
            "--run",
            tmp_path / run,
            "--recipe",
            "notebook",
            "--epochs",
            "3",
            "--batch-size",
            "3",
            "--device",
            "cpu",
        ]
        return subprocess.Popen([sys.executable, "-m", "LiverUNetTrainLib", *command, *more], stdout=subprocess.DEVNULL)

    assert train("whole").wait() == 0
    victim = train("killed")
    log = tmp_path / "killed/log.jsonl"
    while not (log.exists() and log.read_text()):
        assert victim.poll() is None, "it has ended already"
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    epochs = len((tmp_path / "killed/log.jsonl").read_text().splitlines())
    assert epochs < 3, "the kill came too late to prove anything"
    assert train("killed", "--resume").wait() == 0
    assert_same_weights(weights_of(tmp_path / "whole"), weights_of(tmp_path / "killed"))


@pytest.mark.slow
def test_a_run_folder_is_neither_overwritten_nor_resumed_under_other_settings(a_trainer):
    list(a_trainer("run").epochs())
    with pytest.raises(TrainingError, match="holds a run already"):
        a_trainer("run")
    with pytest.raises(TrainingError, match="its training differ"):
        a_trainer("run", settings=replace(SETTINGS, learning_rate=1e-4), resume=True)


@pytest.mark.slow
def test_a_data_set_that_has_changed_is_named_when_resuming(pairs, a_cache, tmp_path, capsys):
    train = ["train", str(a_cache.folder), "--run", str(tmp_path / "run"), "--device", "cpu", "--epochs", "1"]
    train += ["--recipe", "notebook"]
    assert main(train) == 0
    write_pair(pairs, "patient1", seed=77)
    list(prepare(find_cases([pairs]), a_cache.folder, a_cache.grids))
    assert main([*train, "--resume"]) == 1
    assert "the data set or its split has changed (patient1); prepare the cases" in capsys.readouterr().err


@pytest.mark.slow
def test_resuming_says_when_it_cannot_be_exact(a_trainer, tmp_path, caplog):
    list(a_trainer("run", settings=replace(SETTINGS, epochs=1)).epochs())
    checkpoint = torch.load(tmp_path / "run/last.pt", weights_only=True)
    checkpoint["terms"]["threads"] = "77"
    torch.save(checkpoint, tmp_path / "run/last.pt")
    a_trainer("run", settings=replace(SETTINGS, epochs=1), resume=True)
    assert "started with 77" in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("small_recipes")
def test_prepare_train_export_evaluate_make_a_model_that_knows_its_lineage(pairs, tmp_path, capsys):
    cache, run, model = (str(tmp_path / name) for name in ("cache", "run", "phantom-model"))
    assert main(["prepare", str(pairs), "--cache", cache, "--pixel-mm", "8"]) == 0
    train = ["train", cache, "--run", run, "--hold-out", "patient2", "--epochs", "1", "--coarse-epochs", "1"]
    assert main([*train, "--device", "cpu"]) == 0
    assert main(["export", run, "-o", model, "--license", "CC0-1.0"]) == 0
    assert main(["export", run, "-o", model]) == 1
    assert "exists already" in capsys.readouterr().err
    checksum = open_model(tmp_path / "phantom-model").card.checksum
    assert main(["evaluate", str(pairs), "--model", model, "--held-out", "--record", "--device", "cpu"]) == 0
    card = open_model(tmp_path / "phantom-model").card
    assert card.checksum == checksum
    assert list(card.lineage.held_out) == ["patient2"]
    assert [case["role"] for case in card.scores.cases] == ["held out"]
    readme = (tmp_path / "phantom-model/docs/README.md").read_text()
    assert "Held out of training and validation: patient2." in readme
    assert f"| patient2 (held out) | {card.scores.cases[0]['dice']:.4f} |" in readme
    assert "CC0-1.0" in readme


def test_a_canvas_is_enlarged_to_sides_that_the_network_takes(a_cache):
    deep = replace(SPEC.fine.network, channels=(4,) * 8, strides=(2,) * 7)
    sampler = FineSampler(a_cache.cases, replace(SPEC, fine=replace(FINE_LOOK, network=deep)), SETTINGS)
    image, mask = sampler.batch(sampler.epoch(0)[:1], 0, "cpu")
    assert image.shape[2:] == mask.shape[2:] == (128, 128), "of 32 and 40 pixels"


def test_exporting_what_is_no_run_says_so(tmp_path, capsys):
    assert main(["export", str(tmp_path), "-o", str(tmp_path / "model")]) == 1
    assert "settings.json does not exist" in capsys.readouterr().err


@pytest.mark.slow
def test_it_shows_the_network_the_patients_of_its_split_and_no_other(a_trainer, a_cache, monkeypatch):
    shown, batch = set(), FineSampler.batch

    def record(self, slices, *given):
        shown.update(each.case.name for each in slices)
        return batch(self, slices, *given)

    monkeypatch.setattr(FineSampler, "batch", record)
    list(a_trainer("run").epochs())
    names = [case.name for case in a_cache.cases]
    assert shown == set(split_by_patient(names, held_out=["patient3"], validation=0.3).training)


@pytest.mark.slow
def test_the_best_weights_are_those_of_the_best_validation(a_trainer, tmp_path, monkeypatch):
    dices = iter([0.9, 0.5])
    monkeypatch.setattr(Trainer, "_validated", lambda _, log: replace(log, validation_dice={"patient0": next(dices)}))
    trainer = a_trainer("run", settings=replace(SETTINGS, epochs=2, validate_every=1))
    steps = trainer.epochs()
    while not isinstance(next(steps), EpochLog):
        pass
    first = {key: value.clone() for key, value in trainer._fine._learner.averaged.module.state_dict().items()}
    list(steps)
    assert_same_weights(torch.load(tmp_path / "run/best.pt", weights_only=True), first)


@pytest.mark.slow
def test_every_batch_is_augmented_with_its_own_seed_and_image_and_mask_stay_together(a_trainer, monkeypatch):
    seeds, made, learned = [], [], []
    augment, step = fine_sampling.augment, Learner.step

    def record(image, mask, settings, random):
        seeds.append(random.initial_seed())
        made.append(augment(image, mask, settings, random))
        return made[-1]

    def learn(self, image, mask, rate):
        learned.append((image, mask))
        return step(self, image, mask, rate)

    monkeypatch.setattr(fine_sampling, "augment", record)
    monkeypatch.setattr(Learner, "step", learn)
    list(a_trainer("run").epochs())
    assert len(set(seeds)) == len(seeds) > 3
    for (image, others), (learned_image, learned_mask) in zip(made, learned, strict=True):
        assert learned_image is image, "without a coarse look nothing is added to it"
        assert torch.equal(learned_mask, others[:, :1])


@pytest.mark.slow
def test_the_averaged_weights_are_validated_per_patient_in_3d(a_trainer, a_cache, tmp_path, cpu):
    settings = replace(SETTINGS, epochs=20, batch_size=6, learning_rate=5e-3, ema_decay=0.98, validate_every=20)
    trainer = a_trainer("run", settings=settings)
    list(trainer.epochs())
    log, run = trainer.history[-1], RunFolder(tmp_path / "run")
    (name,) = log.validation_dice
    (case,) = a_cache.select([name])
    found = []
    for weights in (run.weights("last"), run.checkpoint("cpu")[0]["network"]):
        network = build_network(SPEC.fine.network)
        network.load_state_dict(weights)
        found.append(trainer._fine._sampler.probability(TorchNetwork(network, cpu), case) > 0.5)
    averaged, raw = (dice(each, case.mask > 127) for each in found)
    assert log.validation_dice[name] == pytest.approx(averaged, abs=1e-6)
    assert abs(averaged - raw) > 1e-4, "the weights before averaging score otherwise"


@pytest.mark.slow
@pytest.mark.parametrize(("later", "replaced"), [(0.5, False), (0.95, True)])
def test_after_a_resume_only_a_better_validation_replaces_the_best_weights(
    later, replaced, a_trainer, tmp_path, monkeypatch
):
    dices = iter([0.9, later])
    monkeypatch.setattr(Trainer, "_validated", lambda _, log: replace(log, validation_dice={"patient0": next(dices)}))
    settings = replace(SETTINGS, epochs=2, validate_every=1)
    list(a_trainer("run", settings=settings).epochs(minutes=0))
    first = torch.load(tmp_path / "run/best.pt", weights_only=True)
    list(a_trainer("run", settings=settings, resume=True).epochs())
    second = torch.load(tmp_path / "run/best.pt", weights_only=True)
    assert any(not torch.equal(first[key], second[key]) for key in first) is replaced


def test_a_run_folder_tells_about_its_files(tmp_path):
    run = RunFolder(tmp_path / "run")
    coarse = RunFolder(tmp_path / "run/coarse", within=run.path)
    with pytest.raises(TrainingError, match="is gone"):
        run.request_stop()
    coarse.path.mkdir(parents=True)
    assert (run.has_weights(), run.has_weights("last"), run.stop_requested()) == (False, False, False)
    run.keep_best({"a": torch.ones(3)})
    run.request_stop()
    assert (run.has_weights(), run.has_weights("last"), run.overlay.exists()) == (True, False, False)
    assert [folder.stop_requested() for folder in (run, coarse)] == [True, True], "a coarse look stops too"
    coarse.withdraw_stop()
    assert not run.stop_requested()


def test_a_checkpoint_that_the_disk_has_no_room_for_leaves_the_one_before(tmp_path, monkeypatch):
    run, weights = RunFolder(tmp_path), {"averaged": {"module.a": torch.ones(3)}}
    run.keep(weights, [], best={"a": torch.ones(3)})

    def fill_the_disk(path, content):
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder, "save_tensors", fill_the_disk)
    for best in (None, {"a": torch.zeros(3)}):
        with pytest.raises(OutputError, match="No space left"):
            run.keep(weights, [], best=best)
    assert run.weights("best")["a"].tolist() == run.weights("last")["a"].tolist() == [1, 1, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt", "log.jsonl"]
