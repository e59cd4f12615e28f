"""torch is loaded without blocking the event loop; benchmarks/event_loop.py measures for how long it is blocked."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

import LiverUNetPanel

REPORT = """
import sys; sys.path[:0] = sys.argv[1:]
from LiverUNetPanel import imports
imports.loadTorchLibraries()
print("torch" in sys.modules, any("libtorch_cpu" in line for line in open("/proc/self/maps")))
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists the libraries of a process there")
def test_the_libraries_of_torch_are_loaded_before_it_is_imported():
    folder = str(Path(LiverUNetPanel.__file__).parent.parent)
    done = subprocess.run([sys.executable, "-c", REPORT, folder], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_off_during_imports_and_ignores_what_was_imported(enabled):
    from LiverUNetPanel.imports import withoutCollector

    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with withoutCollector():
            assert not gc.isenabled()
            imported = [[] for _ in range(1000)]
        assert gc.isenabled() is enabled
        assert gc.get_freeze_count() >= len(imported)
    finally:
        gc.unfreeze()
        (gc.enable if before else gc.disable)()
