"""Evaluate a model on cases, or compare masks made elsewhere with references."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from LiverUNetLib.errors import ScanError, TrainingError
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.scan.formats import READERS, read_volume, scan_stem
from LiverUNetLib.scan.volume import CTVolume
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.steps import finish
from LiverUNetLib.system.environment import Device

from ..data.cases import Case, Finding, align_mask, content_hash
from ..data.layouts import find_cases
from .metrics import CaseScores, compare_masks

__all__ = ["evaluate_model", "evaluate_predictions"]


def evaluate_model(
    model: LiverModel,
    cases: Sequence[Case],
    device: Device,
    *,
    held_out_only: bool = False,
    faults: list[Finding] | None = None,
) -> Iterator[CaseScores]:
    """Segment every case as the command line does, on its own grid, and compare with its mask.

    Args:
        held_out_only: only the cases that the model's lineage holds out, recognized by content, not by name.
        faults: a list to which cases that cannot be used are added; without it the first one is raised.

    Raises:
        ScanError: a case cannot be read or its mask lies on another grid, and `faults` is None.
        TrainingError: there is no case to evaluate.
    """
    roles, evaluated = model.card.lineage.roles(), 0
    for case in cases:
        try:
            scan, reference = case.read()
            role = roles.get(content_hash(scan), "new")
            if held_out_only and role != "held out":
                continue
            result = finish(segment(scan, model, device))
        except ScanError as error:
            if faults is None:
                raise
            faults.append(Finding.fault(case.name, error))
            continue
        evaluated += 1
        scores = compare_masks(result.mask_kji, reference.hu_kji, scan.spacing_kji_mm)
        yield CaseScores(case.name, role, scores, result.provenance.seconds)
    if not evaluated:
        message = _no_held_out_case(model, cases) if held_out_only else "There is no case to evaluate."
        raise TrainingError("\n".join([message, *map(str, faults or [])]))


def _no_held_out_case(model: LiverModel, cases: Sequence[Case]) -> str:
    held_out = model.card.lineage.held_out
    message = f"None of the {len(cases)} cases is among the {len(held_out)} that {model.card.name} holds out."
    if namesakes := [case.name for case in cases if case.name in held_out]:
        message += f" {', '.join(namesakes)} have their names but other content; evaluate them separately."
    return message


def evaluate_predictions(predictions: Path, references: Path) -> Iterator[CaseScores]:
    """Compare masks made elsewhere with references, file by file; `role` and `seconds` mean nothing here.

    Files belong together if their names are equal without format and without an ending such as
    `_liver`, `_seg` or `_0000`. Of a folder of cases, the masks are used. Where a prediction holds
    several labels, those that are liver in the reference count.

    Raises:
        TrainingError: a folder is missing, a reference has no prediction, none is left, or a name has two masks.
        ScanError: a file cannot be read, or a prediction lies on another grid.
    """
    found = _masks(predictions)
    for name, reference in _masks(references).items():
        if name not in found:
            raise TrainingError(f"{reference.mask} has no prediction in {predictions}; there are {', '.join(found)}.")
        mask = reference.read_mask()
        prediction = align_mask(_read_prediction(found[name], reference.labels), mask, "its reference")
        scores = compare_masks(prediction.hu_kji, mask.hu_kji, mask.spacing_kji_mm)
        yield CaseScores(name, "new", scores, 0.0)


def _read_prediction(case: Case, labels: tuple[int, ...] | None) -> CTVolume:
    if labels and not (case.labels or case.mask_folder):
        values = read_volume(case.mask).hu_kji
        if np.any((values != 0) & (values != values.max())):
            return replace(case, labels=labels).read_mask()
    return case.read_mask()


def _masks(folder: Path) -> dict[str, Case]:
    """The masks of a folder of cases, or all files of a folder, by bare name."""
    try:
        return {_bare(case.name): case for case in find_cases([folder])}
    except TrainingError:
        if not folder.is_dir():
            raise
    masks: dict[str, Case] = {}
    for path in sorted(folder.glob("[!.]*")):
        if path.name.endswith(tuple(READERS)):
            name = _bare(scan_stem(path))
            if name in masks:
                raise TrainingError(f"{masks[name].mask} and {path.name} both belong to {name}; keep one of them.")
            masks[name] = Case(name, path, path)
    if not masks:
        raise TrainingError(f"{folder} holds no mask ({', '.join(READERS)}).")
    return masks


def _bare(stem: str) -> str:
    """A name without the endings that mark a scan, a mask or a channel."""
    return re.sub(r"(_(liver|orig|seg|mask|label|pred|prediction|0000))+$", "", stem.removesuffix(".seg"))
