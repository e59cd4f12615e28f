"""DICOM on discs with a DICOMDIR, behind links and in zips; unpacked files are removed."""

import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from pydicom.fileset import FileSet

from dicom_files import assert_same, change, write_enhanced_by_frame, write_series
from helpers import unix_only
from LiverUNetLib.errors import ScanError
from LiverUNetLib.scan.dicom.series import files_below
from LiverUNetLib.scan.formats import read_mask, read_volume
from LiverUNetLib.scan.volume import CTVolume


@pytest.fixture(scope="module")
def scan(a_phantom) -> CTVolume:
    return CTVolume(a_phantom[0].hu_kji[:20], a_phantom[0].affine)


@pytest.fixture
def disc(scan, tmp_path) -> Path:
    """A disc as scanners write it, and a stranger's scan beside it that it does not list."""
    folder = write_series(tmp_path / "series", scan, PatientID="1", StudyID="1", StudyDate="20200101", StudyTime="10")
    files = FileSet()
    for number, file in enumerate(sorted(folder.iterdir())):
        change(folder, lambda dataset, n=number: setattr(dataset, "InstanceNumber", n), files=slice(number, number + 1))
        files.add(file)
    files.write(tmp_path / "disc")
    write_series(tmp_path / "disc" / "other", CTVolume(scan.hu_kji[:9], scan.affine), SeriesNumber=9)
    return tmp_path / "disc"


def test_a_dicomdir_reads_the_files_that_it_lists(disc, scan):
    assert_same(read_volume(disc / "DICOMDIR"), scan)


def test_a_dicomdir_finds_its_files_in_lower_case(disc, scan):
    for path in sorted(disc.rglob("*"), reverse=True):
        if path.name != "DICOMDIR":
            path.rename(path.with_name(path.name.lower()))
    assert_same(read_volume(disc / "DICOMDIR"), scan)


def test_a_dicomdir_without_its_files_is_refused(disc, tmp_path):
    (disc / "DICOMDIR").rename(tmp_path / "DICOMDIR")
    with pytest.raises(ScanError, match="DICOMDIR lists 20 files, and none lies beside it; copy the whole disc"):
        read_volume(tmp_path / "DICOMDIR")


@unix_only
def test_links_to_series_are_followed_but_not_in_circles_and_dead_ones_are_skipped(scan, tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    (study / "series").symlink_to(write_series(tmp_path / "elsewhere", scan))
    (study / "again").symlink_to(tmp_path / "elsewhere")
    (study / "circle").symlink_to(study)
    (study / "dead").symlink_to(tmp_path / "gone")
    (study / "series" / "dead.dcm").symlink_to(tmp_path / "gone.dcm")
    assert_same(read_volume(study), scan)
    assert sum(file.is_file() for file in files_below(study)) == 20


@unix_only
def test_a_mask_is_found_in_a_folder_that_is_a_link(scan, tmp_path):
    masks = tmp_path / "masks"
    write_series(masks / "bone", scan, Modality="OT")
    (masks / "liver").symlink_to(write_series(tmp_path / "elsewhere", scan, Modality="OT"))
    assert read_mask(masks, folder="liver").hu_kji.shape == scan.hu_kji.shape
    write_series(tmp_path / "elsewhere" / "second", scan, Modality="OT")
    with pytest.raises(ScanError, match="masks holds 2 series in liver"):
        read_mask(masks, folder="liver")


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """The folder for temporary files, also of other processes."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def archive(scan, tmp_path) -> Path:
    archive = tmp_path / "scan.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in write_series(tmp_path / "series", scan).iterdir():
            file.write(path, path.name)
    return archive


def test_unpacked_files_are_removed_however_the_reading_ends(archive, scan, temporary, monkeypatch):
    assert_same(read_volume(archive), scan)
    assert not list(temporary.iterdir())

    def interrupted(*_):
        assert list(temporary.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr("LiverUNetLib.scan.dicom.reader.read_series", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_volume(archive)
    assert not list(temporary.iterdir())


def test_copies_of_pixels_are_removed(scan, temporary, tmp_path):
    rescales = [(1, -1024), (1, -1025)] * 10
    path = write_enhanced_by_frame(tmp_path / "enhanced.dcm", scan, rescales, range(20))
    assert_same(read_volume(path), scan)
    assert not list(temporary.iterdir())


def test_a_temporary_folder_that_cannot_be_made_is_named(archive, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(ScanError, match=r"No temporary folder can be made .*No such file or directory.*TMPDIR"):
        read_volume(archive)


KILLED = """
import sys, time
from pathlib import Path
from LiverUNetLib.scan.unpacking import unpacked
with unpacked(Path(sys.argv[1])):
    print("unpacked", flush=True)
    time.sleep(60)
"""


@unix_only
@pytest.mark.usefixtures("signals_heard")
def test_unpacked_files_of_a_killed_process_are_removed_and_those_of_a_running_one_stay(archive, scan, temporary):
    command = [sys.executable, "-c", KILLED, str(archive)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        process.stdout.readline()
    killed, living = processes
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(list(temporary.iterdir())) == 2
    assert_same(read_volume(archive), scan)
    (left,) = temporary.iterdir()
    assert f"-{living.pid}-" in left.name
    assert len(os.listdir(left)) == 20  # noqa: PTH208
    living.send_signal(signal.SIGINT)
    living.wait()
    living.stdout.close()
    killed.stdout.close()
    assert not list(temporary.iterdir())
