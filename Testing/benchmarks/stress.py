"""How a model holds up where hospitals and patients differ: real cases, altered in one way at a time.

    python Testing/benchmarks/stress.py ../shared/data/ircad [--model liver-ct] [--limit N]

Takes the cases that the model holds out, never those it has learned from. The data show few of these situations, so
each is imitated: `LiverUNetTrainLib/evaluation/alterations.py`. The table goes to Testing/benchmarks/stress.md.
"""

import argparse
from pathlib import Path

import numpy as np

from LiverUNetLib.models.store import DEFAULT_MODEL, find_model
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.steps import finish
from LiverUNetLib.system.environment import choose_device
from LiverUNetTrainLib.data.cases import content_hash
from LiverUNetTrainLib.data.layouts import find_cases
from LiverUNetTrainLib.evaluation import alterations as alter
from LiverUNetTrainLib.evaluation.metrics import MaskScores, compare_masks

TABLE = Path(__file__).with_name("stress.md")
ALTERATIONS: dict[str, alter.Alteration] = {
    "as it is": alter.unaltered,
    "soft kernel": alter.smooth(1.5),
    "sharp kernel": alter.sharp(0.8),
    "noise 30 HU": alter.noise(30),
    "noise 60 HU": alter.noise(60),
    "slices of 0.8 mm": alter.slices(0.8),
    "slices of about 5 mm": alter.slices(5),
    "slices of about 10 mm": alter.slices(10),
    "unenhanced": alter.unenhanced(),
    "early phase, liver -30 HU": alter.liver_by(-30),
    "fatty liver, -70 HU": alter.liver_by(-70),
    "dense liver, +40 HU": alter.liver_by(40),
    "tumor of 80 mm": alter.lesions(50, (80,)),
    "cysts of 40, 30 and 20 mm": alter.lesions(8, (40, 30, 20)),
    "ascites": alter.ascites(15),
    "left third resected": alter.resected,
    "patient 25 % larger": alter.sized(1.25),
    "patient 20 % smaller": alter.sized(0.8),
    "small field of view": alter.small_field_of_view,
    "padding of -2000": alter.padded(),
    "metal in the spine": alter.metal(60),
    "window of [-160, 240] HU only": alter.windowed(),
    **{
        f"three slices of 5 mm, {height:.0%} up the liver": alter.short_stack(height)
        for height in (0.1, 0.3, 0.5, 0.7, 0.9)
    },
    "thorax with 40 mm of liver": alter.part_of_the_liver(40, upper=True),
    "pelvis with 40 mm of liver": alter.part_of_the_liver(40, upper=False),
    "thorax only, no liver": alter.without_liver(above=True),
    "pelvis only, no liver": alter.without_liver(above=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    model, device = find_model(options.model), choose_device("auto")
    held_out = set(model.card.lineage.held_out.values())
    cases = [case.read() for case in find_cases(options.data)]
    cases = [(scan, mask.hu_kji) for scan, mask in cases if content_hash(scan) in held_out][: options.limit]
    networks = model.networks(device)
    lines, reference = [], {}
    for name, alteration in ALTERATIONS.items():
        scores = {}
        for scan, mask in cases:
            altered = alteration(scan, mask)
            if altered:
                result = finish(segment(altered[0], model, device, networks=networks))
                scores[scan.name] = compare_masks(result.mask_kji, altered[1], altered[0].spacing_kji_mm)
        reference = reference or scores
        lines.append(row(name, scores, reference))
        print(lines[-1], flush=True)
    if not options.limit:
        write_table(lines, model.card.name, model.card.version, options.data, len(cases))


def row(name: str, scores: dict[str, MaskScores], reference: dict[str, MaskScores]) -> str:
    if not scores:
        return f"| {name} | 0 | | | | | |"
    dice = np.array([score.dice for score in scores.values()])
    change = dice.mean() - np.mean([reference[case].dice for case in scores])
    found, true = (np.mean([getattr(score, ml) for score in scores.values()]) for ml in ("volume_ml", "reference_ml"))
    cells = [name, str(len(dice)), f"{dice.mean():.4f}", f"{change:+.4f}" if true else "", f"{dice.min():.4f}"]
    cells += [f"{found:.0f} ml", f"{true:.0f} ml"]
    return f"| {' | '.join(cells)} |"


def write_table(lines: list[str], name: str, version: str, data: list[Path], cases: int) -> None:
    head = [
        "# How the bundled model holds up",
        "",
        f"{name} {version} on its {cases} held-out patients, altered in one way at a time; the alterations are in "
        f"`stress.py`. Made by `python Testing/benchmarks/stress.py {' '.join(map(str, data))} --model {name}`. Where "
        "there is no liver, a Dice of 1 means that none was found; that what is small and doubtful counts as none was "
        "chosen on these very scans. Thick slices are means of whole numbers of slices, so 4 to 5 and 8 to 10 mm.",
        "",
        "| alteration | cases | mean Dice | change | worst | found | reference |",
        "|---|---|---|---|---|---|---|",
    ]
    TABLE.write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
