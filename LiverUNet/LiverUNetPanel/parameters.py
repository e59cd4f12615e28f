"""The choices of the user for this scene, which are saved with it."""

from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import parameterNodeWrapper

from LiverUNetLib.models.store import DEFAULT_MODEL

__all__ = ["LiverUNetParameterNode"]


@parameterNodeWrapper
class LiverUNetParameterNode:
    """The choices of the panel.

    Attributes:
        volume: the CT to segment.
        segmentation: receives the liver; None for a new segmentation.
        region: only the box of voxels around this ROI is segmented; None for the whole scan.
        model: the name of an installed model.
    """

    volume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    region: vtkMRMLMarkupsROINode
    model: str = DEFAULT_MODEL
