"""The files of both panels keep the rules that Slicer and the architecture set."""

import ast
import re
import sys
from xml.etree import ElementTree as ET

import pytest

from helpers import REPOSITORY

MODULES = ("LiverUNet", "LiverUNetTrain")
FILES = [path for module in MODULES for path in (REPOSITORY / module / f"{module}Panel").rglob("*.py")]
WIDGETS = [path for path in FILES if path.name == "widget.py" or path.parent.name == "sections"]
SECTIONS = [path for path in WIDGETS if path.parent.name == "sections"]
# What the sections of both panels have in common.
SHARED = {"buttons", "rows", "run"}
# What a widget may take from the nodes: to look at a liver, and a record.
READING = {"SceneCase", "findLiver", "isLiverEdited", "milliliters", "volumeOf"}
# The functions of the libraries that a widget may call itself: they look up models and word results.
SHOWN = {"find_model", "is_own", "list_models", "model_score", "sentence", "table_row", "verdict_lines"}


def identity(path):
    return "-".join(path.relative_to(REPOSITORY).parts[1:])


def imports_from(path):
    """The `from … import` statements of a file, also those in functions."""
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]


def test_the_rules_reach_both_panels():
    assert {"LiverUNetPanel-sections-run.py", "LiverUNetTrainPanel-widget.py"} <= set(map(identity, WIDGETS))


@pytest.mark.parametrize("path", WIDGETS, ids=identity)
def test_a_widget_leaves_the_work_to_its_logic(path):
    """From the libraries it imports only records, constants, and functions that look up models or word results."""
    of_libraries = [node for node in imports_from(path) if (node.module or "").split(".")[0].endswith("Lib")]
    names = {each.name for node in of_libraries for each in node.names}
    assert {each for each in names if each[0].islower()} <= SHOWN


@pytest.mark.parametrize("path", WIDGETS, ids=identity)
def test_a_widget_writes_to_the_scene_only_through_its_logic(path):
    of_nodes = [node for node in imports_from(path) if "nodes" in (node.module or "").split(".")]
    assert {each.name for node in of_nodes for each in node.names} <= READING


@pytest.mark.parametrize("path", SECTIONS, ids=identity)
def test_a_section_does_not_know_the_others(path):
    beside = {node.module for node in imports_from(path) if node.level == 1}
    beside |= {node.module.split(".")[-1] for node in imports_from(path) if ".sections." in (node.module or "")}
    assert beside <= SHARED


@pytest.mark.parametrize("module", MODULES)
def test_no_two_sections_of_a_panel_use_the_same_widget(module):
    sections = [path for path in SECTIONS if path.is_relative_to(REPOSITORY / module)]
    used = [name for path in sections for name in set(re.findall(r"\b_?ui\.(\w+)", path.read_text(encoding="utf-8")))]
    assert used
    assert len(used) == len(set(used)), sorted(used)


@pytest.mark.parametrize(
    "path",
    [REPOSITORY / f"{module}/Resources/UI/{module}.ui" for module in MODULES],
    ids=lambda path: path.name,
)
def test_every_mrml_widget_of_a_panel_gets_the_scene(path):
    """In Slicer the connections of the .ui file hand it on, from the root widget to each."""
    tree = ET.parse(path).getroot()
    root = tree.find("widget")
    assert root.get("class") == "qMRMLWidget"
    selectors = {widget.get("name") for widget in tree.iter("widget") if widget.get("class") == "qMRMLNodeComboBox"}
    connected = {
        connection.findtext("receiver")
        for connection in tree.iter("connection")
        if connection.findtext("sender") == root.get("name")
        and connection.findtext("signal") == "mrmlSceneChanged(vtkMRMLScene*)"
        and connection.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"
    }
    assert connected == selectors
    declared = {each.findtext("class") for each in tree.iter("customwidget")}
    used = {widget.get("class") for widget in tree.iter("widget") if not widget.get("class").startswith("Q")}
    assert declared == used


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_a_panel_imports_at_file_scope_only_what_slicer_brings(path):
    stock = {
        "slicer",
        "qt",
        "ctk",
        "vtk",
        "numpy",
        "scipy",
        "SimpleITK",
        "LiverUNetLib",
        "LiverUNetPanel",
        "LiverUNetTrainLib",
    } | set(sys.stdlib_module_names)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {name.name for node in imports if isinstance(node, ast.Import) for name in node.names}
    names |= {node.module for node in imports if isinstance(node, ast.ImportFrom) and not node.level}
    assert {name.split(".")[0] for name in names} <= stock
