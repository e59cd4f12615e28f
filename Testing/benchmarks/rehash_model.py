"""Write today's content hashes into the card of a model that was made before they knew a scan in any order of axes.

    python Testing/benchmarks/rehash_model.py MODEL ../shared/data/ircad ../shared/data/lits

Every scan and mask of the model's lineage is read and must have the hash that the card holds for its name; if one is
missing or differs, nothing is written. The weights are not touched.
"""

import argparse
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from LiverUNetLib.errors import LiverUNetError, ModelError
from LiverUNetLib.files import read_json, write_json
from LiverUNetLib.model import METADATA, open_model
from LiverUNetLib.volume import CTVolume
from LiverUNetTrainLib.dataset import Case, content_hash
from LiverUNetTrainLib.layouts import find_cases

OLD_SCHEMA, NEW_SCHEMA = 1, 2
PARTS = ("training", "validation", "held_out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("data", nargs="+", type=Path, help="folders that hold all scans of its lineage")
    options = parser.parse_args()
    try:
        rehash(options.model, options.data)
    except LiverUNetError as error:
        sys.exit(str(error))


def rehash(model: Path, data: list[Path]) -> None:
    """Replace the hashes in the card of a model.

    Raises:
        ModelError: the card has today's hashes already, or one of its scans or masks is missing or another one.
        ScanError, TrainingError: the data cannot be read.
    """
    card = read_json(model / METADATA, ModelError)
    ours = card["liver_unet"]
    if ours["schema_version"] != OLD_SCHEMA:
        raise ModelError(f"{model} has schema version {ours['schema_version']}, not {OLD_SCHEMA}: nothing to rewrite.")
    cases = {case.name: case for case in find_cases(data)}
    ours["lineage"] = _translated(ours["lineage"], cases)
    ours["schema_version"] = NEW_SCHEMA
    write_json(model / METADATA, card)
    open_model(model).verify()
    print(f"{model}: {sum(len(ours['lineage'][part]) for part in PARTS)} scans have today's hashes; the weights fit.")


def _translated(lineage: Mapping[str, Any], cases: Mapping[str, Case]) -> dict[str, Any]:
    """The lineage with a new hash in the place of every old one, each of which was computed again."""
    new: dict[str, Any] = {part: {} for part in (*PARTS, "masks")}
    for part in PARTS:
        for name, old in lineage[part].items():
            if name not in cases:
                raise ModelError(f"The data hold no case {name}, whose hash is to be rewritten; name its folder too.")
            scan, _ = cases[name].read()
            new[part][name] = _checked(scan, old, name)
            if old in lineage["masks"]:
                mask = cases[name].read_mask()
                new["masks"][new[part][name]] = _checked(mask, lineage["masks"][old], f"The mask of {name}")
            print(f"{name}: {old[:12]} -> {new[part][name][:12]}", flush=True)
    if len(new["masks"]) != len(lineage["masks"]):
        raise ModelError("The card holds masks of scans that it does not name; nothing was rewritten.")
    return new


def _checked(volume: CTVolume, stored: str, name: str) -> str:
    """Today's hash of a volume that has the stored one by the former function."""
    if former_hash(volume) != stored:
        raise ModelError(f"{name} is not what the card was written for: its hash differs; nothing was rewritten.")
    return content_hash(volume)


def former_hash(scan: CTVolume) -> str:
    """What cards of schema version 1 hold: SHA-256 of shape, affine (to 1e-4 mm) and voxels in the order of storage."""
    affine = np.round(scan.affine.astype(np.float32).astype(np.float64), 4) + 0.0
    digest = hashlib.sha256(repr((scan.hu_kji.shape, affine.tolist())).encode())
    for slice_ in scan.hu_kji:
        digest.update(np.ascontiguousarray(slice_, dtype="<f4"))
    return digest.hexdigest()


if __name__ == "__main__":
    main()
