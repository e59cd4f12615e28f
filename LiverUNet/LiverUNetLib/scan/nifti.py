"""Read and write NIfTI."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ScanError
from ..system.files import staged
from .ct_checks import VOXEL_MM
from .integrity import DAMAGED, GZIP_MAGIC, LARGEST_RATIO, claim, damage, unpacked
from .itk import LPS_TO_RAS
from .volume import CTVolume, compact

if TYPE_CHECKING:
    import nibabel

__all__ = ["is_nifti", "read_nifti", "write_nifti"]

# The fields that place voxels in the patient; a mask copies them from its scan.
GEOMETRY = (
    *("sform_code", "srow_x", "srow_y", "srow_z", "qform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)
PIECE_BYTES = 2**20
# Code in the lowest three bits of xyzt_units (nifti1.h) -> unit in mm; mm if it is unknown.
UNITS_MM = {1: 1000.0, 2: 1.0, 3: 0.001}


def read_nifti(path: Path) -> CTVolume:
    """Read a scan, packed or not, with any ending. Integers stay integers; nothing becomes float64.

    Raises:
        ScanError: the file is not NIfTI, damaged, 2D, 4D, RGB, or without a usable affine.
    """
    import nibabel

    try:
        header_path, voxel_path = _pair(path)
        header = _read_header(header_path)
        if header is None:
            raise ScanError(
                f"{path} is not a readable NIfTI file: it has no NIfTI header; convert it, for example with 3D Slicer."
            )
        stored = _read_voxels(voxel_path, header, _shape(header, path))
    except DAMAGED as error:
        raise ScanError(f"{path} is damaged: {damage(error)}; copy it again.") from error
    except (OSError, ValueError, nibabel.spatialimages.HeaderDataError) as error:
        reason = " ".join(str(error).split())
        raise ScanError(f"{path} is not a readable NIfTI file ({reason}).") from error
    affine, notes = _affine(header, stored.shape, path.name)
    return CTVolume(_scaled(stored, header), affine, path.name, notes, header)


def is_nifti(path: Path) -> bool:
    """Whether a file, with any ending, is NIfTI, packed or not."""
    try:
        return _read_header(path) is not None
    except (OSError, *DAMAGED):
        return False


def write_nifti(
    path: Path,
    array_kji: np.ndarray,
    affine: np.ndarray,
    *,
    scale: float = 1.0,
    header: nibabel.Nifti1Header | None = None,
) -> None:
    """Write an array (slices, rows, columns), completely or not at all.

    Args:
        scale: readers multiply stored values by it (`scl_slope`); for fractions stored as uint8.
        header: of a scan on the same grid; its sform, qform and unit are copied, and `affine` is not used.
    """
    import nibabel

    image = nibabel.Nifti1Image(array_kji.T, None if header else affine)
    if header:
        for field in GEOMETRY:
            image.header[field] = header[field]
        image.header["pixdim"][:4] = header["pixdim"][:4]
        image.header["xyzt_units"] = int(header["xyzt_units"]) & 7
    else:
        image.set_sform(affine, code="scanner")
        image.set_qform(affine, code="scanner", strip_shears=True)
        image.header.set_xyzt_units("mm")
    if scale != 1.0:
        image.header.set_slope_inter(scale, 0.0)
    with staged(path) as temporary:
        nibabel.save(image, temporary)


def _pair(path: Path) -> tuple[Path, Path]:
    """The files of header and voxels: a pair if `path` ends in .hdr or .img, otherwise `path` twice."""
    name, pairs = path.name.lower(), {".hdr": ".img", ".img": ".hdr"}
    ending = next((ending for ending in pairs if name.removesuffix(".gz").endswith(ending)), None)
    if not ending:
        return path, path
    stem = name.removesuffix(".gz").removesuffix(ending)
    wanted = (f"{stem}{pairs[ending]}", f"{stem}{pairs[ending]}.gz")
    other = next((file for file in path.parent.iterdir() if file.name.lower() in wanted), None)
    if other is None:
        raise ScanError(f"{path} is half of a pair: {stem}{pairs[ending]} is not beside it; copy both.")
    return (path, other) if ending == ".hdr" else (other, path)


def _pieces(path: Path) -> Generator[bytes, None, None]:
    """The bytes of a file, unpacked if it is packed."""
    with path.open("rb") as file:
        packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        yield from unpacked(file) if packed else iter(lambda: file.read(PIECE_BYTES), b"")


def _read_header(path: Path) -> nibabel.Nifti1Header | None:
    """The header at the start of a file; None if the file is not NIfTI."""
    import nibabel

    start = b""
    with closing(_pieces(path)) as pieces:
        while len(start) < nibabel.Nifti2Header.sizeof_hdr and (piece := next(pieces, b"")):
            start += piece
    kinds: tuple[type[nibabel.Nifti1Header], ...] = (nibabel.Nifti1Header, nibabel.Nifti2Header)
    kind = next((kind for kind in kinds if kind.may_contain_header(start)), None)
    return kind(start[: kind.sizeof_hdr]) if kind else None


def _shape(header: nibabel.Nifti1Header, path: Path) -> tuple[int, ...]:
    """Columns, rows and slices; raises ScanError unless the file holds one volume of real numbers."""
    if header.get_data_dtype().fields or header.get_data_dtype().kind == "c":
        raise ScanError(f"{path} holds colors or complex numbers; a CT has one real value per voxel.")
    shape = tuple(int(size) for size in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise ScanError(f"{path} has {len(shape)} dimensions {shape}; one CT scan has 3 (columns, rows, slices).")
    return shape


def _read_voxels(path: Path, header: nibabel.Nifti1Header, shape: tuple[int, ...]) -> np.ndarray:
    """The stored values (slices, rows, columns); the file is read to its end, where its checksum is.

    Raises:
        ScanError: the header claims more than the file holds.
        zlib.error, EOFError: as `unpacked`.
    """
    single = header["magic"].item() == header.single_magic
    skipped = max(header.get_data_offset(), header.single_vox_offset if single else 0)
    dtype, held = header.get_data_dtype(), path.stat().st_size
    needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if min(shape) < 1 or needed > held * LARGEST_RATIO:
        raise ScanError(claim(path, shape, f"its {held} bytes cannot hold them"))
    try:
        voxels = np.empty(shape[::-1], dtype)
    except MemoryError as error:
        raise ScanError(claim(path, shape, "there is not enough memory for them")) from error
    target, filled = voxels.reshape(-1).view(np.uint8).data, 0
    for piece in _pieces(path):
        part = piece[skipped : skipped + needed - filled]
        skipped = max(skipped - len(piece), 0)
        target[filled : filled + len(part)] = part
        filled += len(part)
    if filled < needed:
        raise ScanError(claim(path, shape, f"it holds {filled} of their {needed} bytes"))
    return voxels


def _scaled(stored: np.ndarray, header: nibabel.Nifti1Header) -> np.ndarray:
    """The values in HU: as stored if no scale is given, otherwise float32, where nibabel would return float64."""
    slope, inter = header.get_slope_inter()
    if slope is None or (slope, inter) == (1, 0):
        return compact(stored)
    scaled = stored.astype(np.float32)
    scaled *= np.float32(slope)
    scaled += np.float32(inter)
    return scaled


def _affine(header: nibabel.Nifti1Header, shape_kji: tuple[int, ...], name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The affine in mm, and notes about it."""
    notes = []
    if header["sform_code"] or header["qform_code"]:
        affine = np.array(header.get_best_affine(), dtype=np.float64)
    else:
        affine = LPS_TO_RAS @ np.diag([*header.get_zooms()[:3], 1.0])
        notes.append(
            f"{name} does not say how it lies in the patient; it is read as 3D Slicer does, i to left, j to back."
        )
    unit_mm = UNITS_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if unit_mm != 1.0 and not _plausible(sides * unit_mm) and _plausible(sides):
        notes.append(f"{name} gives its lengths in a unit of {unit_mm:g} mm, which no CT fits; they are read as mm.")
        unit_mm = 1.0
    apart_mm = _apart(header, shape_kji[::-1]) * unit_mm
    if apart_mm > sides.min() * unit_mm / 2:  # less moves no voxel onto another
        notes.append(
            f"{name} gives two places in the patient, sform and qform, which are {apart_mm:.1f} mm apart; "
            "the sform is used. Programs that use the qform show the scan elsewhere."
        )
    affine[:3] *= unit_mm
    return affine, tuple(notes)


def _plausible(sides_mm: np.ndarray) -> bool:
    return bool(VOXEL_MM[0] <= sides_mm.min() and sides_mm.max() <= VOXEL_MM[1])


def _apart(header: nibabel.Nifti1Header, shape: tuple[int, ...]) -> float:
    """The distance of sform and qform at the corner where they differ most; 0 unless both can be used."""
    if not (header["sform_code"] and header["qform_code"]):
        return 0.0
    try:
        difference = header.get_sform() - header.get_qform()
    except ValueError:  # a quaternion longer than 1
        return 0.0
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, size - 1) for size in shape))])
    distances = np.linalg.norm(difference @ corners.T, axis=0)
    return float(distances.max()) if np.isfinite(distances).all() else 0.0
