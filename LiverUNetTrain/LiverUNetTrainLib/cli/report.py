"""liver-unet-train report | augment-preview."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LiverUNetLib.models.store import DEFAULT_MODEL

from ..run.options import DEFAULT_RECIPE, RECIPE_NAMES
from .shared import DATA_HELP, DEVICE_HELP, device_for

if TYPE_CHECKING:
    from ..evaluation.metrics import CaseScores

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the commands to the parser's."""
    command = commands.add_parser("report", help="curves, scores and overlays in one HTML file")
    command.add_argument("source", type=Path, help="a run, or the work folder of a cross-validation")
    command.add_argument("-o", "--output", type=Path, default=Path("report.html"), help="(%(default)s)")
    command.add_argument("--scores", type=Path, help="what evaluate --json wrote (a cross-validation has its own)")
    command.add_argument("--data", nargs="+", type=Path, default=[], help=f"for overlays; {DATA_HELP}")
    command.add_argument(
        "--model", default=DEFAULT_MODEL, help="for a run: the model to draw overlays of (%(default)s)"
    )
    command.add_argument("--overwrite", action="store_true", help="replace a report that exists")
    command.add_argument("--device", default="auto", help=DEVICE_HELP)
    command.set_defaults(run=_report)
    command = commands.add_parser("augment-preview", help="a picture of what augmentation does to a slice")
    command.add_argument("cache", type=Path, help="what prepare made")
    command.add_argument("-o", "--output", type=Path, default=Path("augmentation.png"), help="(%(default)s)")
    command.add_argument("--case", help="name of the case (default: the first)")
    command.add_argument("--recipe", choices=RECIPE_NAMES, default=DEFAULT_RECIPE, help="(%(default)s)")
    command.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    command.add_argument("--overwrite", action="store_true", help="replace a picture that exists")
    command.set_defaults(run=_augment_preview)


def _report(options: argparse.Namespace) -> None:
    from LiverUNetLib.models.store import find_model
    from LiverUNetLib.system.files import check_writable

    from ..data.layouts import find_cases
    from ..evaluation.report import Report, draw_overlays, histories_of, model_of

    check_writable(options.output, overwrite=options.overwrite)
    histories, scores = histories_of(options.source), _scores(options)
    overlays = {}
    if options.data and scores:
        folds = any(options.source.glob("fold*/model"))
        model = None if folds else find_model(options.model)
        models = {case.case: model or model_of(options.source, case.case) for case in scores}
        overlays = dict(draw_overlays(scores, find_cases(options.data), models, device_for(options.device)))
    Report(options.source.resolve().name, histories, scores, overlays).write(options.output)
    print(f"Written to {options.output}")


def _scores(options: argparse.Namespace) -> list[CaseScores]:
    from ..evaluation.crossval import scores_of_folds
    from ..evaluation.tables import read_scores

    return read_scores(options.scores) if options.scores else scores_of_folds(options.source)


def _augment_preview(options: argparse.Namespace) -> None:
    from LiverUNetLib.errors import TrainingError
    from LiverUNetLib.segmentation.picture import write_figure
    from LiverUNetLib.system.files import check_writable

    from ..data.cache import open_cache
    from ..training.pictures import draw_augmentation
    from ..training.recipes import RECIPES

    check_writable(options.output, overwrite=options.overwrite)
    cache, recipe = open_cache(options.cache), RECIPES[options.recipe]
    names = [case.name for case in cache.cases]
    name = options.case or names[0]
    if name not in names:
        raise TrainingError(f"{options.cache} holds no case {name}; there are {', '.join(names)}.")
    figure = draw_augmentation(cache, name, recipe, seed=options.seed)
    write_figure(options.output, figure)
    print(f"Written to {options.output}")
