"""Every patient is tested once, by a model that has never seen it; an interrupted one resumes."""

import json
import shutil
from dataclasses import replace
from itertools import chain

import pytest

from helpers import SETTINGS, TWO_LOOKS, write_pair
from LiverUNetLib.errors import TrainingError
from LiverUNetLib.models.folder import open_model
from LiverUNetLib.models.spec import FineLook, ModelSpec, NetworkSpec
from LiverUNetTrainLib.cli.main import main
from LiverUNetTrainLib.data.cache import Grids, open_cache, prepare
from LiverUNetTrainLib.data.layouts import find_cases
from LiverUNetTrainLib.evaluation.crossval import CrossValidation, folds_as_in, folds_of
from LiverUNetTrainLib.evaluation.metrics import CaseScores
from LiverUNetTrainLib.run.folder import EpochLog
from LiverUNetTrainLib.run.settings import TrainingSettings
from LiverUNetTrainLib.training.recipes import RECIPES, Recipe

TINY = Recipe(
    ModelSpec(
        FineLook(context_mm=(0.0,), network=NetworkSpec(in_channels=1, channels=(8, 16), strides=(2,), features=4))
    ),
    settings=TrainingSettings(epochs=1, batch_size=8),
)


@pytest.fixture
def a_cross_validation(pairs, tmp_path) -> CrossValidation:
    """Four patients in two folds, and one that only trains."""
    extra = tmp_path / "extra"
    extra.mkdir()
    write_pair(extra, "other", seed=9)
    cases = find_cases([pairs, extra])
    list(prepare(cases, tmp_path / "work/cache", Grids(pixel_mm=8.0, slice_mm=18.0, voxel_mm=16.0)))
    references = tuple(case for case in cases if case.name != "other")
    return CrossValidation(tmp_path / "work", open_cache(tmp_path / "work/cache"), references, TINY, folds=2)


def test_folds_hold_every_case_once_and_follow_content_not_names(a_cross_validation):
    cases = a_cross_validation.cache.cases
    folds = folds_of(cases, 2, seed=0)
    assert sorted(chain(*folds)) == sorted(case.name for case in cases)
    renamed = [replace(case, name=case.name.upper()) for case in reversed(cases)]
    assert [[name.lower() for name in fold] for fold in folds_of(renamed, 2, seed=0)] == [
        sorted(fold, key=str.upper) for fold in folds
    ]
    assert any(folds_of(cases, 2, seed=seed) != folds for seed in range(1, 9))
    with pytest.raises(TrainingError, match="5 cases cannot be dealt into 6 folds"):
        folds_of(cases, 6, seed=0)


@pytest.mark.slow
def test_the_folds_of_another_cross_validation_are_used_again(a_cross_validation, cpu, tmp_path):
    list(a_cross_validation.run(cpu))
    dealt = [("patient0", "patient3"), ("patient1", "patient2")]
    rows = {case.case: case.row() for case in a_cross_validation.scores()}
    files = tuple(tmp_path / f"fold{number}.json" for number in (1, 2))
    for path, names in zip(files, dealt, strict=True):
        path.write_text(json.dumps({"cases": [rows[name] for name in names]}), encoding="utf-8-sig")
    tested = [case for case in a_cross_validation.cache.cases if case.name != "other"]
    assert folds_as_in(files, tested) == dealt
    assert folds_as_in(files[::-1], tested) == dealt[::-1]
    again = replace(a_cross_validation, work=tmp_path / "again", same_folds_as=files)
    events = [(fold, event.case) for fold, event in again.run(cpu, only=2) if isinstance(event, CaseScores)]
    assert events == [(2, "patient1"), (2, "patient2")]
    with pytest.raises(TrainingError, match="These folds hold patient0, patient3, the cases are"):
        folds_as_in(files[:1], tested)


@pytest.mark.slow
def test_no_fold_tests_what_it_has_seen_and_extra_cases_only_train(a_cross_validation, cpu):
    tested = [event.case for _, event in a_cross_validation.run(cpu) if isinstance(event, CaseScores)]
    assert sorted(tested) == [f"patient{n}" for n in range(4)]
    assert [case.case for case in a_cross_validation.scores()] == sorted(tested)
    assert {case.role for case in a_cross_validation.scores()} == {"held out"}
    for fold in (1, 2):
        lineage = open_model(a_cross_validation.work / f"fold{fold}/model").card.lineage
        assert "other" not in lineage.held_out
        assert not {*lineage.training.values(), *lineage.validation.values()} & set(lineage.held_out.values())


