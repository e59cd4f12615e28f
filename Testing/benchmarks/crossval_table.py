"""Print the folds in Testing/benchmarks/crossval as one table: every patient of 3D-IRCADb-01, tested once.

    python Testing/benchmarks/crossval_table.py

Each file is what `liver-unet-train crossval … --fold N --json foldN.json` wrote.
"""

from pathlib import Path

from LiverUNetTrainLib.evaluation import summarise
from LiverUNetTrainLib.tables import read_scores

FOLDS = Path(__file__).with_name("crossval")
HEAD = """\
| patient | fold | Dice | HD95 mm | ASSD mm | surface Dice 3 mm | volume error |
|---|---|---|---|---|---|---|"""


def crossval_table() -> str:
    """A line a patient, and mean, median and worst."""
    folds = {path.stem.removeprefix("fold"): read_scores(path) for path in sorted(FOLDS.glob("fold*.json"))}
    tested = sorted(((case, fold) for fold, cases in folds.items() for case in cases), key=lambda pair: pair[0].case)
    lines = [HEAD]
    for case, fold in tested:
        scores = case.scores
        lines.append(
            f"| {case.case} | {fold} | {scores.dice:.4f} | {scores.hd95_mm:.2f} | {scores.assd_mm:.2f} "
            f"| {scores.surface_dice_3mm:.3f} | {scores.volume_error_percent:+.1f} % |"
        )
    summary = summarise([case for case, _ in tested])
    for figure in ("mean", "median", "worst"):
        dice, hd95, assd, surface = (
            summary[name][figure] for name in ("dice", "hd95_mm", "assd_mm", "surface_dice_3mm")
        )
        error = summary["volume_error_percent"]["mean_absolute"]
        volume = f"{error:.1f} % (absolute)" if figure == "mean" else ""
        lines.append(f"| **{figure}** | | **{dice:.4f}** | {hd95:.2f} | {assd:.2f} | {surface:.3f} | {volume} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(crossval_table())
