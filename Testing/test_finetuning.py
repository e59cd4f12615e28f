"""Fine-tuning: what it may learn from, what it shows, and whether it has improved the model."""

import json
import logging
from dataclasses import replace

import pytest
import torch

from helpers import SETTINGS, SPEC, with_other_axes, write_pair
from LiverUNetLib.errors import TrainingError
from LiverUNetLib.models.card import Lineage
from LiverUNetLib.models.folder import open_model
from LiverUNetTrainLib.cli.main import main
from LiverUNetTrainLib.data.cache import open_cache, prepare
from LiverUNetTrainLib.data.layouts import find_cases
from LiverUNetTrainLib.data.splits import Split, split_by_patient, split_for_finetuning
from LiverUNetTrainLib.evaluation.before_after import compare_before_after, judge
from LiverUNetTrainLib.evaluation.export import ModelInfo, export_run
from LiverUNetTrainLib.evaluation.metrics import CaseScores, compare_masks
from LiverUNetTrainLib.run.folder import RunFolder
from LiverUNetTrainLib.training.fine_sampling import FineSampler
from LiverUNetTrainLib.training.model_training import ModelTraining
from LiverUNetTrainLib.training.plan import Plan


@pytest.fixture
def a_model(a_trainer, tmp_path):
    """A model trained on phantoms that holds out patient3."""
    list(a_trainer("parent-run").epochs())
    return export_run(tmp_path / "parent-run", tmp_path / "parent", ModelInfo("parent", license="research only"))


@pytest.fixture
def a_grown_cache(a_cache, pairs, tmp_path):
    """The cache with three more patients, which the model has not seen."""
    for n in range(3):
        write_pair(pairs, f"new{n}", seed=10 + n)
    list(prepare(find_cases([pairs]), tmp_path / "cache", a_cache.grids))
    return open_cache(tmp_path / "cache")


@pytest.mark.slow
def test_new_cases_are_split_and_old_ones_keep_their_part(a_model, a_grown_cache):
    split, replayed = split_for_finetuning(a_grown_cache, a_model, validation=0.3)
    lineage = a_model.card.lineage
    assert split.held_out == ("patient3",), "what the parent holds out is always held out"
    assert set(replayed) == set(lineage.training)
    assert set(replayed) < set(split.training)
    new, old = split.validation
    assert new.startswith("new")
    assert old in lineage.validation
    assert split_for_finetuning(a_grown_cache, a_model, held_out=["new0"])[0].held_out == ("new0", "patient3")


@pytest.mark.slow
def test_validation_patients_of_the_parent_validate_again_but_never_alone(a_model, a_grown_cache):
    (old,) = a_model.card.lineage.validation
    masks = [replace(case, mask_hash="other") if case.name == old else case for case in a_grown_cache.cases]
    assert old in split_for_finetuning(replace(a_grown_cache, cases=tuple(masks)), a_model)[0].validation
    one_new = [case for case in a_grown_cache.cases if case.name not in ("new1", "new2")]
    split, _ = split_for_finetuning(replace(a_grown_cache, cases=tuple(one_new)), a_model)
    assert "new0" in split.training
    assert split.validation == ()


def test_of_several_roles_of_a_case_the_most_binding_one_counts():
    lineage = Lineage({"a": "1", "b": "2"}, {"a": "1", "c": "3"}, {"b": "2"})
    assert lineage.roles() == {"1": "training", "2": "held out", "3": "validation"}


@pytest.mark.slow
def test_a_case_whose_mask_was_corrected_is_learned_from_again(a_model, a_cache):
    name, *others = a_model.card.lineage.training
    masks = {case.name: case.mask_hash for case in a_cache.cases}
    assert masks[name] == a_model.card.lineage.masks[a_model.card.lineage.training[name]]
    cases = [replace(case, mask_hash="other") if case.name == name else case for case in a_cache.cases]
    split, replayed = split_for_finetuning(replace(a_cache, cases=tuple(cases)), a_model)
    assert name in split.training
    assert list(replayed) == sorted(others)


@pytest.mark.slow
def test_what_the_parent_has_learned_from_cannot_be_held_out(a_model, a_grown_cache):
    known = next(iter(a_model.card.lineage.training))
    with pytest.raises(TrainingError, match=f"Cannot hold out {known}: parent has learned from it already"):
        split_for_finetuning(a_grown_cache, a_model, held_out=[known])


@pytest.mark.slow
def test_without_anything_new_there_is_nothing_to_learn(a_model, a_cache):
    with pytest.raises(TrainingError, match="There is nothing new for parent to learn from: all 4 cases are known"):
        split_for_finetuning(a_cache, a_model)
    with pytest.raises(TrainingError, match="Cannot hold out typo"):
        split_for_finetuning(a_cache, a_model, held_out=["typo"])


