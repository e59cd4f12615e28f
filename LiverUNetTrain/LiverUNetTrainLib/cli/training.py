"""liver-unet-train train | crossval."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..run.options import RECIPE_NAMES
from .shared import DATA_HELP, DEVICE_HELP, device_for, epoch_line, prepare_cases

if TYPE_CHECKING:
    from tqdm import tqdm

    from LiverUNetLib.steps import Progress

    from ..run.folder import EpochLog

__all__ = ["add_commands"]

FROM_RECIPE = "(default: the recipe's)"


def add_commands(commands: Any) -> None:
    """Add the commands to the parser's."""
    _add_train(commands)
    _add_crossval(commands)


def _add_recipe_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--recipe", choices=RECIPE_NAMES, help="(default: accurate; with --from: fine-tuning)")
    command.add_argument("--validation", type=float, help=f"share of the patients for validation {FROM_RECIPE}")
    command.add_argument("--epochs", type=int, help=f"passes of the fine look over the data {FROM_RECIPE}")
    command.add_argument("--coarse-epochs", type=int, help=f"passes of the coarse look {FROM_RECIPE}")
    command.add_argument("--batch-size", type=int, help=f"slices in a batch {FROM_RECIPE}")
    command.add_argument("--learning-rate", type=float, help=f"highest learning rate of AdamW {FROM_RECIPE}")
    command.add_argument(
        "--patience", type=int, help=f"stop after so many validations without improvement {FROM_RECIPE}"
    )
    command.add_argument("--validate-every", type=int, help=f"epochs between validations {FROM_RECIPE}")
    command.add_argument("--seed", type=int, help=f"seed of all random numbers, those of the split too {FROM_RECIPE}")
    command.add_argument("--device", default="auto", help=DEVICE_HELP)


def _add_train(commands: Any) -> None:
    command = commands.add_parser("train", help="train a network on a prepared cache")
    command.add_argument("cache", type=Path, help="what prepare made")
    command.add_argument(
        "--run", dest="run_folder", type=Path, default=Path("run"), help="folder for checkpoints and log (%(default)s)"
    )
    command.add_argument("--resume", action="store_true", help="resume the run in that folder")
    command.add_argument(
        "--hold-out", nargs="+", default=[], metavar="CASE", help="cases to keep out of training and validation"
    )
    command.add_argument("--minutes", type=float, help="stop before an epoch that would exceed this time")
    command.add_argument("--from", dest="parent", metavar="MODEL", help="fine-tune this model")
    _add_recipe_options(command)
    command.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> None:
    from LiverUNetLib.models.store import find_model
    from LiverUNetLib.steps import finish

    from ..data.cache import open_cache
    from ..run.folder import RunFolder
    from ..training.model_training import ModelTraining
    from ..training.plan import Plan
    from ..training.recipes import choose_recipe

    RunFolder(options.run_folder).withdraw_stop()
    cache, parent = open_cache(options.cache), find_model(options.parent) if options.parent else None
    recipe = choose_recipe(options.recipe, parent, vars(options))
    plan = Plan.for_recipe(cache, recipe, parent=parent, held_out=options.hold_out)
    start = ModelTraining.resume if options.resume else ModelTraining.begin
    training = start(plan, options.run_folder, device_for(options.device, "torch"))
    with _progress_bar() as bar:
        ending = finish(training.epochs(minutes=options.minutes), partial(_show, bar))
    print(f"{options.run_folder}: {ending.message}")


