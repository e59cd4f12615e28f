"""From a scan to the grid a model sees, and exactly back.

The canonical orientation is LPS: columns run to the patient's left, rows to posterior, slices to
superior. It is reached by permuting and flipping axes only. The model grid then has a fixed pixel
size in plane, and no more slices than the model needs: thin ones are averaged in blocks.
Grids are aligned at their outer edges, so that the way back needs nothing but their shapes.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np

from .measurement import bounding_box
from .resampling import resample_plane
from .steps import finish
from .volume import CTVolume

__all__ = [
    "BODY_HU",
    "Canvas",
    "ModelGrid",
    "PreprocessingSpec",
    "body_box",
    "body_canvas",
    "context_indices",
    "from_model_grid",
    "model_grid_steps",
    "orientation_to_lps",
    "reoriented",
    "to_model_grid",
]

# Fat is near -100 HU; everything below this is air or lung, also in data clipped at -160 HU.
BODY_HU = -130.0
# A pixel belongs to the body's outline if it is body in this share of the slices of any part of the scan this long:
# of a whole scan with legs below or arms above, the torso can be a small part.
BODY_SHARE = 0.25
BODY_PART_MM = 500.0
# Slices that show less than this share of the fullest one do not count: air, a table alone, arms, ankles.
SHOWN_SHARE = 0.25
# A slice with a smaller share of body is empty; a newborn on the grid of a PET fills more.
EMPTY_SHARE = 0.01
SLICES_AT_ONCE = 16


@dataclass(frozen=True)
class PreprocessingSpec:
    """What a model expects of its input; it travels in the model's metadata.

    Attributes:
        pixel_mm: in-plane pixel size of the model grid.
        slice_mm: slices closer than this are averaged in blocks of at most this thickness.
        window_hu: HU are clipped to it and mapped to [-1, 1].
        context_mm: distances across the slices of those that form the channels.
        views: in which directions the volume is cut, see `views`; their probabilities are averaged.
    """

    pixel_mm: float = 1.5
    slice_mm: float = 2.0
    window_hu: tuple[float, float] = (-160.0, 240.0)
    context_mm: tuple[float, ...] = (-8.0, -4.0, 0.0, 4.0, 8.0)
    views: tuple[str, ...] = ("axial",)

    def normalise(self, hu: float) -> float:
        """The value that `hu` has on the model grid."""
        low, high = self.window_hu
        return 2 * (hu - low) / (high - low) - 1


@dataclass(frozen=True, eq=False)
class ModelGrid:
    """How one scan lies on the model grid.

    Attributes:
        orientation: nibabel's orientation array (3, 2) from the scan's i, j, k to LPS.
        canonical_shape: (slices, rows, columns) after permuting and flipping.
        canonical_spacing_mm: their distances.
        block: canonical slices averaged into one model slice.
        shape: (slices, rows, columns) of the model grid.
    """

    orientation: np.ndarray
    canonical_shape: tuple[int, int, int]
    canonical_spacing_mm: tuple[float, float, float]
    block: int
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, volume: CTVolume, spec: PreprocessingSpec) -> ModelGrid:
        """The model grid of `volume` under `spec`."""
        orientation = orientation_to_lps(volume.affine)
        # Row n of `orientation` tells where axis n of (i, j, k) goes; sorted by goal it tells what comes where.
        source_of_ijk = np.argsort(orientation[:, 0])
        shape_ijk = np.array(volume.hu_kji.shape[::-1])[source_of_ijk]
        spacing_ijk = np.array(volume.spacing_kji_mm[::-1])[source_of_ijk]
        columns, rows, slices = (int(n) for n in shape_ijk)
        column_mm, row_mm, slice_mm = (float(mm) for mm in spacing_ijk)
        # A tolerance, so that 1.0000001 mm slices are still averaged in pairs on a 2 mm grid.
        block = min(max(int(spec.slice_mm / slice_mm + 1e-3), 1), slices)
        return cls(
            orientation=orientation,
            canonical_shape=(slices, rows, columns),
            canonical_spacing_mm=(slice_mm, row_mm, column_mm),
            block=block,
            shape=(
                -(-slices // block),
                max(round(rows * row_mm / spec.pixel_mm), 1),
                max(round(columns * column_mm / spec.pixel_mm), 1),
            ),
        )

    @property
    def slice_mm(self) -> float:
        """Distance of two model slices in mm."""
        return self.canonical_spacing_mm[0] * self.block

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel of the model grid in ml."""
        canonical_ml = float(np.prod(self.canonical_spacing_mm)) / 1000
        return (
            canonical_ml
            * self.block
            * self.canonical_shape[1]
            * self.canonical_shape[2]
            / (self.shape[1] * self.shape[2])
        )

    def canonical(self, array_kji: np.ndarray) -> np.ndarray:
        """A view of an array of the scan's shape with canonical axes (slices, rows, columns)."""
        return reoriented(array_kji, self.orientation)

    def original(self, canonical: np.ndarray) -> np.ndarray:
        """The reverse of `canonical`: a view with the scan's own axes (k, j, i)."""
        from nibabel.orientations import ornt_transform

        lps = np.array([[0, 1], [1, 1], [2, 1]])
        return reoriented(canonical, ornt_transform(lps, self.orientation))


