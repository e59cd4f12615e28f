"""liver-unet-train: the data commands here, those of training and evaluation beside it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from LiverUNetLib.cli.console import run_command

from . import calibration, evaluation, report, training
from .shared import DATA_HELP, prepare_cases

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="liver-unet-train", description="Train and evaluate liver models on pairs of scans and masks."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_prepare(commands)
    _add_export_pairs(commands)
    _add_export_nnunet(commands)
    training.add_commands(commands)
    _add_export(commands)
    evaluation.add_commands(commands)
    calibration.add_commands(commands)
    report.add_commands(commands)
    return run_command(parser, arguments, check=_check_packages)


def _check_packages() -> None:
    """Report missing packages at once, not after hours of work."""
    from importlib.util import find_spec

    from LiverUNetLib.errors import TrainingError
    from LiverUNetLib.system.environment import HOW_TO_GET_TORCH, TRAINING_PACKAGES

    if missing := [name for name in TRAINING_PACKAGES if find_spec(name) is None]:
        raise TrainingError(f"liver-unet-train needs {', '.join(missing)}: {HOW_TO_GET_TORCH}.")


def _add_prepare(commands: Any) -> None:
    command = commands.add_parser("prepare", help="check cases and bring them onto the model grid")
    command.add_argument("data", nargs="+", type=Path, help=DATA_HELP)
    command.add_argument(
        "--strict", action="store_true", help="stop at the first faulty case instead of leaving it out"
    )
    command.add_argument(
        "--cache", type=Path, required=True, help="folder for the prepared slices; unchanged cases in it are kept"
    )
    command.add_argument(
        "--pixel-mm", type=float, default=1.25, help="in-plane pixel size of the fine look (%(default)s mm)"
    )
    command.add_argument(
        "--slice-mm", type=float, default=2.0, help="thinner slices are averaged up to this (%(default)s mm)"
    )
    command.add_argument("--like", metavar="MODEL", help="use the grid of this model, to fine-tune it")
    command.set_defaults(run=_prepare)


def _prepare(options: argparse.Namespace) -> None:
    from LiverUNetLib.models.store import find_model

    from ..data.cache import Grids

    grids = Grids(pixel_mm=options.pixel_mm, slice_mm=options.slice_mm)
    if options.like:
        grids = Grids.of(find_model(options.like).card.spec)
    prepare_cases(options.data, options.cache, grids, strict=options.strict)


def _add_export_pairs(commands: Any) -> None:
    command = commands.add_parser("export-pairs", help="write cases as pairs *_orig.nii.gz / *_liver.nii.gz")
    command.add_argument("data", type=Path, help="3D-IRCADb-01 as one zip, or a folder of any layout")
    command.add_argument("-o", "--output", type=Path, required=True, help="folder; pairs that are there are kept")
    command.set_defaults(run=_export_pairs)


def _export_pairs(options: argparse.Namespace) -> None:
    from ..data.pairs import write_pairs

    for finding in write_pairs(options.data, options.output):
        print(finding, flush=True)


def _add_export_nnunet(commands: Any) -> None:
    command = commands.add_parser("export-nnunet", help="write cases in the layout of nnU-Net")
    command.add_argument("data", nargs="+", type=Path, help=DATA_HELP)
    command.add_argument(
        "-o", "--output", type=Path, required=True, help="new folder, DatasetNNN_Name for nnU-Net itself"
    )
    command.set_defaults(run=_export_nnunet)


def _export_nnunet(options: argparse.Namespace) -> None:
    from ..data.layouts import find_cases
    from ..data.nnunet import export_nnunet

    for finding in export_nnunet(find_cases(options.data), options.output):
        print(finding, flush=True)


def _add_export(commands: Any) -> None:
    command = commands.add_parser("export", help="make a model from a run")
    command.add_argument("run_folder", type=Path, metavar="RUN")
    command.add_argument(
        "-o", "--output", type=Path, required=True, help="model folder to write; its name is the model's"
    )
    command.add_argument(
        "--weights",
        choices=("best", "last"),
        default="best",
        help="those of the best validation Dice, or of the last epoch (%(default)s)",
    )
    command.add_argument("--model-version", default="0.1.0", help="(%(default)s)")
    command.add_argument("--description", help="one sentence")
    command.add_argument("--license", help="what the weights may be used for, which depends on the training data")
    command.add_argument("--notes", type=Path, help="Markdown file that the card ends with")
    command.add_argument("--overwrite", action="store_true", help="replace a model folder that exists")
    command.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    from LiverUNetLib.errors import OutputError, TrainingError
    from LiverUNetLib.system.files import exists

    from ..evaluation.export import ModelInfo, export_run

    if exists(options.output, OutputError) and not options.overwrite:
        raise OutputError(f"{options.output} exists already; name another folder or allow replacing it (--overwrite).")
    given = {"version": options.model_version, "description": options.description, "license": options.license}
    if options.notes:
        try:
            given["notes"] = options.notes.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise TrainingError(f"The notes {options.notes} cannot be read ({error.strerror}).") from error
        except UnicodeDecodeError as error:
            raise TrainingError(f"The notes {options.notes} are not text in UTF-8; save them as UTF-8.") from error
    info = ModelInfo(options.output.name, **{key: value for key, value in given.items() if value is not None})
    model = export_run(options.run_folder, options.output, info, weights=options.weights)
    print(f"{model.folder}: {model.card.name} {model.card.version}, SHA-256 {model.card.checksum}")
