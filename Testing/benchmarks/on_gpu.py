"""Run the most telling experiments on a GPU that is at hand for some minutes.

Pack the data where they are, bring the file and this repository to the GPU, and run the queue there:

    python Testing/benchmarks/on_gpu.py pack ../shared/data/ircad ../shared/data/lits -o build/gpu/data
    python Testing/benchmarks/on_gpu.py run build/gpu/data -o results --minutes 9

Needed there: torch, monai, nibabel, numpy, scipy, tqdm, matplotlib, onnx and onnxruntime, nothing installed.
All runs of the queue run at once, as many as there are cores, the most telling first: the bundled model's, and
every fold of whole cross-validations. Runs that exceed the time are stopped. A fold's scores are written as
`crossval --json` writes them, and its model's weights lie in the folder beside them; `Testing/test_cuda.py` is to be
run by itself. On an H200 with 16 cores the queue took 8 min 30 s; a daemon of `nvidia-cuda-mps-control` doubles
what many processes get out of one GPU. The packed data are for research only and must not be published.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDS = sorted((REPOSITORY / "Testing/benchmarks/crossval/accurate").glob("fold*.json"))
# A CT's noise is 10 HU and more; steps of 8 HU add 2.3.
LOW_HU, HIGH_HU, STEP_HU = -160, 240, 8
BODY_HU, MARGIN_PX = -130, 4
TESTED = "ircad"
COMMON = ["--validation", "0.04", "--validate-every", "1000", "--device", "cuda"]
# By name: the options of `crossval`, the most telling first.
QUEUE = {
    "accurate": ["--recipe", "accurate"],
    "notebook": ["--recipe", "notebook"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("pack", help="write cases as a folder of small files")
    command.add_argument("data", nargs="+", type=Path)
    command.add_argument("-o", "--output", type=Path, required=True)
    command.set_defaults(run=pack)
    command = commands.add_parser("run", help="unpack them and run the queue")
    command.add_argument("packed", type=Path)
    command.add_argument("-o", "--output", type=Path, required=True)
    command.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "on_gpu")
    command.add_argument("--minutes", type=float, default=9.0)
    command.add_argument("--at-once", type=int, default=max((os.cpu_count() or 2) - 1, 1))
    command.add_argument("--only", nargs="+", default=["bundled", *QUEUE], help="these alone (%(default)s)")
    command.set_defaults(run=run)
    options = parser.parse_args()
    sys.path[:0] = _libraries()
    options.run(options)


def pack(options: argparse.Namespace) -> None:
    from PIL import Image

    from LiverUNetTrainLib.data.cases import check_case
    from LiverUNetTrainLib.data.layouts import find_cases

    options.output.mkdir(parents=True, exist_ok=True)
    for case in find_cases(options.data):
        checked = check_case(case)
        scan, mask = checked.scan, checked.mask
        body = np.argwhere(scan.hu_kji[::2, ::2, ::2] > BODY_HU) * 2
        box = tuple(
            slice(max(int(first) - MARGIN_PX, 0), int(last) + MARGIN_PX)
            for first, last in zip(body.min(axis=0), body.max(axis=0), strict=True)
        )
        affine = scan.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [part.start for part in box[::-1]]
        steps = np.rint((scan.hu_kji[box].clip(LOW_HU, HIGH_HU) - LOW_HU) / STEP_HU).astype(np.uint8)
        hashes = {"content_hash": checked.content_hash, "mask_hash": checked.mask_hash}
        head = {"shape": steps.shape, "affine": affine.tolist(), "hashes": hashes}
        with lzma.open(options.output / f"{case.name}.xz", "wb") as file:
            file.write(json.dumps(head).encode() + b"\n" + np.packbits(mask.hu_kji[box] > 0).tobytes())
        # All slices, one below the other, in pictures as high as the format allows.
        rows = 16383 // steps.shape[1]
        for number, first in enumerate(range(0, len(steps), rows)):
            picture = Image.fromarray(np.concatenate(steps[first : first + rows])).convert("RGB")
            picture.save(options.output / f"{case.name}.{number}.webp", lossless=True, quality=60)
    print(f"{sum(file.stat().st_size for file in options.output.iterdir()) / 1e6:.1f} MB")


def unpack(packed: Path, data: Path, cache: Path) -> None:
    """Write a case as a pair of NIfTI and bring it onto the grids, under the hashes of the scan it was packed from."""
    from PIL import Image

    from LiverUNetLib.scan.formats import write_volume
    from LiverUNetTrainLib.data.cache import Grids, prepare
    from LiverUNetTrainLib.data.cases import Case

    name = packed.stem
    with lzma.open(packed, "rb") as file:
        head, bits = json.loads(file.readline()), file.read()
    shape, affine = tuple(head["shape"]), np.array(head["affine"])
    pictures = sorted(packed.parent.glob(f"{name}.*.webp"))
    steps = np.concatenate([np.asarray(Image.open(picture))[..., 0] for picture in pictures]).reshape(shape)
    mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=steps.size).reshape(shape)
    data.mkdir(parents=True, exist_ok=True)
    case = Case(name, data / f"{name}_orig.nii.gz", data / f"{name}_liver.nii.gz")
    write_volume(case.scan, steps.astype(np.int16) * STEP_HU + LOW_HU, affine)
    write_volume(case.mask, mask, affine)
    list(prepare([case], cache, Grids()))
    entry = cache / name / "case.json"
    entry.write_text(json.dumps(json.loads(entry.read_text()) | head["hashes"]))


def run(options: argparse.Namespace) -> None:
    end = time.monotonic() + 60 * options.minutes
    os.environ |= {"PYTHONPATH": os.pathsep.join([*_libraries(), os.environ.get("PYTHONPATH", "")])}
    os.environ |= {"OMP_NUM_THREADS": "1"}
    options.output.mkdir(parents=True, exist_ok=True)
    _unpack_all(options.packed, options.work)
    waiting, working = list(_commands(options)), {}
    while time.monotonic() < end and (waiting or working):
        for name in [name for name, process in working.items() if process.poll() is not None]:
            _say(f"{name} ends with {working.pop(name).returncode}")
        while waiting and len(working) < options.at_once:
            name, words = waiting.pop(0)
            with (options.output / f"{name}.txt").open("w") as log:
                working[name] = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
            _say(f"{name} begins")
        time.sleep(1)
    for name, process in working.items():
        process.kill()
        _say(f"{name} is out of time")
    for model in options.work.glob("*/fold?/model"):
        shutil.copytree(model, options.output / "models" / model.parent.parent.name / model.parent.name)


def _unpack_all(packed: Path, work: Path) -> None:
    if (work / "cache/cache.json").exists():
        return
    cases = sorted(packed.glob("*.xz"))
    folders = [work / "data" / ("tested" if case.stem.startswith(TESTED) else "extra") for case in cases]
    with ProcessPoolExecutor() as pool:
        list(pool.map(unpack, cases, folders, [work / "cache"] * len(cases)))
    subprocess.run(_words("prepare", *{*folders}, "--cache", work / "cache"), check=True)
    _say("unpacked")


def _commands(options: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """All runs of the queue, by their names; each experiment has a work folder, with the cache that all share."""
    data = options.work / "data"
    if "bundled" in options.only:
        from bundled_model import HOLD_OUT, TRAINING

        words = ["train", options.work / "cache", "--run", options.output / "run", *TRAINING, "--hold-out", *HOLD_OUT]
        yield "bundled", _words(*words, "--device", "cuda")
    for experiment, recipe in QUEUE.items():
        if experiment not in options.only:
            continue
        work = options.work / experiment
        work.mkdir(parents=True, exist_ok=True)
        if not (work / "cache").exists():
            (work / "cache").symlink_to(options.work / "cache")
        for fold in range(1, len(FOLDS) + 1):
            name = f"{experiment}-fold{fold}"
            words = ["crossval", data / "tested", "--extra", data / "extra", "--work", work, "--same-folds-as", *FOLDS]
            yield name, _words(*words, "--fold", fold, *recipe, *COMMON, "--json", options.output / f"{name}.json")


def _words(*words: object) -> list[str]:
    return [sys.executable, "-m", "LiverUNetTrainLib", *map(str, words)]


def _libraries() -> list[str]:
    return [str(REPOSITORY / name) for name in ("LiverUNet", "LiverUNetTrain")]


def _say(words: str) -> None:
    print(time.strftime("%H:%M:%S"), words, flush=True)


if __name__ == "__main__":
    main()
