"""Print the longest gaps of the event loop while the panel segments a synthetic CT of full size.

    QT_QPA_PLATFORM=offscreen python Testing/benchmarks/event_loop.py [--shape 512 512 400]

A timer of no interval notes when the event loop comes by; the run is the panel's own, on the
stand-in widgets, from the first import of torch to the segmentation node. A Slicer whose event
loop keeps the interpreter to itself shares it with the importing thread only in the waiting steps.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import slicer_standin

LARGEST_GAP_MS = 300


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", nargs=3, type=int, default=(512, 512, 400), metavar=("I", "J", "K"))
    parser.add_argument("--spacing", nargs=3, type=float, default=(0.75, 0.75, 1.0), metavar="MM")
    options = parser.parse_args()
    slicer_standin.install_qt()
    import qt
    import slicer

    from LiverUNetLib.phantom import abdomen, axial_affine
    from LiverUNetPanel.widget import LiverUNetWidget

    scan, _ = abdomen(axial_affine(tuple(options.spacing), tuple(options.shape)), tuple(options.shape[::-1]))
    slicer.util.addVolumeFromArray(scan.hu_kji, scan.affine, "CT")
    del scan
    parent = slicer.qMRMLWidget()
    parent.setLayout(qt.QVBoxLayout())
    panel = LiverUNetWidget(parent)
    panel.setup()
    assert "torch" not in sys.modules

    gaps, last = [], time.perf_counter()

    def note() -> None:
        nonlocal last
        now = time.perf_counter()
        gaps.append((1000 * (now - last), panel.ui.statusLabel.property("text")))
        last = now

    timer = qt.QTimer()
    timer.setInterval(0)
    timer.connect("timeout()", note)
    timer.start()
    started = last = time.perf_counter()
    panel.ui.segmentButton.click()
    while panel.runner.running:
        qt.QApplication.processEvents()
    note()
    timer.stop()
    result = panel.ui.resultLabel.property("text").splitlines()[-1]
    print(f"run           {time.perf_counter() - started:.1f} s: {result}")
    for gap, stage in sorted(gaps, reverse=True)[:5]:
        print(f"gap           {gap:.0f} ms, {stage}")
    longest = max(gap for gap, _ in gaps)
    print(f"longest gap   {longest:.0f} ms, at most {LARGEST_GAP_MS} allowed")
    panel.cleanup()
    return int(longest > LARGEST_GAP_MS)


if __name__ == "__main__":
    sys.exit(main())
