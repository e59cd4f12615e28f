"""Slices in batches through the network, step by step."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import TypeVar

import numpy as np

from .engines import Network
from .geometry import Canvas, PreprocessingSpec, context_indices
from .postprocessing import without_other_components
from .steps import in_background
from .views import VIEWS, assemble, cut, isotropic, usable_views

__all__ = ["predict", "predict_volume"]

T = TypeVar("T")

# Of the largest section of the liver; a dome or tip that just touches the end of the scan has less.
CUT_SHARE = 0.2
# Beyond these the exponential function leaves float32, and the probability is 0 or 1 anyway.
SAFE_LOGITS = (-80.0, 80.0)


def predict_volume(
    network: Network, image: np.ndarray, slice_mm: float, spec: PreprocessingSpec, *, multiple: int, threshold: float
) -> Generator[tuple[int, int], None, np.ndarray]:
    """Run the network over a volume in every view and average; yields slices done and slices in all.

    Where the axial view finds that the scan ends inside the liver, coronal and sagittal slices are not
    asked: they would show a body that is cut across where models have seldom seen it.

    Args:
        image: normalised, on the model grid, float32 (slices, rows, columns).
        slice_mm: distance of the slices.
        multiple: rows and columns that the network takes are multiples of this.
        threshold: where the probability exceeds it there is liver.

    Returns:
        The probability of liver, float32, shape of the image.
    """
    views, cube = usable_views(spec.views, slice_mm), None
    lengths = {view: image.shape[VIEWS[view][0]] for view in views}
    total, before = sum(lengths.values()), 0
    probability = np.zeros(image.shape, dtype=np.float32)
    for view in views:
        if view != "axial" and cube is None:
            cube = yield from _aside(partial(isotropic, image, slice_mm, spec.pixel_mm), (before, total))
        slices, mm = (image, slice_mm) if view == "axial" else (cut(cube, view), spec.pixel_mm)
        size = slices.shape[1:]
        canvas = Canvas.around((size[0] / 2, size[1] / 2), tuple(-(-length // multiple) * multiple for length in size))
        context = context_indices(len(slices), mm, spec.context_mm)
        cropped = yield from _aside(partial(canvas.crop, slices, fill=-1.0), (before, total))
        steps = predict(network, cropped, context)
        while True:
            try:
                yield before + next(steps), total
            except StopIteration as end:
                found = end.value
                break
        before += lengths[view]
        found = yield from _aside(partial(canvas.paste, found, size, fill=0.0), (before, total))
        if view != "axial":
            found = yield from _aside(partial(assemble, found, view, len(image)), (before, total))
        elif len(views) > 1 and (yield from _aside(partial(_ends_inside_the_liver, found, threshold), (before, total))):
            return found
        probability += found / len(views)
    return probability


def _ends_inside_the_liver(probability: np.ndarray, threshold: float) -> bool:
    """Whether the likeliest part of what was found fills the first or the last slice as it does others."""
    liver = without_other_components(probability, threshold) > threshold
    pixels = np.count_nonzero(liver, axis=(1, 2))
    return bool(max(pixels[0], pixels[-1]) > CUT_SHARE * pixels.max())


def _aside(work: Callable[[], T], counts: tuple[int, int]) -> Generator[tuple[int, int], None, T]:
    """Do in a thread what would hold an event loop too long, and yield the counts meanwhile."""
    steps = in_background("predict", work)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        yield counts


def predict(network: Network, image: np.ndarray, context: np.ndarray) -> Generator[int, None, np.ndarray]:
    """Run the network over all slices; yields the number of slices done after every batch.

    Args:
        image: normalised slices, float32 (slices, rows, columns).
        context: which slices are the channels of each, int64 (slices, channels).

    Returns:
        The probability of liver, float32 (slices, rows, columns).
    """
    probability = np.empty(image.shape, dtype=np.float32)
    done = 0
    while done < len(image):
        last = min(done + network.batch_size, len(image))
        logits = network(image[context[done:last]])[:, 0]
        probability[done:last] = 1 / (1 + np.exp(-logits.clip(*SAFE_LOGITS)))
        done = last
        yield done
    return probability
