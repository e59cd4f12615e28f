"""What each choice is worth: short trainings that differ from a base in one thing.

    python Testing/benchmarks/ablation.py ../shared/data/ircad --extra ../shared/data/lits --work W [--only NAME …]

All variants but the long ones train EPOCHS epochs, on the same patients, and are tested on the patients of
the first two of five folds, which crossval draws alike. What is done in W is not done again. The table goes
to Testing/benchmarks/ablation.md.
"""

import argparse
import platform
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from LiverUNetLib.models.folder import open_model
from LiverUNetLib.models.spec import CoarseLook
from LiverUNetLib.system.environment import choose_device
from LiverUNetTrainLib.data.cache import Cache, Grids, is_cache, open_cache, prepare
from LiverUNetTrainLib.data.cases import Case
from LiverUNetTrainLib.data.layouts import find_cases
from LiverUNetTrainLib.data.splits import Split, split_by_patient
from LiverUNetTrainLib.evaluation.crossval import folds_of
from LiverUNetTrainLib.evaluation.evaluate import evaluate_model
from LiverUNetTrainLib.evaluation.export import ModelInfo, export_run
from LiverUNetTrainLib.evaluation.metrics import CaseScores, summarize
from LiverUNetTrainLib.evaluation.tables import read_scores, write_evaluation
from LiverUNetTrainLib.run.folder import EpochLog, RunFolder
from LiverUNetTrainLib.run.settings import AugmentationSettings, StackSettings
from LiverUNetTrainLib.training.model_training import ModelTraining
from LiverUNetTrainLib.training.plan import Plan
from LiverUNetTrainLib.training.recipes import RECIPES, Recipe

EPOCHS = 8
TABLE = Path(__file__).with_name("ablation.md")


BASE = RECIPES["accurate"]
FINE = BASE.spec.fine


@dataclass(frozen=True)
class Variant:
    """One row: what is changed."""

    change: str
    recipe: Recipe = BASE
    pixel_mm: float = FINE.pixel_mm
    epochs: int = EPOCHS


def network(**settings: object) -> Recipe:
    """Another network of the fine look."""
    return looking(network=replace(FINE.network, **settings))


def context(*distances_mm: float) -> Recipe:
    """Other channels."""
    return looking(context_mm=distances_mm, network=replace(FINE.network, in_channels=len(distances_mm)))


def looking(**settings: object) -> Recipe:
    """Another fine look."""
    return replace(BASE, spec=replace(BASE.spec, fine=replace(FINE, **settings)))


def coarsely(look: CoarseLook | None) -> Recipe:
    """Another coarse look, or none."""
    return replace(BASE, spec=replace(BASE.spec, coarse=look))


def training(**settings: object) -> Recipe:
    return replace(BASE, settings=replace(BASE.settings, **settings))


def augmented(**settings: float) -> Recipe:
    return training(augmentation=replace(AugmentationSettings(), **settings))


