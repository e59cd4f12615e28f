"""Compare a segmentation with a reference: overlap, surface distances, volumes; one patient at a time, in 3D."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from LiverUNetLib.models.scores import EvaluationSummary, Figures
from LiverUNetLib.segmentation.measurement import bounding_box

from .measures import MEASURES, Measure

__all__ = [
    "CaseScores",
    "MaskScores",
    "compare_masks",
    "has_measure",
    "largest_disagreement",
    "summarize",
]

SURFACE_TOLERANCES_MM = (1.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class MaskScores:
    """How a mask agrees with its reference.

    A measure that was added later is None in scores that were written before; give it that default.

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

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> CaseScores:
        """The scores that `row` gave.

        Raises:
            KeyError, TypeError, ValueError: a figure without a default is missing, or one is no number.
        """
        names = [each.name for each in fields(MaskScores) if row.get(each.name) is not None]
        scores = MaskScores(**{name: float(row[name]) for name in names})
        return cls(row["case"], row["role"], scores, float(row["seconds"]))


def compare_masks(mask: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]) -> MaskScores:
    """Compare two masks on one grid; overlap and surfaces by MONAI's metrics.

    Two empty masks agree: all shares are 1, distances and errors 0. If one alone is empty, all
    shares are 0 and no distance exists: the diagonal of the scan is taken for it, so that a mean over
    patients still shows the failure. The percentage of an empty reference is 0 or 100.

    Args:
        mask, reference: bool or numbers, 3D; non-zero is liver.
        spacing_mm: distance of the voxels along the three axes of the masks, in the same order.

    Raises:
        ValueError: an argument is of another kind, or the shapes differ.

    References:
        HD95: the larger of the two directed 95th percentiles, as in Taha & Hanbury, Metrics for evaluating 3D medical
        image segmentation, BMC Medical Imaging 2015, doi:10.1186/s12880-015-0068-x; some tools pool both directions.
        ASSD: Heimann et al., Comparison and evaluation of methods for liver segmentation from CT datasets, IEEE TMI
        2009, doi:10.1109/TMI.2009.2013851.
        Surface Dice: Nikolov et al., Clinically applicable segmentation of head and neck anatomy for radiotherapy,
        J Med Internet Res 2021, doi:10.2196/26151.

    Example:
        Two single voxels lie beside each other along the last axis, 2 mm apart.

        >>> mask, reference = np.zeros((2, 3, 3, 4), bool)
        >>> mask[1, 1, 1] = reference[1, 1, 2] = True
        >>> scores = compare_masks(mask, reference, (5.0, 3.0, 2.0))
        >>> scores.dice, scores.hd95_mm, scores.surface_dice_1mm, scores.surface_dice_3mm
        (0.0, 2.0, 0.0, 1.0)
    """
    _check_masks(mask, reference, spacing_mm)
    mask, reference = mask != 0, reference != 0
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    volumes = _volumes(*(int(np.count_nonzero(part)) * voxel_ml for part in (mask, reference)))
    if mask.any() != reference.any():
        diagonal = float(np.linalg.norm(np.array(mask.shape) * spacing_mm))
        return MaskScores(**_uniform(share=0.0, distance_mm=diagonal), **volumes)
    box = bounding_box(mask | reference)
    if box is None:
        return MaskScores(**_uniform(share=1.0, distance_mm=0.0), **volumes)
    wider = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)
    return MaskScores(**_overlap_and_distances(mask[wider], reference[wider], spacing_mm), **volumes)


def _check_masks(mask: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]) -> None:
    for name, array in (("mask", mask), ("reference", reference)):
        if not isinstance(array, np.ndarray) or array.ndim != 3:
            raise ValueError(f"{name} must be an array with three axes, not one of shape {np.shape(array)}.")
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name} must hold bool or numbers, not {array.dtype}.")
    if mask.shape != reference.shape:
        raise ValueError(f"mask and reference must have one shape, not {mask.shape} and {reference.shape}.")
    if np.shape(spacing_mm) != (3,) or not all(np.isfinite(mm) and mm > 0 for mm in spacing_mm):
        raise ValueError(f"spacing_mm must be three positive numbers, not {spacing_mm}.")


def largest_disagreement(mask: np.ndarray, reference: np.ndarray) -> int:
    """The slice (first axis) with the most voxels in one of two masks alone; of the fullest, if they agree."""
    different = np.count_nonzero((mask != 0) != (reference != 0), axis=(1, 2))
    return int(np.argmax(different if different.any() else np.count_nonzero(reference, axis=(1, 2))))


def has_measure(cases: Sequence[CaseScores], measure: Measure) -> bool:
    """Whether every case has a value of this measure."""
    return all(getattr(case.scores, measure.name) is not None for case in cases)


def summarize(cases: Sequence[CaseScores]) -> EvaluationSummary:
    """Mean, standard deviation, median and worst of every measure over the patients.

    The worst Dice is the lowest, the worst distance the largest, the worst error the one farthest
    from zero; of errors the mean of their sizes is given too. A measure that a patient lacks is left out.
    """
    summary = {}
    for measure in MEASURES:
        if not has_measure(cases, measure):
            continue
        values = np.array([getattr(case.scores, measure.name) for case in cases])
        summary[measure.name] = Figures(
            mean=float(values.mean()),
            sd=float(values.std(ddof=1)) if len(values) > 1 else 0.0,
            median=float(np.median(values)),
            worst=measure.worst(values),
            mean_absolute=float(np.abs(values).mean()) if measure.better == "zero" else None,
        )
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


def _uniform(share: float, distance_mm: float) -> dict[str, float]:
    """The same value for every share, and for every distance."""
    values = {"high": share, "low": distance_mm}
    return {measure.name: values[measure.better] for measure in MEASURES if measure.better in values}


def _overlap_and_distances(mask: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, float]:
    """The overlaps and the surface distances of two masks that are not empty."""
    import torch
    from monai import metrics

    one, other = (torch.from_numpy(part)[None, None] for part in (mask, reference))
    spacing = [float(mm) for mm in spacing_mm]
    with warnings.catch_warnings():  # MONAI 1.6 warns of an argument that it passes on itself
        warnings.simplefilter("ignore", FutureWarning)
        dice = metrics.compute_dice(one, other)
        hd95 = metrics.compute_hausdorff_distance(one, other, include_background=True, percentile=95, spacing=spacing)
        assd = metrics.compute_average_surface_distance(
            one, other, include_background=True, symmetric=True, spacing=spacing
        )
        surface_dice = {
            f"surface_dice_{mm:g}mm": metrics.compute_surface_dice(
                one, other, [mm], include_background=True, spacing=spacing
            )
            for mm in SURFACE_TOLERANCES_MM
        }
    common = np.count_nonzero(mask & reference)
    return {
        "dice": float(dice),
        "jaccard": common / np.count_nonzero(mask | reference),
        "precision": common / np.count_nonzero(mask),
        "recall": common / np.count_nonzero(reference),
        "hd95_mm": float(hd95),
        "assd_mm": float(assd),
        **{name: float(share) for name, share in surface_dice.items()},
    }
