"""The commands of `liver-unet`: segment, batch, models, info, doctor, demo."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import LiverUNetError
from ..system.environment import ENGINES
from . import models
from .console import run_command

if TYPE_CHECKING:
    from ..models.folder import LiverModel
    from ..scan.volume import CTVolume
    from ..segmentation.batch_table import BatchRow
    from ..segmentation.result import Segmentation
    from ..steps import Progress, Steps
    from ..system.environment import Device

__all__ = ["SERIES_HELP", "main"]

T = TypeVar("T")
SERIES_HELP = (
    "the DICOM series, if there are several: its number, a part of its description, its UID, "
    "or a rule: thinnest (smallest slice distance) or largest (most slices)"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="liver-unet", description="Segment the liver in CT. Results go to stdout, everything else to stderr."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_segment(commands)
    _add_batch(commands)
    _add_demo(commands)
    models.add_commands(commands)
    command = commands.add_parser("info", help="print grid, spacing, orientation and HU range of a scan")
    command.add_argument("scan", type=Path)
    command.add_argument("--series", help=SERIES_HELP)
    command.set_defaults(run=_info)
    command = commands.add_parser("doctor", help="print versions, devices and models, each tested; for a bug report")
    command.set_defaults(run=_doctor)
    return run_command(parser, arguments)


def _add_segment(commands: Any) -> None:
    command = commands.add_parser("segment", help="segment the liver of a CT; write a mask on the grid of the CT")
    command.add_argument(
        "scan", type=Path, metavar="CT", help="NIfTI, NRRD or MetaImage in HU; DICOM file, folder or zip"
    )
    command.add_argument("--series", help=SERIES_HELP)
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        help="mask to write: .nii.gz, .nrrd or .seg.nrrd (default: CT_liver.nii.gz beside the CT)",
    )
    command.add_argument("--probability", type=Path, help="also write the probability of every voxel")
    command.add_argument("--json", type=Path, help="also write measurements, warnings and provenance as JSON")
    command.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    _add_model_options(command)
    command.set_defaults(run=_segment)


def _add_batch(commands: Any) -> None:
    command = commands.add_parser("batch", help="segment a folder of scans; resume if it was interrupted")
    command.add_argument("scans", type=Path, metavar="FOLDER", help="holds a file, or a folder of DICOM, for each scan")
    command.add_argument("--series", help=f"for all scans: {SERIES_HELP}")
    command.add_argument(
        "-o", "--output", type=Path, required=True, help="folder for the masks and the table of measurements"
    )
    command.add_argument("--ending", default=".nii.gz", help=".nii.gz, .nrrd or .seg.nrrd (default: %(default)s)")
    _add_model_options(command)
    command.set_defaults(run=_batch)


def _add_demo(commands: Any) -> None:
    command = commands.add_parser(
        "demo", help="segment a synthetic CT whose liver is known; needs neither data nor internet"
    )
    command.add_argument(
        "-o", "--output", type=Path, default=Path("liver-unet-demo"), help="folder to write to (default: %(default)s)"
    )
    _add_model_options(command)
    command.set_defaults(run=_demo)


def _add_model_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", help="installed model, or model folder (default: the bundled model)")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    command.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="ONNX Runtime or PyTorch (default: auto: PyTorch on GPUs only)",
    )


def _segment(options: argparse.Namespace) -> None:
    from ..scan.formats import check_output, read_volume, scan_stem, write_mask, write_probability
    from ..segmentation.summary import sentence, verdict_lines
    from ..system.files import check_writable, write_json

    volume = read_volume(options.scan, series=options.series)
    scan = options.scan.resolve() if options.scan.name in ("", "..") else options.scan
    mask_path = options.output or scan.with_name(scan_stem(scan) + "_liver.nii.gz")
    for path in filter(None, (mask_path, options.probability)):
        check_output(path, volume.affine)
    outputs = [path for path in (mask_path, options.probability, options.json) if path]
    if len({path.resolve() for path in [*outputs, options.scan]}) <= len(outputs):
        raise LiverUNetError("The CT and the outputs must all be different files.")
    for path in outputs:
        check_writable(path, overwrite=options.overwrite)
    result = _run(volume, options, with_probability=bool(options.probability))
    write_mask(mask_path, result.mask_kji, volume)
    if result.probability_kji is not None:
        write_probability(options.probability, result.probability_kji, volume)
    if options.json:
        write_json(options.json, result.to_json())
    print("\n".join([sentence(result), *verdict_lines(result.verdict)]))
    print(f"Written to {', '.join(str(path) for path in outputs)}")


def _run(volume: CTVolume, options: argparse.Namespace, *, with_probability: bool = False) -> Segmentation:
    """Segment with a progress bar; print warnings and the model's license on stderr."""
    from ..segmentation.pipeline import segment

    model, device = _model_and_device(options)
    result = _shown(segment(volume, model, device, with_probability=with_probability))
    for warning in result.warnings:
        print(f"Warning: {warning}", file=sys.stderr)
    return result


