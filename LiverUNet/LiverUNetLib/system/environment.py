"""The devices of this computer, tested with a small convolution, and the versions of packages."""

from __future__ import annotations

import contextlib
import ctypes.util
import importlib
import os
import platform
import sys
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from ..errors import DeviceError
from ..version import __version__

__all__ = [
    "ENGINES",
    "HOW_TO_GET_TORCH",
    "PACKAGES",
    "TRAINING_PACKAGES",
    "Device",
    "check_devices",
    "choose_device",
    "gpu_driver_present",
    "gpu_in_sight",
    "import_libraries",
    "likely_engine",
    "package_versions",
    "spare_one_core",
    "usable_cores",
    "wait_without_spinning",
]

ENGINES = ("auto", "onnx", "torch")
TRAINING_PACKAGES = ("torch", "monai", "onnx", "matplotlib")
PACKAGES = ("onnxruntime", "nibabel", "pydicom", "numpy", "scipy", "SimpleITK", "tqdm", *TRAINING_PACKAGES)
HOW_TO_GET_TORCH = 'pip install "liver-unet[train]", or ".[train]" in the source folder'


@dataclass(frozen=True)
class Device:
    """A device that computes networks.

    Attributes:
        name: "cpu", "cuda:0", "mps", ….
        engine: "torch" or "onnx", see `models.engines`.
        dtype: the number format of convolutions under autocast; "float32" for no autocast.
        note: a warning for the user about the choice; empty if there is none.
    """

    name: str
    engine: str = "torch"
    dtype: str = "float32"
    note: str = ""

    @property
    def kind(self) -> str:
        """The torch device type: "cpu", "cuda" or "mps"."""
        return self.name.split(":")[0]

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context manager in which a network of PyTorch runs."""
        import torch

        return torch.autocast(self.kind, getattr(torch, self.dtype), enabled=self.dtype != "float32")


def choose_device(name: str = "auto", engine: str = "auto") -> Device:
    """Return the device called `name`; "auto" takes a GPU that works, otherwise the CPU, with a note of the reason.

    Args:
        name: "auto", "cpu", "cuda", "cuda:N" or "mps".
        engine: one of ENGINES; "auto" takes PyTorch for a GPU and ONNX Runtime for the CPU.

    Raises:
        DeviceError: the device is missing, unknown or fails a small convolution, or its engine is not installed.
    """
    if engine == "onnx" and name not in ("auto", "cpu"):
        raise DeviceError(f"ONNX Runtime computes on the CPU only, not on {name}; choose cpu, or the engine torch.")
    if likely_engine(name, engine) == "onnx":
        return Device("cpu", "onnx")
    if find_spec("torch") is None:
        wanted = f"The device {name}" if engine == "auto" else "The engine torch"
        raise DeviceError(f"{wanted} needs PyTorch ({HOW_TO_GET_TORCH}); or choose the device cpu and no engine.")
    if name not in ("auto", "cpu"):
        if fault := _fault(name):
            raise DeviceError(f"The device {name} cannot be used: {fault}; choose auto or cpu.")
        return Device(name, dtype=_gpu_dtype(name))
    faults = []
    for candidate in _present_gpus() if name == "auto" else ():
        fault = _fault(candidate)
        if not fault:
            return Device(candidate, dtype=_gpu_dtype(candidate))
        faults.append(f"{candidate} is present but cannot be used ({fault}); the CPU is used instead.")
    if engine == "auto":
        return Device("cpu", "onnx", note=" ".join(faults))
    return Device("cpu", dtype=_cpu_dtype(), note=" ".join(faults))


def likely_engine(name: str, engine: str) -> str:
    """The engine that `choose_device` takes, unless a GPU is visible but fails; imports nothing."""
    if engine != "auto":
        return engine
    return "onnx" if name == "cpu" or (name == "auto" and not gpu_in_sight()) else "torch"


def gpu_in_sight() -> bool:
    """Whether a GPU is visible and PyTorch is installed in a build for GPUs; imports nothing.

    Importing PyTorch takes seconds, for which users without a GPU should not have to wait.
    """
    torch = _installed_version("torch") or "+cpu"
    return not torch.endswith("+cpu") and gpu_driver_present()


def gpu_driver_present() -> bool:
    """Whether a driver of NVIDIA or AMD is installed, or the computer is a Mac with Apple's processor."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        return ctypes.util.find_library("nvcuda") is not None
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))  # dxg: WSL


