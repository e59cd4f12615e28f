"""What LiverUNet does in Slicer, without a widget: for scripts and, step by step, for the event loop."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import slicer
from slicer import (
    vtkMRMLMarkupsROINode,
    vtkMRMLNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
)
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from LiverUNetLib.doctor import examine
from LiverUNetLib.errors import LiverUNetError, ScanError
from LiverUNetLib.models.exchange import install_model, remove_model
from LiverUNetLib.models.folder import LiverModel, Networks
from LiverUNetLib.models.store import DEFAULT_MODEL, find_model
from LiverUNetLib.segmentation.batch import segment_folder
from LiverUNetLib.segmentation.batch_table import BatchRow
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.segmentation.plausibility import cut_off
from LiverUNetLib.segmentation.result import Report, Segmentation
from LiverUNetLib.segmentation.summary import table_row
from LiverUNetLib.segmentation.verdict import with_reason
from LiverUNetLib.steps import Progress, finish, in_background, in_one_thread, prefixed
from LiverUNetLib.system.environment import Device, choose_device, likely_engine, spare_one_core, usable_cores

from .imports import importLibraries
from .nodes.segmentation import checkTarget, findLiver, isLiverEdited, volumeOf, writeSteps
from .nodes.stored_result import MODEL_CHECKSUM, REGION, stored
from .nodes.table import addMeasurements
from .nodes.volume import Scan, edgesReached, scanSteps, span
from .parameters import LiverUNetParameterNode

__all__ = ["LiverUNetLogic", "Outcome"]

EDITED = "{old} was edited by hand and is kept; the new liver is in {new}."


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model that is loaded on a device."""

    model: LiverModel
    device: Device
    networks: Networks


@dataclass(frozen=True, eq=False)
class Outcome:
    """The outcome of one volume.

    Attributes:
        volumeNode: the volume; None if it is no longer in the scene.
        name: of the volume.
        result: measurements, warnings and provenance; None after an error, or if they were not saved with the liver.
        segmentationNode: contains the liver; None if none was found, or after an error.
        error: why it failed; empty if it did not.
        note: what happened to an older liver; empty if nothing.
    """

    volumeNode: vtkMRMLScalarVolumeNode | None
    name: str
    result: Report | None = None
    segmentationNode: vtkMRMLSegmentationNode | None = None
    error: str = ""
    note: str = ""


