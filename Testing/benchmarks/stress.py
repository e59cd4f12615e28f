"""How a model holds up where hospitals and patients differ: real cases, altered in one way at a time.

    python Testing/benchmarks/stress.py ../shared/data/ircad [--model liver-ct] [--limit N]

Takes the cases that the model holds out, never those it has learned from. The data show few of
these situations, so each is imitated; what the imitation is stands in the code beside its name. The
table goes to Testing/benchmarks/stress.md.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from LiverUNetLib.models.store import DEFAULT_MODEL, find_model
from LiverUNetLib.scan.volume import CTVolume
from LiverUNetLib.segmentation.measurement import bounding_box
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.steps import finish
from LiverUNetLib.system.environment import choose_device
from LiverUNetTrainLib.data.cases import content_hash
from LiverUNetTrainLib.data.layouts import find_cases
from LiverUNetTrainLib.evaluation.metrics import MaskScores, compare_masks

TABLE = Path(__file__).with_name("stress.md")
AIR, FAT, WATER = -1000, -90, 10

Case = tuple[CTVolume, np.ndarray]
Alteration = Callable[[CTVolume, np.ndarray], Case | None]


def on_voxels(change: Callable[[np.ndarray, np.ndarray, tuple[float, float, float]], np.ndarray]) -> Alteration:
    """An alteration of HU alone, given HU as float32, mask and spacing."""

    def alter(scan: CTVolume, mask: np.ndarray) -> Case:
        hu = change(scan.hu_kji.astype(np.float32), mask != 0, scan.spacing_kji_mm)
        return replace(scan, hu_kji=np.rint(np.clip(hu, -3024, 3071)).astype(np.int16)), mask

    return alter


def noise(sigma_hu: float) -> Alteration:
    """Noise of low dose, correlated over neighbouring pixels as in a reconstruction, of this standard deviation."""

    def change(hu, mask, spacing):
        grain = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=hu.shape), (0, 0.6, 0.6))
        return hu + sigma_hu * (grain / grain.std()).astype(np.float32)

    return on_voxels(change)


def smooth(hu, mask, spacing):
    """A soft kernel: Gaussian of 1.5 mm in plane."""
    return ndimage.gaussian_filter(hu, (0, 1.5 / spacing[1], 1.5 / spacing[2]))


def sharp(hu, mask, spacing):
    """A sharp kernel: edges enhanced, and noise of 25 HU with them."""
    noisy = hu + np.random.default_rng(0).normal(0, 25, hu.shape).astype(np.float32)
    return noisy + 0.8 * (noisy - ndimage.gaussian_filter(noisy, (0, 1, 1)))


def slices(millimetres: float) -> Alteration:
    """Slices of this thickness: averaged, or interpolated where they are thinner than the scan's."""

    def alter(scan: CTVolume, mask: np.ndarray) -> Case | None:
        step = scan.spacing_kji_mm[0]
        if millimetres > step:
            block = round(millimetres / step)
            count = len(mask) // block
            hu, share = (
                array[: count * block].reshape(count, block, *array.shape[1:]).mean(axis=1, dtype=np.float32)
                for array in (scan.hu_kji, mask != 0)
            )
            factor = float(block)
        else:
            factor = millimetres / step
            hu, share = (
                ndimage.zoom(array.astype(np.float32), (1 / factor, 1, 1), order=1, grid_mode=True, mode="nearest")
                for array in (scan.hu_kji, mask != 0)
            )
        to_centre = np.eye(4)
        to_centre[2, 2], to_centre[2, 3] = factor, (factor - 1) / 2
        return CTVolume(np.rint(hu).astype(np.int16), scan.affine @ to_centre, scan.name), share > 0.5

    return alter


def unenhanced(hu, mask, spacing):
    """No contrast medium: what is above 45 HU comes down to a third of its distance, bone stays."""
    return np.where((hu > 45) & (hu < 250), 45 + (hu - 45) / 3, hu)