def _model_and_device(options: argparse.Namespace) -> tuple[LiverModel, Device]:
    """The model and device of the options; prints the model's license on stderr."""
    from ..models.store import DEFAULT_MODEL, find_model
    from ..system.environment import choose_device

    model = find_model(options.model or DEFAULT_MODEL)
    device = choose_device(options.device, options.engine)
    print(f"Model {model.card.name} {model.card.version}, license: {model.card.license}", file=sys.stderr)
    return model, device


def _shown(steps: Steps[T]) -> T:
    """Run steps to their end under a progress bar."""
    from tqdm import tqdm

    from ..steps import finish

    with tqdm(leave=False, file=sys.stderr, disable=None) as bar:  # no bar if stderr is a file, which it would fill

        def show(progress: Progress) -> None:
            bar.set_description(progress.stage, refresh=False)
            bar.n, bar.total = progress.done, progress.total
            bar.refresh()

        return finish(steps, show)


def _batch(options: argparse.Namespace) -> None:
    from ..segmentation.batch import TABLE_NAME, segment_folder
    from ..segmentation.batch_table import FAILED

    model, device = _model_and_device(options)
    steps = segment_folder(options.scans, options.output, model, device, ending=options.ending, series=options.series)
    rows = _shown(steps)
    for row in rows:
        print(f"{row.file}: {row.error or _outcome(row)}")
    failed = sum(row.state == FAILED for row in rows)
    print(f"{len(rows) - failed} of {len(rows)} scans segmented; table in {options.output / TABLE_NAME}")
    if failed:
        raise LiverUNetError(f"{failed} of {len(rows)} scans could not be segmented; the table gives the reasons.")


def _outcome(row: BatchRow) -> str:
    """A liver of the table in a few words."""
    return f"{row.volume_ml:.0f} ml, {row.measured['verdict']}"


def _info(options: argparse.Namespace) -> None:
    import numpy as np
    from nibabel.orientations import aff2axcodes

    from ..scan.formats import read_volume

    volume = read_volume(options.scan, series=options.series)
    spacing = volume.spacing_kji_mm[::-1]
    shape = volume.hu_kji.shape[::-1]
    print(f"file         {options.scan}")
    print(f"grid         {' x '.join(str(n) for n in shape)} (i, j, k), {volume.hu_kji.dtype}")
    print(f"spacing      {' x '.join(f'{mm:.3f}' for mm in spacing)} mm")
    print(f"size         {' x '.join(f'{n * mm:.0f}' for n, mm in zip(shape, spacing, strict=True))} mm")
    print(f"orientation  {''.join(aff2axcodes(volume.affine))} (directions in which i, j, k increase)")
    for note in volume.notes:
        print(f"note         {note}")
    print(f"range        {np.nanmin(volume.hu_kji):g} to {np.nanmax(volume.hu_kji):g} HU")


def _doctor(options: argparse.Namespace) -> None:
    from ..doctor import examine

    for line in examine():
        print(line, flush=True)


def _demo(options: argparse.Namespace) -> None:
    from ..scan.formats import write_volume
    from ..scan.phantom import abdomen, axial_affine
    from ..segmentation.signals import dice
    from ..segmentation.summary import sentence, verdict_lines
    from ..system.files import check_writable

    names = ["phantom_ct.nii.gz", "phantom_liver.nii.gz"] + ["phantom.png"] * bool(find_spec("matplotlib"))
    for name in names:
        check_writable(options.output / name, overwrite=True)
    spacing_mm, shape = (1.5, 1.5, 2.5), (256, 200, 100)
    volume, reference = abdomen(axial_affine(spacing_mm, shape), shape[::-1])
    result = _run(volume, options)
    mask = result.mask_kji
    agreement = dice(mask, reference)
    write_volume(options.output / "phantom_ct.nii.gz", volume.hu_kji, volume.affine)
    write_volume(options.output / "phantom_liver.nii.gz", mask, volume.affine)
    if "phantom.png" in names:
        from ..segmentation.picture import draw_montage, write_figure

        figure = draw_montage(volume, {"LiverUNet": mask, "reference": reference}, title=f"Dice {agreement:.3f}")
        write_figure(options.output / "phantom.png", figure)
    print("\n".join([sentence(result), *verdict_lines(result.verdict)]))
    print(f"Dice against the known liver: {agreement:.3f}")
    print(f"Written to {options.output}: {', '.join(names)}")
