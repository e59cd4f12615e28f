"""liver-unet-train evaluate | compare."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LiverUNetLib.models.store import DEFAULT_MODEL

from .shared import DATA_HELP, DEVICE_HELP, device_for

if TYPE_CHECKING:
    from LiverUNetLib.models.folder import LiverModel

    from ..data.cases import Finding
    from ..evaluation.metrics import CaseScores

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the commands to the parser's."""
    _add_evaluate(commands)
    _add_compare(commands)


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
    command.add_argument("--device", default="auto", help=DEVICE_HELP)
    command.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    from LiverUNetLib.errors import TrainingError
    from LiverUNetLib.models.store import find_model
    from LiverUNetLib.system.files import check_writable

    from ..evaluation.evaluate import evaluate_predictions
    from ..evaluation.export import record_scores
    from ..evaluation.metrics import summarize
    from ..evaluation.tables import TABLE_HEAD, case_line, summary_lines, write_csv, write_evaluation

    _check_sources(options)
    for path in filter(None, (options.json, options.csv)):
        check_writable(path, overwrite=True)
    faults: list[Finding] = []
    model = None if options.predictions else find_model(options.model)
    if model:
        evaluated = _evaluated_by_model(model, options, faults)
    else:
        evaluated = evaluate_predictions(options.predictions, options.reference)
    cases: list[CaseScores] = []
    for case in evaluated:
        if not cases:
            print(TABLE_HEAD)
        print(case_line(case, f"{case.case} ({case.role})" if model else case.case), flush=True)
        cases.append(case)
    print("\n".join(summary_lines(summarize(cases))))
    command = _command_line(options)
    if options.json:
        identity = model and {"name": model.card.name, "version": model.card.version, "checksum": model.card.checksum}
        write_evaluation(options.json, cases, command, model=identity)
    if options.csv:
        write_csv(options.csv, cases)
    if faults:
        message = "Not all cases could be used" + (", so the scores were not recorded:" if options.record else ":")
        raise TrainingError("\n".join([message, *map(str, faults)]))
    if model and options.record:
        record_scores(model, cases, command)


def _check_sources(options: argparse.Namespace) -> None:
    from LiverUNetLib.errors import TrainingError

    if bool(options.predictions) != bool(options.reference):
        raise TrainingError("--predictions and --reference go together.")
    if bool(options.data) == bool(options.predictions):
        raise TrainingError("Name either data for a model to segment, or --predictions and --reference.")
    if options.predictions and (options.record or options.held_out):
        raise TrainingError("--record and --held-out need a model, not --predictions.")


def _evaluated_by_model(model: LiverModel, options: argparse.Namespace, faults: list[Finding]) -> Iterator[CaseScores]:
    from ..data.layouts import find_cases
    from ..evaluation.evaluate import evaluate_model

    device = device_for(options.device)
    return evaluate_model(model, find_cases(options.data), device, held_out_only=options.held_out, faults=faults)


def _command_line(options: argparse.Namespace) -> str:
    """The command that measures the same figures again."""
    command = ["liver-unet-train", "evaluate", *options.data]
    if options.predictions:
        command += ["--predictions", options.predictions, "--reference", options.reference]
    else:
        command += ["--model", options.model, *(["--held-out"] if options.held_out else [])]
    return shlex.join(map(str, command))


def _add_compare(commands: Any) -> None:
    command = commands.add_parser("compare", help="two evaluations case by case: differences and Wilcoxon's test")
    command.add_argument("first", type=Path, help="what evaluate --json wrote")
    command.add_argument("second", type=Path, help="the evaluation to compare it with")
    command.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    from ..evaluation.tables import comparison

    print("\n".join(comparison(options.first, options.second)))
