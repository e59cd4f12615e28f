"""Draw the panels on stand-in widgets, after a run and with prepared cases: `python Testing/draw_panel.py FOLDER`."""

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["QT_QPA_PLATFORM"] = "offscreen"

import slicer_standin
from slicer_standin.picture import draw

WIDTH = 420
SMALL = (96, 72, 44)


def main() -> None:
    slicer_standin.install_qt()
    import qt
    import slicer

    from LiverUNetLib.phantom import abdomen, axial_affine
    from LiverUNetPanel.widget import LiverUNetWidget
    from LiverUNetTrainLib.pairs import add_case
    from LiverUNetTrainPanel.widget import LiverUNetTrainWidget

    def open_panel(widget: type) -> object:
        parent = slicer.qMRMLWidget()
        parent.setLayout(qt.QVBoxLayout())
        panel = widget(parent)
        panel.setup()
        panel.enter()
        return panel

    def finish(panel: object) -> None:
        while panel.runner.running:
            qt.QApplication.processEvents()
            time.sleep(0)

    folder, shape = Path(sys.argv[1]), (192, 144, 80)
    scan, _ = abdomen(axial_affine((2.0, 2.0, 3.0), shape), shape[::-1])
    slicer.util.addVolumeFromArray(scan.hu_kji, scan.affine, "Phantom CT")
    panel = open_panel(LiverUNetWidget)
    panel.ui.segmentButton.click()
    finish(panel)
    draw(panel, WIDTH, 660).save(str(folder / "panel.png"))
    training = open_panel(LiverUNetTrainWidget)
    with tempfile.TemporaryDirectory(prefix="ct-") as scratch:
        for seed in range(4):
            add_case(Path(scratch) / "mine", *abdomen(axial_affine((4.0, 4.0, 5.0), SMALL), SMALL[::-1], seed=seed), {})
        training.ui.ownPath.currentPath = f"{scratch}/mine"
        training.ui.cachePath.currentPath = f"{scratch}/cache"
        training.ui.prepareButton.click()
        finish(training)
    draw(training, WIDTH, 960).save(str(folder / "panel-train.png"))
    for each in (panel, training):
        each.cleanup()


if __name__ == "__main__":
    main()
