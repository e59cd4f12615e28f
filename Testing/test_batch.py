"""Segmenting a folder of scans into a folder of masks and a table."""

import errno
import signal
import subprocess
import sys

import numpy as np
import pytest

from dicom_files import write_series
from helpers import dice, read_table, unix_only
from LiverUNetLib.cli.main import main
from LiverUNetLib.errors import OutputError, ScanError
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.scan.formats import read_mask, write_volume
from LiverUNetLib.segmentation import batch
from LiverUNetLib.segmentation.batch import TABLE_NAME, find_scans, segment_folder
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.segmentation.summary import sentence, table_row
from LiverUNetLib.steps import finish


@pytest.mark.slow
def test_every_scan_gets_a_mask_and_a_row_and_a_bad_one_an_error(run_batch, tmp_path, a_phantom):
    rows = run_batch()
    out = tmp_path / "out"
    assert [row.state for row in rows] == ["done", "done", "failed"]
    assert sorted(path.name for path in out.iterdir()) == ["a_liver.nii.gz", "b_liver.nii.gz", TABLE_NAME]
    assert dice(read_mask(out / "a_liver.nii.gz").hu_kji, a_phantom[1]) > 0.9
    table = read_table(out)
    assert [row["file"] for row in table] == ["a.nii.gz", "b.nrrd", "flat.nii.gz"]
    assert float(table[0]["volume_ml"]) > 1000
    assert "flat.nii.gz is constant" in table[2]["error"]
    assert table[2]["warnings"] == ""
    assert table[0]["error"] == ""


@unix_only
def test_a_dead_link_and_a_vanished_file_become_failed_rows_and_the_others_are_done(run_batch, scans, monkeypatch):
    (scans / "0.nii.gz").symlink_to(scans / "never fetched.nii.gz")
    (scans / "loop.nii.gz").symlink_to(scans / "loop.nii.gz")
    found = batch.find_scans

    def find_and_lose(*arguments, **options):
        scans_found = found(*arguments, **options)
        (scans / "a.nii.gz").unlink()
        return scans_found

    monkeypatch.setattr(batch, "find_scans", find_and_lose)
    rows = {row.file: row for row in run_batch()}
    assert {name: row.state for name, row in rows.items()} == {
        "0.nii.gz": "failed", "a.nii.gz": "failed", "b.nrrd": "done", "flat.nii.gz": "failed", "loop.nii.gz": "failed",
    }  # fmt: skip
    assert "a.nii.gz does not exist" in rows["a.nii.gz"].error
    assert not any("bug" in row.error for row in rows.values())


@pytest.mark.parametrize("place", ["segmentation.batch.read_volume", "scan.formats.exists"])
def test_a_bug_fails_one_row_that_names_its_file_and_its_traceback_is_logged(
    place, scans, tmp_path, threshold_model, monkeypatch, caplog
):
    def with_a_bug(path, *more, **options):
        return {}["nothing"] if path.name == "a.nii.gz" else whole(path, *more, **options)

    module, name = f"LiverUNetLib.{place}".rsplit(".", 1)
    whole = getattr(sys.modules[module], name)
    monkeypatch.setattr(sys.modules[module], name, with_a_bug)
    arguments = ["batch", str(scans), "-o", str(tmp_path / "out"), "--model", str(threshold_model.folder)]
    assert main([*arguments, "--device", "cpu"]) == 1
    rows = read_table(tmp_path / "out")
    assert [row["state"] for row in rows] == ["failed", "done", "failed"]
    assert f"This is a bug of LiverUNet: KeyError in {place.split('.')[1]}.py, line " in rows[0]["error"]
    assert "('nothing')" in rows[0]["error"]
    assert "Traceback" in caplog.text
    assert "with_a_bug" in caplog.text


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (MemoryError(), "a.nii.gz needs more memory than this machine has free"),
        (
            OSError(errno.EIO, "Input/output error", "a"),
            "a.nii.gz could not be read or its mask not be written ([Errno 5]",
        ),
    ],
)
def test_too_little_memory_and_a_broken_disk_are_not_reported_as_bugs(raised, expected, run_batch, monkeypatch):
    def fail(_path, **_options):
        raise raised

    monkeypatch.setattr(batch, "read_volume", fail)
    assert run_batch()[0].error.startswith(expected)


@pytest.fixture
def studies(a_phantom, tmp_path):
    """Two patients, each a folder with an arterial and a thinner portal series."""
    volume, _ = a_phantom
    for patient in ("p1", "p2"):
        write_series(tmp_path / f"studies/{patient}/1", volume, SeriesDescription="ARTERIAL", SeriesNumber=1)
        write_series(tmp_path / f"studies/{patient}/2", volume, SeriesDescription="PORTAL VENOUS", SeriesNumber=2)
    return tmp_path / "studies"


