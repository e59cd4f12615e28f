"""Write cases in the layout of nnU-Net (https://github.com/MIC-DKFZ/nnUNet, dataset_format.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from LiverUNetLib.errors import OutputError, ScanError, TrainingError
from LiverUNetLib.scan.formats import write_volume
from LiverUNetLib.system.files import exists, make_folder, write_json

from .cases import Case, Finding, check_case

__all__ = ["export_nnunet"]


def export_nnunet(cases: Sequence[Case], folder: Path) -> Iterator[Finding]:
    """Write every usable case; yields what became of each. `dataset.json` comes last, and makes it complete.

    Raises:
        TrainingError: the folder holds something already, or no case can be used.
        OutputError: the folder cannot be written to.
    """
    if exists(folder, OutputError) and any(folder.iterdir()):
        raise TrainingError(f"{folder} is not empty; name a new folder.")
    for part in ("imagesTr", "labelsTr"):
        make_folder(folder / part)
    written = 0
    for case in cases:
        try:
            checked = check_case(case)
        except ScanError as error:
            yield Finding.fault(case.name, error)
            continue
        write_volume(folder / "imagesTr" / f"{case.name}_0000.nii.gz", checked.scan.hu_kji, checked.scan.affine)
        write_volume(folder / "labelsTr" / f"{case.name}.nii.gz", checked.mask.hu_kji, checked.mask.affine)
        written += 1
        yield Finding(case.name, "written", checked.facts)
    if not written:
        raise TrainingError("None of the cases can be used, for the reasons given.")
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1},
        "numTraining": written,
        "file_ending": ".nii.gz",
    }
    write_json(folder / "dataset.json", description)