INTENSITY = ("blur", "noise", "contrast", "gamma", "brightness", "liver_brightness", "low_resolution")
TISSUE = {f"p_{name}": 0.0 for name in ("lesion", "mass", "fluid", "streaks")}
VARIANTS = {
    "base": Variant("what *accurate* means, but for the epochs"),
    "seed": Variant("the base with another seed: what is noise", training(seed=1)),
    "alone": Variant("a fine look at whole slices without a coarse one", coarsely(None)),
    "thin-stacks": Variant(
        "neither thick slices nor short stacks", training(stacks=StackSettings(p_thick=0.0, p_short=0.0, p_alone=0.0))
    ),
    "margin-32": Variant(
        "a margin of 32 mm around what the coarse look has found", coarsely(CoarseLook(margin_mm=32.0))
    ),
    "pixel-1": Variant("pixels of 1 mm", pixel_mm=1.0),
    "pixel-1.5": Variant("pixels of 1.5 mm", pixel_mm=1.5),
    "pixel-2": Variant("pixels of 2 mm", pixel_mm=2.0),
    "context-1": Variant("a single slice", context(0.0)),
    "context-3": Variant("three slices: context at 0 and 4 mm", context(-4.0, 0.0, 4.0)),
    "context-wide": Variant("context at 0, 8 and 16 mm", context(-16.0, -8.0, 0.0, 8.0, 16.0)),
    "wide": Variant("1.5 times the channels", network(channels=(24, 48, 96, 192, 384, 384))),
    "narrow": Variant("half the channels", network(channels=(8, 16, 32, 64, 128, 128))),
    "instance": Variant("instance instead of batch normalization", network(norm="instance")),
    "dice": Variant("Dice loss without cross-entropy", training(loss="dice")),
    "focal": Variant("focal loss instead of cross-entropy", training(loss="dice+focal")),
    "flips": Variant("slices mirrored left to right, half of them", augmented(p_flip_left_right=0.5)),
    "no-affine": Variant("no rotation, scaling and shift", augmented(p_affine=0.0)),
    "no-intensity": Variant("no changes of intensity", augmented(**{f"p_{name}": 0.0 for name in INTENSITY})),
    "no-tissue": Variant("no lesions, masses, fluid and streaks", augmented(**TISSUE)),
    "no-ema": Variant("the last weights instead of their moving average", training(ema_decay=0.0)),
    "long": Variant("twice the epochs", epochs=2 * EPOCHS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--extra", nargs="+", type=Path, default=[])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    options = parser.parse_args()
    tested, extra = find_cases(options.data), find_cases(options.extra) if options.extra else []
    for name in options.only:
        if not (options.work / name / "scores.json").exists():
            measure(name, tested, extra, options.work)
        write_table(options.work)


def measure(name: str, tested: list[Case], extra: list[Case], work: Path) -> None:
    variant = VARIANTS[name]
    cache_folder = work / f"cache-{variant.pixel_mm:g}"
    if not is_cache(cache_folder):
        for finding in prepare([*tested, *extra], cache_folder, Grids(pixel_mm=variant.pixel_mm)):
            print(finding, flush=True)
    cache = open_cache(cache_folder)
    names = {case.name for case in tested}
    first, second, *_ = folds_of([case for case in cache.cases if case.name in names], 5, seed=0)
    held_out = [*first, *second]
    split = split_by_patient([case.name for case in cache.cases], held_out=held_out, validation=0.04)
    train(work / name, cache, split, variant)
    model = open_model(work / name / "model")
    cases = list(evaluate_model(model, [case for case in tested if case.name in held_out], choose_device("auto")))
    write_evaluation(work / name / "scores.json", cases, f"ablation.py --only {name}")


def train(folder: Path, cache: Cache, split: Split, variant: Variant) -> None:
    recipe = variant.recipe
    settings = replace(recipe.settings, epochs=variant.epochs, validate_every=variant.epochs)
    start = ModelTraining.resume if RunFolder(folder / "run").exists() else ModelTraining.begin
    plan = Plan(cache, split, recipe.on(cache.grids), settings)
    for event in start(plan, folder / "run", choose_device("auto", "torch")).epochs():
        if isinstance(event, EpochLog):
            print(folder.name, event, flush=True)
    export_run(folder / "run", folder / "model", ModelInfo(folder.name, description="Part of an ablation"))


def write_table(work: Path) -> None:
    """Write a row for every variant that is done."""
    lines = [
        "# What each choice is worth",
        "",
        f"{EPOCHS} epochs where no other number is given, on the same patients; tested on the 8 patients of two of "
        "five folds of 3D-IRCADb-01. No row is the mean of several seeds, so small differences mean little. Times are "
        "upper bounds: the machine's other core was busy. Made by "
        "`python Testing/benchmarks/ablation.py ../shared/data/ircad --extra ../shared/data/lits --work W`, "
        f"one row alone by `--only NAME`; on {platform.machine()}, {torch.get_num_threads()} thread(s).",
        "",
        "| name | change | mean Dice | worst | HD95 mm | ASSD mm | volume error | s per CT | training min |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, variant in VARIANTS.items():
        path = work / name / "scores.json"
        if path.exists():
            lines.append(table_row(name, variant, read_scores(path), work))
    TABLE.write_text("\n".join([*lines, ""]), encoding="utf-8")


def table_row(name: str, variant: Variant, scores: list[CaseScores], work: Path) -> str:
    summary = summarize(scores)
    seconds = np.mean([case.seconds for case in scores])
    minutes = sum(epoch.seconds for epoch in RunFolder(work / name / "run").history()) / 60
    figures = [
        name,
        variant.change,
        f"{summary['dice'].mean:.4f}",
        f"{summary['dice'].worst:.4f}",
        f"{summary['hd95_mm'].mean:.2f}",
        f"{summary['assd_mm'].mean:.2f}",
        f"{summary['volume_error_percent'].mean_absolute:.1f} %",
        f"{seconds:.1f}",
        f"{minutes:.1f}",
    ]
    return f"| {' | '.join(figures)} |"


if __name__ == "__main__":
    main()
