"""The module that Slicer loads, and its self-test; everything else is in LiverUNetPanel and LiverUNetLib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest
from vtk.util.numpy_support import vtk_to_numpy

from LiverUNetLib.scan.phantom import abdomen, axial_affine
from LiverUNetLib.scan.volume import CTVolume
from LiverUNetPanel.installer import Installer
from LiverUNetPanel.logic import LiverUNetLogic, Outcome
from LiverUNetPanel.nodes.volume import arrayFromMatrix
from LiverUNetPanel.widget import LiverUNetWidget

__all__ = ["LiverUNet", "LiverUNetLogic", "LiverUNetTest", "LiverUNetWidget"]


class LiverUNet(ScriptedLoadableModule):
    """The module as Slicer lists it."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        parent.title = _("LiverUNet")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "SubjectHierarchy", "Markups", "Tables"]
        parent.contributors = ["The LiverUNet developers"]
        parent.helpText = _(
            "Finds the liver in an abdominal CT with two small U-Nets that need no GPU, and measures it. "
            "Choose a CT volume and press Segment. A research tool, not a medical device: check every result.<br><br>"
            "The code is Apache-2.0. <b>The bundled weights are for non-commercial research only</b>: they were "
            "trained on 3D-IRCADb-01 (CC BY-NC-ND) and LiTS (CC BY-NC-SA or BY-NC-ND). No data leave this computer."
        )
        parent.acknowledgementText = _(
            "Built on MONAI and PyTorch. The training data are 3D-IRCADb-01 of IRCAD, Strasbourg, and volumes of the "
            "Liver Tumor Segmentation challenge (LiTS)."
        )


class LiverUNetTest(ScriptedLoadableModuleTest):
    """Needs no data, network or GPU: it segments a phantom whose liver is known."""

    def setUp(self) -> None:
        """Begin with an empty scene; skip the test if packages are missing."""
        slicer.mrmlScene.Clear()
        requirements = Path(__file__).parent / "Resources" / "LiverUNet-requirements.txt"
        missing = Installer(requirements).missing()
        if missing:
            self.skipTest(f"not installed: {', '.join(missing)}")
        self.logic = LiverUNetLogic()

    def test_the_liver_of_a_phantom_is_found(self) -> None:
        """Volume and position are near those of the phantom's liver; the model was trained on patients only."""
        scan, liver = self._phantom()
        outcome = self.logic.process(self._volumeNode(scan), deviceName="cpu")
        reference = liver.sum() * scan.voxel_ml
        self.assertAlmostEqual(outcome.result.measurement.volume_ml, reference, delta=0.1 * reference)
        self.assertLess(np.linalg.norm(self._center(outcome) - centroid(liver, scan.affine)), 8)

    def test_the_orientation_of_the_voxels_does_not_matter(self) -> None:
        """The same liver is found if the slices run from left to right and upside down."""
        scan, _ = self._phantom()
        straight = self.logic.process(self._volumeNode(scan), deviceName="cpu")
        turned = np.ascontiguousarray(scan.hu_kji.transpose(2, 0, 1)[::-1])
        flip = np.diag([1.0, 1.0, -1.0, 1.0])
        flip[2, 3] = len(turned) - 1
        affine = scan.affine[:, [1, 2, 0, 3]] @ flip
        outcome = self.logic.process(self._volumeNode(CTVolume(turned, affine)), deviceName="cpu")
        self.assertLess(np.linalg.norm(self._center(outcome) - self._center(straight)), 0.1)

    def test_cancelling_leaves_the_scene_as_it_was(self) -> None:
        """Cancel closes the steps."""
        node = self._volumeNode(self._phantom()[0])
        before = slicer.mrmlScene.GetNumberOfNodes()
        steps = self.logic.segmentSteps(node, deviceName="cpu")
        while next(steps).stage != "Segmenting":
            pass
        steps.close()
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)

    def test_a_second_run_replaces_our_own_segment(self) -> None:
        """After two runs there is still one liver."""
        node = self._volumeNode(self._phantom()[0])
        first = self.logic.process(node, deviceName="cpu").segmentationNode
        second = self.logic.process(node, first, deviceName="cpu").segmentationNode
        self.assertIs(first, second)
        self.assertEqual(first.GetSegmentation().GetNumberOfSegments(), 1)

    def test_the_panel_segments_with_its_button(self) -> None:
        """Press the button, wait for the run and read the result."""
        self._volumeNode(self._phantom()[0])
        widget = slicer.modules.liverunet.widgetRepresentation().self()
        widget.enter()
        self.assertTrue(widget.ui.segmentButton.enabled, widget.ui.segmentButton.toolTip)
        widget.ui.segmentButton.click()
        while widget.run.running:
            slicer.app.processEvents()
        self.assertIn(" ml, ", widget.ui.resultLabel.text)

    @staticmethod
    def _phantom() -> tuple[CTVolume, np.ndarray]:
        shape = (128, 96, 55)
        return abdomen(axial_affine((3.0, 3.0, 4.0), shape), shape[::-1])

    @staticmethod
    def _volumeNode(scan: CTVolume) -> slicer.vtkMRMLScalarVolumeNode:
        return slicer.util.addVolumeFromArray(scan.hu_kji, scan.affine, "Phantom")

    @staticmethod
    def _center(outcome: Outcome) -> np.ndarray:
        """The liver's centroid in RAS, from the segmentation node itself."""
        labelmap = outcome.segmentationNode.GetSegmentation().GetSegment("liver").GetRepresentation("Binary labelmap")
        liver = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(labelmap.GetDimensions()[::-1])
        matrix = vtk.vtkMatrix4x4()
        labelmap.GetImageToWorldMatrix(matrix)
        return centroid(liver, arrayFromMatrix(matrix), labelmap.GetExtent()[::2])


def centroid(mask_kji: np.ndarray, affine: np.ndarray, first_ijk: Sequence[int] = (0, 0, 0)) -> np.ndarray:
    """The mean position in RAS of the voxels of a mask that begins at voxel `first_ijk`."""
    ijk = np.argwhere(mask_kji).mean(axis=0)[::-1] + first_ijk
    return (affine @ [*ijk, 1])[:3]
