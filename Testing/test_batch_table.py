"""The table of a batch survives spreadsheets, full disks and odd names."""

import csv
import errno
import sys
from pathlib import Path

import pytest

from helpers import read_table
from LiverUNetLib.cli.main import main
from LiverUNetLib.errors import OutputError
from LiverUNetLib.segmentation import batch
from LiverUNetLib.segmentation.batch import TABLE_NAME
from LiverUNetLib.segmentation.batch_table import TABLE_COLUMNS


def saved_by_a_spreadsheet(path, *, encoding="utf-8", separator=",", columns=None, change=lambda row: row):
    """Read the table and write it as a spreadsheet would."""
    rows = [change(row) for row in read_table(path.parent)]
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)


def cleared(column):
    return lambda row: row | {column: ""}


# How a table comes back, and whether its scans count as done.
SPREADSHEETS = {
    "byte order mark": ({"encoding": "utf-8-sig"}, True),
    "UTF-16": ({"encoding": "utf-16"}, True),
    "UTF-16 with tabs": ({"encoding": "utf-16", "separator": "\t"}, True),
    "Latin-1": ({"encoding": "cp1252"}, True),
    "semicolons": ({"separator": ";", "encoding": "utf-8-sig"}, True),
    "columns in another order": ({"columns": sorted(TABLE_COLUMNS)}, True),
    "one more column": ({"change": lambda row: row | {"radiologist": "Müller"}}, True),
    "decimal commas": ({"change": lambda row: row | {"volume_ml": row["volume_ml"].replace(".", ",")}}, True),
    "no volume": ({"change": cleared("volume_ml")}, False),
    "a volume that is a date": ({"change": lambda row: row | {"volume_ml": "18. Dez"}}, False),
    "no state": ({"change": cleared("state")}, False),
    "no stamp": ({"change": cleared("file_stamp")}, False),
    "an older table without some columns": (
        {"change": lambda row: {key: cell for key, cell in row.items() if key not in ("error", "series")}}, True
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPREADSHEETS)
def test_a_table_saved_by_a_spreadsheet_is_read_or_its_scans_are_segmented_again(kind, run_batch, scans, tmp_path):
    how, done = SPREADSHEETS[kind]
    (scans / "a.nii.gz").rename(scans / "Müller.nii.gz")
    (scans / "flat.nii.gz").unlink()
    run_batch()
    before = read_table(tmp_path / "out")
    masks = sorted((tmp_path / "out").glob("*_liver.nii.gz"))
    stamps = [mask.stat().st_mtime_ns for mask in masks]
    saved_by_a_spreadsheet(tmp_path / "out" / TABLE_NAME, **how)
    (scans / "new.nii.gz").write_bytes(b"")  # so that the table is written
    rows = run_batch()
    assert [row.state for row in rows] == ["done", "done", "failed"]
    assert ([mask.stat().st_mtime_ns for mask in masks] == stamps) is done
    table = read_table(tmp_path / "out")
    assert [row["file"] for row in table] == ["Müller.nii.gz", "b.nrrd", "new.nii.gz"]
    if done and kind != "decimal commas":
        assert [{key: row[key] for key in TABLE_COLUMNS} for row in table[:2]] == before
    if kind == "one more column":
        assert [row["radiologist"] for row in table] == ["Müller", "Müller", ""]


def test_a_column_of_the_user_stays_when_its_scan_is_segmented_again(run_batch, tmp_path):
    run_batch()
    saved_by_a_spreadsheet(tmp_path / "out" / TABLE_NAME, change=lambda row: row | {"radiologist": "Müller"})
    (tmp_path / "out/a_liver.nii.gz").unlink()
    run_batch()
    assert [row["radiologist"] for row in read_table(tmp_path / "out")] == ["Müller"] * 3


FOREIGN = {
    "other columns": b"file,volume\na.nii.gz,3\n",
    "other columns and no row": b"patient,volume\n",
    "no table": b"\x00\x01\xff" * 40,
    "UTF-16 cut short": "file,state".encode("utf-16")[:-1],
    "cells without a column": ",".join(TABLE_COLUMNS).encode() + b"\n" + b"x," * len(TABLE_COLUMNS) + b"mine\n",
    "a quote without end": ",".join(TABLE_COLUMNS).encode() + b'\n"' + b"x" * 200_000,
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_table_of_another_kind_is_never_overwritten(kind, run_batch, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / TABLE_NAME).write_bytes(FOREIGN[kind])
    with pytest.raises(
        OutputError, match=r"liver\.csv is not a table of LiverUNet; move it away or name another folder"
    ):
        run_batch()
    assert (tmp_path / "out" / TABLE_NAME).read_bytes() == FOREIGN[kind]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [TABLE_NAME]


def test_an_empty_table_counts_as_missing(run_batch, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / TABLE_NAME).touch()
    assert [row.state for row in run_batch()] == ["done", "done", "failed"]


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no UTF-8 exist on Linux alone")
def test_a_scan_whose_name_is_not_utf_8_is_segmented_once(run_batch, scans, tmp_path):
    name = b"M\xfcller.nii.gz".decode("utf-8", "surrogateescape")
    (scans / "a.nii.gz").rename(scans / name)
    assert run_batch()[0].file == "M\\udcfcller.nii.gz"
    mask = tmp_path / "out" / name.replace(".nii.gz", "_liver.nii.gz")
    stamp = mask.stat().st_mtime_ns
    assert run_batch()[0].state == "done"
    assert mask.stat().st_mtime_ns == stamp


def test_a_full_disk_ends_a_batch_in_one_sentence_and_keeps_the_earlier_table(
    scans, tmp_path, threshold_model, monkeypatch, capsys
):
    """The disk is full from the second scan on."""
    write, writes = batch.write_table, []

    def write_until_full(path, rows):
        writes.append(path)
        if len(writes) > 1:
            monkeypatch.setattr(Path, "replace", full)
        write(path, rows)

    def full(self, _target):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(batch, "write_table", write_until_full)
    arguments = ["batch", str(scans), "-o", str(tmp_path / "out"), "--model", str(threshold_model.folder)]
    assert main([*arguments, "--device", "cpu"]) == 1
    assert (
        capsys.readouterr().err.splitlines()[-1].endswith("liver.csv could not be written (No space left on device).")
    )
    assert [row["file"] for row in read_table(tmp_path / "out")] == ["a.nii.gz"]
    assert not [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