@pytest.mark.slow
def test_a_held_out_case_is_recognized_with_other_axes_and_under_another_name(
    a_model, a_grown_cache, pairs, cpu, tmp_path
):
    for ending in ("orig", "liver"):
        file = (pairs / f"patient3_{ending}.nii.gz").rename(pairs / f"copy_{ending}.nii.gz")
        with_other_axes(file, "RAS")
    list(prepare(find_cases([pairs]), tmp_path / "turned", a_grown_cache.grids))
    cache = open_cache(tmp_path / "turned")
    assert split_for_finetuning(cache, a_model)[0].held_out == ("copy",)
    split = Split(training=("copy", "new0"), validation=("new1",), held_out=())
    with pytest.raises(TrainingError, match="copy must never train: parent holds them out"):
        ModelTraining.begin(Plan(cache, split, SPEC, SETTINGS, a_model), tmp_path / "run", cpu)


@pytest.mark.slow
def test_a_run_of_another_version_is_neither_exported_nor_resumed(a_trainer, tmp_path):
    list(a_trainer("run").epochs())
    settings = json.loads((tmp_path / "run/settings.json").read_text())
    (tmp_path / "run/settings.json").write_text(json.dumps(settings | {"schema_version": 1}))
    with pytest.raises(TrainingError, match="run was begun by another version of LiverUNet"):
        export_run(tmp_path / "run", tmp_path / "model", ModelInfo("model"))
    with pytest.raises(TrainingError, match="run was begun by another version of LiverUNet"):
        a_trainer("run", resume=True)
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_fine_tuning_on_the_command_line_keeps_the_lineage(a_model, a_grown_cache, tmp_path):
    train = ["train", str(a_grown_cache.folder), "--run", str(tmp_path / "run"), "--from", str(a_model.folder)]
    assert main([*train, "--epochs", "1", "--learning-rate", "1e-12", "--device", "cpu"]) == 0
    export = ["export", str(tmp_path / "run"), "-o", str(tmp_path / "child"), "--license", "CC0-1.0"]
    assert main(export) == 0
    child = open_model(tmp_path / "child")
    assert child.card.license == f"CC0-1.0; from parent: {a_model.card.license}", "the parent's still binds"
    assert set(child.card.lineage.held_out) == {"patient3"}
    assert set(a_model.card.lineage.training) <= set(child.card.lineage.training)
    settings = json.loads((tmp_path / "run/settings.json").read_text())
    assert settings["parent"]["checksum"] == a_model.card.checksum
    assert settings["training"]["patience"] == 3, "the recipe of fine-tuning"
    parent, tuned = a_model.state_dict(), child.state_dict()
    assert torch.allclose(parent["1.weight"].float(), tuned["1.weight"].float(), atol=1e-3)


@pytest.mark.slow
def test_a_tuned_run_is_compared_with_its_parent_on_what_it_holds_out(
    a_model, a_grown_cache, pairs, tmp_path, cpu, monkeypatch
):
    monkeypatch.setenv("LIVER_UNET_MODELS", str(tmp_path))
    train = ["train", str(a_grown_cache.folder), "--run", str(tmp_path / "run"), "--from", "parent"]
    assert main([*train, "--epochs", "1", "--learning-rate", "1e-12", "--device", "cpu"]) == 0
    verdict = judge(tmp_path / "run", find_cases([pairs]), cpu)
    assert verdict.cases == 1
    assert verdict.after == pytest.approx(verdict.before, abs=0.01)
    assert judge(tmp_path / "run", [], cpu).before is None
    assert RunFolder(tmp_path / "run").settings().parent.license == "research only"
    assert judge(tmp_path / "parent-run", find_cases([pairs]), cpu) is None
    metadata = tmp_path / "parent/configs/metadata.json"
    metadata.write_text(metadata.read_text().replace(a_model.card.checksums["models/model.pt"], "0" * 64))
    assert "parent is no longer the model" in judge(tmp_path / "run", [], cpu).message


@pytest.mark.slow
def test_a_training_refuses_what_the_parent_holds_out(a_model, a_cache, tmp_path, cpu):
    split = split_by_patient([case.name for case in a_cache.cases])
    with pytest.raises(TrainingError, match="patient3 must never train: parent holds them out"):
        ModelTraining.begin(Plan(a_cache, split, SPEC, SETTINGS, a_model), tmp_path / "x", cpu)


@pytest.mark.slow
def test_a_single_patient_trains_without_validation_and_is_told_what_that_means(a_cache, tmp_path, cpu, caplog):
    split = split_by_patient(["patient0"])
    assert (split.training, split.validation) == (("patient0",), ())
    settings = replace(SETTINGS, epochs=2)
    with caplog.at_level(logging.WARNING):
        trainer = ModelTraining.begin(Plan(a_cache, split, SPEC, settings), tmp_path / "run", cpu)
    assert "No patient is left to validate" in caplog.text
    list(trainer.epochs())
    assert all(log.validation_dice is None for log in trainer.history)
    folder = RunFolder(tmp_path / "run")
    best, last = folder.weights("best"), folder.weights("last")
    assert all(torch.equal(best[key], last[key]) for key in best), "the last epoch is kept"


def scores(*dice: float) -> list[CaseScores]:
    one = compare_masks(torch.ones(2, 2, 2).numpy(), torch.ones(2, 2, 2).numpy(), (1.0, 1.0, 1.0))
    return [CaseScores(f"case{n}", "held out", replace(one, dice=value), 1.0) for n, value in enumerate(dice)]


