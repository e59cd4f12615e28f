"""Segment one scan, from HU to mask, measurements and warnings."""

from __future__ import annotations

import math
import time
from functools import partial

import numpy as np

from ..models.folder import LiverModel, Networks
from ..models.spec import ModelSpec
from ..scan.ct_checks import check_ct
from ..scan.volume import CTVolume
from ..steps import Progress, Steps, stage
from ..system.environment import Device, package_versions
from ..types import Box, triple
from .grid import Grid, body_slices, canonical_scan, canonical_view, resample
from .looks import Looked, look_coarsely, look_finely
from .measurement import bounding_box, measure
from .postprocessing import fill_holes, largest_component, without_other_components
from .quality import Outcome, check_quality
from .result import Provenance, Segmentation

__all__ = ["segment"]


def segment(
    volume: CTVolume,
    model: LiverModel,
    device: Device,
    *,
    networks: Networks | None = None,
    with_probability: bool = False,
) -> Steps[Segmentation]:
    """Segment the liver; yield Progress after every batch. Close the generator to cancel.

    Args:
        networks: `model.networks(device)`, if they are already loaded.

    Raises:
        ScanError: the volume is not a CT.
        ModelError: the model was changed or is damaged.
    """
    started = time.monotonic()
    check_ct(volume)
    spec = model.card.spec
    hu, scan = canonical_scan(volume)
    # For the model and the measurements, the scan ends where the body ends.
    body = body_slices(hu)
    hu, scan = hu[body], scan.part((body, *scan.whole[1:]))
    yield Progress("Preparing", 0, 1)
    networks = networks or model.networks(device)
    looked = yield from _look(hu, scan, spec, networks)
    restored = partial(resample, source=looked.fine.grid, target=scan.part(looked.box), antialias=False)
    mask = yield from stage("Restoring", restored(looked.liver, finish=lambda slab: slab > spec.rules.threshold))
    probability_kji = None
    if with_probability:
        steps = restored(looked.fine.probability, finish=lambda slab: np.rint(slab * 255))
        probability_kji = _on_scan((yield from stage("Restoring", steps)), volume, body, looked.box)
    found_ml = yield from _tidy(mask, volume.voxel_ml, looked.least_ml)
    measurement = measure(mask, hu, scan, looked.box, volume.voxel_ml)
    yield Progress("Measuring", 1, 2)
    mask_kji = _on_scan(mask, volume, body, looked.box)
    yield Progress("Measuring", 2, 2)
    outcome = Outcome(volume, scan, hu, canonical_view(mask_kji, volume.affine)[body], looked, measurement, found_ml)
    verdict, signals = yield from check_quality(outcome, model, networks.fine)
    used = networks.fine.device
    return Segmentation(
        mask_kji=mask_kji,
        probability_kji=probability_kji,
        measurement=measurement,
        warnings=(*filter(None, [used.note]), *volume.notes, *verdict.reasons),
        verdict=verdict,
        signals=signals,
        provenance=_provenance(volume, model, used, time.monotonic() - started),
    )


def _on_scan(part: np.ndarray, volume: CTVolume, body: slice, box: Box) -> np.ndarray:
    """All voxels of the scan, uint8, with `part` in a canonical box of the slices that show the body."""
    whole = np.zeros(volume.hu_kji.shape, np.uint8)
    canonical_view(whole, volume.affine)[body][box] = part
    return whole


def _provenance(volume: CTVolume, model: LiverModel, used: Device, seconds: float) -> Provenance:
    card = model.card
    return Provenance(
        scan=volume.name,
        model=card.name,
        model_version=card.version,
        model_checksum=card.checksum,
        model_license=card.license,
        settings=card.spec,
        device=used.name,
        engine=used.engine,
        dtype=used.dtype,
        seconds=round(seconds, 2),
        packages=package_versions(),
    )


def _look(hu: np.ndarray, scan: Grid, spec: ModelSpec, networks: Networks) -> Steps[Looked]:
    """Take the coarse look, then the fine one at its box; repeat it on a larger box if the liver is cut or missing."""
    coarse = yield from look_coarsely(hu, scan, spec, networks.coarse)
    box = coarse.box
    margin_mm = spec.coarse.margin_mm if spec.coarse else 0.0
    while True:
        grid = scan.part(box).pixels(spec.fine.pixel_mm, spec.fine.slice_mm)
        fine = yield from look_finely(hu, scan, grid, spec, networks.fine)
        liver = without_other_components(fine.probability, spec.rules.threshold)
        found = liver > spec.rules.threshold
        sure = liver[found]
        least_ml = spec.rules.least_ml(float(sure.mean()) if sure.size else 0.0)
        enough = sure.size * grid.voxel_ml >= least_ml
        larger = _larger(box, bounding_box(found) if enough else None, grid, scan, margin_mm)
        if larger == box:
            return Looked(box, coarse, fine, liver, least_ml)
        # The margin doubles, so that few looks are needed even if the coarse look found little.
        box, margin_mm = larger, 2 * margin_mm


def _larger(box: Box, liver: Box | None, grid: Grid, scan: Grid, margin_mm: float) -> Box:
    """Enlarge the box by a margin where it cuts the liver, within the scan; without a liver, return the whole scan.

    Args:
        box: of `scan`; `grid` covers it.
        liver: the bounding box of the liver on `grid`; None if there is none.
    """
    if liver is None:
        return scan.whole
    margins = [math.ceil(margin_mm / axis.step_mm) for axis in scan.axes]
    return triple(
        slice(
            max(part.start - margin, 0) if found.start == 0 else part.start,
            min(part.stop + margin, length) if found.stop == seen else part.stop,
        )
        for part, found, margin, seen, length in zip(box, liver, margins, grid.shape, scan.shape, strict=True)
    )


def _tidy(mask: np.ndarray, voxel_ml: float, minimum_ml: float) -> Steps[float]:
    """Keep the largest component of the mask, with its holes filled, if it is large enough; return its volume."""
    box = bounding_box(mask)
    yield Progress("Tidying", 0, 3)
    if box is None:
        return 0.0
    liver = largest_component(mask[box])
    yield Progress("Tidying", 1, 3)
    liver = fill_holes(liver)
    yield Progress("Tidying", 2, 3)
    found_ml = float(liver.sum()) * voxel_ml
    mask[box] = liver if found_ml >= minimum_ml else False
    yield Progress("Tidying", 3, 3)
    return found_ml
