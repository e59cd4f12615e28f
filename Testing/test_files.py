"""Files and folders appear complete or not at all."""

import errno
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch

from helpers import unix_only
from LiverUNetLib.cli.main import main
from LiverUNetLib.errors import OutputError, ScanError
from LiverUNetLib.scan import itk
from LiverUNetLib.scan.formats import read_volume, write_volume
from LiverUNetLib.system.files import (
    check_writable,
    exists,
    make_folder,
    save_array,
    save_tensors,
    staged,
    stamp,
    write_json,
)


def fill(folder, text):
    folder.mkdir()
    (folder / "content").write_text(text)


def interrupted(folder):
    fill(folder, "half")
    raise KeyboardInterrupt


def test_a_folder_replaces_an_older_one_when_it_is_complete(tmp_path):
    path = tmp_path / "folder"
    fill(path, "old")
    with pytest.raises(KeyboardInterrupt), staged(path) as temporary:
        interrupted(temporary)
    assert (path / "content").read_text() == "old"
    with staged(path) as temporary:
        fill(temporary, "new")
    assert (path / "content").read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_another_process_made_meanwhile_is_replaced(tmp_path):
    path = tmp_path / "folder"
    with staged(path) as temporary:
        fill(temporary, "ours")
        fill(path, "theirs")
    assert (path / "content").read_text() == "ours"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_to_a_folder_is_replaced_and_its_target_stays(tmp_path):
    real, path = tmp_path / "real", tmp_path / "link"
    fill(real, "real")
    path.symlink_to(real)
    with staged(path) as temporary:
        fill(temporary, "new")
    assert [(folder / "content").read_text() for folder in (path, real)] == ["new", "real"]
    assert sorted(tmp_path.iterdir()) == [path, real]


def test_a_file_is_not_written_over_a_folder(tmp_path):
    fill(tmp_path / "folder", "old")
    with pytest.raises(OutputError, match="could not be written"), staged(tmp_path / "folder") as temporary:
        temporary.write_text("file")
    assert (tmp_path / "folder/content").read_text() == "old"


def test_a_stamp_changes_with_a_file_and_with_a_file_in_a_folder(tmp_path):
    fill(tmp_path / "folder", "old")
    before = stamp(tmp_path / "folder"), stamp(tmp_path / "folder/content")
    (tmp_path / "folder/content").write_text("longer")
    after = stamp(tmp_path / "folder"), stamp(tmp_path / "folder/content")
    assert not set(before) & set(after)


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nrrd", "mask.seg.nrrd"])
def test_an_image_that_cannot_be_finished_leaves_the_older_one(name, tmp_path, monkeypatch):
    path = tmp_path / name
    write_volume(path, np.zeros((4, 5, 6), np.uint8), np.eye(4))
    before = path.read_bytes()

    def half(_image, target, *_, **__):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nibabel, "save", half)
    monkeypatch.setattr(SimpleITK, "WriteImage", half)
    with pytest.raises(OutputError, match="No space left on device"):
        write_volume(path, np.ones((4, 5, 6), np.uint8), np.eye(4))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_made_with_its_parents_or_the_reason_is_given(tmp_path):
    make_folder(tmp_path / "a/b")
    make_folder(tmp_path / "a/b")
    assert (tmp_path / "a/b").is_dir()
    (tmp_path / "file").write_text("")
    for path, reason in {
        tmp_path / "file": "File exists",
        tmp_path / "file/below": "Not a directory",
        tmp_path / ("x" * 300): "File name too long",
    }.items():
        with pytest.raises(OutputError, match=rf"{path} cannot be made \({reason}\); name another"):
            make_folder(path)


def test_a_name_that_no_disk_can_hold_is_refused_in_one_sentence(tmp_path):
    assert exists(tmp_path, ScanError)
    assert not exists(tmp_path / "none", ScanError)
    with pytest.raises(ScanError, match=r"x cannot be used \(File name too long\); name another"):
        exists(tmp_path / ("x" * 300), ScanError)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".seg.nrrd"])
def test_a_name_may_be_as_long_as_the_disk_allows(ending, tmp_path):
    path = tmp_path / ("x" * (255 - len(ending)) + ending)
    write_volume(path, np.ones((4, 5, 6), np.uint8), np.eye(4))
    assert read_volume(path).hu_kji.shape == (4, 5, 6)
    assert list(tmp_path.iterdir()) == [path]


def test_two_unfinished_files_of_one_folder_have_different_names(tmp_path):
    with staged(tmp_path / "a.json") as one, staged(tmp_path / "b.json") as other:
        one.write_text("a")
        other.write_text("b")
    assert [(tmp_path / name).read_text() for name in ("a.json", "b.json")] == ["a", "b"]


def test_the_first_error_is_the_one_that_is_raised(tmp_path, monkeypatch):
    """Not that of removing the temporary file."""

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    def fill_the_disk(path):
        path.write_text("half")
        monkeypatch.setattr(Path, "unlink", refuse)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="No space left"), staged(tmp_path / "file") as temporary:
        fill_the_disk(temporary)


