"""Compare a segmentation with a reference: overlap, surface distances, volumes; one patient at a time, in 3D."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from LiverUNetLib.environment import Device
from LiverUNetLib.errors import ScanError, TrainingError
from LiverUNetLib.formats import READERS, read_volume, scan_stem
from LiverUNetLib.measurement import bounding_box
from LiverUNetLib.model import LiverModel
from LiverUNetLib.pipeline import segment
from LiverUNetLib.steps import finish
from LiverUNetLib.volume import CTVolume

from .dataset import Case, Finding, align_mask, content_hash
from .layouts import find_cases

__all__ = [
    "CaseScores",
    "MaskScores",
    "compare_masks",
    "evaluate_model",
    "evaluate_predictions",
    "largest_disagreement",
    "summarise",
]

SURFACE_TOLERANCES_MM = (1.0, 3.0)


@dataclass(frozen=True)
class MaskScores:
    """How a mask agrees with its reference.

    Attributes:
        dice: 2 |A and B| / (|A| + |B|); jaccard is |A and B| / |A or B|.
        precision, recall: shares of the mask, and of the reference, that are in both.
        hd95_mm: the larger of the two directed 95th percentiles of surface distance.
        assd_mm: mean distance over the surface voxels of both, to the other surface.
        surface_dice_1mm, surface_dice_3mm: share of both surfaces that lies within the tolerance of the other.
        volume_error_ml: mask minus reference; volume_error_percent is in percent of the reference.
    """

    dice: float
    jaccard: float
    precision: float
    recall: float
    hd95_mm: float
    assd_mm: float
    surface_dice_1mm: float
    surface_dice_3mm: float
    volume_ml: float
    reference_ml: float
    volume_error_ml: float
    volume_error_percent: float


@dataclass(frozen=True)
class CaseScores:
    """The scores of one patient.

    Attributes:
        role: what the case was to the model: "training", "validation", "held out", or "new" if it never saw it.
        seconds: from the scan in memory to the mask.
    """

    case: str
    role: str
    scores: MaskScores
    seconds: float

    def row(self) -> dict[str, Any]:
        """All figures side by side."""
        return {"case": self.case, "role": self.role, **asdict(self.scores), "seconds": self.seconds}


def compare_masks(mask: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, float, float]) -> MaskScores:
    """Compare two masks on one grid; overlap and surfaces by MONAI's metrics.

    Two empty masks agree: all shares are 1, distances and errors 0. If one alone is empty, all
    shares are 0 and no distance exists: the diagonal of the scan stands in, so that a mean over
    patients still shows the failure. The percentage of an empty reference is 0 or 100.

    Args:
        mask, reference: 3D, non-zero is liver.
        spacing_mm: along their axes, in the same order.

    Raises:
        ValueError: the shapes differ or are not 3D.
    """
    if mask.shape != reference.shape or mask.ndim != 3:
        raise ValueError(f"Masks to compare need one 3D shape, not {mask.shape} and {reference.shape}.")
    mask, reference = mask != 0, reference != 0
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    volumes = _volumes(*(int(np.count_nonzero(part)) * voxel_ml for part in (mask, reference)))
    if mask.any() != reference.any():
        diagonal = float(np.linalg.norm(np.array(mask.shape) * spacing_mm))
        return MaskScores(0.0, 0.0, 0.0, 0.0, diagonal, diagonal, 0.0, 0.0, **volumes)
    if not mask.any():
        return MaskScores(1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, **volumes)
    box = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in bounding_box(mask | reference))
    return MaskScores(*_agreement(mask[box], reference[box], spacing_mm), **volumes)


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
        held_out_only: only the cases that the model's lineage holds out, recognised by content, not by name.
        faults: takes the cases that are left out because they cannot be used; without it the first one ends all.

    Raises:
        ScanError: a case cannot be read or its mask lies on another grid, and there is no list for it.
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
        yield CaseScores(case.name, role, scores, result.provenance["seconds"])
    if not evaluated:
        words = "There is no case to evaluate."
        if held_out_only:
            held_out = model.card.lineage.held_out
            words = f"None of the {len(cases)} cases is among the {len(held_out)} that {model.card.name} holds out."
            if namesakes := [case.name for case in cases if case.name in held_out]:
                words += f" {', '.join(namesakes)} have their names but other content; evaluate those by themselves."
        raise TrainingError("\n".join([words, *map(str, faults or [])]))


def evaluate_predictions(predictions: Path, references: Path) -> Iterator[CaseScores]:
    """Compare masks made elsewhere with references, file by file; `role` and `seconds` say nothing here.

    Files belong together if their names are equal without format and without an ending such as
    `_liver`, `_seg` or `_0000`. Of a folder of cases the masks are taken. Where a prediction holds
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
                raise TrainingError(f"{masks[name].mask} and {path.name} both belong to {name}; leave the mask alone.")
            masks[name] = Case(name, path, path)
    if not masks:
        raise TrainingError(f"{folder} holds no mask ({', '.join(READERS)}).")
    return masks