@pytest.mark.parametrize(
    ("before", "after", "worse", "message"),
    [
        ((0.9, 0.8), (0.95, 0.85), False, "was 0.8500 before and is 0.9000 after: no worse"),
        ((0.9, 0.8), (0.9, 0.79), True, "was 0.8500 before and is 0.8450 after: worse"),
        ((0.9,), (0.8998,), False, "no worse"),
    ],
)
def test_the_verdict_says_in_numbers_whether_a_model_got_worse(before, after, worse, message):
    verdict = compare_before_after(scores(*before), scores(*after))
    assert verdict.worse is worse
    assert message in verdict.message


def test_no_verdict_without_held_out_cases_or_on_different_ones():
    verdict = compare_before_after([], [])
    assert not verdict.worse
    assert not verdict.good
    assert verdict.message.startswith(
        "It is unknown whether the model has become better or worse: there is no held-out"
    )
    with pytest.raises(TrainingError, match="not measured on the same cases"):
        compare_before_after(scores(0.9), scores(0.9, 0.8))


@pytest.mark.slow
def test_a_new_case_with_the_name_of_a_held_out_one_is_reported(a_model, a_grown_cache, caplog):
    lineage = replace(a_model.card.lineage, held_out={"new1": "other content"})
    parent = replace(a_model, card=replace(a_model.card, lineage=lineage))
    split_for_finetuning(a_grown_cache, parent)
    assert "parent holds out cases of the same name but other content: new1. If they" in caplog.text


@pytest.mark.slow
def test_a_tuned_model_keeps_the_lineage_of_its_parent_and_both_of_two_cases_of_one_name(
    a_model, a_grown_cache, tmp_path, cpu
):
    known = a_model.card.lineage
    held_out = known.held_out | {"new1": "content of another new1"}
    parent = replace(a_model, card=replace(a_model.card, lineage=replace(known, held_out=held_out)))
    new = replace(a_grown_cache, cases=tuple(case for case in a_grown_cache.cases if case.name.startswith("new")))
    split, _ = split_for_finetuning(new, parent, held_out=["new1"])
    run = tmp_path / "run"
    settings = replace(SETTINGS, epochs=1)
    list(ModelTraining.begin(Plan(new, split, SPEC, settings, parent), run, cpu).epochs())
    lineage = export_run(run, tmp_path / "child", ModelInfo("child")).card.lineage
    assert set(known.training.values()) <= set(lineage.training.values())
    (own,) = (case.content_hash for case in new.cases if case.name == "new1")
    assert {own, "content of another new1", *known.held_out.values()} <= set(lineage.held_out.values())


@pytest.mark.slow
def test_a_training_refuses_a_held_out_case_under_another_name(a_model, a_cache, tmp_path, cpu):
    cases = tuple(replace(case, name=case.name.replace("patient3", "renamed")) for case in a_cache.cases)
    cache = replace(a_cache, cases=cases)
    split = split_by_patient([case.name for case in cases])
    with pytest.raises(TrainingError, match="renamed must never train: parent holds them out"):
        ModelTraining.begin(Plan(cache, split, SPEC, SETTINGS, a_model), tmp_path / "x", cpu)


@pytest.mark.slow
def test_a_fine_tuning_replays_and_stays_near_its_parent(a_model, a_grown_cache, tmp_path, cpu, monkeypatch):
    shown, epoch = [], FineSampler.epoch

    def record(self, number):
        shown.extend(epoch(self, number))
        return shown

    monkeypatch.setattr(FineSampler, "epoch", record)
    split, replayed = split_for_finetuning(a_grown_cache, a_model)
    settings = replace(SETTINGS, epochs=1, replay=0.5, parent_share=0.25)
    plan = Plan(a_grown_cache, split, SPEC, settings, a_model, replayed)
    training = ModelTraining.begin(plan, tmp_path / "run", cpu)
    list(training.epochs())
    known = [each for each in shown if each.case.name in replayed]
    assert len(known) == round(0.5 * (len(shown) - len(known)))
    assert training._fine._learner._start_share == 0.25


@pytest.mark.slow
def test_a_cache_on_other_grids_than_those_of_the_parent_is_refused(a_model, a_grown_cache, pairs, tmp_path, capsys):
    list(prepare(find_cases([pairs]), tmp_path / "other", replace(a_grown_cache.grids, pixel_mm=7.0)))
    assert main(["train", str(tmp_path / "other"), "--run", str(tmp_path / "x"), "--from", str(a_model.folder)]) == 1
    assert "was prepared on other grids than this model's; prepare the cases again" in capsys.readouterr().err
    assert not (tmp_path / "x/settings.json").exists()
    assert main(["prepare", str(pairs), "--cache", str(tmp_path / "like"), "--like", str(a_model.folder)]) == 0
    like = open_cache(tmp_path / "like").grids
    assert (like.pixel_mm, like.slice_mm) == (8.0, 18.0)
