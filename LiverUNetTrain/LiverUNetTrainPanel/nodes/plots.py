"""The curves of a training for Slicer's plot views, and scores in table nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer
import vtk
from slicer import vtkMRMLPlotChartNode, vtkMRMLScene, vtkMRMLTableNode

from LiverUNetTrainLib.evaluation.measures import MAIN_MEASURES
from LiverUNetTrainLib.evaluation.metrics import CaseScores
from LiverUNetTrainLib.run.folder import CURVES, EpochLog

__all__ = ["curvesOf", "scoresTable"]

COLORS = {"training": (0.56, 0.64, 0.68), "validation": (0.10, 0.46, 0.82)}
SCORES = ("case", "role", *(measure.name for measure in MAIN_MEASURES), "volume_ml")


def curvesOf(scene: vtkMRMLScene, name: str, history: Sequence[EpochLog]) -> dict[str, vtkMRMLPlotChartNode]:
    """Charts of loss, accuracy and Dice by epoch; a further call updates the same nodes.

    Training and validation have separate tables, since only some epochs are validated. A curve is added
    with its first point, so that the legend names no curve that is empty.
    """
    tables = {}
    for column, part in enumerate(("training", "validation")):
        rows = [
            {"epoch": log.epoch} | {title: getattr(log, attributes[column]) for title, attributes in CURVES.items()}
            for log in history
            if getattr(log, CURVES["loss"][column]) is not None
        ]
        tables[part] = _fill(_node(scene, "vtkMRMLTableNode", f"{name} {part}"), ("epoch", *CURVES), rows)
    return {title: _chart(scene, name, title, tables) for title in CURVES}


def scoresTable(scene: vtkMRMLScene, name: str, cases: Sequence[CaseScores]) -> vtkMRMLTableNode:
    """Scores for each patient, the lowest Dice first."""
    ordered = sorted(cases, key=lambda case: case.scores.dice)
    return _fill(_node(scene, "vtkMRMLTableNode", f"{name} scores"), SCORES, [case.row() for case in ordered])


def _node(scene: vtkMRMLScene, kind: str, name: str) -> Any:
    return scene.GetFirstNode(name, kind) or scene.AddNewNodeByClass(kind, name)


def _fill(node: vtkMRMLTableNode, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> vtkMRMLTableNode:
    """Fill a table; its columns are kept, because plots refer to them."""
    table = node.GetTable()
    wasModifying = node.StartModify()
    if table.GetNumberOfColumns() != len(columns):
        node.RemoveAllColumns()
        for name in columns:
            column = vtk.vtkStringArray() if name in ("case", "role") else vtk.vtkDoubleArray()
            column.SetName(name)
            node.AddColumn(column)
    table.SetNumberOfRows(len(rows))
    for index, row in enumerate(rows):
        for column, name in enumerate(columns):
            table.SetValue(index, column, vtk.vtkVariant(row[name]))
    node.EndModify(wasModifying)
    table.Modified()
    return node


def _chart(scene: vtkMRMLScene, name: str, title: str, tables: dict[str, vtkMRMLTableNode]) -> vtkMRMLPlotChartNode:
    chart = _node(scene, "vtkMRMLPlotChartNode", f"{name} {title}")
    chart.SetTitle(f"{name}: {title}")
    chart.SetXAxisTitle("epoch")
    chart.SetYAxisTitle(title)
    for part, table in tables.items():
        if not table.GetNumberOfRows():
            continue
        series = _node(scene, "vtkMRMLPlotSeriesNode", f"{name} {part} {title}")
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName("epoch")
        series.SetYColumnName(title)
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle)
        series.SetColor(*COLORS[part])
        if not chart.HasPlotSeriesNodeID(series.GetID()):
            chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.Modified()
    return chart