def _add_crossval(commands: Any) -> None:
    command = commands.add_parser("crossval", help="train and test in folds by patient; resumes where it stopped")
    command.add_argument("data", nargs="+", type=Path, help=f"cases to test; {DATA_HELP}")
    command.add_argument("--extra", nargs="+", type=Path, default=[], help="cases for training only")
    command.add_argument("--folds", type=int, default=5, help="(%(default)s)")
    command.add_argument(
        "--same-folds-as",
        nargs="+",
        type=Path,
        default=[],
        metavar="JSON",
        help="use the folds of another cross-validation, whose --json files these are, one for each --fold",
    )
    command.add_argument(
        "--fold", type=int, help="train, test and print this fold alone; several processes can share a work folder"
    )
    command.add_argument("--limit", type=int, help="use only so many cases, to try things out")
    command.add_argument(
        "--work", type=Path, default=Path("crossval"), help="folder for cache, runs and models (%(default)s)"
    )
    command.add_argument("--json", type=Path, help="also write all figures")
    command.add_argument("--csv", type=Path, help="also write a table")
    _add_recipe_options(command)
    command.set_defaults(run=_crossval)


def _crossval(options: argparse.Namespace) -> None:
    from LiverUNetLib.system.files import check_writable

    from ..data.cache import Grids, open_cache
    from ..data.layouts import find_cases
    from ..evaluation.crossval import CrossValidation
    from ..evaluation.metrics import CaseScores, summarize
    from ..evaluation.tables import TABLE_HEAD, case_line, summary_lines, write_csv, write_evaluation
    from ..run.folder import EpochLog
    from ..training.recipes import choose_recipe

    for path in filter(None, (options.json, options.csv)):
        check_writable(path, overwrite=True)
    references = tuple(find_cases(options.data)[: options.limit])
    chosen = {case.name for case in [*references, *(find_cases(options.extra) if options.extra else [])]}
    prepare_cases([*options.data, *options.extra], options.work / "cache", Grids(), only=chosen)
    recipe = choose_recipe(options.recipe, None, vars(options))
    validation = CrossValidation(
        options.work,
        open_cache(options.work / "cache"),
        references,
        recipe,
        options.folds,
        same_folds_as=tuple(options.same_folds_as),
    )
    with _progress_bar() as bar:
        for fold, event in validation.run(device_for(options.device, "torch"), only=options.fold):
            if isinstance(event, EpochLog):
                bar.write(f"fold {fold}, {epoch_line(event)}", file=sys.stdout)
            elif isinstance(event, CaseScores):
                bar.write(f"fold {fold}, {event.case}: Dice {event.scores.dice:.4f}", file=sys.stdout)
            else:
                _show(bar, event)
    scores = validation.scores(only=options.fold)
    print(TABLE_HEAD)
    print("\n".join([*map(case_line, scores), *summary_lines(summarize(scores))]))
    if options.json:
        write_evaluation(options.json, scores, _crossval_command(options))
    if options.csv:
        write_csv(options.csv, scores)


def _crossval_command(options: argparse.Namespace) -> str:
    command = ["liver-unet-train", "crossval", *options.data]
    command += ["--extra", *options.extra] if options.extra else []
    same = options.same_folds_as
    command += ["--same-folds-as", *same] if same else ["--folds", options.folds]
    for name in (
        "fold",
        "recipe",
        "limit",
        "validation",
        "epochs",
        "coarse_epochs",
        "batch_size",
        "learning_rate",
        "validate_every",
        "patience",
        "seed",
    ):
        value = getattr(options, name)
        if value is not None:
            command += [f"--{name.replace('_', '-')}", value]
    return shlex.join(map(str, command))


@contextmanager
def _progress_bar() -> Iterator[tqdm[Any]]:
    """A bar on stderr, if that is a terminal; after Ctrl-C the message says how to resume."""
    from tqdm import tqdm

    try:
        with tqdm(unit="batch", leave=False, file=sys.stderr, disable=None) as bar:
            yield bar
    except KeyboardInterrupt as interrupt:
        interrupt.args = ("Stopped. Finished epochs are kept; the same command resumes, for train with --resume.",)
        raise


def _show(bar: tqdm[Any], event: Progress | EpochLog) -> None:
    """An epoch as a line above the bar, progress in the bar."""
    from ..run.folder import EpochLog

    if isinstance(event, EpochLog):
        bar.write(epoch_line(event), file=sys.stdout)
        return
    bar.set_description(event.stage, refresh=False)
    bar.n, bar.total = event.done, event.total
    bar.refresh()
