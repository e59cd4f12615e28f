"""Measurements in a table node, one row for each scan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import vtk
from slicer import vtkMRMLScene, vtkMRMLTableNode

from LiverUNetLib.segmentation.summary import COLUMNS

__all__ = ["TABLE_NAME", "addMeasurements"]

TABLE_NAME = "Liver measurements"
TEXT_COLUMNS = ("scan", "verdict", "warnings", "model", "device")


def addMeasurements(scene: vtkMRMLScene, rows: Sequence[Mapping[str, Any]]) -> vtkMRMLTableNode:
    """Add rows (of `summary.table_row`) to the table of liver measurements, which is created if missing."""
    node = next(filter(_isOurs, _tables(scene)), None)
    if node is None:
        node = scene.AddNewNodeByClass("vtkMRMLTableNode", scene.GenerateUniqueName(TABLE_NAME))
        for name in COLUMNS:
            column = vtk.vtkStringArray() if name in TEXT_COLUMNS else vtk.vtkDoubleArray()
            column.SetName(name)
            node.AddColumn(column)
    table = node.GetTable()
    wasModifying = node.StartModify()
    for values in rows:
        row = table.InsertNextBlankRow()
        for column, name in enumerate(COLUMNS):
            value = values.get(name)
            missing = "" if name in TEXT_COLUMNS else float("nan")
            table.SetValue(row, column, vtk.vtkVariant(missing if value is None else value))
    node.EndModify(wasModifying)
    table.Modified()
    return node


def _tables(scene: vtkMRMLScene) -> Iterator[vtkMRMLTableNode]:
    kind = "vtkMRMLTableNode"
    return (scene.GetNthNodeByClass(n, kind) for n in range(scene.GetNumberOfNodesByClass(kind)))


def _isOurs(node: vtkMRMLTableNode) -> bool:
    columns = [node.GetColumnName(column) for column in range(node.GetNumberOfColumns())]
    return node.GetName().startswith(TABLE_NAME) and columns == list(COLUMNS)
