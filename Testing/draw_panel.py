"""Draw the panel after a run on the phantom, on the stand-in widgets: `python Testing/draw_panel.py panel.png`."""

import os
import sys
import time

os.environ["QT_QPA_PLATFORM"] = "offscreen"

import slicer_standin
from slicer_standin.picture import draw


def main() -> None:
    slicer_standin.install_qt()
    import qt
    import slicer

    from LiverUNetLib.phantom import abdomen, axial_affine
    from LiverUNetPanel.widget import LiverUNetWidget

    shape = (192, 144, 80)
    scan, _ = abdomen(axial_affine((2.0, 2.0, 3.0), shape), shape[::-1])
    slicer.util.addVolumeFromArray(scan.hu_kji, scan.affine, "Phantom CT")
    parent = slicer.qMRMLWidget()
    parent.setLayout(qt.QVBoxLayout())
    panel = LiverUNetWidget(parent)
    panel.setup()
    panel.ui.segmentButton.click()
    while panel.runner.running:
        qt.QApplication.processEvents()
        time.sleep(0)
    draw(panel, 420, 640).save(sys.argv[1])
    panel.cleanup()


if __name__ == "__main__":
    main()
