"""What a model gains from five cases of a look that it has never seen, and what it loses of the old one.

    python Testing/benchmarks/finetuning.py ../shared/data/ircad --work FOLDER [--model liver-ct]

The look is made: no contrast medium, slices of 6 mm, noise of 40 HU. Five patients from whom the
model has learned get it, and are what is new; those that it holds out get it as well, and are what
is unseen. The commands that do the rest are printed with what they print.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from stress import noise, on_voxels, slices, unenhanced

from LiverUNetLib.models.store import DEFAULT_MODEL, find_model
from LiverUNetLib.scan.formats import write_volume
from LiverUNetTrainLib.data.cases import content_hash
from LiverUNetTrainLib.data.layouts import find_cases

LOOK = (on_voxels(unenhanced), slices(6), noise(40))
NEW_CASES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    options = parser.parse_args()
    work = options.work
    write_altered(options.data, work, options.model)
    started = time.monotonic()
    run("prepare", work / "new", options.data, "--cache", work / "cache", "--like", options.model)
    run("train", work / "cache", "--run", work / "run", "--from", options.model, "--minutes", 8)
    run("export", work / "run", "-o", work / "tuned")
    print(f"{(time.monotonic() - started) / 60:.1f} min for the tuned model", flush=True)
    for model in (options.model, work / "tuned"):
        run("evaluate", work / "unseen", "--model", model)
        run("evaluate", options.data, "--model", model, "--held-out")


def write_altered(data: Path, work: Path, model: str) -> None:
    """Write pairs of the new look: some that the model may learn from, and all that it holds out."""
    lineage = find_model(model).card.lineage
    seen, held_out = set(lineage.training.values()), set(lineage.held_out.values())
    taken = 0
    for case in find_cases([data]):
        scan, mask = case.read()
        hash_ = content_hash(scan)
        taken += hash_ in seen
        if hash_ not in held_out and not (hash_ in seen and taken <= NEW_CASES):
            continue
        altered = (scan, mask.hu_kji)
        for change in LOOK:
            altered = change(*altered)
        folder = work / ("unseen" if hash_ in held_out else "new")
        folder.mkdir(parents=True, exist_ok=True)
        write_volume(folder / f"{case.name}-altered_orig.nii.gz", altered[0].hu_kji, altered[0].affine)
        write_volume(folder / f"{case.name}-altered_liver.nii.gz", altered[1].astype("uint8"), altered[0].affine)


def run(*words: object) -> None:
    print("$ liver-unet-train", *words, flush=True)
    subprocess.run([sys.executable, "-m", "LiverUNetTrainLib", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
