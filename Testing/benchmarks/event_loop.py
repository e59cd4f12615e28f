"""Print the longest gaps of Slicer's event loop, stage by stage, while the panel segments a synthetic CT of full size.

    Slicer --no-splash --additional-module-paths $PWD/LiverUNet $PWD/LiverUNetTrain \\
        --python-script $PWD/Testing/benchmarks/event_loop.py

EVENT_LOOP_SHAPE="512 512 200" takes another size (i, j, k). A timer of no interval notes when the event
loop comes by; the run is the panel's own with its button, from the first import of torch to the segmentation node.
"""

import os
import sys
import time
import traceback

import qt
import slicer

ALLOWED_MS = 100
SPACING_MM = (0.75, 0.75, 1.0)


def add_ct() -> slicer.vtkMRMLScalarVolumeNode:
    from LiverUNetLib.scan.phantom import abdomen, axial_affine

    shape = tuple(int(n) for n in os.environ.get("EVENT_LOOP_SHAPE", "512 512 400").split())
    scan, _ = abdomen(axial_affine(SPACING_MM, shape), shape[::-1])
    return slicer.util.addVolumeFromArray(scan.hu_kji, scan.affine, "CT")


def main() -> bool:
    """Whether the event loop was never held longer than allowed."""
    volume = add_ct()
    slicer.util.selectModule("LiverUNet")
    panel = slicer.modules.liverunet.widgetRepresentation().self()
    panel.parameterNode.volume = volume
    panel.readyToRun = lambda: {"modelName": panel.models.name, "deviceName": "cpu"}  # no question to a user
    for _ in range(100):
        slicer.app.processEvents()
    assert "torch" not in sys.modules

    longest: dict[str, float] = {}
    last = time.perf_counter()

    def note() -> None:
        nonlocal last
        now = time.perf_counter()
        stage = panel.ui.statusLabel.text.split(",")[0].split(";")[0]
        longest[stage] = max(longest.get(stage, 0.0), 1000 * (now - last))
        last = now

    timer = qt.QTimer()
    timer.interval = 0
    timer.connect("timeout()", note)
    timer.start()
    started = last = time.perf_counter()
    panel.ui.segmentButton.click()
    while panel.run.running:
        slicer.app.processEvents()
    note()
    timer.stop()
    print(f"run           {time.perf_counter() - started:.1f} s: {panel.ui.resultLabel.text.splitlines()[-1]}")
    for stage, gap in longest.items():
        print(f"{stage:<24} {gap:4.0f} ms")
    print(f"longest gap   {max(longest.values()):.0f} ms, at most {ALLOWED_MS} allowed")
    return max(longest.values()) <= ALLOWED_MS


if __name__ == "__main__":
    good = False
    try:
        good = main()
    except Exception:  # noqa: BLE001 - Slicer would only log it and stay open
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        slicer.util.exit(0 if good else 1)
