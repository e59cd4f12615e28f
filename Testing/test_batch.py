"""A folder of scans becomes a folder of masks and a table."""

import csv

import numpy as np
import pytest

from helpers import dice
from LiverUNetLib.batch import TABLE_NAME, find_scans, segment_folder
from LiverUNetLib.cli import main
from LiverUNetLib.errors import OutputError, ScanError
from LiverUNetLib.formats import read_mask, write_volume
from LiverUNetLib.model import LiverModel
from LiverUNetLib.pipeline import segment
from LiverUNetLib.steps import finish
from LiverUNetLib.summary import sentence, table_row


@pytest.fixture
def scans(a_phantom, tmp_path):
    """Two good scans, a bad one, and a mask that lies beside them."""
    folder = tmp_path / "scans with späces"
    folder.mkdir()
    volume, liver = a_phantom
    write_volume(folder / "a.nii.gz", volume.hu_kji, volume.affine)
    write_volume(folder / "b.nrrd", volume.hu_kji, volume.affine)
    write_volume(folder / "flat.nii.gz", np.zeros((4, 4, 4), np.int16), np.eye(4))
    write_volume(folder / "a_liver.nii.gz", liver, volume.affine)
    return folder


@pytest.fixture
def run(scans, tmp_path, threshold_model, cpu):
    def start(target="out", ending=".nii.gz"):
        return finish(segment_folder(scans, tmp_path / target, threshold_model, cpu, ending=ending))

    return start


def read_table(folder):
    with (folder / TABLE_NAME).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_scan_gets_a_mask_and_a_row_and_a_bad_one_says_why(run, tmp_path, a_phantom):
    rows = run()
    out = tmp_path / "out"
    assert [row["state"] for row in rows] == ["done", "done", "failed"]
    assert sorted(path.name for path in out.iterdir()) == ["a_liver.nii.gz", "b_liver.nii.gz", TABLE_NAME]
    assert dice(read_mask(out / "a_liver.nii.gz").hu_kji, a_phantom[1]) > 0.9
    table = read_table(out)
    assert [row["file"] for row in table] == ["a.nii.gz", "b.nrrd", "flat.nii.gz"]
    assert float(table[0]["volume_ml"]) > 1000
    assert "flat.nii.gz is constant" in table[2]["warnings"]


def test_the_model_is_loaded_once_and_what_is_done_is_not_done_again(run, tmp_path, monkeypatch):
    loads, network = [], LiverModel.network
    monkeypatch.setattr(LiverModel, "network", lambda self: loads.append(self) or network(self))
    run()
    assert len(loads) == 1
    (tmp_path / "out/b_liver.nii.gz").unlink()
    stamp = (tmp_path / "out/a_liver.nii.gz").stat().st_mtime_ns
    rows = run()
    assert (tmp_path / "out/a_liver.nii.gz").stat().st_mtime_ns == stamp
    assert (tmp_path / "out/b_liver.nii.gz").exists()
    assert [row["state"] for row in rows] == ["done", "done", "failed"]