def liver_by(shift_hu: float) -> Alteration:
    """The liver alone brighter or darker: an early phase, fat, or iron."""

    def change(hu, mask, spacing):
        return hu + shift_hu * ndimage.gaussian_filter(mask.astype(np.float32), 1)

    return on_voxels(change)


def lesions(hu_inside: float, diameters_mm: tuple[float, ...]) -> Alteration:
    """Spheres of one density deep in the liver, soft at their edge; they belong to the liver."""

    def change(hu, mask, spacing):
        depth = ndimage.distance_transform_edt(mask, sampling=spacing)
        random = np.random.default_rng(1)
        for diameter in diameters_mm:
            candidates = np.argwhere(depth > min(diameter / 3, 0.9 * depth.max()))
            centre = candidates[random.integers(len(candidates))]
            grid = np.ogrid[tuple(slice(0, size) for size in hu.shape)]
            distance = np.sqrt(sum(((axis - c) * mm) ** 2 for axis, c, mm in zip(grid, centre, spacing, strict=True)))
            weight = np.clip((diameter / 2 - distance) / 3, 0, 1) * mask
            hu = hu * (1 - weight) + (hu_inside + random.normal(0, 12, hu.shape)) * weight
        return hu

    return on_voxels(change)


def ascites(hu, mask, spacing):
    """Fluid around the liver: fat within 15 mm of it becomes water."""
    distance = ndimage.distance_transform_edt(~mask, sampling=spacing)
    fluid = (distance > 0) & (distance < 15) & (hu > -160) & (hu < -30)
    return np.where(fluid, WATER + np.random.default_rng(0).normal(0, 12, hu.shape), hu)


def resected(scan: CTVolume, mask: np.ndarray) -> Case:
    """The left third of the liver taken out, fat in its place."""
    column = np.flatnonzero(mask.any(axis=(0, 1)))
    left_is_high = scan.affine[0, 0] < 0
    cut = np.quantile(column, 2 / 3 if left_is_high else 1 / 3)
    gone = np.arange(mask.shape[2]) > cut if left_is_high else np.arange(mask.shape[2]) < cut
    removed = (mask != 0) & gone
    grain = np.random.default_rng(0).normal(FAT, 12, mask.shape)
    return replace(scan, hu_kji=np.where(removed, grain, scan.hu_kji).astype(np.int16)), mask * ~gone


def sized(factor: float) -> Alteration:
    """The whole patient larger or smaller."""
    return lambda scan, mask: (replace(scan, affine=scan.affine @ np.diag([factor, factor, factor, 1])), mask)


def small_field_of_view(scan: CTVolume, mask: np.ndarray) -> Case:
    """Only the liver and 15 mm around it in plane, as in a targeted reconstruction."""
    _, rows, columns = bounding_box(mask)
    part = [slice(None)]
    for box, mm in ((rows, scan.spacing_kji_mm[1]), (columns, scan.spacing_kji_mm[2])):
        margin = math.ceil(15 / mm)
        part.append(slice(max(box.start - margin, 0), box.stop + margin))
    shift = np.eye(4)
    shift[:2, 3] = part[2].start, part[1].start
    return CTVolume(scan.hu_kji[tuple(part)], scan.affine @ shift, scan.name), mask[tuple(part)]


def padded(hu, mask, spacing):
    """A circle of data in a square of -2000, as some scanners write."""
    rows, columns = np.ogrid[: hu.shape[1], : hu.shape[2]]
    radius = (np.array(hu.shape[1:]) - 1) / 2
    outside = ((rows - radius[0]) / radius[0]) ** 2 + ((columns - radius[1]) / radius[1]) ** 2 > 1
    return np.where(outside, -2000, hu)


def windowed(hu, mask, spacing):
    """What an export with a soft-tissue window keeps."""
    return np.clip(hu, -160, 240)


