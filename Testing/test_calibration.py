"""A calibration is a line with an interval: its sums, done on paper, and the command that makes one."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from helpers import SETTINGS, write_pair
from LiverUNetLib.errors import ModelError, TrainingError
from LiverUNetLib.models.bundle import save_model
from LiverUNetLib.models.calibration import Calibration, calibration_from_json, logit
from LiverUNetLib.models.card import CALIBRATION, Lineage
from LiverUNetLib.models.exchange import install_model, pack_model
from LiverUNetLib.models.folder import open_model
from LiverUNetLib.segmentation.verdict import GOOD, LOOK, UNKNOWN, UNUSABLE
from LiverUNetTrainLib.cli.main import main
from LiverUNetTrainLib.data.cases import content_hash
from LiverUNetTrainLib.data.layouts import find_cases
from LiverUNetTrainLib.evaluation.altered_runs import BY_DEGREES, SPOILT, UNALTERED, AlteredRun
from LiverUNetTrainLib.evaluation.calibration import JudgedRun, conformal_quantile, fit, judge_left_out
from LiverUNetTrainLib.evaluation.calibration_report import measure

CALIBRATION_OF_TESTS = Calibration(
    weights={"expected_dice": 1.0},
    intercept=0.0,
    coverage=0.9,
    logit_margin=math.log(2),
    volume_exponent=5.0,
    usual={"noise_hu": (2.0, 20.0)},
    patients=20,
    runs=100,
    command="by hand",
)


def signals(dice: float, **others) -> dict[str, float | None]:
    agreements = dict.fromkeys(("expected_dice", "repeated_dice", "coarse_dice"), dice)
    return {**agreements, "noise_hu": 10.0, "cut_away_ml": 0.0, "parts_cut_away": 0, **others}


def run_of(case: str, alteration: str, dice: float, **others) -> AlteredRun:
    told = {"signals": signals(dice), "word": UNKNOWN, "reasons": (), "volume_ml": 1000.0, "reference_ml": 1000.0}
    return AlteredRun(case, alteration, "checksum", dice=dice, **told | others)


def runs_of(patients: int, seed: int = 0) -> list[AlteredRun]:
    """Patients whose signals are their Dice, but for an error of the logit of 0.3, the same for all of one patient."""
    random, runs = np.random.default_rng(seed), []
    for number in range(patients):
        error = random.normal(0, 0.3)
        for alteration, usual in ((UNALTERED, 0.96), ("noise of 25 HU", 0.9), ("ascites of 40 mm", 0.75)):
            dice = 1 / (1 + math.exp(-(logit(usual) + random.normal(0, 0.5))))
            told = 1 / (1 + math.exp(-(logit(dice) + error)))
            runs.append(run_of(f"patient{number:02}", alteration, dice, signals=signals(told)))
    return runs


def test_an_estimate_is_the_line_and_its_interval_the_margin_to_both_sides():
    # Odds of 4, of 2 and of 8; the volume is off by a factor of exp(5 * 0.2).
    estimate = CALIBRATION_OF_TESTS.estimate(signals(0.8))
    assert estimate.dice == pytest.approx(0.8)
    assert estimate.dice_interval == pytest.approx((2 / 3, 8 / 9))
    assert estimate.volume_factors == pytest.approx((1 / math.e, math.e))
    assert estimate.coverage == 0.9
    assert CALIBRATION_OF_TESTS.estimate(signals(0.8, expected_dice=None)) is None


def test_agreements_of_1_and_of_0_give_no_infinite_odds():
    assert CALIBRATION_OF_TESTS.estimate(signals(1.0)).dice == pytest.approx(0.995)
    assert CALIBRATION_OF_TESTS.estimate(signals(0.0)).dice == pytest.approx(0.005)


def test_values_beyond_the_usual_are_named():
    assert CALIBRATION_OF_TESTS.unusual(signals(0.9, noise_hu=30.0)) == {"noise_hu": (30.0, 2.0, 20.0)}
    assert CALIBRATION_OF_TESTS.unusual(signals(0.9, noise_hu=20.0)) == {}


def test_a_calibration_survives_json():
    assert calibration_from_json(json.loads(json.dumps(CALIBRATION_OF_TESTS.to_json()))) == CALIBRATION_OF_TESTS
    with pytest.raises(ValueError, match="schema version is 2"):
        calibration_from_json(CALIBRATION_OF_TESTS.to_json() | {"schema_version": 2})
    with pytest.raises(ValueError, match="not finite"):
        calibration_from_json(CALIBRATION_OF_TESTS.to_json() | {"logit_margin": math.inf})


def test_a_calibration_is_a_file_of_the_model_and_verified(two_looks_model, own_models, tmp_path):
    weights = {look: two_looks_model.state_dict(look) for look in two_looks_model.looks}
    folder = tmp_path / "calibrated"
    card = replace(two_looks_model.card, name="calibrated")
    model = save_model(folder, card, weights, "For tests.\n", calibration=CALIBRATION_OF_TESTS)
    assert model.calibration() == CALIBRATION_OF_TESTS
    assert model.card.checksum == two_looks_model.card.checksum, "the same masks come of it"
    assert two_looks_model.calibration() is None
    pack_model(model, tmp_path / "calibrated.zip")
    assert install_model(tmp_path / "calibrated.zip").calibration() == CALIBRATION_OF_TESTS
    path = folder / CALIBRATION
    path.write_text(path.read_text().replace("0.9", "0.8"))
    with pytest.raises(ModelError, match=r"SHA-256 of configs/quality\.json"):
        model.calibration()


@pytest.mark.parametrize(
    ("scores", "coverage", "expected"),
    [
        # One score each: the k-th smallest of n, k = coverage * (n + 1) rounded up.
        ([[9], [1], [8], [2], [7], [3], [6], [4], [5]], 0.9, 9),
        ([[score] for score in range(1, 20)], 0.9, 18),
        # Two patients weigh 1 each, whatever they have; 0.5 * 3 = 1.5 of it is reached at the first of the second.
        ([[1, 2], [3, 4]], 0.5, 3),
        ([[1, 1, 1, 1], [3]], 0.5, 3),
    ],
)
def test_the_conformal_quantile_counts_patients_and_one_at_infinity(scores, coverage, expected):
    assert conformal_quantile(scores, coverage=coverage) == expected


def test_eight_patients_are_too_few_for_90_percent():
    with pytest.raises(TrainingError, match="8 patients are too few for an interval that holds 90%; at least 9"):
        conformal_quantile([[1.0]] * 8, coverage=0.9)


def test_the_conformal_quantile_covers_a_new_patient_as_often_as_it_says():
    """A thousand times 20 patients with three runs each, and one more."""
    random, covered = np.random.default_rng(0), []
    for _ in range(1000):
        scores = abs(random.normal(size=(21, 1)) + 0.3 * random.normal(size=(21, 3)))
        covered.append(np.mean(scores[20] <= conformal_quantile(scores[:20], coverage=0.9)))
    assert 0.88 < np.mean(covered) < 0.95


def test_a_line_is_found_where_there_is_one():
    runs = [run_of(f"p{number:02}", UNALTERED, 0.6 + 0.015 * number) for number in range(20)]
    calibration = fit(runs, "here")
    for dice in (0.65, 0.8, 0.88):
        assert calibration.estimate(signals(dice)).dice == pytest.approx(dice, abs=0.002)
    assert calibration.logit_margin < 0.05
    assert (calibration.patients, calibration.runs, calibration.command) == (20, 20, "here")
    assert calibration.usual == {"noise_hu": (5.0, 20.0)}


def test_what_was_spoilt_and_what_found_nothing_teaches_nothing():
    runs = runs_of(12)
    useless = [run_of("patient00", name, 0.0) for name in SPOILT]
    useless.append(run_of("patient01", "noise of 75 HU", 0.0, signals={}, word=UNUSABLE))
    assert fit([*runs, *useless], "") == fit(runs, "")


def test_nobody_is_judged_by_a_calibration_that_has_seen_the_patient():
    runs = runs_of(12)
    (first, *_) = judge_left_out(runs)
    assert first.estimate == fit([run for run in runs if run.case != "patient00"], "").estimate(first.run.signals)
    (strange, *_) = [each for each in judge_left_out(runs, kinds_too=True) if each.run.alteration != UNALTERED]
    others = [run for run in runs if run.case != "patient00" and run.alteration != strange.run.alteration]
    assert strange.estimate == fit(others, "").estimate(strange.run.signals)


def judged(dice: float, estimated: float, alteration: str = UNALTERED, word: str = GOOD) -> JudgedRun:
    estimate = CALIBRATION_OF_TESTS.estimate(signals(estimated))
    return JudgedRun(run_of("p", alteration, dice), estimate, word)


def test_figures_on_four_runs():
    runs = [judged(0.95, 0.96), judged(0.92, 0.88, word=LOOK), judged(0.85, 0.93), judged(0.50, 0.60, word=UNUSABLE)]
    figures = measure(runs)["unaltered"]
    assert (figures["runs"], figures["below_good"], figures["false_alarms"], figures["missed"]) == (4, 2, 1, 1)
    # Of the four pairs of a good and a bad run three are in order.
    assert figures["auroc"] == 0.75
    # Mean risks of the surest one, two, three and four, by the estimate: 0.05, 0.1, ... to those at random, 0.195.
    risks = np.cumsum([0.05, 0.15, 0.08, 0.50]) / [1, 2, 3, 4]
    assert figures["aurc_ratio"] == pytest.approx(risks.mean() / 0.195)
    # Odds within a factor of 2 of the estimate's: 19 of 24, 11.5 of 7.3, 5.7 not of 13.3, 1 of 1.5.
    assert figures["coverage"] == 0.75
    assert figures["volume_coverage"] == 1
    assert figures["mean_absolute_error"] == pytest.approx((0.01 + 0.04 + 0.08 + 0.10) / 4)


def test_spoilt_runs_are_counted_by_their_words():
    runs = [judged(0.9, 0.9, "upside down", LOOK), judged(0.9, 0.9, "upside down", UNUSABLE), judged(0.9, 0.9)]
    assert measure(runs)["spoilt"] == {"upside down": {LOOK: 1, UNUSABLE: 1}}


@pytest.fixture
def holding_out(tmp_path, two_looks_model):
    """A model that holds out ten small phantom patients, and their folder."""
    folder = tmp_path / "patients"
    folder.mkdir()
    for number in range(10):
        write_pair(folder, f"patient{number}", seed=number)
    hashes = {case.name: content_hash(case.read()[0]) for case in find_cases([folder])}
    card = replace(two_looks_model.card, name="own", lineage=Lineage(held_out=hashes), training=TRAINING)
    weights = {look: two_looks_model.state_dict(look) for look in two_looks_model.looks}
    return save_model(tmp_path / "own", card, weights, "For tests.\n"), folder


TRAINING = asdict(SETTINGS) | {"weights": "last", "validated": [], "parent": None}


@pytest.mark.slow
def test_calibrate_measures_draws_and_writes_into_the_model(holding_out, tmp_path, capsys):
    model, folder = holding_out
    command = ["calibrate", str(folder), "--model", str(model.folder), "--work", str(tmp_path / "work")]
    command += ["--altered", "1", "--spoilt", "1", "--figure", str(tmp_path / "plot.png"), "--device", "cpu"]
    assert main([*command, "--json", str(tmp_path / "all.json"), "--record"]) == 0
    printed = capsys.readouterr().out
    assert "10 patients" in printed
    calibrated = open_model(model.folder)
    calibration = calibrated.calibration()
    assert calibration.patients == 10
    assert set(calibration.weights) == {"expected_dice", "repeated_dice"}
    assert "## Verdict" in (model.folder / "docs/README.md").read_text()
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    stored = json.loads((tmp_path / "all.json").read_text())
    assert len(stored["runs"]) == 30
    assert calibrated.card.checksum == model.card.checksum
    # What is in the work folder is not run again, and gives the same.
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}
    assert main([*command, "--json", str(tmp_path / "again.json")]) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()} == files
    assert json.loads((tmp_path / "again.json").read_text()) == stored


def test_calibrate_takes_only_patients_that_are_held_out(two_looks_model, pairs, tmp_path, capsys):
    command = ["calibrate", str(pairs), "--model", str(two_looks_model.folder), "--work", str(tmp_path / "work")]
    assert main(command) == 1
    assert "None of the 4 cases with a liver is held out by a model" in capsys.readouterr().err


def test_alterations_have_degrees_and_what_is_spoilt_is_none_of_them():
    assert not set(BY_DEGREES) & set(SPOILT)
    assert len(BY_DEGREES) >= 30
