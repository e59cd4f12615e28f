"""The command line as a process: signals, closed streams, consoles, and threads that wait."""

import contextlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import nibabel
import numpy as np
import pytest

from dicom_files import write_series
from helpers import unix_only
from LiverUNetLib.scan.formats import write_volume
from LiverUNetLib.system.environment import wait_without_spinning


@pytest.mark.slow
@unix_only
@pytest.mark.usefixtures("signals_heard")
@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 1), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_ctrl_c_and_the_signals_of_schedulers_leave_nothing(sent, code, a_phantom, threshold_model, tmp_path):
    fcntl, termios = (pytest.importorskip(name, reason="needs a terminal of Unix") for name in ("fcntl", "termios"))
    volume, _ = a_phantom
    scan = tmp_path / "ct.nii"
    write_volume(scan, np.tile(volume.hu_kji, (12, 4, 4)), volume.affine)  # seconds of work
    command = [sys.executable, "-m", "LiverUNetLib", "segment", scan, "--model", threshold_model.folder]
    terminal, stderr = os.openpty()  # progress is shown to a terminal only, one with room for it
    fcntl.ioctl(stderr, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
    os.close(stderr)
    seen = b""
    while b"Segmenting" not in seen:
        seen += os.read(terminal, 1024) or pytest.fail("it has ended already")
    run.send_signal(getattr(signal, sent))
    with contextlib.suppress(OSError):  # how a terminal says that its other end is closed
        while more := os.read(terminal, 1024):
            seen += more
    out, _ = run.communicate(timeout=60)
    os.close(terminal)
    assert run.returncode == code
    assert b"Traceback" not in seen
    assert b"Cancelled." in seen
    assert out == b""
    assert [path.name for path in tmp_path.iterdir()] == ["ct.nii"]


def while_reading(code: str, *arguments: object, **options: object) -> subprocess.CompletedProcess:
    """Run the command line in a process of its own that does `code` where it would read a scan."""
    program = (
        "import os, signal, sys, time; from pathlib import Path\n"
        "from LiverUNetLib.cli.main import main; from LiverUNetLib.scan.dicom import reader\n"
        f"def interrupted(series, name):\n{textwrap.indent(textwrap.dedent(code), '    ')}\n"
        "reader.read_series = interrupted; sys.exit(main())"
    )
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.fixture
def a_zip(a_phantom, tmp_path):
    write_series(tmp_path / "series", a_phantom[0])
    return Path(shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path / "series"))


@pytest.mark.slow
@unix_only
def test_a_scheduler_that_ends_a_run_leaves_no_unpacked_patient(a_zip, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code = """
        assert list(Path(os.environ["TMPDIR"]).rglob("*")), "nothing was unpacked"
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    """
    done = while_reading(code, "info", a_zip, env=os.environ | {"TMPDIR": str(scratch)})
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "Cancelled.\n")
    assert not list(scratch.iterdir())


@pytest.mark.slow
@unix_only
def test_a_second_signal_ends_a_run_at_once(a_zip):
    code = """
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
    """
    assert while_reading(code, "info", a_zip, timeout=50).returncode == -signal.SIGTERM


@pytest.mark.slow
@unix_only
def test_nohup_still_lets_a_run_outlive_its_terminal(a_zip):
    code = "os.kill(os.getpid(), signal.SIGHUP); print('alive', flush=True); os._exit(0)"
    ignored = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    done = while_reading(code, "info", a_zip, **ignored)
    assert (done.returncode, done.stdout) == (0, "alive\n")


