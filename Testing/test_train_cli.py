"""The command line of training, where disks, streams and files are not as they should be."""

import json
import subprocess
import sys

import pytest

from helpers import unix_only
from LiverUNetLib.errors import TrainingError
from LiverUNetTrainLib.cli.main import main
from LiverUNetTrainLib.data.cases import Case
from LiverUNetTrainLib.evaluation.crossval import scores_of_folds
from LiverUNetTrainLib.evaluation.tables import read_scores
from LiverUNetTrainLib.run.folder import RunFolder

SCORES = {
    "case": "a", "role": "new", "dice": 0.9, "jaccard": 0.8, "precision": 0.9, "recall": 0.9, "hd95_mm": 3.0,
    "assd_mm": 1.0, "surface_dice_1mm": 0.7, "surface_dice_3mm": 0.9, "volume_ml": 1500.0, "reference_ml": 1490.0,
    "volume_error_ml": 10.0, "volume_error_percent": 0.7, "seconds": 5.0,
}  # fmt: skip


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("torch", "monai") else name)
    assert main(["prepare", str(tmp_path), "--cache", str(tmp_path / "cache")]) == 1
    assert capsys.readouterr().err == (
        'liver-unet-train needs torch, monai: pip install "liver-unet[train]", or ".[train]" in the source folder.\n'
    )
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])


