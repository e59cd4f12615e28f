"""liver-unet-train: prepare, train, evaluate, export."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LiverUNetLib.console import run_command
from LiverUNetLib.model import DEFAULT_MODEL

if TYPE_CHECKING:
    from LiverUNetLib.model import LiverModel

    from .evaluation import CaseScores

__all__ = ["main"]

DATA_HELP = "folders: pairs *_orig.nii.gz / *_liver.nii.gz, 3D-IRCADb-01 as downloaded, nnU-Net or Decathlon"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="liver-unet-train", description="Train and evaluate liver models on pairs of scans and masks."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_prepare(commands)
    _add_export_nnunet(commands)
    _add_train(commands)
    _add_export(commands)
    _add_evaluate(commands)
    _add_compare(commands)
    return run_command(parser, arguments)


def _add_prepare(commands: Any) -> None:
    command = commands.add_parser("prepare", help="check cases and bring them onto the model grid")
    command.add_argument("data", nargs="+", type=Path, help=DATA_HELP)
    command.add_argument(
        "--strict", action="store_true", help="stop at the first faulty case instead of leaving it out"
    )
    command.add_argument(
        "--cache", type=Path, required=True, help="folder for the prepared slices; what is unchanged there is kept"
    )
    command.add_argument(
        "--pixel-mm", type=float, default=2.0, help="in-plane pixel size of the model grid (%(default)s mm)"
    )
    command.add_argument(
        "--slice-mm", type=float, default=2.0, help="thinner slices are averaged up to this (%(default)s mm)"
    )
    command.set_defaults(run=_prepare)


def _prepare(options: argparse.Namespace) -> None:
    from LiverUNetLib.geometry import PreprocessingSpec

    from .cache import prepare
    from .layouts import find_data_sets

    spec = PreprocessingSpec(pixel_mm=options.pixel_mm, slice_mm=options.slice_mm)
    data_sets = find_data_sets(options.data)
    for data in data_sets:
        print(f"{data.folder}: {data.layout}, {len(data.cases)} cases")
    cases = [case for data in data_sets for case in data.cases]
    for case, verdict in prepare(cases, options.cache, spec, strict=options.strict):
        print(f"{case.name}: {verdict}", flush=True)


def _add_export_nnunet(commands: Any) -> None:
    command = commands.add_parser("export-nnunet", help="write cases in the layout of nnU-Net")
    command.add_argument("data", nargs="+", type=Path, help=DATA_HELP)
    command.add_argument(
        "-o", "--output", type=Path, required=True, help="new folder, DatasetNNN_Name for nnU-Net itself"
    )
    command.set_defaults(run=_export_nnunet)


def _export_nnunet(options: argparse.Namespace) -> None:
    from .layouts import find_cases
    from .nnunet import export_nnunet

    for case, verdict in export_nnunet(find_cases(options.data), options.output):
        print(f"{case.name}: {verdict}", flush=True)


def _add_train(commands: Any) -> None:
    from_settings = "(default: see TrainingSettings)"
    command = commands.add_parser("train", help="train a network on a prepared cache")
    command.add_argument("cache", type=Path, help="what prepare made")
    command.add_argument(
        "--run", dest="run_folder", type=Path, default=Path("run"), help="folder for checkpoints and log (%(default)s)"
    )
    command.add_argument("--resume", action="store_true", help="go on with the run in that folder")
    command.add_argument(
        "--hold-out", nargs="+", default=[], metavar="CASE", help="cases that neither train nor validate"
    )
    command.add_argument(
        "--validation", type=float, default=0.2, help="share of the other patients that validates (%(default)s)"
    )
    command.add_argument("--epochs", type=int, help=f"passes over the data {from_settings}")
    command.add_argument("--batch-size", type=int, help=f"slices in a batch {from_settings}")
    command.add_argument("--learning-rate", type=float, help=f"of AdamW at its highest {from_settings}")
    command.add_argument("--validate-every", type=int, help=f"epochs between validations {from_settings}")
    command.add_argument("--seed", type=int, help=f"of every random number {from_settings}")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (%(default)s)")
    command.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from LiverUNetLib.environment import choose_device
    from LiverUNetLib.errors import TrainingError
    from LiverUNetLib.network import NetworkSpec

    from .cache import open_cache
    from .dataset import split_by_patient
    from .run_folder import EpochLog
    from .training import Trainer, TrainingSettings

    cache = open_cache(options.cache)
    given = {name.name: getattr(options, name.name, None) for name in fields(TrainingSettings)}
    settings = replace(TrainingSettings(), **{name: value for name, value in given.items() if value is not None})
    split = split_by_patient(
        [case.name for case in cache.cases],
        held_out=options.hold_out,
        validation=options.validation,
        seed=settings.seed,
    )
    device = choose_device(options.device)
    if device.note:
        print(device.note, file=sys.stderr)
    network = NetworkSpec(in_channels=len(cache.preprocessing.context_mm))
    trainer = Trainer(
        cache, split, options.run_folder, network=network, settings=settings, device=device, resume=options.resume
    )
    try:
        with tqdm(unit="batch", leave=False) as bar:
            for event in trainer.epochs():
                if isinstance(event, EpochLog):
                    tqdm.write(_line(event), file=sys.stdout)
                else:
                    bar.n, bar.total = event.done, event.total
                    bar.refresh()
    except KeyboardInterrupt:
        raise TrainingError(f"Stopped after {len(trainer.history)} whole epochs; go on with --resume.") from None
    print(f"The run is complete: {options.run_folder}")


def _line(log: Any) -> str:
    line = f"epoch {log.epoch}: loss {log.training_loss:.4f}, Dice {log.training_dice:.4f}, {log.seconds:.0f} s"
    if log.validation_dice is None:
        return line
    worst = min(log.validation_dice, key=log.validation_dice.get)
    return (
        f"{line}; validation loss {log.validation_loss:.4f}, 3D Dice {log.mean_validation_dice:.4f} "
        f"(worst {worst} {log.validation_dice[worst]:.4f})"
    )


def _add_export(commands: Any) -> None:
    command = commands.add_parser("export", help="make a model folder of a run")
    command.add_argument("run_folder", type=Path, metavar="RUN")
    command.add_argument(
        "-o", "--output", type=Path, required=True, help="model folder to write; its name is the model's"
    )
    command.add_argument(
        "--weights",
        choices=("best", "last"),
        default="best",
        help="by validation Dice, or of the last epoch (%(default)s)",
    )
    command.add_argument("--model-version", default="0.1.0", help="(%(default)s)")
    command.add_argument("--description", help="one sentence")
    command.add_argument("--license", help="what the weights may be used for; the data they learned from decide")
    command.add_argument("--notes", type=Path, help="Markdown file that the card ends with")
    command.add_argument("--overwrite", action="store_true", help="replace a model folder that exists")
    command.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    from LiverUNetLib.errors import OutputError, TrainingError

    from .export import Statement, export_run

    if options.output.exists() and not options.overwrite:
        raise OutputError(f"{options.output} exists already; name another folder or allow replacing it (--overwrite).")
    said = {"version": options.model_version, "description": options.description, "license": options.license}
    if options.notes:
        try:
            said["notes"] = options.notes.read_text(encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"The notes {options.notes} cannot be read ({error.strerror}).") from error
    statement = Statement(options.output.name, **{key: value for key, value in said.items() if value is not None})
    model = export_run(options.run_folder, options.output, statement, weights=options.weights)
    print(f"{model.folder}: {model.card.name} {model.card.version}, SHA-256 {model.card.checksum}")


def _add_evaluate(commands: Any) -> None:
    command = commands.add_parser("evaluate", help="compare masks with references, per patient in 3D")
    command.add_argument("data", nargs="*", type=Path, help=f"cases for a model to segment; {DATA_HELP}")
    command.add_argument("--model", default=DEFAULT_MODEL, help="installed model or model folder (%(default)s)")
    command.add_argument("--held-out", action="store_true", help="only the cases that the model's lineage holds out")
    command.add_argument("--predictions", type=Path, help="instead of a model: a folder of masks made elsewhere")
    command.add_argument("--reference", type=Path, help="their references: a folder of masks, or of cases")
    command.add_argument("--json", type=Path, help="also write all figures")
    command.add_argument("--csv", type=Path, help="also write a table")
    command.add_argument("--record", action="store_true", help="write the scores into the model's card")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (%(default)s)")
    command.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    from LiverUNetLib.files import check_writable, write_json
    from LiverUNetLib.model import find_model

    from .evaluation import evaluate_predictions, summarise
    from .export import record_scores
    from .tables import TABLE_HEAD, table_row, write_csv

    _check_sources(options)
    for path in filter(None, (options.json, options.csv)):
        check_writable(path, overwrite=True)
    if options.predictions:
        model, evaluated = None, evaluate_predictions(options.predictions, options.reference)
    else:
        model = find_model(options.model)
        evaluated = _evaluated_by_model(model, options)
    cases = []
    for case in evaluated:
        if not cases:
            print(TABLE_HEAD)
        print(table_row(f"{case.case} ({case.role})" if model else case.case, case.row()), flush=True)
        cases.append(case)
    summary = summarise(cases)
    for figure in ("mean", "sd", "median", "worst"):
        print(table_row(figure, {name: values.get(figure) for name, values in summary.items()}))
    command = _command_line(options)
    if options.json:
        identity = model and {"name": model.card.name, "version": model.card.version, "checksum": model.card.checksum}
        rows = [case.row() for case in cases]
        content = {"schema_version": 1, "command": command, "model": identity, "summary": summary, "cases": rows}
        write_json(options.json, content)
    if options.csv:
        write_csv(options.csv, cases)
    if options.record:
        record_scores(model, cases, command)


def _check_sources(options: argparse.Namespace) -> None:
    from LiverUNetLib.errors import TrainingError

    if bool(options.predictions) != bool(options.reference):
        raise TrainingError("--predictions and --reference go together.")
    if bool(options.data) == bool(options.predictions):
        raise TrainingError("Name either data for a model to segment, or --predictions and --reference.")
    if options.predictions and (options.record or options.held_out):
        raise TrainingError("--record and --held-out need a model, not --predictions.")


def _evaluated_by_model(model: LiverModel, options: argparse.Namespace) -> Iterator[CaseScores]:
    from LiverUNetLib.environment import choose_device

    from .evaluation import evaluate_model, held_out_cases
    from .layouts import find_cases

    references = find_cases(options.data)
    if options.held_out:
        references = held_out_cases(model, references)
    return evaluate_model(model, references, choose_device(options.device))


def _command_line(options: argparse.Namespace) -> str:
    """The command that measures the same figures again."""
    words = ["liver-unet-train", "evaluate", *map(str, options.data)]
    if options.predictions:
        return " ".join([*words, "--predictions", str(options.predictions), "--reference", str(options.reference)])
    return " ".join([*words, "--model", Path(options.model).name] + ["--held-out"] * options.held_out)


def _add_compare(commands: Any) -> None:
    command = commands.add_parser("compare", help="two evaluations case by case: differences and Wilcoxon's test")
    command.add_argument("first", type=Path, help="what evaluate --json wrote")
    command.add_argument("second", type=Path, help="another")
    command.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    from .tables import comparison

    print("\n".join(comparison(options.first, options.second)))