KILLED = """
import os, signal
from pathlib import Path
from LiverUNetLib.system.files import staged
with staged(Path({path!r})) as temporary:
    temporary.mkdir() if {folder} else temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@unix_only
@pytest.mark.parametrize("folder", [False, True])
def test_unfinished_files_of_a_killed_process_are_removed_by_the_next_write(folder, tmp_path):
    subprocess.run(
        [sys.executable, "-c", KILLED.format(path=str(tmp_path / "mask.nii.gz"), folder=folder)], check=False
    )
    (left,) = tmp_path.iterdir()
    assert "unfinished" in left.name
    write_json(tmp_path / "other.json", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]


def test_files_that_may_still_be_written_and_other_names_stay(tmp_path):
    """This process is running; those of another computer cannot be checked, so only the age of their files counts."""
    with staged(tmp_path / "a.json") as mine:
        mine.write_text("")
        start, process, *rest = mine.name.split("-")
    live = f"{start}-{process}-{rest[0]}-unfinished.json"
    foreign, old = (f".{n * 8}-999999999-00000000-unfinished.nii.gz" for n in "0f")
    ours = (live, foreign, ".notes-unfinished", "results-unfinished.nii.gz")
    for name in (*ours, old):
        (tmp_path / name).write_text("")
    os.utime(tmp_path / old, (time.time() - 8 * 24 * 3600,) * 2)
    write_json(tmp_path / "other.json", 1)
    assert {path.name for path in tmp_path.iterdir()} == {*ours, "a.json", "other.json"}


def test_a_folder_that_is_not_there_yet_is_made_when_something_is_written(tmp_path):
    path = tmp_path / "new/below/result.json"
    check_writable(path)
    assert list(tmp_path.iterdir()) == []
    write_json(path, 1)
    assert path.read_text() == "1\n"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 300, "File name too long"),
        ("new/" + "x" * 300 + "/result.json", "File name too long"),
        ("file/below/result.json", "Not a directory"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(name, reason, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=reason):
        check_writable(tmp_path / name)


def test_the_command_line_makes_the_folders_of_its_outputs(a_ct_file, threshold_model, tmp_path):
    outputs = [tmp_path / "new" / name for name in ("m/mask.nii.gz", "p/p.nrrd", "j/j.json")]
    chosen = zip(("-o", "--probability", "--json"), map(str, outputs), strict=True)
    options = [word for pair in chosen for word in pair]
    none = str(tmp_path / "none")
    assert main(["segment", str(a_ct_file), *options, "--model", none]) == 1
    assert not (tmp_path / "new").exists()
    assert main(["segment", str(a_ct_file), *options, "--model", str(threshold_model.folder)]) == 0
    assert all(path.is_file() for path in outputs)


@pytest.mark.parametrize("place", ["scan", "-o", "--json", "--model"])
def test_an_impossible_name_is_refused_in_one_sentence_by_the_command_line(place, a_ct_file, threshold_model, capsys):
    long = str(a_ct_file.with_name("x" * 300 + ".nii.gz"))
    given = {"scan": str(a_ct_file), "--model": str(threshold_model.folder)} | {place: long}
    scan = given.pop("scan")
    assert main(["segment", scan, *(word for pair in given.items() for word in pair)]) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert [line.endswith("cannot be used (File name too long); name another.") for line in told] == [True]


@pytest.mark.parametrize("ending", [".nrrd", ".seg.nrrd"])
def test_an_image_whose_last_bytes_did_not_fit_on_the_disk_is_not_kept(ending, tmp_path, monkeypatch):
    """ITK's writer reports no error; its file is cut here, as on a full disk."""
    path = tmp_path / f"mask{ending}"
    write_volume(path, np.zeros((4, 5, 6), np.uint8), np.eye(4))
    before, write = path.read_bytes(), SimpleITK.WriteImage

    def cut(image, target, **options):
        write(image, target, **options)
        os.truncate(target, Path(target).stat().st_size - 3)

    monkeypatch.setattr(SimpleITK, "WriteImage", cut)
    with pytest.raises(OutputError, match=r"could not be written \(it is cut short\)"):
        write_volume(path, np.ones((4, 5, 6), np.uint8), np.eye(4))
    monkeypatch.setattr(itk, "FULL_DISK_BYTES", 2**62)
    with pytest.raises(OutputError, match=r"could not be written \(No space left on device\)"):
        write_volume(path, np.ones((4, 5, 6), np.uint8), np.eye(4))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 kB."""
    if not hasattr(os, "geteuid") or os.geteuid():
        pytest.skip("only root can mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def array_file(path, content):
    with staged(path) as temporary:
        save_array(temporary, content)


def tensor_file(path, content):
    with staged(path) as temporary:
        save_tensors(temporary, {"w": torch.from_numpy(content)})


def nrrd_file(path, content):
    write_volume(path, content.reshape(4, 4, -1), np.eye(4))


@pytest.mark.parametrize("write", [array_file, tensor_file, nrrd_file])
def test_a_full_disk_is_reported_by_every_writer(write, small_disk):
    """Files of many lengths and about as many free blocks as they need: for some, only the last bytes do not fit."""
    content = np.random.default_rng(0).integers(0, 255, 45056).astype(np.uint8)
    path = small_disk / "file.nrrd"
    written = refused = 0
    for length, blocks in itertools.product(range(41216, 45056, 512), (1, 9, 10, 11, 13)):
        (small_disk / "ballast").write_bytes(b"x" * (256 * 1024 - blocks * 4096))
        try:
            write(path, content[:length])
        except OutputError as error:
            assert "No space left on device" in str(error)  # noqa: PT017 - some fit
            refused += 1
        else:
            assert path.stat().st_size > 0.9 * length
            if write is nrrd_file:
                assert np.array_equal(read_volume(path).hu_kji.ravel(), content[:length])
            path.unlink()
            written += 1
        assert [left.name for left in small_disk.iterdir()] == ["ballast"]
    assert written
    assert refused
