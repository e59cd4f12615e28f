"""The table of a batch, `liver.csv`: written by us as UTF-8 with commas, read also as spreadsheets save it."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..system.files import staged
from .summary import COLUMNS

__all__ = ["TABLE_COLUMNS", "printable", "read_table", "volume_ml", "write_table"]

TABLE_COLUMNS = ("file", "state", "error", *COLUMNS, "series", "model_checksum", "file_stamp")
# Without these a table is not one of ours; rows that lack others are made again.
REQUIRED = {"file", "state", "model_checksum", "file_stamp"}
SEPARATORS = ",;\t"


def printable(name: str) -> str:
    """A file's name as the table holds it: bytes that are no UTF-8 as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def read_table(path: Path) -> dict[str | int, dict[str, Any]]:
    """The rows by their `file`, or by their number where it is empty; columns that the user has added are kept.

    A spreadsheet may have added a byte order mark, saved it as UTF-16 or in the code page of Western
    Windows, or separated the cells by semicolons or tabs.

    Raises:
        OutputError: it is not a table of ours, or cannot be read.
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
    return {row["file"] or number: row for number, row in enumerate(rows)}


def write_table(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write the rows by name, whole or not at all."""
    rows = sorted(rows, key=lambda row: row["file"])
    columns = dict.fromkeys([*TABLE_COLUMNS, *(column for row in rows for column in row)])
    with (
        staged(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def volume_ml(row: dict[str, Any]) -> float | None:
    """The volume of a row; None if the cell is empty or no longer a number. A decimal comma is read as one."""
    try:
        return float(str(row["volume_ml"]).replace(",", "."))
    except ValueError:
        return None


def _decoded(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252")


def _rows(text: str) -> list[dict[str, Any]]:
    """The rows of a table, every one with all columns; ValueError if it is not ours."""
    for separator in SEPARATORS:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restval="")
        if set(reader.fieldnames or ()) >= REQUIRED:
            rows = list(reader)
            if any(any(row.pop(None, ())) for row in rows):
                raise ValueError("a row has more cells than the table has columns")
            return [dict.fromkeys(TABLE_COLUMNS, "") | row for row in rows]
    raise ValueError("its columns are others")
