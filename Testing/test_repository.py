"""The repository keeps what it promises: layers, file lists, and a README that is true."""

import ast
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import LiverUNetLib
from helpers import REPOSITORY, cmake_files
from LiverUNetLib.models.store import find_model
from LiverUNetLib.system.dependencies import TORCH_ENGINE

LIBRARIES = [REPOSITORY / "LiverUNet/LiverUNetLib", REPOSITORY / "LiverUNetTrain/LiverUNetTrainLib"]
PANELS = [REPOSITORY / "LiverUNet/LiverUNetPanel", REPOSITORY / "LiverUNetTrain/LiverUNetTrainPanel"]
SLICER = {"slicer", "qt", "ctk", "vtk", "mrml"}


# The rooms of each package, and from which other rooms of it their files may import; files at its top are rooms, too.
ROOMS = {
    "LiverUNetLib": {
        "errors": "",
        "steps": "",
        "types": "",
        "version": "",
        "system": "errors version",
        "scan": "errors types system",
        "models": "errors system",
        "segmentation": "errors steps types system scan models",
        "doctor": "errors system models",
        "cli": "errors steps version system scan models segmentation doctor",
        "__init__": "errors steps version system scan models segmentation",
        "__main__": "cli",
    },
    "LiverUNetTrainLib": {
        "data": "",
        "run": "",
        "training": "data run",
        "evaluation": "data run training",
        "cli": "data run training evaluation",
        "__init__": "",
        "__main__": "cli",
    },
    "LiverUNetPanel": {
        "nodes": "",
        "parameters": "",
        "settings": "",
        "imports": "",
        "installer": "",
        "runner": "",
        "case_action": "",
        "consent": "settings",
        "logic": "nodes parameters imports",
        "sections": "nodes settings runner case_action logic",
        "widget": "nodes parameters settings installer runner consent logic sections",
        "__init__": "",
    },
    "LiverUNetTrainPanel": {
        "nodes": "",
        "choices": "",
        "jobs": "",
        "steps": "jobs",
        "logic": "nodes steps",
        "sections": "nodes choices logic",
        "liver_case": "nodes logic",
        "widget": "choices logic sections",
        "__init__": "",
    },
}
# The rooms of other packages that a package builds on; the command line of training also uses the other one's.
OPEN = "errors steps types system scan models segmentation"
BELOW = {
    "LiverUNetLib": {},
    "LiverUNetTrainLib": {"LiverUNetLib": OPEN},
    "LiverUNetPanel": {"LiverUNetLib": f"{OPEN} doctor"},
    "LiverUNetTrainPanel": {
        "LiverUNetLib": OPEN,
        "LiverUNetTrainLib": "data run training evaluation",
        "LiverUNetPanel": "nodes settings imports installer runner case_action sections",
    },
}


def modules_of(library: Path) -> dict[str, Path]:
    """Dotted name -> file; a package is its `__init__`."""
    return {
        ".".join([library.name, *path.relative_to(library).with_suffix("").parts]): path
        for path in library.rglob("*.py")
    }


MODULES = {name: path for package in LIBRARIES + PANELS for name, path in modules_of(package).items()}


