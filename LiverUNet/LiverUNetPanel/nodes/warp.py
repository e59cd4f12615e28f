"""Grids of voxels through Slicer's transforms, linear or not."""

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

# Of one step, so that the event loop comes by often even where a transform has to be inverted point by point.
VOXELS_AT_ONCE = 65536
# Points along each axis at which a transform is looked at; slices may lie at any distances, so there are more.
LATTICE_KJI = (65, 9, 9)
# A transform under which a scan needs more voxels than this many times its own does not show a patient.
LARGEST_GROWTH = 8


def warpOver(node: vtkMRMLTransformableNode) -> vtkMRMLTransformNode | None:
    """The lowest of the transforms above a node that is not linear, if there is one."""
    parent = node.GetParentTransformNode()
    while parent is not None and parent.IsLinear():
        parent = parent.GetParentTransformNode()
    return parent


def toWorld(parent: vtkMRMLTransformNode | None, *, inverse: bool = False) -> vtk.vtkGeneralTransform:
    """A copy of the transform from the RAS under `parent` to the world's, or back; None is the world."""
    transform, copy = vtk.vtkGeneralTransform(), vtk.vtkGeneralTransform()
    nodes = (None, parent) if inverse else (parent, None)
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(*nodes, transform)
    copy.DeepCopy(transform)
    return copy


def chained(*parts: np.ndarray | vtk.vtkAbstractTransform) -> vtk.vtkGeneralTransform:
    """One transform after the other; an array is a 4x4 matrix."""
    chain = vtk.vtkGeneralTransform()
    chain.PostMultiply()
    for part in parts:
        chain.Concatenate(part.ravel().tolist() if isinstance(part, np.ndarray) else part)
    return chain


def moved(points: np.ndarray, transform: vtk.vtkAbstractTransform) -> np.ndarray:
    """Points (n, 3) through a transform."""
    before, after = vtk.vtkPoints(), vtk.vtkPoints()
    before.SetData(numpy_to_vtk(np.ascontiguousarray(points, dtype=float)))
    after.SetDataTypeToDouble()
    transform.TransformPoints(before, after)
    return vtk_to_numpy(after.GetData()).copy()


def regularGrid(
    first_kji: tuple[int, int, int], shape_kji: tuple[int, int, int], transform: vtk.vtkAbstractTransform, name: str
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The perpendicular grid that fits best to a box of voxels after a transform, and holds all of it.

    Its i runs as those of the voxels do, in the middle; its j lies in their plane; its k is upright on both, and
    the spacings are the mean ones. A stack under an acquisition transform keeps its slices' planes so.

    Args:
        first_kji: the box's first voxel.
        transform: from (i, j, k) of the voxels.
        name: how a message calls what the voxels belong to.

    Returns:
        4x4 from (i, j, k, 1) of the new grid to where `transform` leads to; its shape (k, j, i).

    Raises:
        ScanError: the transform folds the voxels up or tears them apart.
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
        raise ScanError(f"The transform over {name} leads nowhere; take {name} out of it, or choose another transform.")
    affine = np.eye(4)
    affine[:3, :3] = directions * signs * spacing_mm
    inside = np.linalg.solve(affine[:3, :3], places.T).T
    low, high = inside.min(axis=0), inside.max(axis=0)
    size = np.maximum(np.ceil(high - low - 1e-3), 1)
    if np.prod(size) > LARGEST_GROWTH * np.prod(shape_kji) + VOXELS_AT_ONCE:
        raise ScanError(
            f"The transform over {name} tears it apart; take {name} out of it, or choose another transform."
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
    """Voxels of an image on a box of another grid, interpolated linearly; takes some rows a step.

    Args:
        image: its own origin, spacing and directions do not count.
        toImage: from (i, j, k) of the grid to (i, j, k) of the image.
        outside: the value where there is no image.
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