def orientation_to_lps(affine: np.ndarray) -> np.ndarray:
    """Nibabel's orientation array (3, 2) from i, j, k of a grid with this affine (to RAS) to the nearest LPS axes."""
    from nibabel import orientations

    return orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt("LPS"))


def reoriented(array_kji: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """A view of an array (k, j, i) whose i, j, k were permuted and flipped as `orientation` (3, 2) says."""
    from nibabel.orientations import apply_orientation

    return apply_orientation(array_kji.T, orientation).T


def to_model_grid(array_kji: np.ndarray, grid: ModelGrid, value_range: tuple[float, float]) -> np.ndarray:
    """Bring an array of the scan's shape onto the model grid, see `model_grid_steps`."""
    return finish(model_grid_steps(array_kji, grid, value_range))


def model_grid_steps(
    array_kji: np.ndarray, grid: ModelGrid, value_range: tuple[float, float]
) -> Generator[tuple[int, int], None, np.ndarray]:
    """Bring an array of the scan's shape onto the model grid; yields model slices done and in all.

    Values are clipped before anything is averaged: a scan that was already clipped to the window
    then gives the same result as its full-range original. Works in slabs; no full-size copy is made.

    Args:
        array_kji: HU or a mask, shape of the scan, any real dtype.
        value_range: values are clipped to it and mapped linearly to [-1, 1].

    Returns:
        float32, shape `grid.shape`.
    """
    low, high = value_range
    canonical = grid.canonical(array_kji)
    model = np.empty(grid.shape, dtype=np.float32)
    for first in range(0, grid.shape[0], SLICES_AT_ONCE):
        last = min(first + SLICES_AT_ONCE, grid.shape[0])
        slab = canonical[first * grid.block : last * grid.block].astype(np.float32)
        np.clip(slab, low, high, out=slab)
        missing = (last - first) * grid.block - len(slab)
        if missing:  # the last block is short: its own last slice stands in
            slab = np.concatenate([slab, np.repeat(slab[-1:], missing, axis=0)])
        if grid.block > 1:
            slab = slab.reshape(last - first, grid.block, *slab.shape[1:]).mean(axis=1)
        model[first:last] = resample_plane(slab, grid.shape[1:], antialias=True)
        yield last, grid.shape[0]
    model -= low
    model *= 2 / (high - low)
    model -= 1
    return model


def from_model_grid(model: np.ndarray, grid: ModelGrid, canonical_slices: range) -> np.ndarray:
    """Interpolate linearly from the model grid to canonical slices of the scan.

    Args:
        model: float32, shape `grid.shape`.
        canonical_slices: which slices of the scan, in canonical order.

    Returns:
        float32, shape (len(canonical_slices), rows, columns) of the canonical scan.
    """
    # The centre of canonical slice n lies at this model slice; past the outermost centres they are repeated.
    position = np.clip((np.asarray(canonical_slices) + 0.5) / grid.block - 0.5, 0, grid.shape[0] - 1)
    below = position.astype(int)
    above = np.minimum(below + 1, grid.shape[0] - 1)
    share = (position - below).astype(np.float32)[:, None, None]
    return resample_plane(model[below] * (1 - share) + model[above] * share, grid.canonical_shape[1:])


def context_indices(slices: int, slice_mm: float, context_mm: tuple[float, ...]) -> np.ndarray:
    """Which slices are the channels of each slice: the nearest to each distance, at the ends the last one.

    Returns:
        int64, shape (slices, len(context_mm)). In a thick or single slice scan a slice is its own context.
    """
    steps = np.rint(np.asarray(context_mm) / slice_mm).astype(np.int64)
    return np.clip(np.arange(slices)[:, None] + steps[None, :], 0, slices - 1)


@dataclass(frozen=True)
class Canvas:
    """A rectangle of the model grid's plane; it may reach beyond the image.

    Attributes:
        row, column: its first pixel, negative if outside.
        rows, columns: its size.
    """

    row: int
    column: int
    rows: int
    columns: int

    @classmethod
    def around(cls, centre: tuple[float, float], size: tuple[int, int]) -> Canvas:
        """The canvas of `size` (rows, columns) whose middle is nearest to `centre`."""
        return cls(round(centre[0] - size[0] / 2), round(centre[1] - size[1] / 2), *size)

    def showing(self, rows: slice, columns: slice) -> Canvas:
        """The canvas, moved by no more than is needed to show these rows and columns; their first ones if too small."""
        row = min(max(self.row, rows.stop - self.rows), rows.start)
        column = min(max(self.column, columns.stop - self.columns), columns.start)
        return replace(self, row=row, column=column)

    def cuts(self, mask: np.ndarray) -> bool:
        """Whether a mask (slices, rows, columns) reaches a side of the canvas beyond which the image continues."""
        box = bounding_box(mask)
        if box is None:
            return False
        axes = zip(box[1:], (self.row, self.column), (self.rows, self.columns), mask.shape[1:], strict=True)
        return any(
            (first > 0 and part.start <= first) or (first + size < length and part.stop >= first + size)
            for part, first, size, length in axes
        )

    def crop(self, image: np.ndarray, fill: float) -> np.ndarray:
        """The part of `image` (slices, rows, columns) on the canvas, `fill` where there is no image."""
        cropped = np.full((len(image), self.rows, self.columns), fill, dtype=image.dtype)
        inside, outside = self._overlap(image.shape[1:])
        cropped[(slice(None), *inside)] = image[(slice(None), *outside)]
        return cropped

    def paste(self, cropped: np.ndarray, shape: tuple[int, int], fill: float) -> np.ndarray:
        """The reverse of `crop`: an image of `shape` (rows, columns) with the canvas in its place."""
        image = np.full((len(cropped), *shape), fill, dtype=cropped.dtype)
        inside, outside = self._overlap(shape)
        image[(slice(None), *outside)] = cropped[(slice(None), *inside)]
        return image

    def _overlap(self, shape: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        inside, outside = [], []
        for first, size, length in zip((self.row, self.column), (self.rows, self.columns), shape, strict=True):
            start, stop = max(first, 0), min(first + size, length)
            outside.append(slice(start, stop))
            inside.append(slice(start - first, stop - first))
        return tuple(inside), tuple(outside)


def body_box(volume: CTVolume) -> tuple[slice, slice, slice]:
    """The part of a scan (k, j, i) without the empty axial slices at its ends; the whole scan if all are empty."""
    axis = 2 - int(np.argsort(orientation_to_lps(volume.affine)[:, 0])[2])
    slices = np.moveaxis(volume.hu_kji, axis, 0)[:, ::4, ::4]  # every fourth pixel tells as much
    shown = np.flatnonzero([np.mean(slice_ > BODY_HU) > EMPTY_SHARE for slice_ in slices])
    box = [slice(0, length) for length in volume.hu_kji.shape]
    if shown.size:
        box[axis] = slice(int(shown[0]), int(shown[-1]) + 1)
    return tuple(box)


def body_canvas(
    image: np.ndarray,
    threshold: float,
    slice_mm: float,
    *,
    multiple: int = 1,
    size: tuple[int, int] | None = None,
) -> Canvas:
    """The canvas around the patient's body.

    Args:
        image: normalised slices (slices, rows, columns) on the model grid.
        threshold: the normalised value above which a pixel is body (`spec.normalise(BODY_HU)`).
        slice_mm: distance of the slices.
        multiple: its sides are rounded up to multiples of this, as the network's strides need.
        size: a fixed (rows, columns) around the body's centre instead.
    """
    from scipy import ndimage

    outline = _body_outline(image > threshold, slice_mm)
    labels, parts = ndimage.label(outline)
    if parts:
        largest = 1 + np.argmax(np.bincount(labels.ravel())[1:])
        rows, columns = ndimage.find_objects(labels)[largest - 1]
    else:
        rows, columns = (slice(0, n) for n in outline.shape)
    centre = ((rows.start + rows.stop) / 2, (columns.start + columns.stop) / 2)
    if size is None:
        size = tuple(-(-(part.stop - part.start + 1) // multiple) * multiple for part in (rows, columns))
    return Canvas.around(centre, size)


def _body_outline(body: np.ndarray, slice_mm: float) -> np.ndarray:
    """Which pixels (rows, columns) are body in enough slices of any part of the scan; `body` is bool."""
    area = np.count_nonzero(body, axis=(1, 2))
    shown = np.flatnonzero(area >= SHOWN_SHARE * area.max())
    length = min(max(round(BODY_PART_MM / slice_mm), 1), len(shown))
    last, step = len(shown) - length, max(length // 4, 1)
    parts = (shown[first : first + length] for first in (*range(0, last, step), last))
    return np.logical_or.reduce([body[part].mean(axis=0) > BODY_SHARE for part in parts])
