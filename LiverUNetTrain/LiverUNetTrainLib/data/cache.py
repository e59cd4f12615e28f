"""The cache: each case once, on the grids of both looks, memory-mapped.

CACHE/cache.json              the grids and the cases, in order
CACHE/<name>/image.npy        int16 (slices, rows, columns): HU in fine pixels, clipped to the window
CACHE/<name>/mask.npy         uint8, same shape: share of liver in each voxel, 255 is all
CACHE/<name>/coarse.npy       the image again, in coarse cubes
CACHE/<name>/coarse_mask.npy  the mask likewise
CACHE/<name>/case.json        content hash, slice distance, facts, and what the files were made from
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from LiverUNetLib.errors import ScanError, TrainingError
from LiverUNetLib.models.spec import CoarseLook, FineLook, ModelSpec
from LiverUNetLib.segmentation.grid import Axis, Grid, canonical_scan, canonical_view, resample
from LiverUNetLib.steps import finish
from LiverUNetLib.system.files import check_writable, from_json, read_json, save_array, staged, stamp, write_json

from .cases import Case, Facts, Finding, check_case

__all__ = ["Cache", "CachedCase", "Grids", "is_cache", "open_cache", "prepare"]

SCHEMA_VERSION, INDEX, ENTRY = 5, "cache.json", "case.json"
ARRAYS = ("image", "mask", "coarse", "coarse_mask")


@dataclass(frozen=True)
class Grids:
    """The part of a ModelSpec that a cache depends on."""

    pixel_mm: float = FineLook().pixel_mm
    slice_mm: float = FineLook().slice_mm
    voxel_mm: float = CoarseLook().voxel_mm
    window_hu: tuple[float, float] = ModelSpec().window_hu

    @classmethod
    def of(cls, spec: ModelSpec) -> Grids:
        """The grids of a model."""
        coarse = spec.coarse or CoarseLook()
        return cls(spec.fine.pixel_mm, spec.fine.slice_mm, coarse.voxel_mm, spec.window_hu)


@dataclass(frozen=True)
class CaseEntry:
    """The case.json of a case.

    Attributes:
        source: what the arrays were made from, as JSON: grids, labels, and stamps of the files.
    """

    source: dict[str, Any]
    content_hash: str
    mask_hash: str
    facts: Facts
    slice_mm: float
    voxel_ml: float

    @classmethod
    def read(cls, folder: Path) -> CaseEntry:
        """Read what `write` wrote.

        Raises:
            TrainingError: the file is missing or damaged.
        """
        content = read_json(folder / ENTRY, TrainingError)
        try:
            return from_json(cls, content | {"facts": from_json(Facts, content["facts"])})
        except (AttributeError, KeyError, TypeError) as error:
            raise _damaged(folder, error) from error

    def write(self, folder: Path) -> None:
        """Write the file."""
        write_json(folder / ENTRY, asdict(self))


@dataclass(frozen=True)
class CachedCase:
    """One case on both grids.

    Attributes:
        image: int16 HU, memory-mapped (slices, rows, columns).
        mask: uint8 share of liver, 0 to 255, memory-mapped.
        coarse, coarse_mask: the same in coarse cubes.
    """

    name: str
    content_hash: str
    mask_hash: str
    slice_mm: float
    voxel_ml: float
    image: np.ndarray
    mask: np.ndarray
    coarse: np.ndarray
    coarse_mask: np.ndarray
    grids: Grids

    @property
    def fine_grid(self) -> Grid:
        """The grid of `image` and `mask`."""
        return _grid(self.image.shape, (self.slice_mm, self.grids.pixel_mm, self.grids.pixel_mm))

    @property
    def coarse_grid(self) -> Grid:
        """The grid of `coarse` and `coarse_mask`."""
        return _grid(self.coarse.shape, (self.grids.voxel_mm,) * 3)


@dataclass(frozen=True)
class Cache:
    """All cases of a cache folder."""

    folder: Path
    grids: Grids
    cases: tuple[CachedCase, ...]

    def select(self, names: Sequence[str]) -> list[CachedCase]:
        """The cases with these names, in their order here.

        Raises:
            TrainingError: there is no case of one of the names.
        """
        if unknown := sorted(set(names) - {case.name for case in self.cases}):
            raise TrainingError(f"{self.folder} holds no case {', '.join(unknown)}; prepare it.")
        return [case for case in self.cases if case.name in names]


def prepare(cases: Sequence[Case], folder: Path, grids: Grids, *, strict: bool = False) -> Iterator[Finding]:
    """Bring cases onto the grids; yields what became of each. Afterwards `open_cache` opens the folder.

    A case is prepared again only if its files or the settings have changed. Faulty cases and repeated
    scans are left out, and the finding says why.

    Args:
        strict: raise the first fault instead.

    Raises:
        TrainingError: no usable case is left.
        ScanError: under `strict`.
        OutputError: the folder cannot be written to.
    """
    index = folder / INDEX
    check_writable(index, overwrite=True)
    settings = {"schema_version": SCHEMA_VERSION, "grids": asdict(grids)}
    if index.exists() and not _made_with(index, settings):
        index.unlink()  # so that no cache mixes two grids
    seen: dict[str, str] = {}
    for case in cases:
        try:
            entry, message = _prepare_case(case, folder, grids)
            _check_unique(case.name, seen.setdefault(entry.content_hash, case.name))
        except ScanError as error:
            if strict:
                raise
            yield Finding.fault(case.name, error)
            continue
        yield Finding(case.name, message, entry.facts)
    if not seen:
        raise TrainingError("None of the cases can be used, for the reasons given.")
    write_json(index, settings | {"cases": list(seen.values())})


def is_cache(folder: Path) -> bool:
    """Whether cases were prepared in this folder."""
    return (folder / INDEX).exists()


def open_cache(folder: Path) -> Cache:
    """Open a prepared folder.

    Raises:
        TrainingError: it is no cache, was made by another version, or a file is missing or damaged.
    """
    index = read_json(folder / INDEX, TrainingError)
    try:
        if index["schema_version"] != SCHEMA_VERSION:
            raise TrainingError(f"{folder} was prepared by another version of LiverUNet; run prepare again.")
        grids, names = from_json(Grids, index["grids"]), [str(name) for name in index["cases"]]
    except (AttributeError, KeyError, TypeError) as error:
        raise _damaged(folder, error) from error
    return Cache(folder, grids, tuple(_open_case(folder / name, grids) for name in names))


def _damaged(folder: Path, error: Exception) -> TrainingError:
    return TrainingError(f"{folder} is damaged ({error}); delete it and run prepare again.")


def _prepare_case(case: Case, folder: Path, grids: Grids) -> tuple[CaseEntry, str]:
    source = {
        "schema_version": SCHEMA_VERSION,
        "grids": asdict(grids),
        "labels": case.labels,
        "files": [_stamp(path) for path in (case.scan, case.mask)],
    }
    target = folder / case.name
    with contextlib.suppress(TrainingError):  # missing, of another version, or damaged: it is prepared again
        found = CaseEntry.read(target)
        if found.source == json.loads(json.dumps(source)):
            return found, "unchanged"
    checked = check_case(case)
    hu, scan = canonical_scan(checked.scan)
    mask = canonical_view(checked.mask.hu_kji, checked.mask.affine)
    fine = scan.pixels(grids.pixel_mm, grids.slice_mm)
    entry = CaseEntry(
        source=source,
        content_hash=checked.content_hash,
        mask_hash=checked.mask_hash,
        facts=checked.facts,
        slice_mm=fine.slices.step_mm,
        voxel_ml=fine.voxel_ml,
    )
    with staged(target) as temporary:
        temporary.mkdir()
        both = ("image", "mask", fine), ("coarse", "coarse_mask", scan.cubes(grids.voxel_mm))
        for image_name, mask_name, grid in both:
            image = finish(resample(hu, scan, grid, clip=grids.window_hu, finish=_rounded))
            share = finish(resample(mask, scan, grid, finish=_shares))
            save_array(temporary / f"{image_name}.npy", image)
            save_array(temporary / f"{mask_name}.npy", share)
        entry.write(temporary)
    message = [f"{fine.slices.size} slices of {fine.slices.step_mm:.2f} mm.", *checked.scan.notes]
    return entry, " ".join(message).removesuffix(".")


def _rounded(hu: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(hu), np.int16)


def _shares(mask: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(mask * 255), np.uint8)


def _grid(shape: tuple[int, ...], steps_mm: tuple[float, ...]) -> Grid:
    return Grid(*(Axis(0.0, step, size) for step, size in zip(steps_mm, shape, strict=True)))


def _made_with(index: Path, settings: dict[str, Any]) -> bool:
    """Whether the cases that an index lists were made with these settings."""
    try:
        return bool(json.loads(json.dumps(settings)).items() <= read_json(index, TrainingError).items())
    except (AttributeError, TrainingError):
        return False


def _check_unique(name: str, first: str) -> None:
    if name != first:
        raise ScanError(f"{name} is the same scan as {first}; remove one of them.")


def _stamp(path: Path) -> list[Any]:
    """What changes when a file, or one in a folder, is changed or replaced."""
    if not path.exists():
        raise ScanError(f"{path} does not exist.")
    return [str(path.resolve()), *stamp(path)]


def _open_case(folder: Path, grids: Grids) -> CachedCase:
    entry = CaseEntry.read(folder)
    try:
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    except (OSError, ValueError) as error:
        raise _damaged(folder, error) from error
    return CachedCase(
        name=folder.name,
        content_hash=entry.content_hash,
        mask_hash=entry.mask_hash,
        slice_mm=entry.slice_mm,
        voxel_ml=entry.voxel_ml,
        **arrays,
        grids=grids,
    )
