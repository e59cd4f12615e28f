"""Move grids of voxels through Slicer's transforms, linear or not."""

from __future__ import annotations

import itertools
from collections.abc import Generator

import numpy as np
import slicer
import vtk
from slicer import vtkMRMLTransformableNode, vtkMRMLTransformNode
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from LiverUNetLib.errors import ScanError
from LiverUNetLib.steps import Progress

__all__ = ["chained", "moved", "regularGrid", "resampleSteps", "toWorld", "warpOver"]

# In one step, so that the event loop runs often even if a transform must be inverted point by point.
VOXELS_AT_ONCE = 65536
# Points along each axis at which a transform is sampled; more along k, since slices may be unevenly spaced.
LATTICE_KJI = (65, 9, 9)
# A transform that needs more than this many times the voxels of the scan cannot be that of a patient.
LARGEST_GROWTH = 8


def warpOver(node: vtkMRMLTransformableNode) -> vtkMRMLTransformNode | None:
    """The lowest nonlinear transform above a node; None if all are linear."""
    parent = node.GetParentTransformNode()
    while parent is not None and parent.IsLinear():
        parent = parent.GetParentTransformNode()
    return parent


def toWorld(parent: vtkMRMLTransformNode | None, *, inverse: bool = False) -> vtk.vtkGeneralTransform:
    """A copy of the transform from RAS under `parent` to RAS of the world, or its inverse; None is the world."""
    transform, copy = vtk.vtkGeneralTransform(), vtk.vtkGeneralTransform()
    nodes = (None, parent) if inverse else (parent, None)
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(*nodes, transform)
    copy.DeepCopy(transform)
    return copy


def chained(*parts: np.ndarray | vtk.vtkAbstractTransform) -> vtk.vtkGeneralTransform:
    """Apply one transform after the other; an array is a 4x4 matrix."""
    chain = vtk.vtkGeneralTransform()
    chain.PostMultiply()
    for part in parts:
        chain.Concatenate(part.ravel().tolist() if isinstance(part, np.ndarray) else part)
    return chain


def moved(points: np.ndarray, transform: vtk.vtkAbstractTransform) -> np.ndarray:
    """Move points (n, 3) through a transform."""
    before, after = vtk.vtkPoints(), vtk.vtkPoints()
    before.SetData(numpy_to_vtk(np.ascontiguousarray(points, dtype=float)))
    after.SetDataTypeToDouble()
    transform.TransformPoints(before, after)
    return vtk_to_numpy(after.GetData()).copy()


def regularGrid(
    first_kji: tuple[int, int, int], shape_kji: tuple[int, int, int], transform: vtk.vtkAbstractTransform, name: str
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Fit a perpendicular grid to a transformed box of voxels, large enough to enclose it.

    Its i axis has the mean direction of the voxels' i axis, its j axis lies in their mean plane, and its k
    axis is perpendicular to both; the spacings are the means. So a stack under an acquisition transform
    keeps the planes of its slices.

    Args:
        first_kji: the first voxel of the box.
        transform: from (i, j, k) of the voxels.
        name: of the volume, for messages.

    Returns:
        4x4 from (i, j, k, 1) of the new grid to the space that `transform` leads to; its shape (k, j, i).

    Raises:
        ScanError: the transform collapses the voxels or spreads them too far.
    """
    axes = [
        first - 0.5 + np.linspace(0, size, min(size + 1, points))
        for first, size, points in zip(first_kji, shape_kji, LATTICE_KJI, strict=True)
    ]
    ijk = np.array(list(itertools.product(*axes)))[:, ::-1]
    places = moved(ijk, transform)
    design = np.column_stack([ijk, np.ones(len(ijk))])
    fit = np.linalg.lstsq(design, places, rcond=None)[0][:3].T
    directions, steps = np.linalg.qr(fit)
    signs = np.where(np.diag(steps) < 0, -1.0, 1.0)
    spacing_mm = np.abs(np.diag(steps))
    if not np.isfinite(fit).all() or not spacing_mm.min() > 0:
        raise ScanError(f"The transform of {name} collapses it; remove {name} from it or choose another transform.")
    affine = np.eye(4)
    affine[:3, :3] = directions * signs * spacing_mm
    inside = np.linalg.solve(affine[:3, :3], places.T).T
    low, high = inside.min(axis=0), inside.max(axis=0)
    size = np.maximum(np.ceil(high - low - 1e-3), 1)
    if np.prod(size) > LARGEST_GROWTH * np.prod(shape_kji) + VOXELS_AT_ONCE:
        raise ScanError(
            f"The transform of {name} spreads it too far; remove {name} from it or choose another transform."
        )
    affine[:3, 3] = affine[:3, :3] @ ((low + high - size + 1) / 2)
    return affine, tuple(int(n) for n in size[::-1])


def resampleSteps(
    image: vtk.vtkImageData,
    toImage: vtk.vtkAbstractTransform,
    box_kji: tuple[slice, slice, slice],
    *,
    outside: float,
) -> Generator[Progress, None, np.ndarray]:
    """Resample an image to a box of another grid with linear interpolation, some rows in each step.

    Args:
        image: its origin, spacing and directions are ignored.
        toImage: from (i, j, k) of the grid to (i, j, k) of the image.
        outside: the value outside the image.
    """
    bare = vtk.vtkImageData()
    bare.ShallowCopy(image)
    bare.SetOrigin(0, 0, 0)
    bare.SetSpacing(1, 1, 1)
    bare.SetDirectionMatrix(1, 0, 0, 0, 1, 0, 0, 0, 1)
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(bare)
    reslice.SetResliceTransform(toImage)
    reslice.SetInterpolationModeToLinear()
    reslice.SetBackgroundLevel(outside)
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetOutputSpacing(1, 1, 1)
    slices, rows, columns = box_kji
    shape = tuple(part.stop - part.start for part in box_kji)
    voxels = np.empty(shape, vtk_to_numpy(image.GetPointData().GetScalars()).dtype)
    atOnce = max(VOXELS_AT_ONCE // shape[2], 1)
    for k in range(slices.start, slices.stop):
        for j in range(rows.start, rows.stop, atOnce):
            last = min(j + atOnce, rows.stop)
            reslice.SetOutputExtent(columns.start, columns.stop - 1, j, last - 1, k, k)
            reslice.Update()
            part = vtk_to_numpy(reslice.GetOutput().GetPointData().GetScalars())
            voxels[k - slices.start, j - rows.start : last - rows.start] = part.reshape(last - j, shape[2])
            yield Progress("Resampling", k + 1 - slices.start, shape[0])
    return voxels
