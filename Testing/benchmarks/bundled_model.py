"""Make the bundled model, its tables and its card, in one command that resumes where it stopped.

    python Testing/benchmarks/bundled_model.py ../shared/data --work FOLDER [--crossval FOLDER]

The commands are printed with what they print; on one core they take some three hours. With the folder of a
cross-validation, the model is calibrated by its models, too.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from crossval_table import crossval_table

from LiverUNetLib.models.store import find_model
from LiverUNetLib.version import __version__

HERE = Path(__file__).parent
MODEL = HERE.resolve().parents[1] / "LiverUNet/Resources/Models/liver-ct"
HOLD_OUT = [f"ircad_e{number}" for number in range(16, 21)]
TRAINING = ["--validation", 0.08, "--validate-every", 13]
STATEMENT = [
    *("--model-version", __version__),
    *("--description", "The liver in contrast-enhanced abdominal CT, by a coarse and a fine look"),
    "--license",
    "Non-commercial research only; learned from 3D-IRCADb-01 (CC BY-NC-ND) and LiTS (CC BY-NC-SA or BY-NC-ND)",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder that holds ircad and lits")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--crossval", type=Path, help="what `liver-unet-train crossval` has written")
    options = parser.parse_args()
    data, work = options.data, options.work
    if find_model(MODEL.name).folder.resolve() != MODEL:
        sys.exit("Install LiverUNet by `pip install -e .`: the model in this repository is to be made and measured.")
    train(data, work, *TRAINING, "--hold-out", *HOLD_OUT)
    export = ["export", work / "run", "--weights", "last", "--overwrite", *STATEMENT, "-o"]
    run(*export, work / MODEL.name)
    for script in ("stress.py", "edges.py"):
        subprocess.run([sys.executable, HERE / script, data / "ircad", "--model", work / MODEL.name], check=True)
    (work / "notes.md").write_text(notes(), encoding="utf-8")
    run(*export, MODEL, "--notes", work / "notes.md")
    run("evaluate", data / "ircad", "--model", MODEL.name, "--held-out", "--record")
    if options.crossval:
        figure = HERE.resolve().parents[1] / "docs/pictures/calibration.png"
        shown = ["--altered", 3, "--spoilt", 2, "--figure", figure, "--work", work / "runs"]
        run("calibrate", data / "ircad", "--model", MODEL.name, "--crossval", options.crossval, *shown, "--record")


def notes() -> str:
    """What the card ends with: failures, described by hand, and the tables of the benchmarks."""
    stress, edges = (
        (HERE / name).read_text(encoding="utf-8").split("\n", 2)[2].strip() for name in ("stress.md", "edges.md")
    )
    return "\n\n".join(
        [
            (HERE / "failures.md").read_text(encoding="utf-8").strip(),
            "## Cross-validation\n\nThe recipe with 30 epochs, not these weights: 3D-IRCADb-01 in five folds by "
            "patient, with LiTS for training only; each file of `Testing/benchmarks/crossval` has its command.",
            crossval_table(),
            "## Altered scans\n\n" + stress,
            "## From slice to slice\n\n" + edges,
        ]
    )


def train(data: Path, work: Path, *options: object) -> None:
    """Prepare both data sets and train in WORK/run, or resume what is there."""
    run("prepare", data / "ircad", data / "lits", "--cache", work / "cache")
    resume = ["--resume"] if (work / "run/settings.json").exists() else []
    run("train", work / "cache", "--run", work / "run", *options, *resume)


def run(*words: object) -> None:
    print("$ liver-unet-train", *words, flush=True)
    subprocess.run([sys.executable, "-m", "LiverUNetTrainLib", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