@pytest.fixture
def a_run(a_trainer, tmp_path):
    list(a_trainer("run").epochs())
    return tmp_path / "run"


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "prepare PAIRS --cache OUT/new", "prepare PAIRS --cache OUT", "export-pairs PAIRS -o OUT/new",
        "export-pairs PAIRS -o OUT", "export-nnunet PAIRS -o OUT", "train CACHE --run OUT/new --device cpu",
        "crossval PAIRS --work OUT/new --folds 2", "export RUN -o OUT/model", "report RUN -o OUT/report.html",
        "augment-preview CACHE -o OUT/picture.png",
    ],
)  # fmt: skip
def test_a_read_only_target_is_named_before_any_work(words, request, read_only, monkeypatch, capsys):
    places = {"PAIRS": "pairs", "CACHE": "a_cache", "RUN": "a_run"}
    values = {word: request.getfixturevalue(name) for word, name in places.items() if word in words}
    values |= {"CACHE": values["CACHE"].folder} if "CACHE" in values else {}
    monkeypatch.setattr(Case, "read", lambda _case: pytest.fail("work is done"))
    assert main([str(values.get(word, word.replace("OUT", str(read_only)))) for word in words.split()]) == 1
    assert "Read-only file system" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "prepare LONG --cache OUT", "prepare PAIRS --cache LONG", "export-pairs LONG -o OUT",
        "export-pairs PAIRS -o LONG", "export-nnunet PAIRS -o LONG", "train LONG --run OUT", "train CACHE --run LONG",
        "train CACHE --run OUT --from LONG", "crossval PAIRS --work LONG", "crossval PAIRS --work OUT --json LONG",
        "evaluate LONG", "evaluate PAIRS --csv LONG", "evaluate --predictions LONG --reference PAIRS",
        "compare LONG LONG", "report LONG", "export LONG -o OUT/model", "export OUT -o LONG/model",
        "augment-preview LONG",
    ],
)  # fmt: skip
def test_an_impossible_name_gets_one_sentence(words, pairs, tmp_path, request, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    places = {"PAIRS": pairs} | ({"CACHE": request.getfixturevalue("a_cache").folder} if "CACHE" in words else {})
    long = "x" * 300
    arguments = [str(places.get(word, word.replace("LONG", long).replace("OUT", "out"))) for word in words.split()]
    assert main(arguments) == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert long in sentence


@pytest.mark.slow
def test_folders_of_outputs_are_made(a_run, pairs, threshold_model, tmp_path):
    new = tmp_path / "new"
    model = ["--model", str(threshold_model.folder), "--device", "cpu"]
    scores, table = new / "scores/s.json", new / "tables/t.csv"
    assert main(["evaluate", str(pairs), *model, "--json", str(scores), "--csv", str(table)]) == 0
    assert main(["export", str(a_run), "-o", str(new / "models/mine")]) == 0
    assert main(["report", str(a_run), "-o", str(new / "reports/r.html"), "--scores", str(scores)]) == 0
    made = (scores, table, new / "models/mine/models/model.pt", new / "reports/r.html")
    assert all(path.is_file() for path in made)


@pytest.mark.slow
@unix_only
def test_without_stderr_all_is_done_and_stdout_holds_results_alone(pairs, threshold_model, tmp_path):
    def run(*words):
        command = ["sh", "-c", 'exec "$0" -m LiverUNetTrainLib "$@" 2>&-', sys.executable, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        return done.stdout.splitlines()

    cache, few = tmp_path / "cache", ["--recipe", "notebook", "--epochs", 1, "--device", "cpu"]
    assert run("prepare", pairs, "--cache", cache, "--pixel-mm", 8, "--slice-mm", 18)[1].startswith("patient0")
    assert run("train", cache, "--run", tmp_path / "run", *few)[0].startswith("epoch 1: ")
    assert (tmp_path / "run/last.pt").is_file()
    told = run("evaluate", pairs, "--model", threshold_model.folder, "--device", "cpu")
    assert told[0].startswith("patient ")
    assert len(told) == 1 + 4 + 4, "a head, four cases, four figures"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_tables_in_another_encoding_are_read_or_get_one_sentence(encoding, tmp_path, capsys):
    (tmp_path / "good.json").write_text(json.dumps({"cases": [SCORES]}))
    text = json.dumps({"cases": [SCORES | {"case": "Müller"}]}, ensure_ascii=False)
    (tmp_path / "bad.json").write_bytes(text.encode(encoding))
    assert main(["compare", str(tmp_path / "bad.json"), str(tmp_path / "good.json")]) == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "bad.json" in sentence


@pytest.mark.parametrize("faulty", ["0,95", None, [1]])
def test_scores_that_are_no_numbers_are_named(faulty, tmp_path):
    (tmp_path / "bad.json").write_text(json.dumps({"cases": [SCORES | {"dice": faulty}]}))
    with pytest.raises(TrainingError, match=r"bad\.json holds no scores as `evaluate --json` writes them"):
        read_scores(tmp_path / "bad.json")


@pytest.mark.parametrize("content", ['{"a": 1}', '[{"case": "a"}]', "[3]"])
def test_damaged_scores_of_a_fold_are_named(content, tmp_path):
    (tmp_path / "fold1").mkdir()
    (tmp_path / "fold1/scores.json").write_text(content)
    with pytest.raises(TrainingError, match=r"scores\.json holds no scores .* delete it and evaluate again"):
        scores_of_folds(tmp_path)


@pytest.mark.slow
def test_a_log_that_an_editor_has_saved_is_read_and_another_named(a_run):
    log, before = a_run / "log.jsonl", RunFolder(a_run).history()
    content = log.read_bytes()
    log.write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"))
    assert RunFolder(a_run).history() == before
    for damaged in (content.decode().encode("utf-16"), b"not JSON\n", b'{"epoch": 1}\n', b"3\n"):
        log.write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"log\.jsonl is not the log of a training"):
            RunFolder(a_run).history()


@pytest.mark.slow
def test_notes_in_another_encoding_are_named(a_run, tmp_path, capsys):
    (tmp_path / "notes.md").write_bytes("Für Leber".encode("latin-1"))
    arguments = ["export", str(a_run), "-o", str(tmp_path / "model"), "--notes", str(tmp_path / "notes.md")]
    assert main(arguments) == 1
    assert "notes.md are not text in UTF-8" in capsys.readouterr().err