@pytest.mark.slow
def test_one_rule_chooses_the_series_of_every_study(studies, tmp_path, threshold_model, capsys):
    arguments = ["batch", str(studies), "-o", str(tmp_path / "out"), "--model", str(threshold_model.folder)]
    arguments += ["--device", "cpu"]
    assert main(arguments) == 1
    assert "2 (PORTAL VENOUS" in read_table(tmp_path / "out")[0]["error"]
    assert main([*arguments, "--series", "portal venous"]) == 0
    rows = read_table(tmp_path / "out")
    assert [(row["state"], row["series"], row["error"]) for row in rows] == [("done", "portal venous", "")] * 2
    assert len(list((tmp_path / "out").glob("*_liver.nii.gz"))) == 2


@pytest.mark.slow
def test_another_choice_of_series_segments_a_scan_again(studies, tmp_path, threshold_model, cpu):
    def stamps(series):
        finish(segment_folder(studies, tmp_path / "out", threshold_model, cpu, series=series))
        return [path.stat().st_mtime_ns for path in sorted((tmp_path / "out").glob("*.seg.nrrd"))]

    first = stamps("2")
    assert stamps("2") == first
    again = stamps("1")
    assert len(again) == 2
    assert not set(again) & set(first)


@pytest.mark.slow
def test_scans_segmented_by_another_model_are_segmented_again(scans, tmp_path, threshold_model, two_looks_model, cpu):
    (scans / "b.nrrd").unlink()
    (scans / "flat.nii.gz").unlink()
    mask, stamps = tmp_path / "out/a_liver.seg.nrrd", []
    for model in (threshold_model, threshold_model, two_looks_model, two_looks_model, threshold_model):
        (row,) = finish(segment_folder(scans, tmp_path / "out", model, cpu))
        assert (row.state, row.measured["model"], row.model_checksum) == (
            "done",
            f"{model.card.name} 1",
            model.card.checksum,
        )
        stamps.append(mask.stat().st_mtime_ns)
    assert stamps[0] == stamps[1] < stamps[2] == stamps[3] < stamps[4]
    assert len(read_table(tmp_path / "out")) == 1


def test_the_model_is_loaded_once_and_finished_scans_are_skipped(run_batch, tmp_path, monkeypatch):
    loads, networks = [], LiverModel.networks
    monkeypatch.setattr(
        LiverModel, "networks", lambda *given, **options: loads.append(given) or networks(*given, **options)
    )
    run_batch()
    assert len(loads) == 1
    (tmp_path / "out/b_liver.nii.gz").unlink()
    stamp = (tmp_path / "out/a_liver.nii.gz").stat().st_mtime_ns
    rows = run_batch()
    assert (tmp_path / "out/a_liver.nii.gz").stat().st_mtime_ns == stamp
    assert (tmp_path / "out/b_liver.nii.gz").exists()
    assert [row.state for row in rows] == ["done", "done", "failed"]


def test_networks_that_are_already_loaded_are_used(scans, threshold_model, cpu, tmp_path, monkeypatch):
    networks = threshold_model.networks(cpu)
    monkeypatch.setattr(LiverModel, "networks", lambda *_: pytest.fail("it is loaded again"))
    rows = finish(segment_folder(scans, tmp_path / "out", threshold_model, cpu, networks=networks))
    assert [row.state for row in rows] == ["done", "done", "failed"]


def test_a_scan_without_liver_has_a_row_but_no_mask(a_phantom, tmp_path, threshold_model, cpu):
    volume, _ = a_phantom
    (tmp_path / "in").mkdir()
    hu = np.where(volume.hu_kji > 0, 20, volume.hu_kji).astype(np.int16)
    write_volume(tmp_path / "in/legs.nii.gz", hu, volume.affine)
    for _ in range(2):
        rows = finish(segment_folder(tmp_path / "in", tmp_path / "out", threshold_model, cpu))
        assert rows[0].volume_ml == 0
        assert "No liver was found" in rows[0].measured["warnings"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [TABLE_NAME]


def test_progress_names_scan_and_stage(scans, tmp_path, threshold_model, cpu):
    stages = []
    steps = segment_folder(scans, tmp_path / "out", threshold_model, cpu)
    finish(steps, lambda progress: stages.append(progress.stage))
    assert "b.nrrd (2 of 3): Segmenting" in stages


def test_a_cancelled_run_keeps_finished_scans(scans, tmp_path, threshold_model, cpu):
    steps = segment_folder(scans, tmp_path / "out", threshold_model, cpu)
    while not next(steps).stage.startswith("b.nrrd"):
        pass
    steps.close()
    assert [row["file"] for row in read_table(tmp_path / "out")] == ["a.nii.gz"]
    assert not list((tmp_path / "out").glob("b*"))


def test_bad_folders_get_one_sentence(run_batch, scans, tmp_path, threshold_model, cpu):
    with pytest.raises(ScanError, match=r"The folder .* does not exist"):
        find_scans(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScanError, match="holds no scan"):
        find_scans(tmp_path / "empty")
    with pytest.raises(OutputError, match="holds the scans; name another folder"):
        finish(segment_folder(scans, scans, threshold_model, cpu))
    with pytest.raises(OutputError, match="its name must end in"):
        run_batch(ending=".png")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / TABLE_NAME).write_text("a,b\n1,2\n")
    with pytest.raises(OutputError, match="is not a table of LiverUNet; move it away"):
        run_batch("foreign")


