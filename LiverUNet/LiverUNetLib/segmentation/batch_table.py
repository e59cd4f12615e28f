"""The table of a batch, `liver.csv`: written as UTF-8 with commas, and also read as spreadsheets save it."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..system.files import staged
from .summary import COLUMNS

__all__ = ["DONE", "FAILED", "TABLE_COLUMNS", "BatchRow", "printable", "read_table", "write_table"]

DONE, FAILED = "done", "failed"
TABLE_COLUMNS = ("file", "state", "error", *COLUMNS, "series", "model_checksum", "file_stamp")
# A table without these was not written by LiverUNet.
REQUIRED = {"file", "state", "model_checksum", "file_stamp"}
SEPARATORS = ",;\t"


@dataclass(frozen=True)
class BatchRow:
    """One scan of a batch.

    Attributes:
        file: its name, see `printable`.
        series: the user's choice of series; empty if there was none.
        file_stamp: changes when the scan changes; empty if the scan could not be found.
        state: DONE or FAILED; something else if the user has edited the table.
        error: the reason of a failure.
        measured: column -> cell, for COLUMNS; text if the table was read from a file.
        added: column -> cell, for columns that the user has added.
    """

    file: str
    series: str
    model_checksum: str
    file_stamp: str
    state: str = ""
    error: str = ""
    measured: Mapping[str, Any] = field(default_factory=dict)
    added: Mapping[str, str] = field(default_factory=dict)

    @property
    def volume_ml(self) -> float | None:
        """The volume; None if it is missing or not a number. A decimal comma is accepted."""
        try:
            return float(str(self.measured["volume_ml"]).replace(",", "."))
        except (KeyError, ValueError):
            return None

    def cells(self) -> dict[str, Any]:
        """Column -> cell, for the table."""
        outcome = {"file": self.file, "state": self.state, "error": self.error}
        made_of = {"series": self.series, "model_checksum": self.model_checksum, "file_stamp": self.file_stamp}
        return {**outcome, **self.measured, **made_of, **self.added}


def printable(name: str) -> str:
    """The name of a file for the table; bytes that are not UTF-8 become escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def read_table(path: Path) -> dict[str | int, BatchRow]:
    """Read the rows, by their `file` or, if it is empty, by their number. Without a table there are none.

    A spreadsheet may have added a byte order mark, saved the table as UTF-16 or in the code page of Western
    Windows, or separated the cells by semicolons or tabs.

    Raises:
        OutputError: the table was not written by LiverUNet, or cannot be read.
    """
    try:
        text = _decoded(path.read_bytes())
        rows = _rows(text) if text.strip() else []
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OutputError(f"{path} cannot be read ({error.strerror}); name another folder.") from error
    except (ValueError, csv.Error) as error:
        raise OutputError(f"{path} is not a table of LiverUNet; move it away or name another folder.") from error
    return {row.file or number: row for number, row in enumerate(rows)}


def write_table(path: Path, rows: Iterable[BatchRow]) -> None:
    """Write the rows, sorted by file, completely or not at all."""
    rows = sorted(rows, key=lambda row: row.file)
    columns = dict.fromkeys([*TABLE_COLUMNS, *(column for row in rows for column in row.added)])
    with (
        staged(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(row.cells() for row in rows)


def _decoded(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252")


def _rows(text: str) -> list[BatchRow]:
    """The rows of a table; ValueError if LiverUNet did not write it."""
    for separator in SEPARATORS:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restval="")
        if set(reader.fieldnames or ()) >= REQUIRED:
            rows = list(reader)
            if any(any(row.pop(None, ())) for row in rows):
                raise ValueError("a row has more cells than the table has columns")
            return [_row(row) for row in rows]
    raise ValueError("its columns are different")


def _row(cells: dict[str, str]) -> BatchRow:
    """Make a row of its cells; missing cells become empty."""
    known = {column: cells.pop(column, "") for column in TABLE_COLUMNS}
    measured = {column: known.pop(column) for column in COLUMNS}
    return BatchRow(**known, measured=measured, added=cells)