def _bare(stem: str) -> str:
    """A name without what marks it as a scan, a mask or a channel."""
    return re.sub(r"(_(liver|orig|seg|mask|label|pred|prediction|0000))+$", "", stem.removesuffix(".seg"))


def largest_disagreement(mask: np.ndarray, reference: np.ndarray) -> int:
    """The slice (first axis) with the most voxels in one of two masks alone; of the fullest, if they agree."""
    different = np.count_nonzero((mask != 0) != (reference != 0), axis=(1, 2))
    return int(np.argmax(different if different.any() else np.count_nonzero(reference, axis=(1, 2))))


def summarise(cases: Sequence[CaseScores]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation, median and worst of every measure over the patients.

    The worst Dice is the lowest, the worst distance the largest, the worst error the one farthest
    from zero; of errors the mean of their sizes is given too.
    """
    summary = {}
    for measure in fields(MaskScores):
        values = np.array([getattr(case.scores, measure.name) for case in cases])
        figures = {
            "mean": values.mean(),
            "sd": values.std(ddof=1) if len(values) > 1 else 0.0,
            "median": np.median(values),
        }
        if "dice" in measure.name or measure.name in ("jaccard", "precision", "recall"):
            figures["worst"] = values.min()
        elif measure.name in ("hd95_mm", "assd_mm"):
            figures["worst"] = values.max()
        elif "error" in measure.name:
            figures |= {"worst": values[np.abs(values).argmax()], "mean_absolute": np.abs(values).mean()}
        summary[measure.name] = {key: float(figure) for key, figure in figures.items()}
    return summary


def _volumes(volume_ml: float, reference_ml: float) -> dict[str, float]:
    error = volume_ml - reference_ml
    percent = 100 * error / reference_ml if reference_ml else 100.0 * (volume_ml > 0)
    return {
        "volume_ml": volume_ml,
        "reference_ml": reference_ml,
        "volume_error_ml": error,
        "volume_error_percent": percent,
    }


def _agreement(mask: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, float, float]) -> list[float]:
    """The overlaps, HD95, ASSD and the surface Dice of two masks that are not empty."""
    import torch
    from monai import metrics

    pair = [torch.from_numpy(part)[None, None] for part in (mask, reference)]
    surface = {"include_background": True, "spacing": spacing_mm}
    with warnings.catch_warnings():  # MONAI 1.6 warns of an argument that it passes on itself
        warnings.simplefilter("ignore", FutureWarning)
        figures = [
            metrics.compute_dice(*pair),
            metrics.compute_hausdorff_distance(*pair, percentile=95, **surface),
            metrics.compute_average_surface_distance(*pair, symmetric=True, **surface),
            *(metrics.compute_surface_dice(*pair, [tolerance], **surface) for tolerance in SURFACE_TOLERANCES_MM),
        ]
    common = np.count_nonzero(mask & reference)
    overlaps = [common / np.count_nonzero(part) for part in (mask | reference, mask, reference)]
    dice, *distances = (float(figure) for figure in figures)
    return [dice, *overlaps, *distances]
