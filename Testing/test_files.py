"""Files and folders appear whole or not at all."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from LiverUNetLib.errors import OutputError, ScanError
from LiverUNetLib.files import exists, make_folder, staged, stamp
from LiverUNetLib.formats import write_volume


def fill(folder, text):
    folder.mkdir()
    (folder / "content").write_text(text)


def interrupted(folder):
    fill(folder, "half")
    raise KeyboardInterrupt


def test_a_folder_replaces_an_older_one_when_it_is_whole(tmp_path):
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


def test_a_link_to_a_folder_is_replaced_and_what_it_led_to_stays(tmp_path):
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


def test_a_stamp_knows_a_file_and_a_folder_from_a_changed_one(tmp_path):
    fill(tmp_path / "folder", "old")
    before = stamp(tmp_path / "folder"), stamp(tmp_path / "folder/content")
    (tmp_path / "folder/content").write_text("longer")
    after = stamp(tmp_path / "folder"), stamp(tmp_path / "folder/content")
    assert not set(before) & set(after)


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nrrd", "mask.seg.nrrd"])
def test_an_image_that_cannot_be_finished_leaves_the_one_before(name, tmp_path, monkeypatch):
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


def test_a_folder_is_made_with_those_above_it_or_the_reason_is_told(tmp_path):
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


def test_a_name_that_no_disk_can_hold_is_told_in_one_sentence(tmp_path):
    assert exists(tmp_path, ScanError)
    assert not exists(tmp_path / "none", ScanError)
    with pytest.raises(ScanError, match=r"x cannot be used \(File name too long\); name another"):
        exists(tmp_path / ("x" * 300), ScanError)
