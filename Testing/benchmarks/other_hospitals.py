"""How the recipe does on hospitals that it has never seen: it learns from one, and is tested on those of LiTS.

    python Testing/benchmarks/other_hospitals.py ../shared/data --work FOLDER

Resumes where it stopped; about two hours on one core. The table goes to Testing/benchmarks/other_hospitals.md.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from bundled_model import run, train

from LiverUNetLib.models.folder import open_model
from LiverUNetLib.system.environment import choose_device
from LiverUNetTrainLib.data.cases import Case
from LiverUNetTrainLib.data.layouts import find_cases
from LiverUNetTrainLib.evaluation.evaluate import evaluate_model
from LiverUNetTrainLib.evaluation.metrics import summarize

TABLE = Path(__file__).with_name("other_hospitals.md")
# As in the folds of the cross-validation.
TRAINING = ["--validation", 0.04, "--validate-every", 1000]
WORDS = """\
# On hospitals that it has never seen

Not the bundled weights: a network that has learned from 3D-IRCADb-01 (one hospital) alone, on ten volumes of LiTS
(several hospitals and scanners). Of these volumes there are only slices with liver, which is easier than whole scans,
and none is one of numbers 27 to 47, which are patients of 3D-IRCADb-01. Made by
`python Testing/benchmarks/other_hospitals.py ../shared/data --work W`.
"""
# One step finer than the standard.
FINER_MM = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder that holds ircad and lits")
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    data, work = options.data, options.work
    cases = find_cases([data / "lits"])
    train(data, work, *TRAINING, "--hold-out", *(case.name for case in cases))
    run("export", work / "run", "--weights", "last", "--overwrite", "-o", work / "model")
    run("evaluate", data / "lits", "--model", work / "model", "--held-out", "--record")
    card = (work / "model/docs/README.md").read_text(encoding="utf-8")
    scores = card.split("## Scores\n\n")[1].split("\nMeasured with")[0]
    TABLE.write_text(f"{WORDS}\n{scores}\n{on_a_finer_grid(work / 'model', cases)}\n", encoding="utf-8")


def on_a_finer_grid(folder: Path, cases: list[Case]) -> str:
    """The one choice that these volumes decide, in a sentence."""
    model = open_model(folder)
    spec = model.card.spec
    finer = replace(model.card, spec=replace(spec, fine=replace(spec.fine, pixel_mm=FINER_MM)))
    summary = summarize(list(evaluate_model(replace(model, card=finer), cases, choose_device("auto"))))
    return (
        f"With the same weights on a grid of {FINER_MM:g} mm: Dice {summary['dice'].mean:.4f}, "
        f"HD95 {summary['hd95_mm'].mean:.2f} mm, ASSD {summary['assd_mm'].mean:.2f} mm."
    )


if __name__ == "__main__":
    main()
