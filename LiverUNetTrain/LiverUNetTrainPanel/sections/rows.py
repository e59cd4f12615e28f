"""Fill a table widget."""

from __future__ import annotations

from collections.abc import Sequence

import qt

__all__ = ["showRows"]


def showRows(table: qt.QTableWidget, rows: Sequence[Sequence[str]]) -> None:
    """Show a text in every cell and fit the columns to the texts; the last column takes the remaining width."""
    table.rowCount = len(rows)
    for row, texts in enumerate(rows):
        for column, text in enumerate(texts):
            table.setItem(row, column, qt.QTableWidgetItem(text))
    table.resizeColumnsToContents()
