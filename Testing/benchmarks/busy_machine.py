"""Print what `liver-unet segment` costs beside a busy loop, for each way in which OpenMP's threads can wait.

    python Testing/benchmarks/busy_machine.py [CT] [--runs 3] [--loops 1]

Wall and CPU seconds of the whole command, the fastest of the runs, in turns so that all see the same machine.
Without a CT a synthetic one is written first.
"""

import argparse
import contextlib
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from LiverUNetLib.scan.formats import write_volume
from LiverUNetLib.scan.phantom import abdomen, axial_affine

# The variables of the process; with nothing set, `liver-unet` takes PASSIVE. To have what torch does by itself, the
# library is run without the settings of the command line.
COMMAND_LINE = ["-m", "LiverUNetLib"]
TORCH_ITSELF = ["-c", "import sys; from LiverUNetLib.cli.main import main; sys.exit(main(sys.argv[1:]))"]
WAYS = {
    "torch by itself": (TORCH_ITSELF, {}),
    "OMP_WAIT_POLICY=ACTIVE": (COMMAND_LINE, {"OMP_WAIT_POLICY": "ACTIVE"}),
    "one thread less than cores": (TORCH_ITSELF, {"OMP_NUM_THREADS": str(max((os.cpu_count() or 2) - 1, 1))}),
    "liver-unet (PASSIVE)": (COMMAND_LINE, {}),
}
OURS = ("OMP_", "GOMP_", "KMP_", "MKL_")


@contextlib.contextmanager
def busy(loops: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def seconds(way: str, scan: Path) -> tuple[float, float]:
    """Wall and CPU seconds of one run."""
    start, variables = WAYS[way]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)} | variables
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *start, "segment", scan, "-o", f"{folder}/m.nii.gz", "--device", "cpu"]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(command, env=environment, check=True, capture_output=True)
        wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scan", nargs="?", type=Path, metavar="CT")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--loops", type=int, default=1, help="busy loops beside it (%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scan = options.scan or Path(folder) / "ct.nii.gz"
        if not options.scan:
            spacing, shape = (1.5, 1.5, 2.0), (256, 256, 150)
            volume, _ = abdomen(axial_affine(spacing, shape), shape[::-1])
            write_volume(scan, volume.hu_kji, volume.affine)
        found: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for _ in range(options.runs):
            for loops in (0, options.loops):
                with busy(loops):
                    for way in WAYS:
                        found.setdefault((way, loops), []).append(seconds(way, scan))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{processor()}, {os.cpu_count()} cores; load of the machine at the end {load:.1f}\n")
    print("| threads wait | quiet: wall | CPU | busy: wall | CPU |\n|---|---|---|---|---|")
    for way in WAYS:
        cells = [f"{figure:.1f} s" for loops in (0, options.loops) for figure in min(found[way, loops])]
        print(f"| {way} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
