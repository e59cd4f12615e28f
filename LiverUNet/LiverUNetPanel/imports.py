"""Import the packages of an engine in a background thread without blocking the event loop."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from LiverUNetLib.system.environment import import_libraries

__all__ = ["importLibraries", "loadTorchLibraries", "withoutCollector"]

# The first makes the symbols of OpenMP global, as torch does; the second loads all others, including CUDA.
TORCH_LIBRARIES = {"libtorch_global_deps": ctypes.RTLD_GLOBAL, "libtorch": ctypes.RTLD_LOCAL}
SUFFIXES = {"linux": ".so", "darwin": ".dylib"}


def importLibraries(engine: str) -> None:
    """Import the packages of this engine; call it from a background thread.

    Two things would block the interpreter for all threads, including the event loop: the dynamic loader,
    which maps hundreds of megabytes in one call (0.4 s), and the garbage collector, which visits the half
    million imported objects (0.2 s each time).
    """
    if engine == "torch" and "torch" not in sys.modules:
        loadTorchLibraries()
    with withoutCollector():
        import_libraries(engine)


@contextlib.contextmanager
def withoutCollector() -> Iterator[None]:
    """Keep objects that are imported here out of garbage collection, now and later; modules are never freed anyway."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def loadTorchLibraries() -> None:
    """Load torch's shared libraries by a foreign call, which unlike an import lets other threads run.

    If this fails, the import loads them. On Windows torch itself loads them in this way.
    """
    suffix, spec = SUFFIXES.get(sys.platform), find_spec("torch")
    if suffix is None or spec is None:
        return
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.argtypes, dlopen.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
    for name, visibility in TORCH_LIBRARIES.items():
        path = Path(spec.origin).parent / "lib" / f"{name}{suffix}"
        if path.exists():
            dlopen(os.fsencode(path), os.RTLD_NOW | visibility)
