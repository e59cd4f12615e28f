"""Pictures of a training, as figures of matplotlib: a validated case, augmented slices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from ..data.cache import Cache
from .fine_sampling import FineSampler, Slice
from .recipes import Recipe

__all__ = ["draw_augmentation", "draw_validation"]

MASK, FOUND = "#1976d2", "#dd8265"
LONGEST_CAPTION = 45


def draw_validation(name: str, image: np.ndarray, mask: np.ndarray, probability: np.ndarray) -> Figure:
    """The fullest slice of a case, with its mask and what was found outlined.

    Args:
        image, mask, probability: HU, uint8 share of liver, and float32, (slices, rows, columns).
    """
    fullest = _fullest(mask)
    rows, columns = image.shape[1:]
    figure = Figure(figsize=(4, min(4 * rows / columns, 5) + 0.5), facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1 - 0.5 / figure.get_figheight()))
    axes.imshow(image[fullest], cmap="gray")
    for outline, color in ((mask[fullest] / 255, MASK), (probability[fullest], FOUND)):
        if outline.min() < 0.5 < outline.max():
            axes.contour(outline, [0.5], colors=color, linewidths=1)
    # Two lines, above the image and not beyond the picture's edge, whatever the case is called.
    name = name if len(name) <= LONGEST_CAPTION else f"{name[: LONGEST_CAPTION - 1]}…"
    caption = f"{name}, slice {fullest + 1}\nmask blue, found orange"
    figure.text(0.02, 1 - 0.08 / figure.get_figheight(), caption, color="white", fontsize=8, va="top")
    axes.axis("off")
    return figure


def draw_augmentation(cache: Cache, name: str, recipe: Recipe, *, height: float | None = None, seed: int = 0) -> Figure:
    """An axial slice of a case as it is, and fifteen augmented versions of it; the mask is outlined.

    Args:
        height: of the slice, as a share of the scan from its lowest point; None for the fullest slice.
    """
    (case,) = cache.select([name])
    chosen = _fullest(case.mask) if height is None else min(max(int(height * len(case.image)), 0), len(case.image) - 1)
    spec = replace(recipe.on(cache.grids), coarse=None)
    sampler = FineSampler([case], spec, recipe.settings)
    images, masks = sampler.batch([Slice(case, chosen)] * 15, seed, "cpu")
    middle = list(spec.fine.context_mm).index(0.0)
    figure = Figure(figsize=(12, 12), facecolor="black", layout="constrained")
    shown = [spec.normalize(case.image[chosen].astype(np.float32)), *images[:, middle].numpy()]
    outlines = [case.mask[chosen] / 255, *masks[:, 0].numpy()]
    for n, (picture, outline, axes) in enumerate(zip(shown, outlines, figure.subplots(4, 4).ravel(), strict=True)):
        axes.imshow(picture, cmap="gray", vmin=-1, vmax=1)
        if outline.min() < 0.5 < outline.max():
            axes.contour(outline, [0.5], colors=FOUND, linewidths=1)
        axes.set_title("as it is" if n == 0 else "", color="white", fontsize=9)
        axes.axis("off")
    figure.suptitle(f"{name}, slice {chosen + 1}", color="white")
    return figure


def _fullest(mask: np.ndarray) -> int:
    """The slice with the most liver."""
    return int(np.argmax(np.sum(mask, axis=(1, 2), dtype=np.int64)))
