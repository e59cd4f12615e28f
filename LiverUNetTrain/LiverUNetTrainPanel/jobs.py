"""Work of the logic that needs PyTorch and no Slicer.

Importing this file takes seconds: the logic imports it in a background thread, and calls its functions there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from LiverUNetLib.errors import TrainingError
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.models.store import find_model, model_folders
from LiverUNetLib.scan.volume import CTVolume
from LiverUNetLib.segmentation.picture import write_figure
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.steps import finish
from LiverUNetLib.system.environment import choose_device
from LiverUNetTrainLib.data.cache import Grids, open_cache, prepare
from LiverUNetTrainLib.data.cases import Finding
from LiverUNetTrainLib.data.layouts import find_cases
from LiverUNetTrainLib.evaluation.before_after import Verdict, judge
from LiverUNetTrainLib.evaluation.evaluate import evaluate_model
from LiverUNetTrainLib.evaluation.export import ModelInfo, export_run
from LiverUNetTrainLib.evaluation.metrics import CaseScores
from LiverUNetTrainLib.run.options import TrainingOptions
from LiverUNetTrainLib.training.cost import check_disk, estimate_options
from LiverUNetTrainLib.training.pictures import draw_augmentation
from LiverUNetTrainLib.training.recipes import RECIPES

__all__ = ["compareWithParent", "drawPreview", "estimate", "evaluate", "install", "prepareCases", "readCase"]


def prepareCases(folders: Sequence[Path], cache: Path, parent: str | None) -> tuple[Iterator[Finding], int]:
    """Find the cases of the folders; returns an iterator that prepares one at a time, and their number."""
    cases = find_cases(folders)
    check_disk(cases, cache)
    grids = Grids.of(find_model(parent).card.spec) if parent else Grids()
    return prepare(cases, cache, grids), len(cases)


def drawPreview(cache: Path, name: str, recipe: str, picture: Path, height: float | None) -> Path:
    """Write a picture of the augmentation of a prepared case, as PNG."""
    write_figure(picture, draw_augmentation(open_cache(cache), name, RECIPES[recipe], height=height))
    return picture


def estimate(options: TrainingOptions) -> str:
    """Time and memory of a training, in a sentence."""
    parent = find_model(options.parent) if options.parent else None
    cost = estimate_options(options, open_cache(options.cache), parent, choose_device(options.device, "torch"))
    return finish(cost).summary(options.minutes)


def evaluate(
    modelName: str,
    folders: Sequence[Path],
    *,
    heldOutOnly: bool,
    only: Collection[str] | None,
    faults: list[Finding] | None,
    deviceName: str,
) -> Iterator[CaseScores]:
    """An iterator that evaluates one case at a time."""
    cases = [case for case in find_cases(folders) if only is None or case.name in only]
    model, device = find_model(modelName), choose_device(deviceName)
    return evaluate_model(model, cases, device, held_out_only=heldOutOnly, faults=faults)


def readCase(folders: Sequence[Path], name: str, modelName: str) -> tuple[CTVolume, dict[str, np.ndarray | None]]:
    """A scan with its masks (k, j, i): the reference, and the prediction of a model, if one is named."""
    case = next((case for case in find_cases(folders) if case.name == name), None)
    if case is None:
        raise TrainingError(f"There is no case {name} in the chosen folders any more.")
    scan, reference = case.read()
    found = finish(segment(scan, find_model(modelName), choose_device())) if modelName else None
    return scan, {"reference": reference.hu_kji, "prediction": found.mask_kji if found else None}


def compareWithParent(run: Path, folders: Sequence[Path]) -> Verdict | None:
    """Compare a fine-tuned run with the model it started from; None if it started from none."""
    return judge(run, find_cases(folders) if folders else [], choose_device())


def install(run: Path, name: str, description: str, terms: str) -> LiverModel:
    """Export a run as a model into the user's own models; empty texts leave the defaults."""
    given = {key: text for key, text in {"description": description, "license": terms}.items() if text}
    return export_run(run, model_folders()[-1] / name, ModelInfo(name, **given))
