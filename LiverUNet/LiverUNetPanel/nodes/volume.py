"""Read a volume node as a CTVolume, in the coordinates of Slicer's world."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLTransformableNode

from LiverUNetLib.errors import ScanError
from LiverUNetLib.scan.volume import CTVolume
from LiverUNetLib.steps import Progress

from .warp import chained, moved, regularGrid, resampleSteps, toWorld, warpOver

__all__ = [
    "Scan",
    "Warp",
    "arrayFromMatrix",
    "edgesReached",
    "ijkToRas",
    "matrixFromArray",
    "scanSteps",
    "shifted",
    "span",
    "transformToWorld",
]

# Copying a full-size volume at once would block the event loop for most of a second.
SLICES_AT_ONCE = 32
# Points of a ROI in units of half its size; under a nonlinear transform the corners alone do not enclose it.
ROI_POINTS = np.array(list(itertools.product(np.linspace(-1, 1, 5), repeat=3)))
AIR_HU = -1000
WARPED = (
    "{transform} moves {name} and is not linear: the scan was resampled to a regular grid, and the liver lies over "
    "the scan as the views show it. If the transform changes, segment again."
)
# Resampling blurs the liver where the scan ends inside it: within this distance of the end it may be cut off.
CUT_MM = 2.0
# The names of the ends of the axes R, A and S.
ENDS = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))
NOT_A_CT = {
    "vtkMRMLLabelMapVolumeNode": "a label map",
    "vtkMRMLVectorVolumeNode": "a vector or color volume",
    "vtkMRMLTensorVolumeNode": "a tensor volume",
}


@dataclass(frozen=True, eq=False)
class Warp:
    """The regular grid that replaces the voxels of a volume node under a nonlinear transform.

    Attributes:
        affine: 4x4, from (i, j, k, 1) of the grid to RAS of the world.
        shape_kji: of the whole grid.
        toOwn: from (i, j, k) of the grid to (i, j, k) of the volume node.
    """

    affine: np.ndarray
    shape_kji: tuple[int, int, int]
    toOwn: vtk.vtkGeneralTransform


@dataclass(frozen=True, eq=False)
class Scan:
    """A copy of the voxels of a volume node, or of the box that is to be segmented.

    Attributes:
        first_kji: the place of its first voxel in the node, or in the regular grid.
        warp: the regular grid; None if the transform of the volume is linear.
    """

    volume: CTVolume
    first_kji: tuple[int, int, int]
    warp: Warp | None = None


def scanSteps(
    node: vtkMRMLScalarVolumeNode, roi: vtkMRMLMarkupsROINode | None = None
) -> Generator[Progress, None, Scan]:
    """Copy the voxels slab by slab, in the coordinates of the world.

    Under a nonlinear transform they are resampled, so that the scan is segmented as the views show it.
    Slicer's DICOM import adds such a transform to every series with tilted or unevenly spaced slices.

    Args:
        roi: copy only the box of voxels around it.

    Raises:
        ScanError: the node is not a single scalar volume, or the ROI lies outside it.
    """
    name = node.GetName()
    array = _voxels(node)
    if warpOver(node):
        return (yield from _warpedScanSteps(node, array, roi))
    affine = transformToWorld(node) @ ijkToRas(node)
    box = _box(roi, affine, array.shape, name)
    part = array[box]
    copy = np.empty(part.shape, part.dtype)
    for start in range(0, len(part), SLICES_AT_ONCE):
        stop = min(start + SLICES_AT_ONCE, len(part))
        copy[start:stop] = part[start:stop]
        yield Progress("Copying", stop, len(part))
    first = tuple(part.start for part in box)
    return Scan(CTVolume(copy, shifted(affine, first), name), first)


def _warpedScanSteps(
    node: vtkMRMLScalarVolumeNode, array: np.ndarray, roi: vtkMRMLMarkupsROINode | None
) -> Generator[Progress, None, Scan]:
    """Resample the voxels to a regular grid in the world; around them there is air."""
    name, parent, own = node.GetName(), node.GetParentTransformNode(), ijkToRas(node)
    affine, shape = regularGrid((0, 0, 0), array.shape, chained(own, toWorld(parent)), name)
    toOwn = chained(affine, toWorld(parent, inverse=True), np.linalg.inv(own))
    box = _box(roi, affine, shape, name)
    lowest = float(array.min())  # and no air where there is none: it would look like a CT
    hu_kji = yield from resampleSteps(node.GetImageData(), toOwn, box, outside=max(lowest, AIR_HU))
    first = tuple(part.start for part in box)
    note = WARPED.format(transform=warpOver(node).GetName(), name=name)
    return Scan(CTVolume(hu_kji, shifted(affine, first), name, (note,)), first, Warp(affine, shape, toOwn))


def edgesReached(scan: Scan, mask_kji: np.ndarray, node: vtkMRMLScalarVolumeNode) -> tuple[str, ...]:
    """The edges of a node's own voxels that a mask on its resampled scan reaches.

    The resampled scan has air around these voxels, so its own edges tell nothing.
    """
    toGrid, size = scan.warp.toOwn.GetInverse(), np.array(node.GetImageData().GetDimensions())
    found = []
    for axis, direction in enumerate(scan.warp.affine[:3, :3].T):
        depth = min(round(CUT_MM / node.GetSpacing()[axis]), (size[axis] - 1) // 2)
        main = int(np.argmax(np.abs(direction)))
        for layer, sign in ((depth, -1), (size[axis] - 1 - depth, 1)):
            lines = [[layer] if each == axis else range(0, n, 2) for each, n in enumerate(size)]
            ijk = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 3)
            kji = np.rint(moved(ijk, toGrid)[:, ::-1] - scan.first_kji).astype(int)
            kji = kji[((kji >= 0) & (kji < mask_kji.shape)).all(axis=1)]
            if mask_kji[tuple(kji.T)].any():
                found.append(ENDS[main][int(sign * direction[main] > 0)])
    return tuple(found)


def shifted(affine: np.ndarray, first_kji: tuple[int, int, int]) -> np.ndarray:
    """The affine of the part of a grid that begins at this voxel."""
    shift = np.eye(4)
    shift[:3, 3] = first_kji[::-1]
    return affine @ shift


def ijkToRas(node: vtkMRMLScalarVolumeNode) -> np.ndarray:
    """4x4, from (i, j, k, 1) to RAS in mm, before any parent transform."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return arrayFromMatrix(matrix)


