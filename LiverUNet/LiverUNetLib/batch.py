"""Many scans with one model: a folder of scans becomes a folder of segmentations and a table."""

from __future__ import annotations

import csv
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .environment import Device
from .errors import LiverUNetError, OutputError, ScanError
from .files import check_writable, staged
from .formats import READERS, check_output_name, read_volume, scan_stem, write_volume
from .model import LiverModel
from .pipeline import segment
from .steps import Progress, prefixed
from .summary import COLUMNS, table_row

if TYPE_CHECKING:
    from torch import nn

__all__ = ["TABLE_NAME", "find_scans", "segment_folder"]

TABLE_NAME = "liver.csv"
TABLE_COLUMNS = ("file", "state", *COLUMNS, "model_checksum")
DONE, FAILED = "done", "failed"


def find_scans(folder: Path) -> list[Path]:
    """The scans in a folder: files of a known format, and subfolders as DICOM; masks beside them are passed over.

    Raises:
        ScanError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise ScanError(f"The folder {folder} does not exist.")
    masks = (".seg", "_liver", "_seg", "_mask")
    scans = [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
        and (path.is_dir() or path.name.lower().endswith(tuple(READERS)))
        and not scan_stem(path).lower().endswith(masks)
    ]
    if not scans:
        raise ScanError(f"{folder} holds no scan: neither {', '.join(READERS)} nor folders of DICOM files.")
    return scans


def segment_folder(
    source: Path, target: Path, model: LiverModel, device: Device, *, ending: str = ".seg.nrrd"
) -> Generator[Progress, None, list[dict[str, Any]]]:
    """Segment every scan of a folder; returns the rows of the table TARGET/liver.csv.

    The model is loaded once. A scan that this very model has done before is passed over; one that
    fails becomes a row that says why, and the rest go on. The table is written after every scan.

    Args:
        target: made if missing; a mask is called `<scan>_liver<ending>`.

    Raises:
        ScanError: the source holds no scan.
        OutputError: the target cannot be written to, or is the source.
        ModelError: the model is changed or damaged.
    """
    scans = find_scans(source)
    if target.resolve() == source.resolve():
        raise OutputError(f"{target} holds the scans; name another folder for the segmentations.")
    check_output_name(Path(f"x{ending}"))
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {target} cannot be made ({error.strerror}).") from error
    table = target / TABLE_NAME
    check_writable(table, overwrite=True)
    before = {row["file"]: row for row in _read_table(table)}
    network = model.network()
    rows: list[dict[str, Any]] = []
    for number, scan in enumerate(scans, start=1):
        mask = target / f"{scan_stem(scan)}_liver{ending}"
        row = before.get(scan.name)
        if row is None or not _is_done(row, mask, model):
            steps = _segment_file(scan, mask, model, device, network)
            said = yield from prefixed(f"{scan.name} ({number} of {len(scans)})", steps)
            row = {"file": scan.name, "model_checksum": model.card.checksum} | said
        rows.append(row)
        _write_table(table, rows)
    return rows


def _segment_file(
    scan: Path, mask: Path, model: LiverModel, device: Device, network: nn.Module
) -> Generator[Progress, None, dict[str, Any]]:
    """A row for whatever happens; no mask is written where there is no liver."""
    try:
        volume = read_volume(scan)
        result = yield from segment(volume, model, device, network=network)
        if result.measurement.volume_ml:
            write_volume(mask, result.mask_kji, volume.affine)
    except LiverUNetError as error:
        return {"state": FAILED, "warnings": str(error)}
    return {"state": DONE} | table_row(result)


def _is_done(row: dict[str, Any], mask: Path, model: LiverModel) -> bool:
    """Whether this very model has done the scan, and its mask, if there was a liver, is still there."""
    same = row["state"] == DONE and row["model_checksum"] == model.card.checksum
    return same and (mask.exists() or float(row["volume_ml"]) == 0)


def _read_table(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if rows and set(rows[0]) != set(TABLE_COLUMNS):
        raise OutputError(f"{path} is not a table of LiverUNet; move it away or name another folder.")
    return rows


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    with staged(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, TABLE_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
