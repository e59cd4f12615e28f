"""Whether the liver of a model flickers from slice to slice, or ends too early at its tips.

    python Testing/benchmarks/edges.py ../shared/data/ircad [--model liver-ct]

For every case that the model holds out: the mean Dice of neighboring slices of the mask, beside
that of the reference (lower: flicker; higher: too smooth), and by how many millimeters the
mask ends beyond (+) or before (-) the reference at its upper and lower tip. The table goes to
Testing/benchmarks/edges.md.
"""

import argparse
from pathlib import Path

import numpy as np

from LiverUNetLib.models.card import ModelCard
from LiverUNetLib.models.store import DEFAULT_MODEL, find_model
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.steps import finish
from LiverUNetLib.system.environment import choose_device
from LiverUNetTrainLib.data.cases import content_hash
from LiverUNetTrainLib.data.layouts import find_cases

TABLE = Path(__file__).with_name("edges.md")


def neighbor_dice(mask: np.ndarray) -> float:
    """Mean Dice of neighboring slices, between the first and the last that hold liver."""
    found = np.flatnonzero(mask.any(axis=(1, 2)))
    inside = mask[found[0] : found[-1] + 1]
    both = np.count_nonzero(inside[1:] & inside[:-1], axis=(1, 2))
    sizes = np.count_nonzero(inside, axis=(1, 2))
    return float(np.mean(2 * both / np.maximum(sizes[1:] + sizes[:-1], 1)))


def tips_mm(mask: np.ndarray, reference: np.ndarray, affine: np.ndarray) -> tuple[float, float]:
    """By how much a mask ends beyond the reference: upper and lower tip."""
    ends = []
    for one in (mask, reference):
        k = np.flatnonzero(one.any(axis=(1, 2)))[[0, -1]]
        ends.append(sorted(affine[2, 2] * k + affine[2, 3]))
    (low, high), (reference_low, reference_high) = ends
    return high - reference_high, reference_low - low


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    options = parser.parse_args()
    model, device = find_model(options.model), choose_device("auto")
    held_out = set(model.card.lineage.held_out.values())
    lines = []
    for case in find_cases(options.data):
        scan, reference = case.read()
        if content_hash(scan) in held_out:
            mask, liver = finish(segment(scan, model, device)).mask_kji != 0, reference.hu_kji != 0
            flicker = f"{neighbor_dice(mask):.4f} | {neighbor_dice(liver):.4f}"
            upper, lower = tips_mm(mask, liver, scan.affine)
            lines.append(f"| {case.name} | {flicker} | {upper:+.1f} | {lower:+.1f} |")
            print(lines[-1], flush=True)
    TABLE.write_text("\n".join([*head(model.card, options.data), *lines]) + "\n", encoding="utf-8")


def head(card: ModelCard, data: list[Path]) -> list[str]:
    return [
        "# From slice to slice",
        "",
        f"The mean Dice of neighboring slices in the masks of {card.name} {card.version} and in the references "
        "(lower: flicker; higher: too smooth), and how far a mask ends beyond its reference. Made by "
        f"`python Testing/benchmarks/edges.py {' '.join(map(str, data))} --model {card.name}`.",
        "",
        "| held-out patient | mask | reference | upper tip mm | lower tip mm |",
        "|---|---|---|---|---|",
    ]


if __name__ == "__main__":
    main()
