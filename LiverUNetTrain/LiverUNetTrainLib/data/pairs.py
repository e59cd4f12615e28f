"""Write cases as pairs of NIfTI files: public data sets, and the user's own corrected scans as a training set.

NAME_orig.nii.gz        the scan, in HU
NAME_liver.nii.gz       its mask, 1 is liver
NAME_provenance.json    where a case of the user's own comes from
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from LiverUNetLib.errors import ScanError, TrainingError
from LiverUNetLib.scan.ct_checks import check_ct
from LiverUNetLib.scan.formats import write_volume
from LiverUNetLib.scan.volume import CTVolume
from LiverUNetLib.system.files import check_writable, make_folder, write_json

from .cases import Case, Finding, check_case, check_liver, content_hash
from .ircad import unpacked_ircad
from .layouts import MASK_ENDING, SCAN_ENDING, find_cases

__all__ = ["add_case", "write_pairs"]

PROVENANCE_ENDING = "_provenance.json"


def write_pairs(source: Path, folder: Path) -> Iterator[Finding]:
    """Write every usable case as a pair; yields what became of each. Pairs that exist already are kept.

    Args:
        source: a folder of any layout, or 3D-IRCADb-01 as one zip.

    Raises:
        TrainingError: there is no case, or none that can be used.
        OutputError: the folder cannot be written to.
    """
    make_folder(folder)
    check_writable(folder / SCAN_ENDING, overwrite=True)
    with unpacked_ircad(source, folder) if source.is_file() else nullcontext(source) as data:
        yield from _write_all(find_cases([data]), folder)


def _write_all(cases: Sequence[Case], folder: Path) -> Iterator[Finding]:
    usable = 0
    for case in cases:
        # The mask is written last: a pair is complete when it is there.
        if (folder / f"{case.name}{MASK_ENDING}").exists():
            usable += 1
            yield Finding(case.name, "exists already")
            continue
        try:
            checked = check_case(case)
        except ScanError as error:
            yield Finding.fault(case.name, error)
            continue
        _write(folder, case.name, checked.scan, checked.mask.hu_kji)
        usable += 1
        yield Finding(case.name, "written", checked.facts)
    if not usable:
        raise TrainingError("None of the cases can be used, for the reasons given.")


def add_case(folder: Path, scan: CTVolume, mask_kji: np.ndarray, provenance: Mapping[str, Any]) -> str:
    """Add a scan with its corrected mask to the user's own training set; returns the case's name.

    The name is made from the hash of the voxels: it tells nothing about the patient, and the same scan,
    corrected again, replaces the older case.

    Args:
        mask_kji: non-zero is liver, shape of the scan.
        provenance: kept beside the pair, JSON.

    Raises:
        ScanError: the scan is no CT, or the mask is empty, implausible, or of another shape.
        OutputError: the folder cannot be written to.
    """
    check_ct(scan)
    if mask_kji.shape != scan.hu_kji.shape:
        raise ScanError(f"The mask has shape {mask_kji.shape} (k, j, i), its scan {scan.hu_kji.shape}.")
    mask = (mask_kji != 0).astype(np.uint8)
    check_liver(float(mask.sum(dtype=np.int64)) * scan.voxel_ml, f"The mask of {scan.name}")
    hash_ = content_hash(scan)
    name = f"case_{hash_[:12]}"
    write_json(folder / f"{name}{PROVENANCE_ENDING}", {"schema_version": 1, "content_hash": hash_, **provenance})
    _write(folder, name, scan, mask)
    return name


def _write(folder: Path, name: str, scan: CTVolume, mask_kji: np.ndarray) -> None:
    write_volume(folder / f"{name}{SCAN_ENDING}", scan.hu_kji, scan.affine)
    write_volume(folder / f"{name}{MASK_ENDING}", mask_kji.astype(np.uint8), scan.affine)
