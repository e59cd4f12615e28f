"""A real CT is segmented in the main window with the bundled model."""

import numpy as np
import slicer

from helpers import dice
from LiverUNetLib.scan.formats import read_mask
from LiverUNetLib.steps import finish
from panel_helpers import run_to_the_end


def test_the_liver_of_a_real_ct_is_found_by_the_button(panel, dialogs, real_data):
    from LiverUNetPanel.nodes.volume import scanSteps
    from LiverUNetTrainPanel.nodes.segments import maskSteps

    volume = slicer.util.loadVolume(str(real_data / "ircad/ircad_e17_orig.nii.gz"))
    panel.parameterNode.volume = volume
    panel.parameterNode.model = "liver-ct"
    panel.ui.segmentButton.click()
    run_to_the_end(panel, seconds=170)
    assert "non-commercial" in dialogs.asked[0].lower()
    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    reference = read_mask(real_data / "ircad/ircad_e17_liver.nii.gz").hu_kji
    mask = finish(maskSteps(node, "liver", finish(scanSteps(volume)).volume))
    assert mask.shape == reference.shape
    assert dice(mask, np.asarray(reference)) > 0.95
