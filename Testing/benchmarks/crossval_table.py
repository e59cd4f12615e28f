"""Print the cross-validations in Testing/benchmarks/crossval, in which every patient of 3D-IRCADb-01 is tested once.

    python Testing/benchmarks/crossval_table.py

`crossval/WAY/foldN.json` is what `liver-unet-train crossval … --fold N --json foldN.json` wrote; its command is in
it. All ways deal the patients into the same folds. The first table has all measures of the bundled model's recipe,
the second one compares all ways.
"""

from pathlib import Path

from scipy.stats import wilcoxon

from LiverUNetLib.models.scores import Figures
from LiverUNetTrainLib.evaluation.measures import MAIN_MEASURES, Measure
from LiverUNetTrainLib.evaluation.metrics import CaseScores, summarize
from LiverUNetTrainLib.evaluation.tables import read_scores

FOLDS = Path(__file__).with_name("crossval")
# Folders and what they are called, the bundled model's recipe first.
WAYS = {"accurate": "accurate", "three-views": "three views (0.2.1)", "notebook": "notebook"}


def crossval_table() -> str:
    """A line for each patient, and mean, median and worst, of the bundled model's recipe."""
    tested = scores_of("accurate")
    headings = ["patient", "fold", *(measure.heading for measure in MAIN_MEASURES)]
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    for case, (fold, each) in tested.items():
        texts = (measure.text(getattr(each.scores, measure.name)) for measure in MAIN_MEASURES)
        lines.append(f"| {case} | {fold} | {' | '.join(texts)} |")
    summary = summarize([case for _, case in tested.values()])
    for figure in ("mean", "median", "worst"):
        dice, *others = (summary_text(measure, summary.get(measure.name), figure) for measure in MAIN_MEASURES)
        lines.append(f"| **{figure}** | | **{dice}** | {' | '.join(others)} |")
    return "\n".join(lines)


def summary_text(measure: Measure, figures: Figures | None, figure: str) -> str:
    """The mean, the median or the worst; of errors only the mean of their sizes."""
    if figure == "mean":
        return measure.mean_text(figures)
    return "" if measure.better == "zero" else measure.text(getattr(figures, figure, None))


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
        summaries = [summarize([case for _, case in tested.values()]) for tested in ways.values()]
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
