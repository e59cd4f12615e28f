"""The repository keeps what it promises: layers, file lists, and a README that is true."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import REPOSITORY
from LiverUNetLib.model import find_model

LIBRARIES = [REPOSITORY / "LiverUNet/LiverUNetLib", REPOSITORY / "LiverUNetTrain/LiverUNetTrainLib"]
SLICER = {"slicer", "qt", "ctk", "vtk", "mrml"}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize(
    "path", [path for library in LIBRARIES for path in library.glob("*.py")], ids=lambda path: path.name
)
def test_no_library_imports_slicer_and_dependencies_point_one_way(path):
    found = imports_of(path)
    assert not found & SLICER
    if path.parent.name == "LiverUNetLib":
        assert "LiverUNetTrainLib" not in found


@pytest.mark.parametrize("module", ["LiverUNet", "LiverUNetTrain"])
def test_cmake_lists_every_file_and_no_other(module):
    folder = REPOSITORY / module
    listed = set(re.findall(r"^  (\S+/\S+)$", (folder / "CMakeLists.txt").read_text(), re.MULTILINE))
    tree = {
        str(path.relative_to(folder).as_posix())
        for part in (f"{module}Lib", "Resources")
        for path in (folder / part).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert listed == tree


def test_names_are_unique_across_the_modules_that_slicer_installs_into_one_folder():
    files = [
        path.relative_to(REPOSITORY / module).as_posix()
        for module in ("LiverUNet", "LiverUNetTrain")
        for path in (REPOSITORY / module).rglob("*")
        if path.is_file() and path.name != "CMakeLists.txt" and "__pycache__" not in path.parts
    ]
    assert len(files) == len(set(files))


def test_files_stay_short():
    for path in [path for folder in (*LIBRARIES, REPOSITORY / "Testing") for path in folder.rglob("*.py")]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path


def test_readme_and_card_give_the_scores_of_the_bundled_model():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    model = find_model("liver-ct")
    card = (model.folder / "docs/README.md").read_text(encoding="utf-8")
    assert model.card.scores["command"] in readme
    assert model.card.scores["command"] in card
    for case in model.card.scores["cases"]:
        assert f"| {case['case']} | {case['dice']:.4f} |" in readme
    assert f"| **mean** | **{model.card.scores['summary']['dice']['mean']:.4f}** |" in readme
    assert model.card.license in readme


def test_the_ci_runs_the_command_of_the_readme():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(r"&& v/bin/pytest$", readme, re.MULTILINE)) == 1


def test_both_command_lines_run_as_modules():
    for module in ("LiverUNetLib", "LiverUNetTrainLib"):
        run = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert "usage: liver-unet" in run.stdout


def test_the_bundled_metadata_has_what_monai_asks_for():
    metadata = json.loads((find_model("liver-ct").folder / "configs/metadata.json").read_text())
    required = {
        "version",
        "changelog",
        "monai_version",
        "pytorch_version",
        "numpy_version",
        "task",
        "description",
        "authors",
        "copyright",
        "network_data_format",
    }
    assert required <= set(metadata)
