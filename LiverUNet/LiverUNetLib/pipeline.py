"""The whole way of one scan: model grid, network, back to the voxels, one liver, its measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .ct_checks import check_ct
from .engines import Network
from .environment import Device, package_versions
from .geometry import (
    BODY_HU,
    SLICES_AT_ONCE,
    Canvas,
    ModelGrid,
    body_box,
    body_canvas,
    from_model_grid,
    model_grid_steps,
)
from .inference import predict_volume
from .measurement import Measurement, bounding_box, measure
from .model import LiverModel
from .postprocessing import fill_holes, largest_component, without_other_components
from .steps import Progress, stage
from .volume import CTVolume

__all__ = ["Segmentation", "segment"]

# Less than this is noise, not the tip of a liver.
MINIMUM_LIVER_ML = 1.0
# What is found where there is no liver is small, and its mean probability was at most 0.85 in the scans tried; that of
# slivers of a liver at the end of a scan at least 0.89, but for one of 3 ml.
MINIMUM_DOUBTFUL_ML = 200.0
DOUBTFUL_PROBABILITY = 0.87
# Below these a model lacks the context that it was trained with.
FEWEST_SLICES = 4
THINNEST_STACK_MM = 40.0
# Slices farther apart leave gaps; the data sets that models are trained on have 0.5 to 5 mm.
WIDEST_SLICE_MM = 7.5
# Tilts beyond what augmentation by rotation shows a model.
LARGEST_TILT_DEGREES = 20.0


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A segmented scan.

    Attributes:
        mask_kji: uint8, 1 is liver, exactly the voxels of the scan.
        probability_kji: of every voxel, before one liver was chosen; uint8 in steps of 1/255, if asked for.
        warnings: what a person has to know before using the result, in whole sentences.
        provenance: which model, device and versions made it, and in how many seconds.
    """

    mask_kji: np.ndarray
    probability_kji: np.ndarray | None
    measurement: Measurement
    warnings: tuple[str, ...]
    provenance: dict[str, Any]

    def report(self) -> dict[str, Any]:
        """Everything but the voxels, for JSON."""
        return {
            "schema_version": 1,
            "measurement": asdict(self.measurement),
            "warnings": list(self.warnings),
            "provenance": self.provenance,
        }


def segment(
    volume: CTVolume,
    model: LiverModel,
    device: Device,
    *,
    network: Network | None = None,
    with_probability: bool = False,
) -> Generator[Progress, None, Segmentation]:
    """Segment the liver; yields Progress after every batch. Close the generator to cancel.

    Args:
        network: `model.network(device)`, if it was loaded for a scan before.

    Raises:
        ScanError: the volume is not a CT.
        ModelError: the model is changed or damaged.
    """
    started = time.monotonic()
    check_ct(volume)
    spec = model.card.preprocessing
    # To the model, and to the measures, a scan ends where the body does. Nobody asks for the origin of this part.
    box = body_box(volume)
    part = replace(volume, hu_kji=volume.hu_kji[box])
    grid = ModelGrid.of(part, spec)
    total = grid.shape[0]
    yield Progress("Preparing", 0, total)
    image = yield from stage("Preparing", model_grid_steps(part.hu_kji, grid, spec.window_hu))
    network = network or model.network(device)
    yield Progress("Segmenting", 0, total)
    probability, liver = yield from _predict(image, grid, model, network)

    yield Progress("Restoring", 0, total)
    mask = yield from _restore_mask(liver, grid, model.card.threshold)
    doubtful = _doubtful(liver[liver > model.card.threshold])
    found_ml = yield from _tidy(mask, volume.voxel_ml, MINIMUM_DOUBTFUL_ML if doubtful else MINIMUM_LIVER_ML)
    probability_kji = None
    if with_probability:
        probability_kji = np.zeros(volume.hu_kji.shape, np.uint8)
        probability_kji[box] = yield from _restore_probability(probability, grid)

    measurement = measure(mask, grid.canonical(part.hu_kji), grid.canonical_spacing_mm, volume.voxel_ml)
    yield Progress("Measuring", 1, 2)
    mask_kji = np.zeros(volume.hu_kji.shape, np.uint8)
    mask_kji[box] = grid.original(mask)
    yield Progress("Measuring", 2, 2)
    return Segmentation(
        mask_kji=mask_kji,
        probability_kji=probability_kji,
        measurement=measurement,
        warnings=(*filter(None, [network.device.note]), *_cautions(part, grid), *_findings(measurement, found_ml)),
        provenance={
            "scan": volume.name,
            "model": model.card.name,
            "model_version": model.card.version,
            "model_checksum": model.card.checksum,
            "model_license": model.card.license,
            "settings": asdict(spec) | {"threshold": model.card.threshold},
            "device": network.device.name,
            "engine": network.device.engine,
            "dtype": network.device.dtype,
            "seconds": round(time.monotonic() - started, 2),
            "packages": package_versions(),
        },
    )


