"""The public face of the library: what a script imports from `LiverUNetLib` itself."""

import ast
import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

import LiverUNetLib
from helpers import REPOSITORY

RECORDS = ["CTVolume", "Device", "LiverModel", "LiverUNetError", "Progress", "Segmentation"]
PUBLIC = [*RECORDS, "choose_device", "find_model", "finish", "read_volume", "segment", "write_mask", "write_volume"]


@pytest.mark.slow
def test_the_example_of_the_library_runs():
    assert doctest.testmod(LiverUNetLib) == (0, 6)


@pytest.mark.slow
def test_the_lines_of_the_readme_run(a_ct_file, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    a_ct_file.rename(tmp_path / "CT.nii.gz")
    monkeypatch.chdir(tmp_path)
    exec(code, {})  # noqa: S102 - our own
    written = LiverUNetLib.read_volume(tmp_path / "liver.nii.gz")
    volume_ml, word = capsys.readouterr().out.split(maxsplit=1)
    assert float(volume_ml) == pytest.approx(written.hu_kji.sum() * written.voxel_ml)
    assert word == "look at it\n", "a phantom without noise is unlike any patient"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_those_of_their_modules(name):
    found = getattr(LiverUNetLib, name)
    assert found.__name__ == name
    assert getattr(sys.modules[found.__module__], name) is found
    assert name in dir(LiverUNetLib)


def test_type_checkers_see_the_same_imports():
    tree = ast.parse(Path(LiverUNetLib.__file__).read_text(encoding="utf-8"))
    seen = {
        name.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for name in node.names
    }
    assert seen == LiverUNetLib.HOMES
    assert sorted(seen) == LiverUNetLib.__all__ == sorted(["__version__", *PUBLIC])


def test_an_unknown_name_is_not_an_attribute():
    with pytest.raises(AttributeError, match="module 'LiverUNetLib' has no attribute 'segmnet'"):
        _ = LiverUNetLib.segmnet


@pytest.mark.slow
def test_importing_the_library_imports_none_of_its_modules_and_no_package():
    code = (
        "import sys, LiverUNetLib; before = set(sys.modules)\n"
        "ours = {name for name in before if name.startswith('LiverUNetLib')} - {'LiverUNetLib'}\n"
        "print(sorted(ours | ({'numpy', 'scipy', 'nibabel', 'onnxruntime', 'torch'} & before)))\n"
        "from LiverUNetLib import segment\n"
        "print('numpy' in sys.modules, 'torch' in sys.modules, callable(segment))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "True False True"]
