"""Fill a table of the panel."""

from __future__ import annotations

from collections.abc import Sequence

import qt

__all__ = ["showRows"]


def showRows(table: qt.QTableWidget, rows: Sequence[Sequence[str]]) -> None:
    """Show a text in every cell, columns as wide as it needs; the last one takes what is left."""
    table.rowCount = len(rows)
    for row, texts in enumerate(rows):
        for column, text in enumerate(texts):
            table.setItem(row, column, qt.QTableWidgetItem(text))
    table.resizeColumnsToContents()
