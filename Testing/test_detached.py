"""The protocol of the run folder, with real trainings in separate processes."""

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from helpers import SETTINGS, TWO_LOOKS, unix_only
from LiverUNetLib.errors import TrainingError
from LiverUNetTrainLib.cli import training
from LiverUNetTrainLib.run.background import launch, resume, state_of
from LiverUNetTrainLib.run.folder import EpochLog, RunFolder
from LiverUNetTrainLib.run.lock import is_locked, locked
from LiverUNetTrainLib.run.options import TrainingOptions


@pytest.fixture
def start(a_cache, tmp_path):
    """Start a training of so many epochs; what still runs at the end is killed."""
    started = []

    def begin(*more, epochs=3):
        arguments = ["train", a_cache.folder, "--run", tmp_path / "run", "--device", "cpu", "--recipe", "notebook"]
        few = ["--epochs", epochs, "--batch-size", 4, "--validate-every", 1]
        started.append(launch([*arguments, *few, *more], tmp_path / "run"))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def wait_for(run, phase, process=None, *, epochs=0, seconds=120):
    end = time.monotonic() + seconds
    while True:
        state = state_of(run, process)
        if state.phase == phase and len(state.history) >= epochs:
            return state
        assert time.monotonic() < end, state
        time.sleep(0.05)


@pytest.mark.slow
def test_a_training_is_seen_to_start_progress_and_finish(start, run):
    process = start()
    assert state_of(run, process).phase == "starting"
    state = wait_for(run, "running", process, epochs=1)
    assert state.epochs == 3
    state = wait_for(run, "finished", process, epochs=3)
    assert state.message == "all 3 epochs are done"
    assert not is_locked(run)
    assert "epoch 3" in (run / "output.txt").read_text()


@pytest.mark.slow
def test_it_stops_on_request_and_resumes(start, run):
    process = start(epochs=400)
    wait_for(run, "running", process, epochs=1)
    RunFolder(run).request_stop()
    state = wait_for(run, "stopped", process)
    assert "--resume continues" in state.message
    before = len(state.history)
    assert not (run / "stop").exists(), "the training has removed it"
    process = resume(run)
    assert wait_for(run, "running", process, epochs=before + 1)
    process.kill()
    process.wait()


