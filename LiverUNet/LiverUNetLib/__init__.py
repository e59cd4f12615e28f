"""Segment the liver in CT with a 2D U-Net; needs no Slicer."""

import os

# Nothing leaves this computer. The builds of ONNX Runtime keep an identifier of the computer and send events to
# Microsoft, unless this is set before it is imported (its Privacy.md).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
