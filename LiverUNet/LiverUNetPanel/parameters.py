"""What the user has chosen for this scene; it is saved with the scene."""

from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import parameterNodeWrapper

from LiverUNetLib.models.store import DEFAULT_MODEL

__all__ = ["LiverUNetParameterNode"]


@parameterNodeWrapper
class LiverUNetParameterNode:
    """The choices of the panel.

    Attributes:
        volume: the CT to segment.
        segmentation: where the liver goes; none for a new one.
        region: only the box of voxels around this ROI is segmented; none for the whole scan.
        model: name of an installed model.
    """

    volume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    region: vtkMRMLMarkupsROINode
    model: str = DEFAULT_MODEL