def check_devices() -> dict[str, str]:
    """Test every device: name -> the engines and number format that work on it, or its fault."""
    engines, gpus = (["ONNX Runtime"] if find_spec("onnxruntime") else []), {}
    if find_spec("torch"):
        engines.append(f"PyTorch in {_cpu_dtype()}")
        gpus = {gpu: _fault(gpu) or f"works, PyTorch in {_gpu_dtype(gpu)}" for gpu in _present_gpus()}
    elif gpu_driver_present():
        gpus = {"gpu": "visible, but PyTorch is not installed; the CPU is used"}
    return {"cpu": f"works, {' and '.join(engines)}" if engines else "no engine is installed"} | gpus


def import_libraries(engine: str) -> None:
    """Import everything that segmenting with this engine needs; it takes seconds the first time."""
    engines = {"onnx": ["onnxruntime"], "torch": ["torch.nn.utils.fusion", "monai.networks.nets"]}
    for name in (*engines[engine], "nibabel.orientations", "scipy.ndimage", "scipy.sparse"):
        importlib.import_module(name)


def wait_without_spinning(environment: MutableMapping[str, str]) -> None:
    """Let OpenMP threads sleep while they wait for each other, unless the user has chosen how they wait.

    By default they spin. On a busy computer they then occupy the very core that the thread they wait for
    needs (Testing/benchmarks/busy_machine.md). Only the way of waiting changes, not the number of threads,
    so results stay the same. OpenMP runtimes (libgomp, libomp, Intel's) read the variable once, when torch
    loads them: call this before torch is imported, and only in a process that is not shared with other software.

    Args:
        environment: `os.environ`.
    """
    chosen = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
    if not any(name in environment for name in chosen):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"


@contextlib.contextmanager
def spare_one_core() -> Iterator[None]:
    """Let torch, if it is loaded, use one thread less than there are cores, until the block ends.

    For prediction inside Slicer, which needs a core to draw and to handle events: torch's threads spin
    while one of them waits for a core. `wait_without_spinning` would be too late there, since its variable
    is read when torch is imported. Not for training: a run resumes bit for bit only with the same number
    of threads.

    The number of threads belongs to the calling thread. In a generator, enter the block inside:
    `with spare_one_core(): return (yield from segment(...))`.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(max(min(before, usable_cores() - 1), 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def usable_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def package_versions() -> dict[str, str]:
    """The versions of LiverUNet, of Python and of all packages that the libraries use."""
    return {"liver-unet": __version__, "python": platform.python_version()} | {
        name: _installed_version(name) or "not installed" for name in PACKAGES
    }


def _installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _present_gpus() -> list[str]:
    import torch

    gpus = [f"cuda:{n}" for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return gpus + (["mps"] if torch.backends.mps.is_available() else [])


def _fault(name: str) -> str:
    """Run a small convolution on the device and return its fault; empty if it works.

    `torch.cuda.is_available()` is not enough: it is true for a GPU too new or too old for the installed build.
    """
    import torch

    try:
        device = torch.device(name)
        if device.type not in ("cuda", "mps"):
            return "it is not cpu, cuda, cuda:N or mps"
        image = torch.ones(1, 1, 8, 8, device=device)
        total = torch.nn.functional.conv2d(image, torch.ones(1, 1, 3, 3, device=device)).sum().item()
    except Exception as error:  # noqa: BLE001 - torch raises AssertionError, RuntimeError, NotImplementedError, …
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return "" if total == 324.0 else f"a convolution gave {total} instead of 324"


def _cpu_dtype() -> str:
    """bfloat16 halves the time on CPUs that compute in it, and takes nine times as long on those that emulate it."""
    import torch

    native = any(getattr(torch.cpu, probe, bool)() for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return "bfloat16" if native else "float32"


def _gpu_dtype(name: str) -> str:
    return "float16" if name.startswith("cuda") else "float32"