def in_a_shell(redirection: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess:
    """Run the command line in a process of its own with these streams."""
    command = ["sh", "-c", f'exec "$0" -m LiverUNetLib "$@" {redirection}', sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, env=os.environ | variables)


@pytest.mark.slow
@unix_only
@pytest.mark.parametrize(
    ("closed", "command"),
    [("2>&-", "segment"), (">&-", "segment"), ("2>&-", "batch"), ("<&- >&- 2>&-", "batch")],
)
def test_closed_streams_cost_nothing(closed, command, a_ct_file, threshold_model, tmp_path):
    where = [a_ct_file, "-o", tmp_path / "out/m.nii.gz"] if command == "segment" else [tmp_path, "-o", tmp_path / "out"]
    (tmp_path / "out").mkdir()
    done = in_a_shell(closed, command, *where, "--model", threshold_model.folder, "--device", "cpu")
    assert done.returncode == 0
    assert bool(done.stdout) is (closed == "2>&-")
    assert b"license" not in done.stdout
    (mask,) = (tmp_path / "out").glob("*.nii.gz")
    assert np.asarray(nibabel.load(mask).dataobj).sum() > 1000


@pytest.mark.slow
@unix_only
def test_without_stderr_messages_do_not_mix_into_results(tmp_path):
    done = in_a_shell("2>&-", "info", tmp_path / "none.nii.gz")
    assert (done.returncode, done.stdout) == (1, b"")


@unix_only
def test_what_libraries_print_on_a_closed_stderr_gets_into_no_file(tmp_path):
    """The next file that is opened would get number 2, and with it all that C++ writes to stderr."""
    program = (
        "import os, sys; from LiverUNetLib import doctor; from LiverUNetLib.cli.main import main\n"
        "path = sys.argv.pop()\n"
        "def examine():\n"
        "    with open(path, 'w') as file: os.write(2, b'a warning of ITK'); file.write('mine')\n"
        "    yield 'done'\n"
        "doctor.examine = examine; sys.exit(main())"
    )
    command = ["sh", "-c", 'exec "$0" "$@" 2>&-', sys.executable, "-c", program, "doctor", tmp_path / "mine.txt"]
    done = subprocess.run(command, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"done\n")
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "name"), [("ascii", "Übung"), ("cp1252", "Иван")])
def test_a_name_that_the_console_cannot_show_ends_no_run(encoding, name, a_ct_file, threshold_model, tmp_path):
    scan = a_ct_file.rename(tmp_path / f"{name}.nii.gz")
    command = [sys.executable, "-m", "LiverUNetLib", "segment", scan, "--model", threshold_model.folder]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    assert b"_liver.nii.gz" in done.stdout
    assert (tmp_path / f"{name}_liver.nii.gz").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has a disk that is always full")
def test_results_that_cannot_be_printed_are_no_success():
    done = in_a_shell(">/dev/full", "models")
    assert done.returncode == 1
    assert done.stderr == b"The output cannot be used (No space left on device); name another.\n"


@pytest.mark.slow
@unix_only
def test_a_reader_who_leaves_early_is_no_error():
    assert in_a_shell("| true", "models").stderr == b""


@pytest.mark.parametrize("chosen", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"])
def test_threads_wait_asleep_unless_the_user_has_chosen_how(chosen):
    environment = {"OMP_NUM_THREADS": "3"}
    wait_without_spinning(environment)
    assert environment == {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "PASSIVE"}
    environment = {chosen: "ACTIVE"}
    wait_without_spinning(environment)
    assert environment == {chosen: "ACTIVE"}


@pytest.mark.parametrize("library", ["LiverUNetLib", "LiverUNetTrainLib"])
def test_both_command_lines_let_threads_sleep_before_torch_is_there_and_a_caller_keeps_its_own(library):
    program = (
        f"import os, sys; from {library}.cli.main import main; from LiverUNetLib.cli import console\n"
        "console.logging.basicConfig = lambda **_: print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)\n"
        "sys.argv[1:] = ['--version']\n"
        "for arguments in (['--version'], None):\n"
        "    try: main(arguments)\n"
        "    except SystemExit: pass\n"
    )
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_WAIT", "GOMP", "KMP"))}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=variables)
    assert [line for line in done.stdout.splitlines() if "liver" not in line] == ["None False", "PASSIVE False"]


def test_one_core_is_spared_while_predicting_and_the_number_of_threads_comes_back(monkeypatch):
    import torch

    from LiverUNetLib.system import environment

    before = torch.get_num_threads()
    try:
        for cores, threads, expected in ((8, 8, 7), (8, 4, 4), (1, 1, 1), (2, 2, 1)):
            monkeypatch.setattr(environment, "usable_cores", lambda cores=cores: cores)
            torch.set_num_threads(threads)
            with environment.spare_one_core():
                assert torch.get_num_threads() == expected
            assert torch.get_num_threads() == threads
        with pytest.raises(ValueError, match="cancelled"), environment.spare_one_core():
            raise ValueError("cancelled")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
