"""Run the most telling experiments on a GPU that is at hand for some minutes.

Pack the data where they are, bring the file and this repository to the GPU, and run the queue there:

    python Testing/benchmarks/on_gpu.py pack ../shared/data/ircad ../shared/data/lits -o build/gpu/data.xz
    python Testing/benchmarks/on_gpu.py run build/gpu/data.xz -o results --minutes 9

Needed there: torch, monai, nibabel, numpy, scipy, tqdm, matplotlib, onnxruntime and pytest, nothing installed.
First come the tests that need CUDA, then whole cross-validations, several folds at once, the most
telling first. Each fold's scores are written when it is done; what is not done in time is ended.
The packed data are for research only and must not be published.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDS = REPOSITORY / "Testing/benchmarks/crossval"
# A CT's noise is 10 HU and more; steps of 6 HU add 1.7.
LOW_HU, HIGH_HU, STEP_HU = -160, 240, 6
BODY_HU, MARGIN_PX = -130, 4
TESTED = "ircad"
COMMON = ["--validation", "0.04", "--validate-every", "1000", "--device", "cuda"]


@dataclass(frozen=True)
class Experiment:
    """A cross-validation: its name, and the options of `crossval`."""

    name: str
    options: tuple[str, ...]


QUEUE = (
    Experiment("accurate", ("--recipe", "accurate", "--epochs", "16")),
    Experiment("notebook", ("--recipe", "notebook")),
    Experiment("accurate-long", ("--recipe", "accurate", "--epochs", "40", "--coarse-epochs", "16")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("pack", help="write cases into one small file")
    command.add_argument("data", nargs="+", type=Path)
    command.add_argument("-o", "--output", type=Path, required=True)
    command.set_defaults(run=pack)
    command = commands.add_parser("run", help="unpack them and run the queue")
    command.add_argument("packed", type=Path)
    command.add_argument("-o", "--output", type=Path, required=True)
    command.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "on_gpu")
    command.add_argument("--minutes", type=float, default=9.0)
    command.add_argument("--at-once", type=int, default=max((os.cpu_count() or 2) - 1, 1))
    command.add_argument("--only", nargs="+", help="these experiments alone")
    command.set_defaults(run=run)
    options = parser.parse_args()
    options.run(options)


def pack(options: argparse.Namespace) -> None:
    sys.path[:0] = _libraries()
    from LiverUNetTrainLib.layouts import find_cases

    options.output.parent.mkdir(parents=True, exist_ok=True)
    with lzma.open(options.output, "wb", preset=9) as file:
        for case in find_cases(options.data):
            scan, mask = case.read()
            body = np.argwhere(scan.hu_kji[::2, ::2, ::2] > BODY_HU) * 2
            box = tuple(
                slice(max(int(first) - MARGIN_PX, 0), int(last) + MARGIN_PX)
                for first, last in zip(body.min(axis=0), body.max(axis=0), strict=True)
            )
            affine = scan.affine.copy()
            affine[:3, 3] += affine[:3, :3] @ [part.start for part in box[::-1]]
            hu = np.clip(scan.hu_kji[box], LOW_HU, HIGH_HU).astype(np.float32)
            steps = np.rint((hu - LOW_HU) / STEP_HU).astype(np.uint8)
            head = {"name": case.name, "shape": steps.shape, "affine": affine.tolist()}
            file.write(json.dumps(head).encode() + b"\n")
            file.write(steps.tobytes())
            file.write(np.packbits(mask.hu_kji[box] > 0).tobytes())
            print(case.name, steps.shape, flush=True)
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.1f} MB")


def unpack(packed: Path, folder: Path) -> None:
    """Write the cases as pairs of NIfTI; those of the data set that is tested lie apart from the others."""
    from LiverUNetLib.formats import write_volume

    with lzma.open(packed, "rb") as file:
        while line := file.readline():
            head = json.loads(line)
            shape, affine = tuple(head["shape"]), np.array(head["affine"])
            count = int(np.prod(shape))
            hu = np.frombuffer(file.read(count), np.uint8).reshape(shape).astype(np.int16) * STEP_HU + LOW_HU
            mask = np.unpackbits(np.frombuffer(file.read(-(-count // 8)), np.uint8), count=count).reshape(shape)
            target = folder / ("tested" if head["name"].startswith(TESTED) else "extra")
            target.mkdir(parents=True, exist_ok=True)
            write_volume(target / f"{head['name']}_orig.nii", hu, affine)
            write_volume(target / f"{head['name']}_liver.nii", mask, affine)


def run(options: argparse.Namespace) -> None:
    end = time.monotonic() + 60 * options.minutes
    sys.path[:0] = _libraries()
    os.environ |= {"PYTHONPATH": os.pathsep.join([*_libraries(), os.environ.get("PYTHONPATH", "")])}
    os.environ |= {"OMP_NUM_THREADS": "1"}
    options.output.mkdir(parents=True, exist_ok=True)
    data = options.work / "data"
    unpack(options.packed, data)
    command = [sys.executable, "-m", "LiverUNetTrainLib", "prepare", str(data), "--cache", str(options.work / "cache")]
    subprocess.run(command, check=True)
    tests = [sys.executable, "-m", "pytest", "-q", str(REPOSITORY / "Testing/test_cuda.py"), "-p", "no:cacheprovider"]
    with (options.output / "cuda_tests.txt").open("w") as file:
        subprocess.run(tests, stdout=file, stderr=subprocess.STDOUT, check=False, timeout=120)
    waiting = list(_commands(options, data))
    working: list[subprocess.Popen] = []
    while time.monotonic() < end and (waiting or working):
        working = [process for process in working if process.poll() is None]
        while waiting and len(working) < options.at_once:
            name, words = waiting.pop(0)
            with (options.output / f"{name}.txt").open("w") as log:
                working.append(subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT))
            print(f"{time.strftime('%H:%M:%S')} {name} begins", flush=True)
        time.sleep(1)
    for process in working:
        process.kill()


def _commands(options: argparse.Namespace, data: Path) -> Iterator[tuple[str, list[str]]]:
    """All folds of the queue, by their names; each has a work folder of its own, with the cache that all share."""
    for experiment in QUEUE:
        if options.only and experiment.name not in options.only:
            continue
        work = options.work / experiment.name
        work.mkdir(parents=True, exist_ok=True)
        if not (work / "cache").exists():
            (work / "cache").symlink_to(options.work / "cache")
        for fold in range(1, 6):
            name = f"{experiment.name}-fold{fold}"
            same = ["--same-folds-as", *(str(path) for path in sorted(FOLDS.glob("fold*.json")))]
            words = ["crossval", str(data / "tested"), "--extra", str(data / "extra"), "--work", str(work)]
            words += [*same, "--fold", str(fold), *experiment.options, *COMMON]
            words += ["--json", str(options.output / f"{name}.json")]
            yield name, [sys.executable, "-m", "LiverUNetTrainLib", *words]


def _libraries() -> list[str]:
    return [str(REPOSITORY / name) for name in ("LiverUNet", "LiverUNetTrain")]


if __name__ == "__main__":
    main()
