"""Print time and peak memory of `liver-unet segment` on a synthetic CT of full size.

    python Testing/benchmarks/segment_cost.py [--shape 512 512 400] [--spacing 0.75 0.75 1.0]

The file is written first, by a process of its own, so that its memory does not count.
"""

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from LiverUNetLib.formats import write_volume
from LiverUNetLib.phantom import abdomen, axial_affine

# Runs in a process of its own, which tells its own peak; macOS counts bytes, Linux KiB.
MEASURED = """
import resource, sys
from LiverUNetLib.cli import main
code = main(sys.argv[1:])
unit = 2**30 if sys.platform == "darwin" else 2**20
print(f"peak memory  {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.2f} GiB")
sys.exit(code)
"""


def write_scan(path: Path, spacing: tuple[float, float, float], shape: tuple[int, int, int]) -> None:
    volume, _ = abdomen(axial_affine(spacing, shape), shape[::-1])
    write_volume(path, volume.hu_kji, volume.affine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", nargs=3, type=int, default=(512, 512, 400), metavar=("I", "J", "K"))
    parser.add_argument("--spacing", nargs=3, type=float, default=(0.75, 0.75, 1.0), metavar="MM")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scan = Path(folder) / "ct.nii.gz"
        writer = multiprocessing.Process(target=write_scan, args=(scan, options.spacing, tuple(options.shape)))
        writer.start()
        writer.join()
        command = ["segment", str(scan), "-o", str(scan.with_name("m.nii.gz"))]
        started = time.monotonic()
        done = subprocess.run([sys.executable, "-c", MEASURED, *command], check=True, stdout=subprocess.PIPE, text=True)
        seconds = time.monotonic() - started
    print(done.stdout.strip())
    print(f"wall time    {seconds:.1f} s, start of Python and reading and writing the files included")


if __name__ == "__main__":
    main()