class LiverUNetLogic(ScriptedLoadableModuleLogic):
    """Segments volume nodes.

    Methods that return steps do nothing until the steps are taken, by a StepRunner or by
    `LiverUNetLib.steps.finish`. Closing the steps cancels the run and leaves the scene unchanged.
    """

    def getParameterNode(self) -> LiverUNetParameterNode:
        """The choices of the user that are saved with the scene."""
        return LiverUNetParameterNode(super().getParameterNode())

    def process(
        self,
        volumeNode: vtkMRMLScalarVolumeNode,
        segmentationNode: vtkMRMLSegmentationNode | None = None,
        **options: Any,
    ) -> Outcome:
        """Segment a volume and return its outcome; arguments and errors are those of `segmentSteps`."""
        return finish(self.segmentSteps(volumeNode, segmentationNode, **options))

    def segmentSteps(
        self,
        volumeNode: vtkMRMLScalarVolumeNode,
        segmentationNode: vtkMRMLSegmentationNode | None = None,
        *,
        modelName: str = DEFAULT_MODEL,
        deviceName: str = "auto",
        roiNode: vtkMRMLMarkupsROINode | None = None,
    ) -> Generator[Progress, None, Outcome]:
        """Segment a volume.

        Args:
            segmentationNode: receives the liver, which replaces an older one of LiverUNet's; None for
                a new node. An older liver that a user has edited is kept, and the new one gets a new
                node. If no liver is found, nothing is created or changed.
            roiNode: only the box of voxels around it is segmented.

        Raises:
            LiverUNetError: the volume is not a CT, the segmentation cannot hold voxels, the model or the
                device cannot be used, or a node was removed during the run.
        """
        loaded = yield from self._load(modelName, deviceName)
        return (yield from self._segment(volumeNode, segmentationNode, roiNode, loaded))

    def segmentAllSteps(
        self,
        volumeNodes: Sequence[vtkMRMLScalarVolumeNode],
        *,
        modelName: str = DEFAULT_MODEL,
        deviceName: str = "auto",
    ) -> Generator[Progress, None, list[Outcome]]:
        """Segment volumes one after the other with one loaded model; a failure does not stop the others.

        A volume that this model has segmented before is skipped, even if a user has edited its liver.
        """
        loaded = yield from self._load(modelName, deviceName)
        outcomes = []
        for number, node in enumerate(volumeNodes, start=1):
            if self._isDone(node, loaded.model):
                continue
            name = node.GetName()
            steps = self._segment(node, self.ownSegmentation(node), None, loaded)
            try:
                outcome = yield from prefixed(f"{name} ({number} of {len(volumeNodes)})", steps)
            except LiverUNetError as error:
                outcome = Outcome(node, name, error=str(error))
            outcomes.append(outcome)
        return outcomes

    def segmentFolderSteps(
        self,
        source: Path,
        target: Path,
        *,
        series: str | None = None,
        modelName: str = DEFAULT_MODEL,
        deviceName: str = "auto",
    ) -> Generator[Progress, None, list[BatchRow]]:
        """Segment files into files without the scene, see `LiverUNetLib.segmentation.batch.segment_folder`."""
        loaded = yield from self._load(modelName, deviceName)
        steps = segment_folder(source, target, loaded.model, loaded.device, networks=loaded.networks, series=series)
        return (yield from in_one_thread(steps, around=spare_one_core))

    def installModelSteps(self, path: Path, *, overwrite: bool = False) -> Generator[Progress, None, LiverModel]:
        """Verify a model and copy it to the user's own models."""
        return (
            yield from in_background(
                "Verifying the model", lambda: install_model(path, overwrite=overwrite), final=True
            )
        )

    def removeModel(self, name: str) -> None:
        """Delete one of the user's own models."""
        remove_model(name)

    def examineSteps(self) -> Generator[Progress, None, str]:
        """The output of `liver-unet doctor`, as text."""
        about = f"Slicer       {getattr(slicer.app, 'applicationVersion', 'unknown')}"

        def look() -> list[str]:
            with contextlib.suppress(ImportError):  # the doctor reports what is missing
                importLibraries("torch" if find_spec("torch") else "onnx")
            return list(examine())

        lines = yield from in_background("Examining", look)
        return "\n".join([about, *lines])

    def ctVolumes(self) -> list[vtkMRMLScalarVolumeNode]:
        """The volumes of the scene that can be a CT; in MRML, label maps and color volumes are scalar volumes too."""
        kind = "vtkMRMLScalarVolumeNode"
        return [node for node in slicer.util.getNodesByClass(kind) if node.GetClassName() == kind]

    def ownSegmentation(self, volumeNode: vtkMRMLScalarVolumeNode | None) -> vtkMRMLSegmentationNode | None:
        """The segmentation with LiverUNet's liver of this volume; if there are several, one that was not edited."""
        nodes = self._ownSegmentations(volumeNode)
        return next(filter(lambda node: not isLiverEdited(node), nodes), next(iter(nodes), None))

    def storedOutcome(
        self, volumeNode: vtkMRMLScalarVolumeNode, segmentationNode: vtkMRMLSegmentationNode | None = None
    ) -> Outcome | None:
        """The outcome that is stored with a segmentation, otherwise with the liver of a volume; None if none is."""
        hasLiver = segmentationNode and findLiver(segmentationNode)
        node = segmentationNode if hasLiver else self.ownSegmentation(volumeNode)
        if node is None:
            return None
        volume = volumeOf(node)
        return Outcome(volume, (volume or node).GetName(), stored(node), node)

    def addToTable(self, results: Sequence[Report], *, note: str = "") -> vtkMRMLTableNode:
        """Add measurements to the table of the scene, with a note among their warnings."""
        rows = [table_row(result) for result in results]
        for row in rows:
            row["warnings"] = " ".join(filter(None, [row["warnings"], note]))
        return addMeasurements(slicer.mrmlScene, rows)

    def spanVolume(self, roiNode: vtkMRMLMarkupsROINode, volumeNode: vtkMRMLScalarVolumeNode) -> None:
        """Make a region as large as a volume."""
        span(roiNode, volumeNode)

    def _ownSegmentations(self, volumeNode: vtkMRMLScalarVolumeNode | None) -> list[vtkMRMLSegmentationNode]:
        nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if volumeNode else []
        return [node for node in nodes if volumeOf(node) is volumeNode and findLiver(node)]

    def _load(self, modelName: str, deviceName: str) -> Generator[Progress, None, Loaded]:
        """Import the libraries, check the device and load the model, in a thread that does not use MRML."""

        def load() -> Loaded:
            importLibraries(likely_engine(deviceName, "auto"))
            model, device = find_model(modelName), choose_device(deviceName)
            return Loaded(model, device, model.networks(device, threads=max(usable_cores() - 1, 1)))

        return (yield from in_background("Loading the model", load))

    def _segment(
        self,
        volumeNode: vtkMRMLScalarVolumeNode,
        segmentationNode: vtkMRMLSegmentationNode | None,
        roiNode: vtkMRMLMarkupsROINode | None,
        loaded: Loaded,
    ) -> Generator[Progress, None, Outcome]:
        if segmentationNode:
            checkTarget(segmentationNode)
        watched = [node for node in (volumeNode, segmentationNode) if node]
        names = {node: node.GetName() for node in watched}
        scan = yield from _whileInScene(scanSteps(volumeNode, roiNode), names)
        steps = segment(scan.volume, loaded.model, loaded.device, networks=loaded.networks)
        result = yield from _whileInScene(in_one_thread(steps, around=spare_one_core), names)
        if not result.measurement.volume_ml:
            return Outcome(volumeNode, names[volumeNode], result)
        if scan.warp:
            result = _withEdges(result, scan, volumeNode)
        steps = writeSteps(result, scan, volumeNode, segmentationNode, beforeReplacing=saveStateForUndo)
        node = yield from _whileInScene(steps, names)
        node.SetAttribute(REGION, roiNode.GetName() if roiNode else None)
        note = ""
        if segmentationNode not in (None, node):
            note = EDITED.format(old=segmentationNode.GetName(), new=node.GetName())
        return Outcome(volumeNode, names[volumeNode], result, node, note=note)

    def _isDone(self, volumeNode: vtkMRMLScalarVolumeNode, model: LiverModel) -> bool:
        """Whether this version of the model has segmented the whole volume before."""
        whole = [node for node in self._ownSegmentations(volumeNode) if not node.GetAttribute(REGION)]
        return any(node.GetAttribute(MODEL_CHECKSUM) == model.card.checksum for node in whole)


