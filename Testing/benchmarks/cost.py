"""What LiverUNet costs: whole commands from the shell and their stages, in CPU seconds, wall seconds and memory.

    python Testing/benchmarks/cost.py ../shared/data/ircad/ircad_e01_orig.nii.gz \\
        [--against VENV ...] [--engine torch ...] [--cobra MODEL.onnx] [--threads] [--install]

For Linux. The given scan is measured with three derived scans: finer, longer, three thick slices. The batch is the
first ten `*_orig.nii.gz` of its folder. All that is compared takes turns on every scan, so that it sees the same
machine. The table goes to Testing/benchmarks/cost.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from busy_machine import processor
from cost_stages import IMPORTS, LOADING, READING, REST, WRITING

if TYPE_CHECKING:
    import numpy as np

TABLE = Path(__file__).with_name("cost.md")
STAGES, COBRA = (Path(__file__).with_name(name) for name in ("cost_stages.py", "cost_cobra.py"))
REPOSITORY = Path(__file__).resolve().parents[2]
ALL_CORES = os.sched_getaffinity(0)
ORDER = (
    IMPORTS,
    READING,
    "Preparing",
    LOADING,
    "Finding the liver",
    "Segmenting",
    "Restoring",
    "Tidying",
    "Measuring",
    WRITING,
)
SLICES, SLAB_MM, SLABS, BATCH = 400, 5.0, 3, 10
# What the speed of a network depends on.
FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
PACKAGES = ("onnxruntime", "torch", "monai", "numpy", "scipy", "nibabel", "SimpleITK")
ABOUT = """
import json, sys
from importlib.metadata import distributions
from pathlib import Path
import LiverUNetLib
found = {each.name: each.version for each in distributions()}
packages = [f"{name} {found[name]}" for name in sys.argv[1:] if name in found]
print(json.dumps([str(Path(LiverUNetLib.__file__).parent), packages]))
"""


@dataclass(frozen=True)
class Way:
    """A program that segments: a LiverUNet with options of its command, or COBRA."""

    name: str
    python: Path
    options: tuple[str, ...] = ()
    cobra: Path | None = None

    def command(self, scan: Path, output: Path, cores: int, stages: Path | None) -> list[str | Path]:
        """The command; given a file for the stages, one that writes them."""
        if self.cobra:
            scans = sorted(scan.iterdir()) if scan.is_dir() else [scan]
            return [self.python, COBRA, stages or os.devnull, self.cobra, *scans, "-o", output, "--threads", str(cores)]
        start = [self.python, STAGES, stages] if stages else [self.python.with_name("liver-unet")]
        work = ["batch", scan, "-o", output] if scan.is_dir() else ["segment", scan, "-o", output / "mask.nii.gz"]
        return [*start, *work, "--device", "cpu", *self.options]


@dataclass(frozen=True)
class Cost:
    """What one command used, its children included."""

    cpu_s: float
    wall_s: float
    peak_mb: float


@dataclass
class Runs:
    """All runs of one way on one scan: without and with stage timing."""

    plain: list[Cost] = field(default_factory=list)
    staged: list[dict[str, float]] = field(default_factory=list)

    def add(self, way: Way, scan: Path, cores: int) -> None:
        """Run both once more, each into an empty folder."""
        with tempfile.TemporaryDirectory() as output:
            self.plain.append(run(way.command(scan, Path(output), cores, None), cores))
        with tempfile.TemporaryDirectory() as output, tempfile.NamedTemporaryFile(suffix=".json") as file:
            whole = run(way.command(scan, Path(output), cores, Path(file.name)), cores)
            spent = json.load(file)
        spent[REST] = spent.get(REST, 0.0) + whole.cpu_s - sum(spent.values())  # the end of Python too
        self.staged.append(spent)


def run(command: list[str | Path], cores: int) -> Cost:
    """Run a command on so many cores."""
    with tempfile.TemporaryFile("w+") as log:
        os.sched_setaffinity(0, sorted(ALL_CORES)[-cores:])
        began, variables = time.monotonic(), os.environ | {"OMP_NUM_THREADS": str(cores)}
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=variables)
        _, status, used = os.wait4(process.pid, 0)
        wall_s, process.returncode = time.monotonic() - began, os.waitstatus_to_exitcode(status)
        os.sched_setaffinity(0, ALL_CORES)
        if process.returncode:
            log.seek(0)
            sys.exit(f"{shlex.join(map(str, command))} ended with {process.returncode}:\n{log.read()}")
    return Cost(used.ru_utime + used.ru_stime, wall_s, used.ru_maxrss * 1024 / 1e6)


def make_scans(original: Path, folder: Path) -> dict[str, Path]:
    """The scans by name. Memory is inherited from the parent, so another process writes them."""
    with multiprocessing.Pool(1) as pool:
        scans = pool.apply(write_scans, (original, folder))
    scans = {f"{name} ({path.stat().st_size / 1e6:.1f} MB)": path for name, path in scans.items()}
    batch = folder / "batch"
    batch.mkdir()
    for path in sorted(original.parent.glob("*_orig.nii.gz"))[:BATCH]:
        (batch / path.name).symlink_to(path.resolve())
    return scans | {f"batch of {len(list(batch.iterdir()))} scans": batch}


def write_scans(original: Path, folder: Path) -> dict[str, Path]:
    from LiverUNetLib.scan.formats import read_volume, write_volume

    scan = read_volume(original)
    slices, rows, columns = scan.hu_kji.shape
    thick = max(round(SLAB_MM / scan.spacing_kji_mm[0]), 1)
    made = {
        "each pixel doubled": repeated(scan.hu_kji, scan.affine, (slices, 2 * rows, 2 * columns)),
        f"and slices repeated to {SLICES}": repeated(scan.hu_kji, scan.affine, (SLICES, 2 * rows, 2 * columns)),
        f"its middle, each the mean of {thick}": slabs(scan.hu_kji, scan.affine, thick),
    }
    paths = {f"{columns} x {rows} x {slices}, {original.name.split('.')[0]} as it is": original}
    for name, (hu_kji, affine) in made.items():
        path = folder / f"{len(paths)}.nii.gz"
        write_volume(path, hu_kji, affine)
        paths[f"{' x '.join(map(str, hu_kji.shape[::-1]))}, {name}"] = path
    return paths


def repeated(hu_kji: np.ndarray, affine: np.ndarray, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The same body in more voxels of the same values, and its affine; outer edges stay where they are."""
    import numpy as np

    scale = np.array(hu_kji.shape) / shape
    indices = [np.arange(new) * old // new for new, old in zip(shape, hu_kji.shape, strict=True)]
    to_old = np.diag([*scale[::-1], 1.0])
    to_old[:3, 3] = (scale[::-1] - 1) / 2
    return hu_kji[np.ix_(*indices)], affine @ to_old


def slabs(hu_kji: np.ndarray, affine: np.ndarray, thick: int) -> tuple[np.ndarray, np.ndarray]:
    """A few thick slices from the middle, each the mean of so many, and their affine."""
    import numpy as np

    first = (len(hu_kji) - SLABS * thick) // 2
    part = hu_kji[first : first + SLABS * thick].reshape(SLABS, thick, *hu_kji.shape[1:])
    to_old = np.diag([1.0, 1.0, thick, 1.0])
    to_old[2, 3] = first + (thick - 1) / 2
    return np.rint(part.mean(axis=1)).astype(hu_kji.dtype), affine @ to_old


def program(venv: Path, *options: str, place: str = "") -> tuple[Way, str]:
    """The LiverUNet of a virtual environment, or of a checkout that holds it as `v`, and what it runs on."""
    python = next((path for path in (venv / "v/bin/python", venv / "bin/python") if path.exists()), None)
    if python is None:
        sys.exit(f"{venv} holds neither bin/python nor v/bin/python; name a virtual environment or a checkout.")
    library, packages = json.loads(output_of(python, "-c", ABOUT, *PACKAGES))
    name = " ".join([commit_of(Path(library)), *options, *([f"in {place}"] if place else [])])
    return Way(name, python, options), f"{name}: {', '.join(packages)}."


def commit_of(folder: Path) -> str:
    """The commit of a folder, and whether it was changed since; installed from a wheel, it has none."""
    git = ["git", "-C", str(folder)]
    if subprocess.run([*git, "rev-parse"], capture_output=True).returncode:
        return "installed"
    changed = output_of(*git, "status", "--porcelain", ".")
    return output_of(*git, "log", "-1", "--format=%h").strip() + (" (changed)" if changed else "")


def output_of(*command: str | Path) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def programs(options: argparse.Namespace) -> tuple[list[Way], list[str]]:
    """All that is compared, and what each runs on; this one comes first."""
    here = Path(sys.prefix)
    found = [program(here), *(program(here, "--engine", engine) for engine in options.engine)]
    found += [program(venv, place=str(venv)) for venv in options.against]
    ways, abouts = [way for way, _ in found], [about for _, about in found]
    if options.cobra:
        ways.append(Way("COBRA", ways[0].python, cobra=options.cobra))
    return ways, abouts


def compare(ways: list[Way], scans: dict[str, Path], cores: int, runs: int) -> dict[tuple[str, str], Runs]:
    """All runs by scan and program, which take turns."""
    found: dict[tuple[str, str], Runs] = {}
    for scan, path in scans.items():
        for number in range(1, runs + 1):
            for way in ways:
                print(f"{cores} core(s), run {number}: {way.name}, {scan}", file=sys.stderr, flush=True)
                found.setdefault((scan, way.name), Runs()).add(way, path, cores)
    return found


def cost_lines(found: dict[tuple[str, str], Runs]) -> list[str]:
    lines = ["| scan | program | CPU s | wall s | peak MB |", "|---|---|---|---|---|"]
    for (scan, way), runs in found.items():
        cpu_s, wall_s = min(cost.cpu_s for cost in runs.plain), min(cost.wall_s for cost in runs.plain)
        peak_mb = max(cost.peak_mb for cost in runs.plain)
        lines.append(f"| {scan} | {way} | {cpu_s:.2f} | {wall_s:.2f} | {peak_mb:.0f} |")
    return lines


def stage_lines(found: dict[tuple[str, str], Runs]) -> list[str]:
    best = {key: min(runs.staged, key=lambda spent: sum(spent.values())) for key, runs in found.items()}
    stages = [*ORDER, *sorted({name for spent in best.values() for name in spent} - {*ORDER, REST}), REST]
    lines = [f"| scan | program | {' | '.join(stages)} | sum |", f"|---|---|{'---|' * len(stages)}---|"]
    for (scan, way), spent in best.items():
        cells = [f"{spent[name]:.2f}" if name in spent else "" for name in stages]
        lines.append(f"| {scan} | {way} | {' | '.join(cells)} | {sum(spent.values()):.2f} |")
    return lines


def install(checkout: Path, folder: Path) -> str:
    """Install a checkout into an empty environment, nothing cached; a row about it."""
    venv = Path(tempfile.mkdtemp(dir=folder))
    steps = ([sys.executable, "-m", "venv", venv], [venv / "bin/pip", "install", "--no-cache-dir", "-q", checkout])
    costs = [run(step, len(ALL_CORES)) for step in steps]
    size_mb = sum(path.lstat().st_blocks * 512 for path in venv.rglob("*")) / 1e6
    names = {package["name"] for package in json.loads(output_of(venv / "bin/pip", "list", "--format=json"))}
    cpu_s, wall_s = sum(cost.cpu_s for cost in costs), sum(cost.wall_s for cost in costs)
    torch = "yes" if "torch" in names else "no"
    return f"| {commit_of(checkout)} | {cpu_s:.0f} | {wall_s:.0f} | {size_mb:.0f} | {len(names)} | {torch} |"


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line.split() for line in cpuinfo if line.startswith("flags")), [])
    has, lacks = ([flag for flag in FLAGS if (flag in flags) == there] for there in (True, False))
    return (
        f"{processor()}, {len(ALL_CORES)} cores, with {', '.join(has) or 'none'} of what a network can use, without "
        f"{', '.join(lacks) or 'none'}; load of the machine before: {os.getloadavg()[0]:.1f}. "
        f"Python {platform.python_version()}."
    )


