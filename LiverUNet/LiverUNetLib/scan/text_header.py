"""Find the voxels of a NRRD or MetaImage file from its text header, and check them before ITK reads them.

MetaIO, ITK's reader of MetaImage, reports damage only on stderr and then returns the part that it could read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import ScanError
from ..system.files import exists
from .integrity import DAMAGED, claim, damage, unpacked

__all__ = ["VoxelFiles", "check_packed", "check_voxels", "voxel_files"]

LONGEST_LINE = 2**16
NRRD = (".nrrd", ".nhdr")


@dataclass(frozen=True)
class VoxelFiles:
    """The files that hold the voxels.

    Attributes:
        paths: one or several.
        start: where the voxels begin in a single one.
        packing: "raw", "packed" (in gzip or zlib), or "" for others, such as text, which only ITK checks.
    """

    paths: tuple[Path, ...]
    start: int
    packing: str


def voxel_files(path: Path) -> VoxelFiles:
    """Find the voxels of a NRRD or MetaImage file.

    Raises:
        ScanError: a file that the header names is missing.
    """
    nrrd = path.suffix.lower() in NRRD
    with path.open("rb") as file:
        fields, following = _fields(file, ":" if nrrd else "="), file.tell()
        named = (fields.get("data file") or fields.get("datafile")) if nrrd else fields.get("elementdatafile")
        if named is None or named.upper() == "LOCAL":
            return VoxelFiles((path,), following, _packing(fields))
        if named.upper().startswith("LIST"):
            names = [os.fsdecode(line).strip() for line in file if line.strip()]
        else:
            names = _numbered(named) if "%" in named else [named]
    missing = [name for name in names if not exists(path.parent / name, ScanError)]
    if missing:
        raise ScanError(f"{path} cannot be read: its voxels are in {missing[0]}, which is not beside it; copy both.")
    return VoxelFiles(tuple(path.parent / name for name in names), 0, _packing(fields) if names else "")


def check_voxels(path: Path, files: VoxelFiles, shape_ijk: tuple[int, ...], bytes_a_voxel: int) -> None:
    """Raise ScanError unless all voxels that a header claims are there and their checksum, if any, is correct."""
    if files.packing == "raw":
        held = sum(part.stat().st_size for part in files.paths) - files.start
    elif files.packing == "packed" and len(files.paths) == 1:
        try:
            held = _unpacked_bytes(files)
        except DAMAGED as error:
            raise ScanError(f"{path} is damaged: {damage(error)}; copy it again.") from error
    else:
        return
    needed = int(np.prod(shape_ijk, dtype=object)) * bytes_a_voxel
    if held < needed:
        raise ScanError(claim(path, shape_ijk, f"it holds {held} of their {needed} bytes"))


def check_packed(path: Path) -> None:
    """Read a packed file to its end.

    Raises:
        zlib.error, EOFError: as `unpacked`.
    """
    _unpacked_bytes(voxel_files(path))


def _unpacked_bytes(files: VoxelFiles) -> int:
    with files.paths[0].open("rb") as file:
        file.seek(files.start)
        return sum(map(len, unpacked(file)))


def _fields(file: BinaryIO, separator: str) -> dict[str, str]:
    """Read the header's fields, keys in lower case, up to the voxels or the names of their files."""
    fields: dict[str, str] = {}
    for line in iter(lambda: os.fsdecode(file.readline(LONGEST_LINE)), ""):
        if "\0" in line:  # not text
            break
        key, _, value = line.partition(separator)
        key, value = key.strip().lower(), value.strip()
        fields[key] = value
        names_follow = key in ("data file", "datafile") and value.upper().startswith("LIST")
        if names_follow or key == "elementdatafile" or not (line.strip() or separator == "="):
            break
    return fields


def _packing(fields: dict[str, str]) -> str:
    skips = ("byte skip", "line skip", "headersize")
    skipped = any(fields.get(skip, "0") not in ("0", "-1") for skip in skips)
    if "encoding" in fields:  # NRRD
        packing = {"raw": "raw", "gz": "packed", "gzip": "packed"}.get(fields["encoding"].lower(), "")
    elif fields.get("compresseddata", "").lower().startswith(("t", "1")):
        packing = "packed"
    else:
        packing = "raw" if fields.get("binarydata", "").lower().startswith(("t", "1")) else ""
    return "" if skipped and packing == "packed" else packing


def _numbered(named: str) -> list[str]:
    """File names from a pattern with first and last number and step: `slice%03d.raw 1 20 1`."""
    pattern, *numbers = named.split()
    try:
        first, last, step = (int(number) for number in (*numbers, "1")[:3])
        return [pattern % number for number in range(first, last + 1, step)]
    except (ValueError, TypeError):
        return []  # ITK will report it