@pytest.mark.slow
def test_an_interrupted_cross_validation_resumes_and_ends_the_same(a_cross_validation, cpu):
    list(a_cross_validation.run(cpu))
    whole = a_cross_validation.scores()
    shutil.rmtree(a_cross_validation.work / "fold2")
    steps = a_cross_validation.run(cpu)
    for _, event in steps:
        if isinstance(event, EpochLog):
            break
    steps.close()
    events = [event for _, event in a_cross_validation.run(cpu)]
    assert not any(isinstance(event, EpochLog) for event in events), "the finished epoch was trained again"
    again = a_cross_validation.scores()
    assert [case.scores for case in again] == [case.scores for case in whole]
    assert list(a_cross_validation.run(cpu)) == []


@pytest.mark.slow
def test_folds_can_be_shared_among_processes(a_cross_validation, cpu):
    assert {fold for fold, _ in a_cross_validation.run(cpu, only=2)} == {2}
    assert len(a_cross_validation.scores()) == 2
    assert {fold for fold, _ in a_cross_validation.run(cpu)} == {1}
    assert len(a_cross_validation.scores()) == 4
    assert len(a_cross_validation.scores(only=2)) == 2
    with pytest.raises(TrainingError, match="There is no fold 3; there are 1 to 2"):
        list(a_cross_validation.run(cpu, only=3))


@pytest.mark.slow
def test_a_work_folder_of_another_cross_validation_is_refused(a_cross_validation, cpu):
    list(a_cross_validation.run(cpu))
    other = replace(a_cross_validation, recipe=replace(TINY, validation=0.5))
    with pytest.raises(TrainingError, match="other data or settings"):
        list(other.run(cpu))
    cases = tuple(case for case in a_cross_validation.cache.cases if case.name != "other")
    without_extra = replace(a_cross_validation, cache=replace(a_cross_validation.cache, cases=cases))
    with pytest.raises(TrainingError, match="other data or settings"):
        list(without_extra.run(cpu))


@pytest.mark.slow
def test_a_fold_is_trained_with_both_looks_and_resumes_in_the_coarse_one(a_cross_validation, cpu, tmp_path):
    coarse = replace(SETTINGS.coarse, epochs=2)
    both = replace(TINY, spec=TWO_LOOKS, settings=replace(SETTINGS, epochs=1, coarse=coarse))
    whole, broken = (replace(a_cross_validation, work=tmp_path / name, recipe=both) for name in ("one", "two"))
    told = [event.stage for _, event in whole.run(cpu, only=1) if isinstance(event, EpochLog)]
    assert told == ["Coarse look", "Coarse look", ""]
    steps = broken.run(cpu, only=1)
    while not isinstance(next(steps)[1], EpochLog):
        pass
    steps.close()
    again = [event.stage for _, event in broken.run(cpu, only=1) if isinstance(event, EpochLog)]
    assert again == told[1:]
    assert [case.scores for case in broken.scores()] == [case.scores for case in whole.scores()]
    assert open_model(tmp_path / "one/fold1/model").looks == ("model", "coarse")
    plan = json.loads((tmp_path / "one/crossval.json").read_text())
    assert plan["recipe"]["spec"]["coarse"]["voxel_mm"] == 16.0


def test_the_notebook_recipe_is_the_notebook():
    recipe = RECIPES["notebook"]
    settings, augmentation = recipe.settings, recipe.settings.augmentation
    assert (settings.batch_size, settings.epochs, settings.learning_rate, recipe.validation) == (10, 50, 1e-3, 0.2)
    assert (settings.schedule, settings.ema_decay, settings.weight_decay) == ("constant", 0.0, 0.0)
    assert (recipe.spec.coarse, recipe.spec.fine.context_mm, recipe.spec.fine.network.in_channels) == (None, (0.0,), 1)
    assert (settings.stacks.p_thick, settings.stacks.p_short, settings.stacks.p_alone) == (0, 0, 0)
    drawn = {name for name in vars(augmentation) if name.startswith("p_") and getattr(augmentation, name) > 0}
    assert drawn == {"p_flip_left_right", "p_flip_top_bottom", "p_affine", "p_blur"}
    assert (augmentation.scaling, augmentation.shift) == (0, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("small_recipes")
@pytest.mark.parametrize("recipe", ["accurate", "notebook"])
def test_crossval_on_the_command_line_prints_and_writes_one_table(recipe, pairs, tmp_path, capsys):
    output = tmp_path / "scores.json"
    work = ["--work", str(tmp_path / "work"), "--json", str(output), "--csv", str(tmp_path / "scores.csv")]
    small = ["--folds", "3", "--limit", "3", "--epochs", "1", "--coarse-epochs", "1", "--device", "cpu"]
    assert main(["crossval", str(pairs), *work, *small, "--recipe", recipe]) == 0
    written = json.loads(output.read_text())
    assert len(written["cases"]) == 3
    few = f"--folds 3 --recipe {recipe} --limit 3 --epochs 1 --coarse-epochs 1"
    assert written["command"] == f"liver-unet-train crossval {pairs} {few}"
    told = capsys.readouterr().out
    assert ("fold 3, Coarse look, epoch 1" in told) == (recipe == "accurate")
    assert "fold 3, epoch 1" in told
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 4
