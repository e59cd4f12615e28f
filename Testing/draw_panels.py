"""Draw the pictures of the README in a real Slicer, with its main window, on phantoms.

    PICTURES=docs/pictures Slicer --no-splash --disable-settings --ignore-slicerrc \\
        --additional-module-paths $PWD/LiverUNet $PWD/LiverUNetTrain --python-script Testing/draw_panels.py
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import slicer

from LiverUNetLib.scan.phantom import abdomen, axial_affine
from LiverUNetTrainLib.data.pairs import add_case
from panel_helpers import Dialogs, run_to_the_end, turn

WINDOW = (1280, 1000)
WIDTH, SMALL = 420, (96, 72, 44)


def main(folder: Path) -> None:
    dialogs = Dialogs()
    window = slicer.util.mainWindow()
    window.resize(*WINDOW)
    shape = (256, 192, 100)
    scan, _ = abdomen(axial_affine((1.5, 1.5, 2.5), shape), shape[::-1])
    slicer.util.addVolumeFromArray(scan.hu_kji, scan.affine, "Phantom CT")
    panel = opened("LiverUNet")
    panel.ui.segmentButton.click()
    run_to_the_end(panel, seconds=600)
    show_views()
    settle()
    save(window.windowHandle().screen().grabWindow(window.winId()), folder / "slicer.png")  # including the OpenGL views
    with tempfile.TemporaryDirectory(prefix="ct-") as scratch:
        panel = trained(Path(scratch))
        panel.parent.setFixedWidth(WIDTH)
        settle()
        save(panel.parent.grab(), folder / "panel-train.png")
    dialogs.stop()


def opened(name: str) -> object:
    slicer.util.selectModule(name)
    return getattr(slicer.modules, name.lower()).widgetRepresentation().self()


def show_views() -> None:
    """Show liver and scan in all views, as after a click on *Show 3D*."""
    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    node.CreateClosedSurfaceRepresentation()
    volume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    volume.GetDisplayNode().SetAutoWindowLevel(False)
    volume.GetDisplayNode().SetWindowLevel(400, 40)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        view.JumpSliceByCentering(*node.GetSegmentCenterRAS("liver"))
    slicer.util.resetThreeDViews()


def trained(scratch: Path) -> object:
    """The training panel with prepared cases, after a short training."""
    panel = opened("LiverUNetTrain")
    for seed in range(4):
        add_case(scratch / "mine", *abdomen(axial_affine((4.0, 4.0, 5.0), SMALL), SMALL[::-1], seed=seed), {})
    ui = panel.ui
    ui.ownPath.currentPath, ui.cachePath.currentPath = f"{scratch}/mine", f"{scratch}/cache"
    ui.prepareButton.click()
    run_to_the_end(panel, seconds=600)
    ui.runPath.currentPath, ui.epochsSpin.value, ui.batchSpin.value = f"{scratch}/run", 6, 4
    ui.trainDeviceSelector.currentText = "cpu"
    ui.startButton.click()
    turn(panel, lambda: ui.runStateLabel.text.startswith("finished"), seconds=900)
    settle()
    return panel


def settle() -> None:
    for _ in range(200):
        slicer.app.processEvents()


def save(picture: object, path: Path) -> None:
    if not picture.save(str(path)):
        raise OSError(f"{path} was not written.")


if __name__ == "__main__":
    code = 1
    try:
        main(Path(os.environ["PICTURES"]))
        code = 0
    except Exception:  # noqa: BLE001 - Slicer would stay open
        traceback.print_exc()
    slicer.app.exit(code)
