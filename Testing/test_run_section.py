"""How a panel shows its runs, tested without Slicer: runner and packages are fakes."""

from types import SimpleNamespace

import pytest
import slicer

from LiverUNetLib.errors import ScanError
from LiverUNetLib.steps import Progress


class FakeRunner:
    """Holds one run, which the test ends."""

    running = False

    def start(self, _steps, listener, on_done):
        self.running, self.listener, self._on_done = True, listener, on_done

    def cancel(self):
        self.running = False
        self.listener.onCancelled()

    def finish(self, result):
        self.running = False
        self._on_done(result)

    def fail(self, error):
        self.running = False
        self.listener.onFailed(error)


class FakePackages:
    """Packages of which some are missing; `ensure` does what the test sets."""

    names = ()
    ensure = staticmethod(lambda _folder, *, engine: True)  # noqa: ARG005

    def missing(self, _engine):
        return list(self.names)


@pytest.fixture
def runner():
    return FakeRunner()


@pytest.fixture
def packages():
    return FakePackages()


@pytest.fixture
def ui():
    return SimpleNamespace(progressBar=SimpleNamespace(), statusLabel=SimpleNamespace())


@pytest.fixture
def run(scene, ui, runner, packages):
    """The section of a panel whose runs all need PyTorch; its `changes` tell whether a run was under way."""
    from LiverUNetPanel.sections.run import RunSection
    from LiverUNetPanel.settings import Settings

    changes = []
    section = RunSection(
        ui,
        "LiverUNetTrain",
        runner=runner,
        packages=packages,
        settings=Settings(),
        onChanged=lambda: changes.append(runner.running),
        engine="torch",
    )
    section.changes = changes
    return section


def test_nothing_takes_room_before_the_first_run(run, ui):
    assert (ui.progressBar.visible, ui.statusLabel.visible) == (False, False)
    assert run.changes == []


def test_a_run_shows_its_progress_and_then_its_message(run, ui, runner):
    run.start(iter(()), lambda count: run.say(f"{count} livers"))
    assert (ui.progressBar.visible, ui.statusLabel.text) == (True, "Starting")
    run.onProgress(Progress("Segmenting", 3, 20))
    assert (ui.progressBar.value, ui.progressBar.maximum) == (3, 20)
    assert ui.statusLabel.text == "Segmenting, 3 of 20"
    run.onProgress(Progress("Loading the model", 0, 0))
    assert ui.statusLabel.text == "Loading the model"
    run.onProgress(Progress("Installing the model", 0, 0, final=True))
    assert ui.statusLabel.text == "Installing the model; this cannot be cancelled"
    runner.finish(2)
    assert (ui.progressBar.visible, ui.statusLabel.text) == (False, "2 livers")
    assert run.changes == [True, False, False]


def test_without_a_message_a_run_ends_with_done(run, ui, runner):
    run.start(iter(()))
    runner.finish(None)
    assert ui.statusLabel.text == "Done."


def test_a_run_can_begin_the_next_one(run, ui, runner):
    run.start(iter(()), lambda _: run.start(iter(())))
    runner.finish(None)
    assert run.running
    assert (ui.progressBar.visible, ui.statusLabel.text) == (True, "Starting")
    assert run.changes[-1] is True


def test_a_cancelled_run_says_so(run, ui):
    run.start(iter(()))
    run.cancel()
    assert (ui.progressBar.visible, ui.statusLabel.text) == (False, "Cancelled; nothing unfinished was written.")


@pytest.mark.parametrize(
    ("error", "message"), [(ScanError("flat is constant."), "flat is constant."), (KeyError("x"), "Failed: 'x'")]
)
def test_an_error_is_shown_once_and_stays_in_the_status_line(run, ui, runner, error, message):
    run.start(iter(()))
    with pytest.raises(type(error)):  # Slicer shows it, and writes it to the log
        runner.fail(error)
    assert (ui.progressBar.visible, ui.statusLabel.text) == (False, message)
    assert slicer.app.shown == [f"LiverUNetTrain could not finish.\n\n{error}"]


def test_missing_packages_are_named_while_they_are_installed(run, ui, packages, runner):
    shown = []
    packages.names = ("torch>=2.4", "monai>=1.5.1")
    packages.ensure = lambda _folder, *, engine: shown.append((engine, ui.statusLabel.text)) or True
    run.start(iter(()))
    assert shown == [("torch", "Installing torch>=2.4, monai>=1.5.1.")]
    assert runner.running


def test_nothing_starts_if_the_user_declines_the_packages(run, ui, packages, runner):
    packages.ensure = lambda _folder, *, engine: False  # noqa: ARG005
    run.start(iter(()))
    assert not runner.running
    assert ui.statusLabel.text == "Nothing was done: packages are missing and were not installed."
    assert slicer.app.shown == []


def test_nothing_starts_if_the_installation_fails_and_the_reason_is_shown(run, packages, runner):
    def fail(_folder, *, engine):
        raise ScanError(f"{engine} could not be installed: the disk is full.")

    packages.ensure = fail
    with pytest.raises(ScanError):
        run.start(iter(()))
    assert not runner.running
    assert slicer.app.shown == ["LiverUNetTrain cannot start.\n\ntorch could not be installed: the disk is full."]


def test_a_run_that_began_during_the_installation_is_not_disturbed(run, packages, runner):
    def install(_folder, *, engine):
        runner.running = True
        return True

    packages.ensure = install
    assert run.ensureInstalled() is False
