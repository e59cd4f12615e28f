"""3D-IRCADb-01 as IRCAD distributes it: one zip of all patients, their folders, or the zips inside them.

3Dircadb1.N/PATIENT_DICOM[.zip]        the CT
3Dircadb1.N/MASKS_DICOM[.zip]          one folder of masks for each organ, `liver` among them
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from LiverUNetLib.errors import TrainingError
from LiverUNetLib.scan.unpacking import temporary_folder
from LiverUNetLib.system.files import UNZIP_ERRORS

from .cases import Case

__all__ = ["find_ircad", "unpacked_ircad"]

# The files of a case; meshes and labeled slices lie beside them and are not needed.
NEEDED = re.compile(r"(^|/)3Dircadb1\.\d+/(PATIENT|MASKS)_DICOM(\.zip$|/)")


def find_ircad(folder: Path) -> Iterable[Case]:
    """The patients below `folder`, or `folder` itself if it is one, named `ircad_e01` and so on."""
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


@contextmanager
def unpacked_ircad(archive: Path, near: Path) -> Iterator[Path]:
    """Unpack scans and masks from the zip of all patients into a folder that is removed after the block.

    Args:
        near: an existing folder, on whose disk they are unpacked.

    Raises:
        TrainingError: `archive` is no zip or holds no patient, or the disk is too small.
    """
    with temporary_folder(near) as folder:
        try:
            _unpack(archive, folder)
        except UNZIP_ERRORS as error:
            raise TrainingError(f"{archive} cannot be unpacked ({error}); download it again.") from error
        yield folder


def _unpack(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as zipped:
        members = [entry for entry in zipped.infolist() if NEEDED.search(entry.filename)]
        if not members:
            raise TrainingError(f"{archive} holds no patient 3Dircadb1.N; choose 3D-IRCADb-01 as downloaded.")
        needed, free = sum(entry.file_size for entry in members), shutil.disk_usage(folder).free
        if free < needed:
            raise TrainingError(
                f"{archive} needs {needed / 2**30:.1f} GiB of {folder.parent}, {free / 2**30:.1f} GiB are free; "
                "free some space or choose another folder."
            )
        zipped.extractall(folder, members)


def _folder_or_zip(path: Path) -> Path:
    zipped = path.with_name(path.name + ".zip")
    return zipped if zipped.is_file() and not path.is_dir() else path