def write_table(table: Path, about: list[str], parts: dict[str, list[str]]) -> None:
    lines = [
        "# What LiverUNet costs",
        "",
        f"Made by `python Testing/benchmarks/cost.py {shlex.join(sys.argv[1:])}`. Whole commands from the shell; CPU "
        "and wall seconds are the fewest of the runs, memory is the most. The stages are those of runs of their own, "
        "which watch the progress: imports count as such wherever they happen; what no stage claims is the rest. The "
        "first ten scans of the folder are the batch. COBRA is a public model of the FLARE21 challenge "
        "(`cost_cobra.py`).",
        "",
        *(f"- {line}" for line in about),
    ]
    for title, rows in parts.items():
        lines += ["", f"## {title}", "", *rows]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scan", type=Path, metavar="CT")
    parser.add_argument(
        "--against", type=Path, action="append", default=[], metavar="VENV", help="of another commit, or its checkout"
    )
    parser.add_argument("--engine", action="append", default=[], help="also this commit with this engine")
    parser.add_argument("--cobra", type=Path, metavar="MODEL.onnx", help="also COBRA, see cost_cobra.py")
    parser.add_argument("--threads", action="store_true", help="on all cores too, not on one alone")
    parser.add_argument(
        "--install",
        type=Path,
        nargs="*",
        metavar="CHECKOUT",
        help="into an empty environment, this one if none is named",
    )
    parser.add_argument("--runs", type=int, default=3, help="of each command (%(default)s)")
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="these of the scans, counted from 1")
    parser.add_argument("--table", type=Path, default=TABLE, help="file to write (%(default)s)")
    options = parser.parse_args()
    ways, abouts = programs(options)
    about, parts = [machine(), *abouts], {}
    with tempfile.TemporaryDirectory() as folder:
        if options.install is not None:
            head = ["| commit | CPU s | wall s | MB | packages | PyTorch |", "|---|---|---|---|---|---|"]
            rows = [install(checkout.resolve(), Path(folder)) for checkout in options.install or [REPOSITORY]]
            parts["Installation: `python3 -m venv v && v/bin/pip install .`, nothing cached"] = head + rows
        scans = make_scans(options.scan, Path(folder))
        if options.only:
            scans = {name: scans[name] for name in (list(scans)[number - 1] for number in options.only)}
        for cores in sorted({1, len(ALL_CORES)} if options.threads else {1}):
            found = compare(ways, scans, cores, options.runs)
            title = "one core" if cores == 1 else f"{cores} cores"
            parts[f"Whole commands on {title}"] = cost_lines(found)
            parts[f"CPU seconds of their stages on {title}"] = stage_lines(found)
    write_table(options.table, about, parts)


if __name__ == "__main__":
    main()