def _withEdges(result: Segmentation, scan: Scan, volumeNode: vtkMRMLScalarVolumeNode) -> Segmentation:
    """Add the edges of the volume that the liver reaches; a resampled scan has air around them."""
    known = result.measurement.cut_off
    found = [edge for edge in edgesReached(scan, result.mask_kji, volumeNode) if edge not in known]
    if not found:
        return result
    measurement = replace(result.measurement, cut_off=(*known, *found))
    reason = cut_off(found)
    return replace(
        result,
        measurement=measurement,
        verdict=with_reason(result.verdict, reason),
        warnings=(*result.warnings, reason.sentence),
    )


def saveStateForUndo(segmentationNode: vtkMRMLSegmentationNode) -> None:
    """Let the Segment Editor undo the next change, if this segmentation is open in it."""
    # This attribute exists once the module has been opened; `widgetRepresentation` would open it.
    widget = getattr(slicer.modules, "SegmentEditorWidget", None)
    editor = widget.editor if widget else None
    if editor and editor.segmentationNode() is segmentationNode:
        editor.saveStateForUndo()


def _whileInScene(
    steps: Generator[Progress, None, Any], names: dict[vtkMRMLNode, str]
) -> Generator[Progress, None, Any]:
    """The same steps; they end with an error if one of the nodes is removed from the scene."""
    result = None
    try:
        while True:
            for node, name in names.items():
                if node.GetScene() is None:
                    raise ScanError(f"{name} was removed while it was being segmented; nothing was written.")
            yield next(steps)
    except StopIteration as end:
        result = end.value
    finally:
        steps.close()
    return result
