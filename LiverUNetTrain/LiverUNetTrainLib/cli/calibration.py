"""liver-unet-train calibrate."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LiverUNetLib.models.store import DEFAULT_MODEL

from .shared import DATA_HELP, DEVICE_HELP, device_for

if TYPE_CHECKING:
    from LiverUNetLib.models.folder import LiverModel

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the command to the parser's."""
    command = commands.add_parser(
        "calibrate", help="measure how well a model judges its own results, and let it say how good they are"
    )
    command.add_argument("data", nargs="+", type=Path, help=f"cases that the models hold out; {DATA_HELP}")
    command.add_argument("--model", default=DEFAULT_MODEL, help="installed model or model folder (%(default)s)")
    command.add_argument(
        "--crossval",
        type=Path,
        metavar="WORK",
        help="what crossval made with the same recipe: its models judge the cases that each holds out; without it the "
        "model itself does, on those that it holds out, which must be 9 or more",
    )
    command.add_argument(
        "--work",
        type=Path,
        default=Path("calibration"),
        help="folder of the runs, kept from call to call (%(default)s)",
    )
    command.add_argument("--altered", type=int, default=6, help="ways in which each case is altered (%(default)s)")
    command.add_argument("--spoilt", type=int, default=2, help="ways in which each case is spoilt (%(default)s)")
    command.add_argument("--figure", type=Path, help="also draw estimated against true Dice, a .png, .pdf or .svg")
    command.add_argument("--json", type=Path, help="also write all figures")
    command.add_argument("--record", action="store_true", help="write the calibration into the model")
    command.add_argument("--device", default="auto", help=DEVICE_HELP)
    command.set_defaults(run=_calibrate)


def _calibrate(options: argparse.Namespace) -> None:
    from dataclasses import asdict, replace

    from LiverUNetLib.models.store import find_model
    from LiverUNetLib.segmentation.picture import write_figure
    from LiverUNetLib.system.files import check_writable, write_json

    from ..data.layouts import find_cases
    from ..evaluation.altered_runs import altered_runs
    from ..evaluation.calibration import fit, judge_left_out
    from ..evaluation.calibration_report import figure_lines, measure
    from ..evaluation.export import record_calibration
    from ..evaluation.figures import draw_calibration

    for path in filter(None, (options.json, options.figure)):
        check_writable(path, overwrite=True)
    model = find_model(options.model)
    models = _fold_models(options.crossval) if options.crossval else [model]
    runs = []
    for run in altered_runs(
        models,
        find_cases(options.data),
        device_for(options.device),
        options.work,
        altered=options.altered,
        spoilt=options.spoilt,
    ):
        print(f"{run.case}, {run.alteration}: Dice {run.dice:.4f}", flush=True)
        runs.append(run)
    calibration = fit(runs, _command_line(options))
    judged = judge_left_out(runs)
    measured = measure(judged)
    measured["other_kinds"] = measure(judge_left_out(runs, kinds_too=True))["altered"]
    calibration = replace(calibration, measured=measured)
    print("\n".join(figure_lines(calibration)))
    if options.figure:
        write_figure(options.figure, draw_calibration(judged))
    if options.json:
        content = {"schema_version": 1, "calibration": calibration.to_json()}
        write_json(options.json, content | {"runs": [asdict(each) for each in judged]})
    if options.record:
        record_calibration(model, calibration)


def _fold_models(work: Path) -> list[LiverModel]:
    """The models of a cross-validation."""
    from LiverUNetLib.errors import TrainingError
    from LiverUNetLib.models.folder import open_model

    folders = sorted(work.glob("fold*/model"))
    if not folders:
        raise TrainingError(f"{work} holds no models of folds (fold1/model and so on); crossval makes them.")
    return [open_model(folder) for folder in folders]


def _command_line(options: argparse.Namespace) -> str:
    """The command that makes the same calibration again."""
    words = ["liver-unet-train", "calibrate", *options.data, "--model", options.model]
    words += ["--crossval", options.crossval] if options.crossval else []
    return shlex.join(map(str, [*words, "--altered", options.altered, "--spoilt", options.spoilt]))
