"""The layouts of data sets on disk; each is detected automatically.

- pairs: `NAME_orig.nii.gz` beside `NAME_liver.nii.gz`, non-zero is liver;
- 3D-IRCADb-01 as downloaded: see `ircad`;
- LiTS as downloaded: `volume-N.nii` beside `segmentation-N.nii`, called `lits_vNNN`;
- nnU-Net and the Medical Segmentation Decathlon: `imagesTr`, `labelsTr`, `dataset.json`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from LiverUNetLib.errors import TrainingError
from LiverUNetLib.system.files import read_json

from .cases import Case
from .ircad import find_ircad

__all__ = ["DataSet", "find_cases", "find_data_sets"]

SCAN_ENDING, MASK_ENDING = "_orig.nii.gz", "_liver.nii.gz"
# Words in the names of labels of the liver and of tumors, which count as liver where no other organ has a label.
LIVER_WORDS = ("liver", "hepat")
TUMOR_WORDS = ("tumor", "tumour", "cancer", "lesion", "metasta", "cyst")


@dataclass(frozen=True)
class DataSet:
    """A folder of cases and the name of its layout."""

    layout: str
    folder: Path
    cases: tuple[Case, ...]


def find_data_sets(folders: Iterable[Path]) -> list[DataSet]:
    """Recognize the layout of every folder and find its cases, faulty ones included.

    Raises:
        TrainingError: a folder is missing or of no known layout, or two cases share a name.
    """
    found = [_recognize(folder) for folder in folders]
    seen: dict[str, Case] = {}
    for case in (case for data in found for case in data.cases):
        if case.name in seen:
            raise TrainingError(
                f"Two cases are called {case.name}: {seen[case.name].scan} and {case.scan}; rename one."
            )
        seen[case.name] = case
    return found


def find_cases(folders: Iterable[Path]) -> list[Case]:
    """All cases of the folders, by name; errors as `find_data_sets`."""
    return sorted((case for data in find_data_sets(folders) for case in data.cases), key=lambda case: case.name)


def _recognize(folder: Path) -> DataSet:
    if not folder.is_dir():
        raise TrainingError(f"The folder {folder} does not exist.")
    for layout, find in LAYOUTS.items():
        cases = tuple(find(folder))
        if cases:
            return DataSet(layout, folder, cases)
    raise TrainingError(
        f"{folder} holds no case: neither pairs *{SCAN_ENDING} / *{MASK_ENDING}, nor 3Dircadb1.N, "
        "nor volume-N.nii, nor imagesTr, labelsTr and dataset.json."
    )


def _find_pairs(folder: Path) -> Iterable[Case]:
    for scan in sorted(folder.glob(f"[!.]*{SCAN_ENDING}")):
        name = scan.name.removesuffix(SCAN_ENDING)
        yield Case(name, scan, scan.with_name(name + MASK_ENDING))


def _find_lits(folder: Path) -> Iterable[Case]:
    """The training volumes in all batches; tumors count as liver."""
    for scan in sorted(folder.rglob("volume-*.nii*")):
        if match := re.fullmatch(r"volume-(\d+)(\.nii(?:\.gz)?)", scan.name):
            number, ending = match.groups()
            yield Case(f"lits_v{int(number):03d}", scan, scan.with_name(f"segmentation-{number}{ending}"))


def _find_nnunet(folder: Path) -> Iterable[Case]:
    """The training cases, named without nnU-Net's `_0000` for the first channel."""
    if not (folder / "dataset.json").is_file() or not (folder / "imagesTr").is_dir():
        return
    description = read_json(folder / "dataset.json", TrainingError)
    labels = _liver_labels(description.get("labels", {}), folder)
    ending = description.get("file_ending", ".nii.gz")
    for scan in sorted((folder / "imagesTr").glob(f"[!.]*{ending}")):
        name = scan.name.removesuffix(ending).removesuffix("_0000")
        yield Case(name, scan, folder / "labelsTr" / f"{name}{ending}", labels=labels)


def _liver_labels(labels: dict[str, Any], folder: Path) -> tuple[int, ...]:
    """Label values that count as liver.

    The Decathlon writes {"1": "liver"}, nnU-Net {"liver": 1}, or {"liver": [1, 2]} for a region of
    several. A "cancer" is one of the liver if nothing but liver and tumors has a label.
    """
    pairs = [(key, value) if not str(key).isdigit() else (value, key) for key, value in labels.items()]
    names = {str(name).casefold(): value for name, value in pairs if str(name).casefold() != "background"}
    counted: tuple[str, ...] = LIVER_WORDS
    if all(_has(word, LIVER_WORDS + TUMOR_WORDS) for name in names for word in re.findall("[a-z]+", name)):
        counted += TUMOR_WORDS
    if not any("liver" in name for name in names):
        raise TrainingError(
            f"{folder / 'dataset.json'} names no label of the liver among {', '.join(map(str, labels))}."
        )
    values = [value if isinstance(value, list) else [value] for name, value in names.items() if _has(name, counted)]
    return tuple(sorted({int(value) for several in values for value in several}))


def _has(name: str, words: tuple[str, ...]) -> bool:
    return any(word in name for word in words)


LAYOUTS = {
    "pairs": _find_pairs,
    "3D-IRCADb-01 as downloaded": find_ircad,
    "LiTS as downloaded": _find_lits,
    "nnU-Net or Decathlon": _find_nnunet,
}
