"""Segment scans with COBRA, a public model of the FLARE21 challenge for CPUs, and tell what each stage cost.

    python Testing/benchmarks/cost_cobra.py FILE MODEL.onnx CT [CT ...] -o FOLDER [--threads 1]

MODEL.onnx is docker/compiled_model_nano.onnx of https://github.com/rrr-uom-projects/FLARE21. What its inference.py does
is done here anew: smooth, resample the whole scan to 96 x 192 x 192 voxels by B-splines, two windows as channels, one
run of a 3D network with six classes, back by nearest neighbors. The CPU seconds go to FILE as JSON. In the masks 1 is
the liver, 2 to 4 are other organs.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
import SimpleITK as sitk
from cost_stages import LOADING, READING, WRITING, Clock

SIZE_IJK = (192, 192, 96)
WINDOWS_HU = ((-150, 250), (10, 110))


def open_model(path: Path, threads: int) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    settings.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])


def model_grid(scan: sitk.Image) -> sitk.Image:
    """An empty image of the model's size over the whole scan."""
    grid = sitk.Image(SIZE_IJK, scan.GetPixelID())
    grid.SetOrigin(scan.GetOrigin())
    grid.SetDirection(scan.GetDirection())
    sizes = zip(scan.GetSize(), scan.GetSpacing(), SIZE_IJK, strict=True)
    grid.SetSpacing([length * mm / new for length, mm, new in sizes])
    return grid


def on_model_grid(scan: sitk.Image) -> sitk.Image:
    """The scan in the model's size and orientation, which is RAS."""
    smooth = scan
    for axis, (length, new) in enumerate(zip(scan.GetSize(), SIZE_IJK, strict=True)):
        if length > new:  # the original also smooths the others, by a sigma of 0.00001, but needs four slices for it
            smooth = sitk.RecursiveGaussian(smooth, sigma=(length / new - 1) / 2, direction=axis)
    return sitk.DICOMOrient(sitk.Resample(smooth, model_grid(scan), sitk.Transform(), sitk.sitkBSpline), "RAS")


def windowed(image: sitk.Image) -> np.ndarray:
    """What the network takes: float32 (1, windows, 96, 192, 192)."""
    hu_kji = sitk.GetArrayViewFromImage(image).astype(np.int16)
    channels = [(hu_kji.clip(low, high) - np.float32(low)) / np.float32(high - low) for low, high in WINDOWS_HU]
    return np.stack(channels)[None]


def restored(organs_kji: np.ndarray, image: sitk.Image, scan: sitk.Image) -> sitk.Image:
    """The organs that were found in the image, on the grid of the scan."""
    mask = sitk.GetImageFromArray(organs_kji)
    mask.CopyInformation(image)
    return sitk.Resample(mask, scan, sitk.Transform(), sitk.sitkNearestNeighbor)


def main() -> None:
    clock = Clock()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("scans", type=Path, nargs="+", metavar="CT")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with clock.during(LOADING):
        session = open_model(options.model, options.threads)
    for path in options.scans:
        with clock.during(READING):
            scan = sitk.ReadImage(path)
        with clock.during("Preparing"):
            image = on_model_grid(scan)
            channels = windowed(image)
        with clock.during("Segmenting"):
            classes = session.run(None, {"img": channels})[0][0].argmax(axis=0)
        with clock.during("Restoring"):
            mask = restored(np.maximum(classes - 1, 0).astype(np.uint8), image, scan)  # background and body are both 0
        with clock.during(WRITING):
            sitk.WriteImage(mask, options.output / path.name, useCompression=True)
    clock.charge()
    options.file.write_text(json.dumps(clock.spent))


if __name__ == "__main__":
    main()