def test_the_command_line_prints_a_line_for_each_scan_and_fails_if_one_failed(scans, tmp_path, threshold_model, capsys):
    arguments = ["batch", str(scans), "-o", str(tmp_path / "out"), "--model", str(threshold_model.folder)]
    assert main([*arguments, "--device", "cpu"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith("a.nii.gz: ")
    assert "2 of 3 scans segmented; table in" in out
    assert err.rstrip().endswith("1 of 3 scans could not be segmented; the table gives the reasons.")


def test_the_table_keeps_the_rows_of_other_scans(run_batch, scans, tmp_path):
    run_batch()
    stamp = (tmp_path / "out/b_liver.nii.gz").stat().st_mtime_ns
    (scans / "b.nrrd").rename(tmp_path / "b.nrrd")
    assert [row.file for row in run_batch()] == ["a.nii.gz", "flat.nii.gz"]
    assert [row["file"] for row in read_table(tmp_path / "out")] == ["a.nii.gz", "b.nrrd", "flat.nii.gz"]
    (tmp_path / "b.nrrd").rename(scans / "b.nrrd")
    run_batch()
    assert (tmp_path / "out/b_liver.nii.gz").stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_a_replaced_scan_is_segmented_again_and_its_old_mask_is_removed(run_batch, scans, tmp_path, a_phantom):
    run_batch()
    hu = np.where(a_phantom[0].hu_kji > 0, 20, a_phantom[0].hu_kji).astype(np.int16)
    write_volume(scans / "a.nii.gz", hu, a_phantom[0].affine)
    (scans / "b.nrrd").write_bytes(b"NRRD0004")
    rows = run_batch()
    assert rows[0].volume_ml == 0
    assert rows[1].state == "failed"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [TABLE_NAME]


def test_two_scans_that_would_share_a_mask_are_refused(run_batch, scans, tmp_path, a_phantom):
    write_volume(scans / "b.nii.gz", a_phantom[0].hu_kji, a_phantom[0].affine)
    with pytest.raises(ScanError, match=r"b\.nii\.gz and b\.nrrd would share one mask"):
        run_batch()
    assert not (tmp_path / "out").exists()


def test_the_folder_of_masks_may_be_inside_the_folder_of_scans(run_batch, scans):
    for _ in range(2):
        assert len(run_batch(f"{scans.name}/livers")) == 3


def test_the_table_gives_width_depth_and_height(a_phantom, threshold_model, cpu):
    result = finish(segment(a_phantom[0], threshold_model, cpu))
    row = table_row(result)
    height, depth, width = result.measurement.extent_mm
    assert len({height, depth, width}) == 3
    assert [row[name] for name in ("width_mm", "depth_mm", "height_mm")] == pytest.approx(
        [width, depth, height], abs=0.1
    )
    assert f"{width:.0f} mm wide, {depth:.0f} mm deep, {height:.0f} mm high" in sentence(result)


@pytest.mark.slow
@unix_only
def test_a_kill_loses_only_the_current_scan(scans, tmp_path, threshold_model, cpu):
    """The process stops while it reads the second scan, and is killed there."""
    code = (
        "import sys, time; from LiverUNetLib.cli.main import main; from LiverUNetLib.segmentation import batch\n"
        "read = batch.read_volume\n"
        "def wait(path, **options):\n"
        "    if path.name == 'b.nrrd': print('waiting', flush=True); time.sleep(600)\n"
        "    return read(path, **options)\n"
        "batch.read_volume = wait; main()"
    )
    words = ["batch", scans, "-o", tmp_path / "out", "--model", threshold_model.folder, "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"waiting\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    stamp = (tmp_path / "out/a_liver.nii.gz").stat().st_mtime_ns
    assert [row["file"] for row in read_table(tmp_path / "out")] == ["a.nii.gz"]
    finish(segment_folder(scans, tmp_path / "out", threshold_model, cpu, ending=".nii.gz"))
    assert [row["state"] for row in read_table(tmp_path / "out")] == ["done", "done", "failed"]
    assert (tmp_path / "out/a_liver.nii.gz").stat().st_mtime_ns == stamp