def imports_of(name: str) -> set[str]:
    """The dotted names that a file of a package imports, at its top or in a function; of ours, the modules."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names} - set(ROOMS)  # they are there with any of their files
        elif isinstance(node, ast.ImportFrom):
            base = name.split(".")[: -node.level] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            inner = {f"{origin}.{each.name}" for each in node.names}
            found |= inner & set(MODULES) or {origin}
    return {f"{each}.__init__" if f"{each}.__init__" in MODULES else each for each in found}


def room_of(module: str) -> tuple[str, str]:
    library, room, *_ = module.split(".")
    return library, room


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_library_imports_slicer_and_imports_between_rooms_point_one_way(name):
    found = imports_of(name)
    package, room = room_of(name)
    assert package.endswith("Panel") or not {each.split(".")[0] for each in found} & SLICER
    ours = {each for each in found if each.split(".")[0] in ROOMS}
    assert ours <= set(MODULES), "every import of ours is understood"
    allowed = {(package, other) for other in [room, *ROOMS[package][room].split()]}
    allowed |= {(below, other) for below, rooms in BELOW[package].items() for other in rooms.split()}
    if (package, room) == ("LiverUNetTrainLib", "cli"):
        allowed.add(("LiverUNetLib", "cli"))
    assert {room_of(each) for each in ours} <= allowed


def test_no_rooms_and_no_files_import_each_other_in_a_circle():
    assert {room_of(name) for name in MODULES} == {(library, room) for library in ROOMS for room in ROOMS[library]}
    for rooms in ROOMS.values():
        TopologicalSorter({room: others.split() for room, others in rooms.items()}).prepare()
    TopologicalSorter({name: imports_of(name) & set(MODULES) for name in MODULES}).prepare()


@pytest.mark.parametrize(
    "path",
    [path for package in LIBRARIES + PANELS for path in package.rglob("__init__.py")],
    ids=lambda path: "-".join(path.parent.relative_to(REPOSITORY).parts[1:]),
)
def test_a_room_names_each_of_its_files(path):
    named = re.findall(
        r"^(\S+?)/? {2,}\S", ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), re.MULTILINE
    )
    there = {each.name for each in path.parent.iterdir() if not each.name.startswith("__")}
    assert len(named) == len(set(named))
    assert set(named) == there - {"Resources"}


@pytest.mark.parametrize("module", ["LiverUNet", "LiverUNetTrain"])
def test_cmake_lists_every_file_and_no_other(module):
    folder = REPOSITORY / module
    tree = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "CMakeLists.txt" and "__pycache__" not in path.parts
    }
    assert set(cmake_files(folder)) == tree


@pytest.mark.parametrize("module", ["LiverUNet", "LiverUNetTrain"])
def test_a_module_that_slicer_loads_is_tested_by_it(module):
    text = (REPOSITORY / module / "CMakeLists.txt").read_text()
    assert "WITH_GENERIC_TESTS" in text
    assert re.search(r"if\(BUILD_TESTING\)\s+slicer_add_python_unittest\(SCRIPT \$\{MODULE_NAME\}\.py\)", text)


def test_the_extensions_metadata_is_complete():
    text = (REPOSITORY / "CMakeLists.txt").read_text()
    for name in ("HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"):
        assert re.search(rf'^set\(EXTENSION_{name} ".+"\)$', text, re.MULTILINE), name
    for name in ("LICENSE_FILE", "README_FILE"):
        assert re.search(rf'^set\(EXTENSION_{name} "\$\{{CMAKE_CURRENT_SOURCE_DIR\}}/', text, re.MULTILINE), name


def test_the_entry_for_the_extensions_index_follows_its_schema():
    """The fields of schema 1.0.2 of Slicer/ExtensionsIndex."""
    entry = json.loads((REPOSITORY / "packaging/LiverUNet.json").read_text())
    kinds = {
        "$schema": str,
        "category": str,
        "scm_url": str,
        "scm_revision": str,
        "scm_type": str,
        "build_dependencies": list,
        "dicom_support_rule": str,
        "build_subdirectory": str,
        "enabled": bool,
        "tier": int,
    }
    assert {"$schema", "category", "scm_url"} <= set(entry) <= set(kinds)
    assert all(type(value) is kinds[name] for name, value in entry.items())
    assert entry["$schema"].endswith("/slicer-extension-catalog-entry-schema-v1.0.2.json#")
    assert 1 <= entry["tier"] <= 5
    cmake = (REPOSITORY / "CMakeLists.txt").read_text()
    assert f'set(EXTENSION_CATEGORY "{entry["category"]}")' in cmake
    assert f'set(EXTENSION_DEPENDS "{" ".join(entry["build_dependencies"])}")' in cmake
    assert f'set(EXTENSION_HOMEPAGE "{entry["scm_url"].removesuffix(".git")}")' in cmake


def test_the_release_of_slicer_is_named_once_and_its_checksum_is_not_invented():
    release = json.loads((REPOSITORY / "packaging/slicer-release.json").read_text())
    assert set(release) == {"version", "url", "sha512"}
    assert re.fullmatch("|[0-9a-f]{128}", release["sha512"])


def test_names_are_unique_across_the_modules_that_slicer_installs_into_one_folder():
    files = [
        path.relative_to(REPOSITORY / module).as_posix()
        for module in ("LiverUNet", "LiverUNetTrain")
        for path in (REPOSITORY / module).rglob("*")
        if path.is_file() and path.name != "CMakeLists.txt" and "__pycache__" not in path.parts
    ]
    assert len(files) == len(set(files))


def test_files_stay_short():
    for path in [path for folder in (*LIBRARIES, *PANELS, REPOSITORY / "Testing") for path in folder.rglob("*.py")]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path


def test_results_and_card_give_the_scores_of_the_bundled_model():
    results = (REPOSITORY / "docs/results.md").read_text(encoding="utf-8")
    model = find_model("liver-ct")
    card = (model.folder / "docs/README.md").read_text(encoding="utf-8")
    assert model.card.scores.command in results
    assert model.card.scores.command in card
    for case in model.card.scores.cases:
        assert f"| {case['case']} (held out) | {case['dice']:.4f} | {case['hd95_mm']:.2f} |" in card
        row = f"| {case['case']} | {case['dice']:.4f} | {case['hd95_mm']:.2f} | {case['assd_mm']:.2f} |"
        assert f"{row} {case['volume_error_percent']:+.1f} % |" in results
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    mean = f"{model.card.scores.summary['dice'].mean:.4f}"
    assert f"| **mean** | **{mean}** |" in results
    assert f"mean Dice {mean}" in readme
    assert model.card.license in readme


def test_the_tables_of_the_cross_validations_are_those_of_their_files(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "Testing/benchmarks")
    from crossval_table import comparison, crossval_table

    results = (REPOSITORY / "docs/results.md").read_text(encoding="utf-8")
    assert crossval_table() in results
    assert comparison() in results


@pytest.mark.parametrize(
    "page",
    [
        path.relative_to(REPOSITORY).as_posix()
        for folder in (".", "docs", "Testing/benchmarks")
        for path in sorted((REPOSITORY / folder).glob("*.md"))
    ],
)
def test_links_within_the_repository_lead_somewhere(page):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!http|#)([^)#]+)|src=\"(?!http)([^\"]+)", text)
    missing = [one or other for one, other in targets if not (REPOSITORY / page).parent.joinpath(one or other).exists()]
    assert not missing


def test_where_to_look_names_files_and_functions_that_are_there():
    text = (REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .*\? \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) >= 7
    tree = {path.as_posix(): path for folder in (*LIBRARIES, *PANELS) for path in folder.rglob("*.py")}
    for row in rows:
        names = re.findall(r"`([^`]+)`", row)
        files = [
            path for name in names if name.endswith(".py") for key, path in tree.items() if key.endswith(f"/{name}")
        ]
        functions = {name for name in names if name.isidentifier() and name not in {"stop"}}
        assert len(files) >= sum(name.endswith(".py") for name in names) > 0, row
        defined = set(re.findall(r"def (\w+)\(", "".join(path.read_text(encoding="utf-8") for path in files)))
        assert functions <= defined, row


def test_the_ci_runs_the_commands_of_the_readme():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    script = (REPOSITORY / ".ci/run").read_text(encoding="utf-8")
    for end in ("v/bin/pytest", "v/bin/liver-unet demo"):
        assert len(re.findall(f"&& {end}$", readme, re.MULTILINE)) == 1
        assert f'\ntyped "{end}"\n' in script


def test_only_training_installs_pytorch_and_slicer_installs_what_pip_does():
    tomllib = pytest.importorskip("tomllib", reason="Python reads TOML since 3.11")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base, train = set(project["dependencies"]), set(project["optional-dependencies"]["train"])
    assert not {Requirement(line).name for line in base} & {"torch", "monai", "matplotlib"}
    assert "liver-unet[train]" in project["optional-dependencies"]["test"]
    assert set(requirements("LiverUNet")) == {line for line in base if line.startswith(("onnxruntime", "nibabel"))}
    assert {*requirements("LiverUNetTrain"), *TORCH_ENGINE} <= base | train
    assert train <= {*requirements("LiverUNetTrain"), *TORCH_ENGINE}


def requirements(module: str) -> list[str]:
    lines = (REPOSITORY / module / "Resources" / f"{module}-requirements.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_pip_slicer_and_the_bundled_model_share_one_version():
    assert find_model("liver-ct").card.version == LiverUNetLib.__version__
    done = subprocess.run([sys.executable, "-m", "LiverUNetLib", "--version"], capture_output=True, text=True)
    assert done.stdout.strip().endswith(LiverUNetLib.__version__)


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