def transformToWorld(node: vtkMRMLTransformableNode) -> np.ndarray:
    """4x4, from RAS of a node to RAS of the world, through its parent transforms, which must be linear."""
    transform = node.GetParentTransformNode()
    if transform is None:
        return np.eye(4)
    if warpOver(node):
        raise ValueError(f"{node.GetName()} is under the nonlinear transform {transform.GetName()}.")
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    return arrayFromMatrix(matrix)


def arrayFromMatrix(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """A copy as float64."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def span(roi: vtkMRMLMarkupsROINode, node: vtkMRMLScalarVolumeNode) -> None:
    """Make a ROI enclose a whole volume, as a start for the user."""
    bounds = np.zeros(6)
    node.GetRASBounds(bounds)
    roi.SetSizeWorld(bounds[1::2] - bounds[::2])
    roi.SetCenterWorld((bounds[1::2] + bounds[::2]) / 2)


def matrixFromArray(array: np.ndarray) -> vtk.vtkMatrix4x4:
    """The reverse of `arrayFromMatrix`."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(array.ravel().tolist())
    return matrix


def _voxels(node: vtkMRMLScalarVolumeNode) -> np.ndarray:
    """A view of the voxels (k, j, i)."""
    for kind, what in NOT_A_CT.items():
        if node.IsA(kind):
            raise ScanError(f"{node.GetName()} is {what}; choose a CT.")
    image = node.GetImageData()
    if image is None or not image.GetNumberOfPoints():
        raise ScanError(f"{node.GetName()} has no voxels; load it again.")
    if image.GetNumberOfScalarComponents() != 1:
        raise ScanError(
            f"{node.GetName()} has {image.GetNumberOfScalarComponents()} values for each voxel, like a color image or "
            "a sequence; choose a single CT."
        )
    return slicer.util.arrayFromVolume(node)


def _box(
    roi: vtkMRMLMarkupsROINode | None, affine: np.ndarray, shape_kji: tuple[int, ...], name: str
) -> tuple[slice, slice, slice]:
    """The box of voxels around a ROI, which may be rotated, moved or deformed; the whole scan without a ROI."""
    if roi is None:
        return tuple(slice(0, size) for size in shape_kji)
    half = np.array(roi.GetSize()) / 2
    if not half.all():
        raise ScanError(f"The region {roi.GetName()} has no size; draw it over the liver, or choose no region.")
    toNode = arrayFromMatrix(roi.GetObjectToNodeMatrix())
    toGrid = chained(toNode, toWorld(roi.GetParentTransformNode()), np.linalg.inv(affine))
    ijk = moved(ROI_POINTS * half, toGrid)
    first = np.clip(np.ceil(ijk.min(axis=0) - 0.5), 0, None).astype(int)
    last = np.minimum(np.floor(ijk.max(axis=0) + 0.5), np.array(shape_kji[::-1]) - 1).astype(int)
    if (last < first).any():
        raise ScanError(f"The region {roi.GetName()} lies outside {name}; move it over the liver, or choose no region.")
    return tuple(slice(int(start), int(stop) + 1) for start, stop in zip(first[::-1], last[::-1], strict=True))
