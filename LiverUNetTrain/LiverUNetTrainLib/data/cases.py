"""A case is a scan with its mask: read it and check it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from LiverUNetLib.errors import ScanError
from LiverUNetLib.scan.ct_checks import check_ct
from LiverUNetLib.scan.formats import read_mask, read_volume
from LiverUNetLib.scan.volume import CTVolume
from LiverUNetLib.segmentation.grid import orientation_to_lps, reoriented

__all__ = [
    "Case",
    "CheckedCase",
    "Facts",
    "Finding",
    "align_mask",
    "check_case",
    "check_liver",
    "content_hash",
]

# An adult liver has 1.0 to 2.5 l; a partial scan shows less of it, metastases can double it.
PLAUSIBLE_LIVER_ML = (5.0, 6000.0)
# Millimeters by which the affines of scan and mask may differ: rounding in file headers.
AFFINE_TOLERANCE_MM = 1e-2
# Air is -1000 HU; scanners store less than -1024 only as padding.
LOWEST_HU = np.float32(-1024)


@dataclass(frozen=True)
class Case:
    """A scan with its reference mask.

    Attributes:
        name: one patient has one name.
        scan, mask: the files or folders.
        labels: the values in the mask that are liver; None for all but 0.
        mask_folder: the folder of that name, below `mask`, holds the mask.
    """

    name: str
    scan: Path
    mask: Path
    labels: tuple[int, ...] | None = None
    mask_folder: str | None = None

    def read(self) -> tuple[CTVolume, CTVolume]:
        """Read the scan, and the mask on its grid, 1 where liver is; raise ScanError if their grids differ."""
        scan = read_volume(self.scan)
        return scan, align_mask(self.read_mask(), scan, "its scan")

    def read_mask(self) -> CTVolume:
        """Read the mask alone, 1 where liver is."""
        return read_mask(self.mask, labels=self.labels, folder=self.mask_folder)


@dataclass(frozen=True)
class Facts:
    """What a table shows of a usable case.

    Attributes:
        size: voxels along i, j, k.
        spacing_mm: along i, j, k.
        hu: lowest and highest.
        liver_ml: volume of the reference.
    """

    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    hu: tuple[int, int]
    liver_ml: float

    @property
    def grid(self) -> str:
        """The size as text."""
        return " x ".join(map(str, self.size))

    @property
    def spacing(self) -> str:
        """The spacing as text."""
        return " x ".join(f"{mm:.2f}" for mm in self.spacing_mm)

    def __str__(self) -> str:
        low, high = self.hu
        return f"{self.grid} of {self.spacing} mm, {low} to {high} HU, liver {self.liver_ml:.0f} ml"


@dataclass(frozen=True)
class CheckedCase:
    """A usable case.

    Attributes:
        content_hash, mask_hash: see `content_hash`.
    """

    case: Case
    scan: CTVolume
    mask: CTVolume
    content_hash: str
    mask_hash: str
    facts: Facts


@dataclass(frozen=True)
class Finding:
    """The outcome of checking a case.

    Attributes:
        message: what was done with it, or why it is left out.
        facts: None if they are not known, as of a case that is left out.
        usable: False for a case that is left out.
    """

    name: str
    message: str
    facts: Facts | None = None
    usable: bool = True

    @classmethod
    def fault(cls, name: str, error: Exception) -> Finding:
        """A case that is left out."""
        return cls(name, f"left out: {error}", usable=False)

    def __str__(self) -> str:
        return f"{self.name}: {', '.join(map(str, filter(None, (self.facts, self.message))))}"


def align_mask(mask: CTVolume, other: CTVolume, other_name: str) -> CTVolume:
    """The mask with its axes in the order and direction of those of another volume, called `other_name` in messages.

    Raises:
        ScanError: the grids differ in more than the order and the direction of their axes.
    """
    from nibabel.orientations import inv_ornt_aff, io_orientation

    # From the mask's i, j, k to the other's; where the grids fit this only permutes and flips.
    orientation = io_orientation(np.linalg.inv(other.affine) @ mask.affine)
    turned = reoriented(mask.hu_kji, orientation)
    affine = mask.affine @ inv_ornt_aff(orientation, mask.hu_kji.shape[::-1])
    if other.hu_kji.shape != turned.shape:
        raise ScanError(
            f"{mask.name} has shape {mask.hu_kji.shape} (k, j, i) but {other_name} has {other.hu_kji.shape}; "
            f"draw or resample the mask on the grid of {other_name}."
        )
    if not np.allclose(other.affine, affine, atol=AFFINE_TOLERANCE_MM):
        raise ScanError(f"{mask.name} lies elsewhere than {other_name}: their affines differ; resample the mask.")
    return replace(mask, hu_kji=np.ascontiguousarray(turned), affine=affine)


def check_case(case: Case) -> CheckedCase:
    """Read a case and check it.

    Raises:
        ScanError: it cannot be read, scan and mask lie on two grids, the scan is no CT, or the mask is empty or of an
            implausible size.
    """
    scan, mask = case.read()
    check_ct(scan)
    liver_ml = float(mask.hu_kji.sum(dtype=np.int64)) * mask.voxel_ml
    check_liver(liver_ml, case.mask.name)
    hu = scan.hu_kji
    facts = Facts(hu.shape[::-1], scan.spacing_kji_mm[::-1], (round(hu.min()), round(hu.max())), liver_ml)
    return CheckedCase(case, scan, mask, content_hash(scan), content_hash(mask), facts)


def check_liver(liver_ml: float, name: str) -> None:
    """Raise ScanError unless a mask, called `name` in the message, has a plausible volume."""
    if liver_ml == 0:
        raise ScanError(f"{name} is empty: a case to learn from needs a liver.")
    low, high = PLAUSIBLE_LIVER_ML
    if not low <= liver_ml <= high:
        raise ScanError(
            f"{name} marks {liver_ml:.0f} ml, a liver has {low:.0f} to {high:.0f} ml; check mask and spacing."
        )


def content_hash(scan: CTVolume) -> str:
    """SHA-256 of the voxels in the patient's axes (LPS): the same scan in any file, type and order of axes.

    The voxels alone identify a scan, since no two scans have the same noise. Position and spacing play no part: every
    format rounds them differently, and a repaired header makes no new patient. HU are rounded, and less than -1024
    counts as -1024, so that neither a rescale in floating point nor another padding makes a new patient.
    """
    voxels = reoriented(scan.hu_kji, orientation_to_lps(scan.affine))
    digest = hashlib.sha256(repr(voxels.shape).encode())
    for slice_ in voxels:
        hu = np.maximum(np.rint(slice_.astype("<f4", order="C")), LOWEST_HU)
        digest.update(hu + np.float32(0))  # 0 instead of -0
    return digest.hexdigest()