def test_a_scan_without_liver_has_a_row_and_no_mask(a_phantom, tmp_path, threshold_model, cpu):
    volume, _ = a_phantom
    (tmp_path / "in").mkdir()
    hu = np.where(volume.hu_kji > 0, 20, volume.hu_kji).astype(np.int16)
    write_volume(tmp_path / "in/legs.nii.gz", hu, volume.affine)
    for _ in range(2):
        rows = finish(segment_folder(tmp_path / "in", tmp_path / "out", threshold_model, cpu))
        assert float(rows[0]["volume_ml"]) == 0
        assert "No liver was found" in rows[0]["warnings"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [TABLE_NAME]


def test_progress_names_scan_and_stage(scans, tmp_path, threshold_model, cpu):
    stages = []
    steps = segment_folder(scans, tmp_path / "out", threshold_model, cpu)
    finish(steps, lambda progress: stages.append(progress.stage))
    assert "b.nrrd (2 of 3): Segmenting" in stages


def test_a_run_that_is_cancelled_keeps_what_it_has_finished(scans, tmp_path, threshold_model, cpu):
    steps = segment_folder(scans, tmp_path / "out", threshold_model, cpu)
    while not next(steps).stage.startswith("b.nrrd"):
        pass
    steps.close()
    assert [row["file"] for row in read_table(tmp_path / "out")] == ["a.nii.gz"]
    assert not list((tmp_path / "out").glob("b*"))


def test_bad_folders_get_one_sentence(run, scans, tmp_path, threshold_model, cpu):
    with pytest.raises(ScanError, match=r"The folder .* does not exist"):
        find_scans(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScanError, match="holds no scan"):
        find_scans(tmp_path / "empty")
    with pytest.raises(OutputError, match="holds the scans; name another folder"):
        finish(segment_folder(scans, scans, threshold_model, cpu))
    with pytest.raises(OutputError, match="its name must end in"):
        run(ending=".png")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / TABLE_NAME).write_text("a,b\n1,2\n")
    with pytest.raises(OutputError, match="is not a table of LiverUNet; move it away"):
        run("foreign")


def test_the_command_line_prints_a_line_for_each_and_fails_if_one_did(scans, tmp_path, threshold_model, capsys):
    arguments = ["batch", str(scans), "-o", str(tmp_path / "out"), "--model", str(threshold_model.folder)]
    assert main([*arguments, "--device", "cpu"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith("a.nii.gz: ")
    assert "2 of 3 scans segmented; table in" in out
    assert err.rstrip().endswith("1 of 3 scans could not be segmented; the table says why.")


def test_the_table_keeps_the_rows_of_other_scans(run, scans, tmp_path):
    run()
    stamp = (tmp_path / "out/b_liver.nii.gz").stat().st_mtime_ns
    (scans / "b.nrrd").rename(tmp_path / "b.nrrd")
    assert [row["file"] for row in run()] == ["a.nii.gz", "flat.nii.gz"]
    assert [row["file"] for row in read_table(tmp_path / "out")] == ["a.nii.gz", "b.nrrd", "flat.nii.gz"]
    (tmp_path / "b.nrrd").rename(scans / "b.nrrd")
    run()
    assert (tmp_path / "out/b_liver.nii.gz").stat().st_mtime_ns == stamp


def test_a_scan_that_was_replaced_is_done_again_and_loses_an_old_mask(run, scans, tmp_path, a_phantom):
    run()
    hu = np.where(a_phantom[0].hu_kji > 0, 20, a_phantom[0].hu_kji).astype(np.int16)
    write_volume(scans / "a.nii.gz", hu, a_phantom[0].affine)
    (scans / "b.nrrd").write_bytes(b"NRRD0004")
    rows = run()
    assert float(rows[0]["volume_ml"]) == 0
    assert rows[1]["state"] == "failed"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [TABLE_NAME]


def test_two_scans_that_would_share_a_mask_are_refused(run, scans, tmp_path, a_phantom):
    write_volume(scans / "b.nii.gz", a_phantom[0].hu_kji, a_phantom[0].affine)
    with pytest.raises(ScanError, match=r"b\.nii\.gz and b\.nrrd would share one mask"):
        run()
    assert not (tmp_path / "out").exists()


def test_the_masks_may_lie_in_a_folder_among_the_scans(run, scans):
    for _ in range(2):
        assert len(run(f"{scans.name}/livers")) == 3


def test_the_table_gives_width_depth_and_height(a_phantom, threshold_model, cpu):
    result = finish(segment(a_phantom[0], threshold_model, cpu))
    row = table_row(result)
    height, depth, width = result.measurement.extent_mm
    assert len({height, depth, width}) == 3
    assert [row[name] for name in ("width_mm", "depth_mm", "height_mm")] == pytest.approx(
        [width, depth, height], abs=0.1
    )
    assert f"{width:.0f} mm wide, {depth:.0f} mm deep, {height:.0f} mm high" in sentence(result)
