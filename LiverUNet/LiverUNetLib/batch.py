"""Many scans with one model: a folder of scans becomes a folder of segmentations and a table."""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .environment import Device
from .errors import LiverUNetError, OutputError, ScanError
from .files import check_writable, staged, stamp
from .formats import READERS, check_output, check_output_name, read_volume, scan_stem, write_mask
from .model import LiverModel
from .pipeline import segment
from .steps import Progress, prefixed
from .summary import COLUMNS, table_row

if TYPE_CHECKING:
    from torch import nn

__all__ = ["TABLE_NAME", "find_scans", "segment_folder"]

TABLE_NAME = "liver.csv"
TABLE_COLUMNS = ("file", "state", *COLUMNS, "model_checksum", "file_stamp")
DONE, FAILED = "done", "failed"


def find_scans(folder: Path, *, besides: Path | None = None) -> list[Path]:
    """The scans in a folder: files of a known format, and subfolders as DICOM; masks beside them are passed over.

    Args:
        besides: a subfolder that is no scan.

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
        and not (besides and path.resolve() == besides.resolve())
    ]
    if not scans:
        raise ScanError(f"{folder} holds no scan: neither {', '.join(READERS)} nor folders of DICOM files.")
    return scans


def segment_folder(
    source: Path, target: Path, model: LiverModel, device: Device, *, ending: str = ".seg.nrrd"
) -> Generator[Progress, None, list[dict[str, Any]]]:
    """Segment every scan of a folder; returns the rows of the table TARGET/liver.csv.

    The model is loaded once. A scan that this very model has done before and that has not changed
    since is passed over; one that fails becomes a row that says why, and the rest go on. The table
    is written after every scan, and keeps the rows of other scans. A scan has a mask only if its
    row says so.

    Args:
        target: made if missing; a mask is called `<scan>_liver<ending>`.

    Raises:
        ScanError: the source holds no scan, or two whose masks would have one name.
        OutputError: the target cannot be written to, or is the source.
        ModelError: the model is changed or damaged.
    """
    if target.resolve() == source.resolve():
        raise OutputError(f"{target} holds the scans; name another folder for the segmentations.")
    scans = find_scans(source, besides=target)
    _check_names(scans)
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
        made_of = {"model_checksum": model.card.checksum, "file_stamp": "-".join(map(str, stamp(scan)))}
        row = before.get(scan.name)
        if row is None or not _is_done(row, mask, made_of):
            steps = _segment_file(scan, mask, model, device, network)
            said = yield from prefixed(f"{scan.name} ({number} of {len(scans)})", steps)
            row = before[scan.name] = {"file": scan.name} | made_of | said
            _write_table(table, sorted(before.values(), key=lambda row: row["file"]))
        rows.append(row)
    return rows


def _check_names(scans: Sequence[Path]) -> None:
    """Raise ScanError if two scans differ in their format alone: their masks would have one name."""
    first: dict[str, Path] = {}
    for scan in scans:
        other = first.setdefault(scan_stem(scan), scan)
        if other != scan:
            raise ScanError(f"{other.name} and {scan.name} would share one mask; rename one of them.")


def _segment_file(
    scan: Path, mask: Path, model: LiverModel, device: Device, network: nn.Module
) -> Generator[Progress, None, dict[str, Any]]:
    """A row for whatever happens; where there is no liver, no mask is written, and an older one goes."""
    try:
        volume = read_volume(scan)
        check_output(mask, volume.affine)
        result = yield from segment(volume, model, device, network=network)
        if result.measurement.volume_ml:
            write_mask(mask, result.mask_kji, volume)
        else:
            mask.unlink(missing_ok=True)
    except LiverUNetError as error:
        mask.unlink(missing_ok=True)
        return {"state": FAILED, "warnings": str(error)}
    return {"state": DONE} | table_row(result)


def _is_done(row: dict[str, Any], mask: Path, made_of: dict[str, str]) -> bool:
    """Whether this very model has done this very scan, and its mask, if there was a liver, is still there."""
    same = row["state"] == DONE and made_of.items() <= row.items()
    return same and (mask.exists() or float(row["volume_ml"]) == 0)


def _read_table(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if rows and set(rows[0]) != set(TABLE_COLUMNS):
        raise OutputError(f"{path} is not a table of LiverUNet; move it away or name another folder.")
    return rows


def _write_table(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with staged(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, TABLE_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
