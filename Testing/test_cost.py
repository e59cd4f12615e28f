"""What Testing/benchmarks/cost.py adds up and makes: stages that are the whole, and scans that show the same body."""

import importlib
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import REPOSITORY
from LiverUNetLib.scan.formats import write_volume
from LiverUNetLib.scan.phantom import abdomen, axial_affine
from LiverUNetLib.steps import Progress, finish

BENCHMARKS = REPOSITORY / "Testing/benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a benchmark by name; it finds those beside it as it does on the command line."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def stages(benchmark, monkeypatch):
    """The module of the stages with a clock of its own; `work(seconds)` lets it run on."""
    module, now = benchmark("cost_stages"), [0.0]

    def work(seconds):
        now[0] += seconds

    monkeypatch.setattr(module, "time", SimpleNamespace(process_time=lambda: now[0]))
    return SimpleNamespace(clock=module.Clock, work=work)


def test_each_second_belongs_to_the_stage_that_its_progress_names(stages):
    stages.work(5)  # the start of Python
    clock = stages.clock()
    load = clock.timed("loading", stages.work)

    def segment():
        stages.work(10)
        yield Progress("Preparing", 0, 1)
        stages.work(20)
        yield Progress("Preparing", 1, 1)
        stages.work(1)
        load(30)
        yield Progress("Segmenting", 0, 1)
        stages.work(40)
        yield Progress("Segmenting", 1, 1)
        stages.work(2)
        yield Progress("Measuring", 0, 1)
        stages.work(50)
        yield Progress("Measuring", 1, 1)
        stages.work(3)
        return "a mask"

    assert finish(clock.watched(segment)(), lambda _: stages.work(0.5)) == "a mask"
    clock.charge()
    assert clock.spent == {
        "Python and imports": 5,
        "Preparing": 10 + 20 + 1,
        "loading": 30,
        "Segmenting": 40 + 2,
        "Measuring": 50 + 3,
        "rest": 6 * 0.5,
    }


def test_a_stage_that_fails_is_closed(stages):
    clock = stages.clock()

    def fail():
        stages.work(1)
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - it says nothing
        clock.timed("failing", fail)()
    stages.work(2)
    clock.charge()
    assert clock.spent == {"Python and imports": 0, "failing": 1, "rest": 2}


def test_repeated_voxels_show_the_same_body_at_the_same_place(benchmark):
    """Two columns of 2 mm, centered at 10 and 12 mm, become four of 1 mm, centered at 9.5, 10.5, 11.5 and 12.5 mm."""
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = 10, 20, 30
    hu_kji, finer = benchmark("cost").repeated(np.array([[[1, 2]]], np.int16), affine, (3, 1, 4))
    assert hu_kji.tolist() == [[[1, 1, 2, 2]]] * 3
    assert (finer @ [0, 0, 0, 1]).tolist() == [9.5, 20, 29, 1]
    assert (finer @ [3, 0, 2, 1]).tolist() == [12.5, 20, 31, 1]


def test_slabs_are_means_from_the_middle(benchmark):
    """Of slices 0 to 7, thick ones of 2 are those of 1 and 2, 3 and 4, 5 and 6, centered at 1.5, 3.5 and 5.5."""
    hu_kji, affine = benchmark("cost").slabs(np.arange(8, dtype=np.int16)[:, None, None] * 10, np.eye(4), 2)
    assert hu_kji.ravel().tolist() == [15, 35, 55]
    assert hu_kji.dtype == np.int16
    assert (affine @ [0, 0, 2, 1]).tolist() == [0, 0, 5.5, 1]


@pytest.mark.slow
def test_the_command_line_is_watched_where_it_does_its_work(tmp_path):
    spacing_mm, shape = (4.0, 4.0, 10.0), (80, 64, 24)
    volume, _ = abdomen(axial_affine(spacing_mm, shape), shape[::-1])
    write_volume(tmp_path / "ct.nii.gz", volume.hu_kji, volume.affine)
    command = [sys.executable, BENCHMARKS / "cost_stages.py", tmp_path / "stages.json", "segment"]
    command += [tmp_path / "ct.nii.gz", "-o", tmp_path / "mask.nii.gz", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mask.nii.gz").exists()
    spent = json.loads((tmp_path / "stages.json").read_text())
    named = {"Python and imports", "reading", "loading the network", "Preparing", "Restoring", "writing"}
    assert named <= set(spent)
    assert "unnamed" not in spent
    assert all(spent[name] > 0 for name in named)
    assert spent["rest"] < 0.5 * sum(spent.values())
