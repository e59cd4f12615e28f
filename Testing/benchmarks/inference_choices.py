"""What each choice in inference is worth, with the weights of the folds that a cross-validation has finished.

    python Testing/benchmarks/inference_choices.py ../shared/data/ircad --work CROSSVAL_FOLDER [--fold 3 4]

The network of the fold that holds a patient out sees that patient once in each view, once mirrored, and once
on every other grid; all that follows is done anew for every choice. The table goes to
Testing/benchmarks/inference_choices.md.
"""

import argparse
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
from scipy import ndimage

from LiverUNetLib.card import THRESHOLD
from LiverUNetLib.engines import Network
from LiverUNetLib.environment import choose_device
from LiverUNetLib.geometry import PreprocessingSpec
from LiverUNetLib.inference import predict_volume
from LiverUNetLib.model import LiverModel, open_model
from LiverUNetLib.pipeline import segment
from LiverUNetLib.steps import finish
from LiverUNetLib.views import VIEWS
from LiverUNetTrainLib.dataset import Case
from LiverUNetTrainLib.evaluation import CaseScores, compare_masks, summarise
from LiverUNetTrainLib.layouts import find_cases

TABLE = Path(__file__).with_name("inference_choices.md")
AFTERWORD = (
    "Models keep the grid that they have learned on; what a finer one does on other hospitals stands in "
    "[other_hospitals.md](other_hospitals.md)."
)


@dataclass(frozen=True)
class Choice:
    """Weights of the views, and what else is not as the pipeline has it."""

    change: str
    weights: tuple[float, ...] = (1, 1, 1)
    threshold: float = THRESHOLD
    pixel_mm: float = PreprocessingSpec().pixel_mm
    smoothing: float = 0.0
    mirrored: bool = False
    all_parts: bool = False


CHOICES = (
    Choice(f"three views, averaged; threshold {THRESHOLD:g}; the component with the most evidence"),
    *(Choice(f"threshold {threshold:g}", threshold=threshold) for threshold in (0.3, 0.35, 0.45, 0.5)),
    Choice("axial slices alone, of the network that has learned all three", weights=(1, 0, 0)),
    Choice("coronal and sagittal slices alone", weights=(0, 1, 1)),
    Choice("axial slices count twice", weights=(2, 1, 1)),
    Choice("averaged with the mirrored scan (test-time augmentation)", mirrored=True),
    *(Choice(f"model grid of {mm:g} mm, with the same weights", pixel_mm=mm) for mm in (1.25, 1.8)),
    Choice("smoothed along z, Gaussian of 0.5 slices", smoothing=0.5),
    Choice("smoothed along z, Gaussian of 1 slice", smoothing=1.0),
    Choice("all components kept", all_parts=True),
)


class Seen:
    """What a network sees of one scan, asked once for each grid, view and side.

    Attributes:
        seconds: that the last choice would have taken to look.
        waited: that it did take, since much had been seen before.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[float, str, int], tuple[np.ndarray, float]] = {}
        self.seconds = self.waited = 0.0

    def probability(
        self, choice: Choice, look: Callable[[str, np.ndarray], np.ndarray], image: np.ndarray
    ) -> np.ndarray:
        """The weighted mean of the views; `look` asks the network."""
        self.seconds = self.waited = 0.0
        total = np.zeros(image.shape, np.float32)
        sides = (1, -1) if choice.mirrored else (1,)
        for view, weight in zip(VIEWS, choice.weights, strict=True):
            for side in sides if weight else ():
                key = choice.pixel_mm, view, side
                if key not in self._found:
                    started = time.monotonic()
                    found = look(view, np.ascontiguousarray(image[:, :, ::side]))[:, :, ::side]
                    self._found[key] = found, time.monotonic() - started
                    self.waited += self._found[key][1]
                found, seconds = self._found[key]
                total += found * (weight / sum(choice.weights) / len(sides))
                self.seconds += seconds
        return ndimage.gaussian_filter1d(total, choice.smoothing, axis=0) if choice.smoothing else total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--fold", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    options = parser.parse_args()
    scores: dict[Choice, list[CaseScores]] = {choice: [] for choice in CHOICES}
    cases = find_cases(options.data)
    for fold in options.fold:
        model = open_model(options.work / f"fold{fold}/model")
        for case in [case for case in cases if case.name in model.card.lineage.held_out]:
            for choice, score in evaluated(model, case).items():
                scores[choice].append(score)
            print(case.name, *(f"{found[-1].scores.dice:.4f}" for found in scores.values()), flush=True)
    write_table(scores, options.fold)


def evaluated(model: LiverModel, case: Case) -> dict[Choice, CaseScores]:
    """The scores of every choice on one patient."""
    scan, reference = case.read()
    seen, device = Seen(), choose_device("auto")
    network = model.network(device)
    found = {}
    for choice in CHOICES:
        changes = {"predict_volume": partial(predicted, seen, choice)}
        if choice.all_parts:
            changes |= {"without_other_components": lambda probability, _: probability, "largest_component": np.asarray}
        spec = replace(model.card.preprocessing, pixel_mm=choice.pixel_mm)
        chosen = replace(model, card=replace(model.card, threshold=choice.threshold, preprocessing=spec))
        started = time.monotonic()
        with mock.patch.multiple("LiverUNetLib.pipeline", **changes):
            mask = finish(segment(scan, chosen, device, network=network)).mask_kji
        seconds = time.monotonic() - started - seen.waited + seen.seconds
        found[choice] = CaseScores(
            case.name, "held out", compare_masks(mask, reference.hu_kji, scan.spacing_kji_mm), seconds
        )
    return found


def predicted(
    seen: Seen,
    choice: Choice,
    network: Network,
    image: np.ndarray,
    slice_mm: float,
    spec: PreprocessingSpec,
    *,
    multiple: int,
    threshold: float,
) -> Generator[tuple[int, int], None, np.ndarray]:
    """What stands in for `predict_volume`."""

    def look(view: str, image: np.ndarray) -> np.ndarray:
        one = replace(spec, views=(view,))
        return finish(predict_volume(network, image, slice_mm, one, multiple=multiple, threshold=threshold))

    yield 1, 1
    return seen.probability(choice, look, image)


def write_table(scores: dict[Choice, list[CaseScores]], folds: list[int]) -> None:
    count = len(next(iter(scores.values())))
    lines = [
        "# What each choice in inference is worth",
        "",
        f"The models of folds {', '.join(map(str, folds))} of the cross-validation on the {count} patients that they "
        "hold out. Made by `python Testing/benchmarks/inference_choices.py ../shared/data/ircad --work W --fold "
        f"{' '.join(map(str, folds))}`, on one thread.",
        "",
        "| change | mean Dice | worst | HD95 mm | ASSD mm | volume error | s per CT |",
        "|---|---|---|---|---|---|---|",
    ]
    for choice, cases in scores.items():
        summary = summarise(cases)
        figures = [
            choice.change,
            f"{summary['dice']['mean']:.4f}",
            f"{summary['dice']['worst']:.4f}",
            f"{summary['hd95_mm']['mean']:.2f}",
            f"{summary['assd_mm']['mean']:.2f}",
            f"{summary['volume_error_percent']['mean_absolute']:.1f} %",
            f"{np.mean([case.seconds for case in cases]):.1f}",
        ]
        lines.append(f"| {' | '.join(figures)} |")
    TABLE.write_text("\n".join([*lines, "", AFTERWORD]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
