"""Import what an engine needs in a background thread, without holding the event loop."""

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

# The first makes OpenMP's symbols global, as torch does; the second pulls in everything else, CUDA included.
TORCH_LIBRARIES = {"libtorch_global_deps": ctypes.RTLD_GLOBAL, "libtorch": ctypes.RTLD_LOCAL}
SUFFIXES = {"linux": ".so", "darwin": ".dylib"}


def importLibraries(engine: str) -> None:
    """Import what segmenting with this engine needs; to be called from a background thread.

    Two things keep all other threads from the interpreter, and with them the event loop: the
    dynamic loader, which maps and relocates hundreds of megabytes in one call (0.4 s), and the garbage
    collector, which looks at the half million objects that are being imported (0.2 s a time).
    """
    if engine == "torch" and "torch" not in sys.modules:
        loadTorchLibraries()
    with withoutCollector():
        import_libraries(engine)


@contextlib.contextmanager
def withoutCollector() -> Iterator[None]:
    """Keep the garbage collector from looking at what is imported meanwhile, then and later: modules stay anyway."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def loadTorchLibraries() -> None:
    """Load torch's shared libraries by a foreign call, which lets other threads run, unlike an import.

    Where this fails nothing is lost: the import loads them itself. On Windows torch loads them in this way itself.
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