@pytest.mark.slow
@unix_only
def test_killed_it_is_found_dead_with_its_whole_curve_and_resumes(start, run):
    process = start(epochs=400)
    wait_for(run, "running", process, epochs=2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (run / "errors.txt").write_text("/lib/some.py:7: FutureWarning: x is old\n  x()\n")
    state = state_of(run)  # a new panel knows nothing of the process
    assert state.phase == "died"
    assert len(state.history) >= 2
    assert "killed" in state.message
    process = start("--resume", epochs=400)
    wait_for(run, "running", process, epochs=len(state.history) + 1)


@pytest.mark.slow
@unix_only
def test_ended_by_a_scheduler_it_says_how_to_resume_and_leaves_no_half_written_file(start, run):
    process = start(epochs=400)
    wait_for(run, "running", process, epochs=2)
    process.terminate()
    assert process.wait() == 128 + signal.SIGTERM
    state = state_of(run)
    assert len(state.history) >= 2
    assert state.message == "Stopped. Finished epochs are kept; the same command resumes, for train with --resume."
    assert not is_locked(run)
    assert not list(run.glob(".*"))
    process = start("--resume", epochs=400)
    wait_for(run, "running", process, epochs=len(state.history) + 1)


@pytest.mark.slow
@unix_only
def test_it_outlives_the_process_that_started_it(a_cache, run):
    code = (
        "import sys; from pathlib import Path; from LiverUNetTrainLib.run.background import launch;"
        "launch(['train', *sys.argv[1:], '--recipe', 'notebook', '--epochs', '400'], Path(sys.argv[3]));"
        "import os; os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, str(a_cache.folder), "--run", str(run)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    wait_for(run, "running", epochs=1)
    RunFolder(run).request_stop()
    wait_for(run, "stopped")


@pytest.mark.slow
def test_the_last_line_of_a_failed_training_is_reported(start, run, a_cache):
    (a_cache.folder / "patient0/image.npy").write_bytes(b"damaged")
    process = start()
    process.wait()
    state = state_of(run, process)
    assert state.phase == "died"
    assert "damaged" in state.message
    assert "delete it and run prepare again" in state.message


@pytest.mark.slow
def test_a_run_that_cannot_be_resumed_says_why_and_not_that_it_was_stopped(start, run, a_cache):
    start(epochs=1).wait()
    wait_for(run, "finished")
    process = start("--resume", epochs=2)
    process.wait()
    state = state_of(run, process)
    assert state.phase == "died"
    assert "its training differ from what is asked for now" in state.message


def test_a_run_that_another_panel_has_just_launched_is_starting_and_not_dead(run):
    run.mkdir()
    RunFolder(run).write_arguments(["train"])
    (run / "errors.txt").touch()
    assert state_of(run).phase == "starting"
    os.utime(run / "arguments.json", (0, 0))
    assert state_of(run).phase == "died"


def test_a_folder_in_which_nothing_was_begun_is_no_dead_run(run):
    run.mkdir()
    assert state_of(run).phase == "none"
    with pytest.raises(TrainingError, match="was started on the command line; resume it there with --resume"):
        resume(run)


@pytest.mark.slow
def test_a_line_that_is_half_written_is_not_yet_an_epoch(start, run):
    process = start()
    wait_for(run, "finished", process)
    with (run / "log.jsonl").open("a") as file:
        file.write('{"epoch": 4, "learn')
    assert len(state_of(run).history) == 3


@pytest.mark.slow
def test_two_trainings_do_not_share_a_folder(start, run):
    process = start(epochs=400)
    wait_for(run, "running", process)
    with pytest.raises(TrainingError, match=r"A training works in .* already; stop it"):
        launch(["train"], run)
    with pytest.raises(TrainingError, match=f"Another training works in .* \\(process {process.pid}\\)"), locked(run):
        pass
    process.kill()
    process.wait()
    assert not is_locked(run), "the system releases the lock of a dead process"
    with locked(run):
        pass


def test_a_folder_that_is_gone_is_named(run):
    with pytest.raises(TrainingError, match=r"The run folder .* is gone"):
        state_of(run)
    assert not is_locked(run)


def test_a_python_that_is_not_there_is_named(run):
    with pytest.raises(TrainingError, match="could not be started with /no/python"):
        launch(["train"], run, python="/no/python")


def test_options_become_the_arguments_of_the_command_line():
    options = TrainingOptions(
        Path("cache"), Path("run"), recipe="fine-tuning", parent="liver-ct", epochs=3, minutes=4.5, batch_size=6,
        learning_rate=7e-4, validation=0.25, patience=8, held_out=("a", "b c"), device="cpu",
    )  # fmt: skip
    parser = argparse.ArgumentParser()
    training.add_commands(parser.add_subparsers())
    parsed = parser.parse_args(options.arguments())
    names = ("recipe", "parent", "epochs", "minutes", "batch_size", "learning_rate", "validation", "patience", "device")
    assert all(getattr(parsed, name) == getattr(options, name) for name in names)
    assert (parsed.cache, parsed.run_folder, tuple(parsed.hold_out)) == (options.cache, options.run, options.held_out)


@pytest.mark.slow
def test_while_the_coarse_look_is_trained_a_watcher_sees_how_far_it_is(a_trainer, run):
    epochs = 2
    settings = replace(SETTINGS, coarse=replace(SETTINGS.coarse, epochs=epochs))
    told, training = [], a_trainer("run", spec=TWO_LOOKS, settings=settings)
    for event in training.epochs():
        state = state_of(run)
        assert (state.phase, state.epochs) == ("running", 3)
        if event.stage != "Training" and not isinstance(event, EpochLog) and state.stage not in told:
            assert state.history == ()
            told.append(state.stage)
        if isinstance(event, EpochLog) and not event.stage:
            assert state.stage == ""
    assert [stage for stage in told if stage] == [f"Coarse look: epoch {n} of 2" for n in (1, 2)]
    assert state_of(run).stage == ""


@pytest.mark.slow
def test_stopped_in_the_coarse_look_the_state_says_where(a_trainer, run):
    training = a_trainer("run", spec=TWO_LOOKS)
    for event in training.epochs():
        if event.stage == "Coarse look":
            RunFolder(run).request_stop()
    state = state_of(run)
    assert (state.phase, state.stage) == ("stopped", "Coarse look: epoch 1 of 1")
    assert state_of(run).history == ()
