"""A volume node becomes a CTVolume, as the patient lies in Slicer's world."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLTransformableNode

from LiverUNetLib.errors import ScanError
from LiverUNetLib.steps import Progress
from LiverUNetLib.volume import CTVolume

__all__ = ["Scan", "arrayFromMatrix", "ijkToRas", "matrixFromArray", "scanSteps", "span", "transformToWorld"]

# A full-size volume copied in one go would hold the event loop for most of a second.
SLICES_AT_ONCE = 32
CORNERS = tuple(itertools.product((-1, 1), repeat=3))
NOT_A_CT = {
    "vtkMRMLLabelMapVolumeNode": "a label map",
    "vtkMRMLVectorVolumeNode": "a vector or colour volume",
    "vtkMRMLTensorVolumeNode": "a tensor volume",
}


@dataclass(frozen=True, eq=False)
class Scan:
    """A copy of a volume node's voxels, or of the box of them that is to be segmented.

    Attributes:
        first_kji: the node's voxel that is the first one here.
    """

    volume: CTVolume
    first_kji: tuple[int, int, int]


def scanSteps(
    node: vtkMRMLScalarVolumeNode, roi: vtkMRMLMarkupsROINode | None = None
) -> Generator[Progress, None, Scan]:
    """Copy the voxels slab by slab.

    Args:
        roi: copy only the box of voxels around it.

    Raises:
        ScanError: the node holds no single scalar volume, or is moved by what is not a linear
            transform, or the ROI lies outside.
    """
    name = node.GetName()
    array = _voxels(node)
    affine = transformToWorld(node) @ ijkToRas(node)
    box = tuple(slice(0, size) for size in array.shape) if roi is None else _boxAround(roi, affine, array.shape, name)
    first = tuple(part.start for part in box)
    part = array[box]
    copy = np.empty(part.shape, part.dtype)
    for start in range(0, len(part), SLICES_AT_ONCE):
        stop = min(start + SLICES_AT_ONCE, len(part))
        copy[start:stop] = part[start:stop]
        yield Progress("Copying", stop, len(part))
    shift = np.eye(4)
    shift[:3, 3] = first[::-1]
    return Scan(CTVolume(copy, affine @ shift, name), first)


def ijkToRas(node: vtkMRMLScalarVolumeNode) -> np.ndarray:
    """4x4, from (i, j, k, 1) to RAS in mm, before any parent transform."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return arrayFromMatrix(matrix)


def transformToWorld(node: vtkMRMLTransformableNode) -> np.ndarray:
    """4x4, from a node's own RAS to the world's, through all its parent transforms.

    Raises:
        ScanError: one of them is not linear.
    """
    transform = node.GetParentTransformNode()
    if transform is None:
        return np.eye(4)
    if not transform.IsTransformToWorldLinear():
        raise ScanError(
            f"{node.GetName()} is moved by {transform.GetName()}, which is not a linear transform; "
            "harden it (Data module) or take the node out of it."
        )
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    return arrayFromMatrix(matrix)


def arrayFromMatrix(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """A copy as float64."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def span(roi: vtkMRMLMarkupsROINode, node: vtkMRMLScalarVolumeNode) -> None:
    """Let a ROI hold the whole of a volume, to be drawn in from there."""
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
    for kind, words in NOT_A_CT.items():
        if node.IsA(kind):
            raise ScanError(f"{node.GetName()} is {words}; choose a CT.")
    image = node.GetImageData()
    if image is None or not image.GetNumberOfPoints():
        raise ScanError(f"{node.GetName()} holds no voxels; load it again.")
    if image.GetNumberOfScalarComponents() != 1:
        raise ScanError(
            f"{node.GetName()} holds {image.GetNumberOfScalarComponents()} values a voxel, as colour images and "
            "sequences do; choose a single CT."
        )
    return slicer.util.arrayFromVolume(node)


def _boxAround(
    roi: vtkMRMLMarkupsROINode, affine: np.ndarray, shape_kji: tuple[int, ...], name: str
) -> tuple[slice, slice, slice]:
    """The voxels of the volume in the box around a ROI, which may be turned and moved itself."""
    half = np.array(roi.GetSize()) / 2
    if not half.all():
        raise ScanError(f"The region {roi.GetName()} has no size; draw it over the liver, or take none.")
    toWorld = transformToWorld(roi) @ arrayFromMatrix(roi.GetObjectToNodeMatrix())
    corners = np.array([[*(half * signs), 1] for signs in CORNERS]).T
    ijk = (np.linalg.inv(affine) @ toWorld @ corners)[:3]
    first = np.clip(np.ceil(ijk.min(axis=1) - 0.5), 0, None).astype(int)
    last = np.minimum(np.floor(ijk.max(axis=1) + 0.5), np.array(shape_kji[::-1]) - 1).astype(int)
    if (last < first).any():
        raise ScanError(f"The region {roi.GetName()} lies outside {name}; move it over the liver, or take none.")
    return tuple(slice(int(start), int(stop) + 1) for start, stop in zip(first[::-1], last[::-1], strict=True))