def _predict(
    image: np.ndarray, grid: ModelGrid, model: LiverModel, network: Network
) -> Generator[Progress, None, tuple[np.ndarray, np.ndarray]]:
    """The probability on the model grid and that of one liver, in the body's canvas, or in all if that would cut it."""
    spec, multiple, threshold = model.card.preprocessing, model.card.network.multiple, model.card.threshold
    body = body_canvas(image, spec.normalise(BODY_HU), grid.slice_mm, multiple=multiple)
    for canvas in (body, Canvas(0, 0, *grid.shape[1:])):
        cropped = canvas.crop(image, fill=-1.0)
        batches = predict_volume(network, cropped, grid.slice_mm, spec, multiple=multiple, threshold=threshold)
        cropped = yield from stage("Segmenting", batches)
        probability = canvas.paste(cropped, grid.shape[1:], fill=0.0)
        liver = without_other_components(probability, threshold)
        if not canvas.cuts(liver > threshold):
            break
    return probability, liver


def _restore(
    model: np.ndarray, grid: ModelGrid, slices: range, cut: Callable[[np.ndarray], np.ndarray]
) -> Generator[Progress, None, np.ndarray]:
    """Interpolate canonical `slices` of the scan in slabs; `cut` gives what is kept of each, the rest is 0."""
    restored = None
    for first in range(slices.start, slices.stop, SLICES_AT_ONCE):
        last = min(first + SLICES_AT_ONCE, slices.stop)
        slab = cut(from_model_grid(model, grid, range(first, last)))
        if restored is None:
            restored = np.zeros(grid.canonical_shape, dtype=slab.dtype)
        restored[first:last] = slab
        yield Progress("Restoring", last - slices.start, len(slices))
    return np.zeros(grid.canonical_shape, dtype=bool) if restored is None else restored


def _restore_mask(liver: np.ndarray, grid: ModelGrid, threshold: float) -> Generator[Progress, None, np.ndarray]:
    """The voxels above the threshold, as bool in canonical axes; only slices near the liver are computed."""
    found = np.flatnonzero((liver > threshold).any(axis=(1, 2)))
    slices = range(0)
    if found.size:
        slices = range(
            max((int(found[0]) - 1) * grid.block, 0), min((int(found[-1]) + 2) * grid.block, grid.canonical_shape[0])
        )
    return (yield from _restore(liver, grid, slices, lambda probability: probability > threshold))


def _restore_probability(probability: np.ndarray, grid: ModelGrid) -> Generator[Progress, None, np.ndarray]:
    """The probability of every voxel of the grid's scan, uint8 in steps of 1/255, with the scan's own axes."""
    slices = range(grid.canonical_shape[0])
    restored = yield from _restore(probability, grid, slices, lambda part: np.rint(part * 255).astype(np.uint8))
    return grid.original(restored)


def _doubtful(probability: np.ndarray) -> bool:
    """Whether what was found with these probabilities is a liver only if it is large."""
    return bool(probability.size) and float(probability.mean()) < DOUBTFUL_PROBABILITY


def _tidy(mask: np.ndarray, voxel_ml: float, minimum_ml: float) -> Generator[Progress, None, float]:
    """Leave one component without holes in the mask, or nothing if it is too small; returns its volume.

    Works in the mask's box alone.
    """
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


def _cautions(volume: CTVolume, grid: ModelGrid) -> list[str]:
    """What about the scan itself asks for care."""
    cautions = list(volume.notes)
    slices, spacing = grid.canonical_shape[0], grid.canonical_spacing_mm[0]
    if slices < FEWEST_SLICES or slices * spacing < THINNEST_STACK_MM:
        cautions.append(
            f"The scan shows the body in {slices} slice{'s' if slices > 1 else ''} ({slices * spacing:.0f} mm): "
            "with so little context the model is less reliable; check the result."
        )
    elif spacing > WIDEST_SLICE_MM:
        cautions.append(
            f"The slices are {spacing:.1f} mm apart: what lies between them is not seen; check shape and volume."
        )
    tilt = np.degrees(np.arccos(min(_largest_cosines(volume.affine)[2], 1.0)))
    if tilt > LARGEST_TILT_DEGREES:
        cautions.append(
            f"The slices are tilted by {tilt:.0f} degrees from the patient's axial plane; "
            "models are trained on axial scans."
        )
    return cautions


def _largest_cosines(affine: np.ndarray) -> np.ndarray:
    """For the patient's axes R, A, S: the cosine of the angle to the nearest axis of the scan."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return np.abs(directions).max(axis=1)


def _findings(measurement: Measurement, found_ml: float) -> list[str]:
    """What about the result asks for care; `found_ml` is the volume before what is too small was taken out."""
    if measurement.volume_ml == 0 and found_ml >= MINIMUM_LIVER_ML:
        return [
            f"No liver was found; the mask is empty. What looked most like one, {found_ml:.0f} ml, is too doubtful: "
            f"less than {MINIMUM_DOUBTFUL_ML:.0f} ml with a mean probability below {DOUBTFUL_PROBABILITY:g}."
        ]
    if measurement.volume_ml == 0:
        return ["No liver was found; the mask is empty."]
    if measurement.cut_off:
        edges = " and ".join(measurement.cut_off)
        return [f"The liver reaches the {edges} edge of the image and may be cut off; its volume is a lower bound."]
    return []
