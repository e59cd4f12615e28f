"""Compare a segmentation with a reference: overlap, surface distances, volumes; one patient at a time, in 3D."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from LiverUNetLib.segmentation.measurement import bounding_box

__all__ = [
    "CaseScores",
    "MaskScores",
    "compare_masks",
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
    return MaskScores(*_overlap_and_distances(mask[box], reference[box], spacing_mm), **volumes)


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


def _overlap_and_distances(
    mask: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, float, float]
) -> list[float]:
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
