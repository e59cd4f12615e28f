"""Print the cross-validations in Testing/benchmarks/crossval, in which every patient of 3D-IRCADb-01 is tested once.

    python Testing/benchmarks/crossval_table.py

`crossval/WAY/foldN.json` is what `liver-unet-train crossval … --fold N --json foldN.json` wrote; its command stands in
it. All ways deal the patients into the same folds. The first table has all measures of the bundled model's recipe,
the second one compares all ways.
"""

from pathlib import Path

from scipy.stats import wilcoxon

from LiverUNetTrainLib.evaluation.metrics import CaseScores, summarise
from LiverUNetTrainLib.evaluation.tables import read_scores

FOLDS = Path(__file__).with_name("crossval")
# Folders and what they are called, the bundled model's recipe first.
WAYS = {"accurate": "accurate", "three-views": "three views (0.2.1)", "notebook": "notebook"}
HEAD = """\
| patient | fold | Dice | HD95 mm | ASSD mm | surface Dice 3 mm | volume error |
|---|---|---|---|---|---|---|"""


def crossval_table() -> str:
    """A line for each patient, and mean, median and worst, of the bundled model's recipe."""
    tested, lines = scores_of("accurate"), [HEAD]
    for case, (fold, each) in tested.items():
        scores = each.scores
        lines.append(
            f"| {case} | {fold} | {scores.dice:.4f} | {scores.hd95_mm:.2f} | {scores.assd_mm:.2f} "
            f"| {scores.surface_dice_3mm:.3f} | {scores.volume_error_percent:+.1f} % |"
        )
    summary = summarise([case for _, case in tested.values()])
    for figure in ("mean", "median", "worst"):
        dice, hd95, assd, surface = (
            getattr(summary[name], figure) for name in ("dice", "hd95_mm", "assd_mm", "surface_dice_3mm")
        )
        error = summary["volume_error_percent"].mean_absolute
        volume = f"{error:.1f} % (absolute)" if figure == "mean" else ""
        lines.append(f"| **{figure}** | | **{dice:.4f}** | {hd95:.2f} | {assd:.2f} | {surface:.3f} | {volume} |")
    return "\n".join(lines)


def comparison() -> str:
    """Dice and HD95 of all ways by patient, and what Wilcoxon's signed-rank test says of their Dice."""
    ways = {name: scores_of(folder) for folder, name in WAYS.items()}
    first = next(iter(ways))
    lines = [
        "| patient |" + "".join(f" {name}: Dice | HD95 mm |" for name in ways),
        "|---|" + "---|---|" * len(ways),
    ]
    for case in ways[first]:
        scores = [tested[case][1].scores for tested in ways.values()]
        lines.append(f"| {case} |" + "".join(f" {each.dice:.4f} | {each.hd95_mm:.2f} |" for each in scores))
    for figure in ("mean", "median", "worst"):
        summaries = [summarise([case for _, case in tested.values()]) for tested in ways.values()]
        cells = (
            f" **{getattr(each['dice'], figure):.4f}** | {getattr(each['hd95_mm'], figure):.2f} |" for each in summaries
        )
        lines.append(f"| **{figure}** |" + "".join(cells))
    dice = {name: [case.scores.dice for _, case in tested.values()] for name, tested in ways.items()}
    for name in list(ways)[1:]:
        better = sum(one > other for one, other in zip(dice[first], dice[name], strict=True))
        probability = wilcoxon(dice[first], dice[name]).pvalue
        lines.append(
            f"\n*{first}* has the higher Dice than *{name}* in {better} of {len(dice[first])} patients "
            f"(Wilcoxon's signed-rank test: p = {probability:.2g})."
        )
    return "\n".join(lines)


def scores_of(way: str) -> dict[str, tuple[str, CaseScores]]:
    """By patient: the fold and the scores."""
    found = {
        case.case: (path.stem.removeprefix("fold"), case)
        for path in sorted((FOLDS / way).glob("fold*.json"))
        for case in read_scores(path)
    }
    return dict(sorted(found.items()))


if __name__ == "__main__":
    print(crossval_table(), comparison(), sep="\n\n")
