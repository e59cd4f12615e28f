"""Check a result: gather its signals, find reasons for caution, and judge."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage

from ..models.engines import Network
from ..models.folder import LiverModel
from ..scan.volume import CTVolume
from ..steps import Steps
from ..types import triple
from .anatomy import look_around
from .grid import Grid, orientation_to_lps, stored_indices
from .looks import FineLooked, Looked
from .measurement import Measurement
from .plausibility import (
    about_the_body,
    about_the_liver,
    about_the_looks,
    about_the_rest,
    about_the_scan,
    about_the_usual,
)
from .signals import Signals, gather
from .verdict import SliceToCheck, Verdict, judge

__all__ = ["Outcome", "check_quality", "slices_to_check"]

# At most so many slices are named, at least so far apart, each with at least so much that may be wrong.
MOST_SLICES, SLICES_APART_MM, LEAST_DOUBT_CM2 = 5, 10.0, 1.0
# The point of a slice to look at is the middle of the square of this size with the most doubt.
SURROUNDINGS_MM = 15.0


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of a run, before it is judged.

    Attributes:
        volume: the scan as it was stored.
        scan: the canonical grid of both arrays, as far as the scan shows the body.
        hu, mask: canonical (slices, rows, columns).
        found_ml: the volume of the liver before what is too small was taken out.
    """

    volume: CTVolume
    scan: Grid
    hu: np.ndarray
    mask: np.ndarray
    looked: Looked
    measurement: Measurement
    found_ml: float


def check_quality(outcome: Outcome, model: LiverModel, network: Network) -> Steps[tuple[Verdict, Signals | None]]:
    """Check the result of a run; there are no signals where there is no liver.

    Args:
        network: of the fine look, which looks again at some slices.
    """
    spec, looked, measured = model.card.spec, outcome.looked, outcome.measurement
    reasons = [*about_the_scan(outcome.volume, outcome.scan), *about_the_liver(measured, outcome.found_ml, spec.rules)]
    if not measured.volume_ml:
        return judge(reasons, measured.volume_ml), None
    signals = yield from gather(looked, spec, network)
    calibration = model.calibration()
    reasons += about_the_looks(signals.coarse_dice)
    reasons += about_the_rest(signals, measured.volume_ml)
    reasons += about_the_body(look_around(outcome.hu, outcome.mask, outcome.scan))
    reasons += about_the_usual(calibration, asdict(signals)) if calibration else []
    estimate = calibration.estimate(asdict(signals)) if calibration else None
    slices = slices_to_check(looked.fine, outcome.volume)
    return judge(reasons, measured.volume_ml, estimate, slices), signals


def slices_to_check(fine: FineLooked, volume: CTVolume) -> tuple[SliceToCheck, ...]:
    """The slices with the largest area that may be wrong, at least 10 mm apart, the worst first.

    The area counts each pixel by the probability that it is wrong.
    """
    grid = fine.grid
    pixel_cm2 = grid.rows.step_mm * grid.columns.step_mm / 100
    areas = np.array([_doubt(plane).sum(dtype=np.float64) for plane in fine.probability]) * pixel_cm2
    apart = max(round(SLICES_APART_MM / grid.slices.step_mm), 1)
    found: list[SliceToCheck] = []
    while len(found) < MOST_SLICES and areas.max() >= LEAST_DOUBT_CM2:
        worst = int(np.argmax(areas))
        found.append(_slice_to_check(fine, worst, float(areas[worst]), volume))
        areas[max(worst - apart + 1, 0) : worst + apart] = 0
    return tuple(found)


def _slice_to_check(fine: FineLooked, index: int, doubtful_cm2: float, volume: CTVolume) -> SliceToCheck:
    """The slice with its most doubtful point."""
    size = [max(round(SURROUNDINGS_MM / mm), 1) for mm in fine.grid.spacing_mm[1:]]
    around = ndimage.uniform_filter(_doubt(fine.probability[index]), size, mode="constant")
    row, column = divmod(int(np.argmax(around)), around.shape[1])
    cell = zip(fine.grid.axes, (index, row, column), strict=True)
    point = triple(axis.start_mm + (place + 0.5) * axis.step_mm for axis, place in cell)
    ijk = stored_indices(volume, point)
    up = list(orientation_to_lps(volume.affine)[:, 0]).index(2)  # the stored axis that runs along the patient
    ras = volume.affine @ [*ijk, 1]
    return SliceToCheck(round(ijk[up]) + 1, triple(round(float(mm), 1) for mm in ras[:3]), round(doubtful_cm2, 1))


def _doubt(probability: np.ndarray) -> np.ndarray:
    """The probability that a voxel is wrong, if the likelier answer is given."""
    doubt: np.ndarray = np.minimum(probability, 1 - probability)
    return doubt
