"""3D-IRCADb-01 as IRCAD distributes it: DICOM folders, or the zips inside them.

3Dircadb1.N/PATIENT_DICOM[.zip]        the CT
3Dircadb1.N/MASKS_DICOM[.zip]          one folder of masks for each organ, `liver` among them
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from .dataset import Case

__all__ = ["find_ircad"]


def find_ircad(folder: Path) -> Iterable[Case]:
    """The patients below `folder`, or the one that `folder` is, called `ircad_e01` and so on."""
    patients = [folder, *folder.rglob("3Dircadb1.*")]
    numbered = {int(match[1]): path for path in patients if (match := re.fullmatch(r"3Dircadb1\.(\d+)", path.name))}
    for number in sorted(numbered):
        patient = numbered[number]
        yield Case(
            f"ircad_e{number:02d}",
            _folder_or_zip(patient / "PATIENT_DICOM"),
            _folder_or_zip(patient / "MASKS_DICOM"),
            mask_folder="liver",
        )


def _folder_or_zip(path: Path) -> Path:
    zipped = path.with_name(path.name + ".zip")
    return zipped if zipped.is_file() and not path.is_dir() else path