def metal(hu, mask, spacing):
    """A metal rod in the spine, with bright and dark streaks across the slices."""
    body = ndimage.center_of_mass(hu.mean(axis=0) > -300)
    row, column = int(body[0] + 50 / spacing[1]), int(body[1])
    angle = np.arctan2(
        *(
            np.arange(size)[axis] - middle
            for axis, size, middle in (
                ((slice(None), None), hu.shape[1], row),
                ((None, slice(None)), hu.shape[2], column),
            )
        )
    )
    hu = hu + 60 * np.sin(9 * angle) ** 3
    hu[:, row - 3 : row + 3, column - 3 : column + 3] = 3071
    return hu


def part_of_the_liver(millimetres: float, *, upper: bool) -> Alteration:
    """The scan ends inside the liver: a thorax with its uppermost part, or a pelvis with its lowest."""

    def alter(scan: CTVolume, mask: np.ndarray) -> Case:
        found = np.flatnonzero(mask.any(axis=(1, 2)))
        count = round(millimetres / scan.spacing_kji_mm[0])
        towards_head = scan.affine[2, 2] > 0
        part = slice(found[-1] - count + 1, None) if upper == towards_head else slice(0, found[0] + count)
        return replace(scan, hu_kji=scan.hu_kji[part]), mask[part]

    return alter


def short_stack(height: float) -> Alteration:
    """Three slices of about 5 mm, and nothing else, at this share of the liver's height, counted from its tip."""

    def alter(scan: CTVolume, mask: np.ndarray) -> Case:
        found = np.flatnonzero(mask.any(axis=(1, 2)))
        block = max(round(5 / scan.spacing_kji_mm[0]), 1)
        share = height if scan.affine[2, 2] > 0 else 1 - height
        first = round(found[0] + share * (found[-1] - found[0]) - 1.5 * block)
        first = min(max(first, 0), len(mask) - 3 * block)
        part = slice(first, first + 3 * block)
        return slices(5)(replace(scan, hu_kji=scan.hu_kji[part]), mask[part])

    return alter


def without_liver(*, above: bool) -> Alteration:
    """Only the slices at least 15 mm above, or below, the liver; none where there are fewer than ten."""

    def alter(scan: CTVolume, mask: np.ndarray) -> Case | None:
        found = np.flatnonzero(mask.any(axis=(1, 2)))
        margin = math.ceil(15 / scan.spacing_kji_mm[0])
        towards_head = scan.affine[2, 2] > 0
        part = slice(found[-1] + margin, None) if above == towards_head else slice(0, max(found[0] - margin, 0))
        if len(mask[part]) < 10:
            return None
        return replace(scan, hu_kji=scan.hu_kji[part]), mask[part]

    return alter


ALTERATIONS: dict[str, Alteration] = {
    "as it is": lambda scan, mask: (scan, mask),
    "soft kernel": on_voxels(smooth),
    "sharp kernel": on_voxels(sharp),
    "noise 30 HU": noise(30),
    "noise 60 HU": noise(60),
    "slices of 0.8 mm": slices(0.8),
    "slices of about 5 mm": slices(5),
    "slices of about 10 mm": slices(10),
    "unenhanced": on_voxels(unenhanced),
    "early phase, liver -30 HU": liver_by(-30),
    "fatty liver, -70 HU": liver_by(-70),
    "dense liver, +40 HU": liver_by(40),
    "tumour of 80 mm": lesions(50, (80,)),
    "cysts of 40, 30 and 20 mm": lesions(8, (40, 30, 20)),
    "ascites": on_voxels(ascites),
    "left third resected": resected,
    "patient 25 % larger": sized(1.25),
    "patient 20 % smaller": sized(0.8),
    "small field of view": small_field_of_view,
    "padding of -2000": on_voxels(padded),
    "metal in the spine": on_voxels(metal),
    "window of [-160, 240] HU only": on_voxels(windowed),
    **{f"three slices of 5 mm, {height:.0%} up the liver": short_stack(height) for height in (0.1, 0.3, 0.5, 0.7, 0.9)},
    "thorax with 40 mm of liver": part_of_the_liver(40, upper=True),
    "pelvis with 40 mm of liver": part_of_the_liver(40, upper=False),
    "thorax only, no liver": without_liver(above=True),
    "pelvis only, no liver": without_liver(above=False),
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
