"""Segment a folder of scans with one model into a folder of masks and a table."""

from __future__ import annotations

import contextlib
import logging
import os
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import LiverUNetError, OutputError, ScanError
from ..models.folder import LiverModel, Networks
from ..scan.formats import READERS, check_output, check_output_name, read_volume, scan_stem, write_mask
from ..steps import Steps, prefixed
from ..system.environment import Device
from ..system.files import check_writable, stamp
from .batch_table import DONE, FAILED, BatchRow, printable, read_table, write_table
from .pipeline import segment
from .summary import table_row

__all__ = ["TABLE_NAME", "find_scans", "segment_folder"]

logger = logging.getLogger(__name__)

TABLE_NAME = "liver.csv"


def find_scans(folder: Path, *, besides: Path | None = None) -> list[Path]:
    """The scans in a folder: files of a known format, and subfolders as DICOM. Masks are skipped.

    Args:
        besides: a subfolder that is not a scan.

    Raises:
        ScanError: the folder does not exist, cannot be listed, or holds no scan.
    """
    masks = (".seg", "_liver", "_seg", "_mask")
    try:
        scans = [
            path
            for path in sorted(folder.iterdir())
            if not path.name.startswith(".")
            and (path.is_dir() or path.name.lower().endswith(tuple(READERS)))
            and not scan_stem(path).lower().endswith(masks)
            and not (besides and os.path.realpath(path) == os.path.realpath(besides))
        ]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ScanError(f"The folder {folder} does not exist.") from error
    except OSError as error:
        raise ScanError(f"The folder {folder} cannot be listed ({error.strerror}); name another.") from error
    if not scans:
        raise ScanError(f"{folder} holds no scan: neither {', '.join(READERS)} nor folders of DICOM files.")
    return scans


def segment_folder(
    source: Path,
    target: Path,
    model: LiverModel,
    device: Device,
    *,
    networks: Networks | None = None,
    ending: str = ".seg.nrrd",
    series: str | None = None,
) -> Steps[list[BatchRow]]:
    """Segment every scan of a folder; return its rows of the table TARGET/liver.csv.

    The model is loaded once. A scan is skipped if the same model has segmented it with the same choice of
    series, and it has not changed since. A scan that fails gets a row with the reason in `error`, and the
    others are still processed. The table is written after every scan, and rows of scans that are not in the
    folder are kept. A mask exists only for scans with a liver.

    Args:
        networks: `model.networks(device)`, if they are already loaded.
        target: made if missing; masks are called `<scan>_liver<ending>`.
        series: as in `read_volume`, for all scans.

    Raises:
        ScanError: the source holds no scan, or two scans whose masks would have the same name.
        OutputError: the target cannot be written to, or is the source.
        ModelError: the model was changed or is damaged.
    """
    if os.path.realpath(target) == os.path.realpath(source):
        raise OutputError(f"{target} holds the scans; name another folder for the segmentations.")
    scans = find_scans(source, besides=target)
    _check_names(scans)
    check_output_name(Path(f"x{ending}"))
    table = target / TABLE_NAME
    check_writable(table, overwrite=True)
    rows = read_table(table)
    networks = networks or model.networks(device)
    results: list[BatchRow] = []
    for number, scan in enumerate(scans, start=1):
        mask = target / f"{scan_stem(scan)}_liver{ending}"
        row = BatchRow(printable(scan.name), series or "", model.card.checksum, _stamp(scan))
        before = rows.get(row.file, row)
        if not _is_done(before, row, mask):
            work = _segment_file(scan, mask, model, device, networks=networks, series=series)
            steps = _attempted(replace(row, added=before.added), scan, mask, work)
            rows[row.file] = yield from prefixed(f"{row.file} ({number} of {len(scans)})", steps)
            write_table(table, rows.values())
        results.append(rows[row.file])
    return results


def _check_names(scans: Sequence[Path]) -> None:
    """Raise ScanError if the names of two scans differ only in their ending: their masks would have the same name."""
    first: dict[str, Path] = {}
    for scan in scans:
        other = first.setdefault(scan_stem(scan), scan)
        if other != scan:
            raise ScanError(f"{other.name} and {scan.name} would share one mask; rename one of them.")


def _segment_file(
    scan: Path, mask: Path, model: LiverModel, device: Device, *, networks: Networks, series: str | None
) -> Steps[dict[str, Any]]:
    """Segment a file and return its `table_row`. Without a liver no mask is written, and an older mask is removed."""
    volume = read_volume(scan, series=series)
    check_output(mask, volume.affine)
    result = yield from segment(volume, model, device, networks=networks)
    if result.measurement.volume_ml:
        write_mask(mask, result.mask_kji, volume)
    else:
        mask.unlink(missing_ok=True)
    return table_row(result)


def _attempted(row: BatchRow, scan: Path, mask: Path, steps: Steps[dict[str, Any]]) -> Steps[BatchRow]:
    """Run the steps and return the row with their result or error. After an error, an older mask is removed."""
    try:
        return replace(row, state=DONE, measured=(yield from steps))
    except LiverUNetError as error:
        reason = str(error)
    except OSError as error:  # of the disk or the system
        reason = f"{scan.name} could not be read or its mask not be written ({error})."
    except MemoryError:
        reason = f"{scan.name} needs more memory than this machine has free; crop it or use a larger machine."
    except Exception as error:  # must not stop the other scans
        logger.exception("%s could not be segmented:", scan.name)
        reason = _bug(error)
    with contextlib.suppress(OSError):  # for example an impossible name
        mask.unlink(missing_ok=True)
    return replace(row, state=FAILED, error=reason)


def _bug(error: Exception) -> str:
    """Describe an unexpected error in one line: its type, its place in our code, and its message."""
    ours = Path(__file__).parents[1]
    frames = traceback.extract_tb(error.__traceback__)
    place = [frame for frame in frames if Path(frame.filename).is_relative_to(ours)][-1]
    words = " ".join(str(error).split())
    return (
        f"This is a bug of LiverUNet: {type(error).__name__} in {Path(place.filename).name}, line {place.lineno} "
        f"({words}); please report it with the traceback that was logged."
    )


def _stamp(scan: Path) -> str:
    """The stamp of a scan as text for the table; empty if the scan is a dead link or has vanished."""
    try:
        return "-".join(map(str, stamp(scan)))
    except OSError:
        return ""


def _is_done(before: BatchRow, row: BatchRow, mask: Path) -> bool:
    """Whether `before` is a finished row for the same work as `row`, and its mask, if it found a liver, exists."""
    made_of, wanted = ((each.series, each.model_checksum, each.file_stamp) for each in (before, row))
    if before.state != DONE or not row.file_stamp or made_of != wanted:
        return False
    return before.volume_ml == 0 or (before.volume_ml is not None and mask.exists())
