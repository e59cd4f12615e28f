"""The cache: each case once, as slices on the model grid, memory-mapped.

CACHE/cache.json           the preprocessing and the cases, in order
CACHE/<name>/image.npy     int16 (slices, rows, columns): HU, clipped to the window
CACHE/<name>/mask.npy      uint8, same shape: share of liver in each voxel, 255 is all
CACHE/<name>/cube.npy      the image again, its slices as far apart as its pixels, for coronal and sagittal views
CACHE/<name>/cube_mask.npy the mask likewise
CACHE/<name>/case.json     content hash, slice distance, facts, and what the files were made from
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from LiverUNetLib.errors import ScanError, TrainingError
from LiverUNetLib.files import (
    check_writable,
    from_json,
    read_json,
    save_array,
    staged,
    stamp,
    write_json,
)
from LiverUNetLib.geometry import BODY_HU, ModelGrid, PreprocessingSpec, body_canvas, to_model_grid
from LiverUNetLib.measurement import bounding_box
from LiverUNetLib.views import isotropic

from .dataset import Case, Facts, Finding, check_case

__all__ = ["Cache", "CachedCase", "open_cache", "prepare", "standard_canvas_px"]

SCHEMA_VERSION = 4
CANVAS_MM, CANVAS_MULTIPLE = 384.0, 32
ARRAYS = ("image", "mask", "cube", "cube_mask")
ENTRIES = ("content_hash", "mask_hash", "slice_mm", "voxel_ml")


@dataclass(frozen=True)
class CachedCase:
    """One case on the model grid.

    Attributes:
        image: int16 HU, memory-mapped (slices, rows, columns).
        mask: uint8 share of liver, 0 to 255, memory-mapped.
        cube, cube_mask: the same with slices as far apart as pixels.
        slice_mm: distance of the slices.
    """

    name: str
    content_hash: str
    mask_hash: str
    slice_mm: float
    voxel_ml: float
    image: np.ndarray
    mask: np.ndarray
    cube: np.ndarray
    cube_mask: np.ndarray


@dataclass(frozen=True)
class Cache:
    """All cases of a cache folder."""

    folder: Path
    preprocessing: PreprocessingSpec
    canvas_px: int
    cases: tuple[CachedCase, ...]

    def select(self, names: Sequence[str]) -> list[CachedCase]:
        """The cases with these names, in their order here."""
        return [case for case in self.cases if case.name in names]


def prepare(
    cases: Sequence[Case], folder: Path, spec: PreprocessingSpec, *, canvas_px: int | None = None, strict: bool = False
) -> Iterator[Finding]:
    """Bring cases onto the model grid; yields what became of each, then the folder can be opened.

    Args:
        canvas_px: rows and columns of the slices; None for `standard_canvas_px`.
        strict: raise the first fault.

    A case is made anew only if its files or the settings changed. Faulty cases and repeated scans
    are named and left out, or the first one is raised under `strict`.

    Raises:
        TrainingError: no usable case is left.
        ScanError: under `strict`.
        OutputError: the folder cannot be written to.
    """
    canvas_px = canvas_px or standard_canvas_px(spec)
    index = folder / "cache.json"
    check_writable(index, overwrite=True)
    settings = {"schema_version": SCHEMA_VERSION, "preprocessing": asdict(spec), "canvas_px": canvas_px}
    if index.exists() and not _made_with(index, settings):
        index.unlink()  # a cache of two grids would be a mixture
    seen: dict[str, str] = {}
    for case in cases:
        try:
            entry, words = _prepare_case(case, folder, spec, canvas_px)
            _check_unique(case.name, seen.setdefault(entry["content_hash"], case.name))
        except ScanError as error:
            if strict:
                raise
            yield Finding.fault(case.name, error)
            continue
        yield Finding(case.name, words, from_json(Facts, entry["facts"]))
    if not seen:
        raise TrainingError("None of the cases can be used, for the reasons given.")
    write_json(index, settings | {"cases": list(seen.values())})


def standard_canvas_px(spec: PreprocessingSpec) -> int:
    """Pixels that show a large patient without the table, a multiple of what networks of six levels need."""
    return round(CANVAS_MM / spec.pixel_mm / CANVAS_MULTIPLE) * CANVAS_MULTIPLE


def open_cache(folder: Path) -> Cache:
    """Open a prepared folder.

    Raises:
        TrainingError: it is no cache, was made by another version, or lost a file.
    """
    index = read_json(folder / "cache.json", TrainingError)
    if index.get("schema_version") != SCHEMA_VERSION:
        raise TrainingError(f"{folder} was prepared by another version of LiverUNet; run prepare again.")
    spec = from_json(PreprocessingSpec, index["preprocessing"])
    cases = tuple(_open_case(folder / name) for name in index["cases"])
    return Cache(folder, spec, index["canvas_px"], cases)


def _prepare_case(case: Case, folder: Path, spec: PreprocessingSpec, canvas_px: int) -> tuple[dict[str, Any], str]:
    source = {
        "schema_version": SCHEMA_VERSION,
        # Context and views are chosen at training; nothing here depends on them.
        "preprocessing": asdict(spec) | {"context_mm": None, "views": None},
        "canvas_px": canvas_px,
        "labels": case.labels,
        "files": [_stamp(path) for path in (case.scan, case.mask)],
    }
    target = folder / case.name
    if (target / "case.json").is_file():
        entry = read_json(target / "case.json", TrainingError)
        if entry["source"] == json.loads(json.dumps(source)):
            return entry, "unchanged"
    checked = check_case(case)
    grid = ModelGrid.of(checked.scan, spec)
    image = to_model_grid(checked.scan.hu_kji, grid, spec.window_hu)
    share = (to_model_grid(checked.mask.hu_kji, grid, (0, 1)) + 1) / 2
    canvas = body_canvas(image, spec.normalise(BODY_HU), grid.slice_mm, size=(canvas_px, canvas_px))
    canvas = canvas.showing(*bounding_box(share > 0)[1:])  # whatever the outline, no liver is cut off
    low, high = spec.window_hu
    hu, share = (canvas.crop(image, -1.0) + 1) / 2 * (high - low) + low, canvas.crop(share, 0.0)
    entry = {
        "source": source,
        "content_hash": checked.content_hash,
        "mask_hash": checked.mask_hash,
        "facts": asdict(checked.facts),
        "slice_mm": grid.slice_mm,
        "voxel_ml": grid.voxel_ml,
    }
    with staged(target) as temporary:
        temporary.mkdir()
        for image_name, mask_name, resample in (("image", "mask", False), ("cube", "cube_mask", True)):
            parts = [isotropic(part, grid.slice_mm, spec.pixel_mm) if resample else part for part in (hu, share)]
            save_array(temporary / f"{image_name}.npy", np.rint(parts[0]).astype(np.int16))
            save_array(temporary / f"{mask_name}.npy", np.rint(parts[1] * 255).astype(np.uint8))
        write_json(temporary / "case.json", entry)
    return entry, " ".join([f"{len(hu)} slices of {grid.slice_mm:.2f} mm.", *checked.scan.notes]).removesuffix(".")


def _made_with(index: Path, settings: dict[str, Any]) -> bool:
    """Whether the cases that an index lists were made with these settings."""
    try:
        return json.loads(json.dumps(settings)).items() <= read_json(index, TrainingError).items()
    except TrainingError:
        return False


def _check_unique(name: str, first: str) -> None:
    if name != first:
        raise ScanError(f"{name} is the same scan as {first}; remove one of them.")


def _stamp(path: Path) -> list[Any]:
    """What changes when a file, or one in a folder, does, or is another one."""
    if not path.exists():
        raise ScanError(f"{path} does not exist.")
    return [str(path.resolve()), *stamp(path)]


def _open_case(folder: Path) -> CachedCase:
    entry = read_json(folder / "case.json", TrainingError)
    try:
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    except (OSError, ValueError) as error:
        raise TrainingError(f"{folder} is damaged ({error}); delete it and run prepare again.") from error
    return CachedCase(folder.name, **{name: entry[name] for name in ENTRIES}, **arrays)
