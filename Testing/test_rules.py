"""The numbers of the card decide where the fine look is taken, what is liver, and which warnings are given."""

from dataclasses import replace

import numpy as np
import pytest

from helpers import save_two_looks
from LiverUNetLib.models.card import FINE, onnx_file
from LiverUNetLib.models.engines import OnnxNetwork
from LiverUNetLib.models.spec import CoarseLook, Rules
from LiverUNetLib.scan.phantom import LIVER, axial_affine
from LiverUNetLib.scan.volume import CTVolume
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.steps import finish

# Slices of 5 mm, pixels of 4 mm; so are those of the fine look.
SHAPE, SPACING_MM = (60, 60, 70), (4.0, 4.0, 5.0)
# Of the fine look's probability and of the coarse one's, where that is narrow: 0.82 and 0.001 or less.
BESIDE = LIVER + 7


def fat() -> np.ndarray:
    return np.random.default_rng(0).normal(-90, 12, SHAPE).round().astype(np.int16)


def scan_of(hu: np.ndarray, spacing_mm=SPACING_MM) -> CTVolume:
    return CTVolume(hu, axial_affine(spacing_mm, hu.shape[::-1]))


@pytest.fixture
def a_model(tmp_path):
    """Make a model of two looks; the coarse one finds only voxels within 3 HU of the liver."""

    def make(**options):
        return save_two_looks(tmp_path / "model", coarse_width_hu=3.0, **options)

    return make


def looks_at(volume, model, device, **options):
    """The result, and the sizes of the parts that were looked at finely: slices, rows, columns."""
    sizes, sides = [], []

    class Watched(OnnxNetwork):
        def __call__(self, image: np.ndarray) -> np.ndarray:
            sides.append(image.shape[2:])
            return super().__call__(image)

    networks = replace(model.networks(device), fine=Watched(model.read(onnx_file(FINE)), 1, device))

    def note(progress) -> None:
        if progress.stage == "Segmenting" and progress.done == progress.total:
            sizes.append((progress.total, *sides[-1]))

    return finish(segment(volume, model, device, networks=networks, **options), note), sizes


def test_a_liver_that_the_coarse_look_finds_is_looked_at_once(a_model, cpu):
    hu, liver = fat(), np.zeros(SHAPE, bool)
    liver[20:30, 20:40, 30:50] = True
    hu[liver] = LIVER
    result, sizes = looks_at(scan_of(hu), a_model(), cpu, with_probability=True)
    assert np.array_equal(result.mask_kji, liver)
    assert result.warnings == ()
    # The cubes whose middles lie between those of its slices are 44 of its 50 mm, and 16 more to both sides; in the
    # pixels, on which the cubes lie, 80 mm and 16 to both sides.
    assert sizes == [(16, 28, 28)]
    seen = np.argwhere(result.probability_kji)
    assert (seen.min(axis=0) >= [15, 16, 26]).all()
    assert (seen.max(axis=0) <= [34, 43, 53]).all()


@pytest.mark.slow
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("end", [0, 1])
def test_a_liver_that_the_box_cuts_is_looked_at_again_until_it_is_whole(axis, end, a_model, cpu):
    hu, liver = fat(), np.zeros(SHAPE, bool)
    long, found = [slice(25, 35)] * 3, [slice(25, 35)] * 3
    long[axis] = slice(5, 55)
    found[axis] = slice(45, 55) if end else slice(5, 15)
    liver[tuple(long)] = True
    hu[liver] = BESIDE
    hu[tuple(found)] = LIVER
    result, sizes = looks_at(scan_of(hu), a_model(), cpu)
    assert np.array_equal(result.mask_kji, liver)
    (warning,) = result.warnings
    assert warning.startswith("The coarse look and the fine one found different things"), "it found a fifth alone"
    # 40 voxels more than the coarse look has found, 160 or 200 mm: 16, then 16, 32, 64 and 128 more are enough.
    assert len(sizes) == 5 if axis == 0 else 4
    grown = [size[axis] for size in sizes]
    assert grown == sorted(set(grown))
    others = {size[:axis] + size[axis + 1 :] for size in sizes}
    assert len(others) == 1, "nothing else grows"


def test_a_box_does_not_grow_beyond_the_ends_of_the_scan(a_model, cpu):
    hu, liver = fat(), np.zeros(SHAPE, bool)
    liver[:, 20:30, 20:30] = True
    hu[liver] = BESIDE
    hu[28:32, 20:30, 20:30] = LIVER
    result, sizes = looks_at(scan_of(hu), a_model(rules=Rules(doubtful_ml=0.0)), cpu)
    assert np.array_equal(result.mask_kji, liver)
    assert result.measurement.cut_off == ("inferior", "superior")
    assert sizes[-1][0] == 60
    assert len(sizes) == 4  # 16, 32, 64 and 128 mm to both sides, as there are 140


def test_a_margin_thinner_than_a_slice_is_a_slice(a_model, cpu):
    hu, liver = fat()[:12], np.zeros((12, *SHAPE[1:]), bool)
    liver[2:10, 20:40, 20:40] = True
    hu[liver] = BESIDE
    hu[2:4, 20:40, 20:40] = LIVER
    model = a_model(coarse=CoarseLook(voxel_mm=10.0, margin_mm=4.0))
    result, _ = looks_at(scan_of(hu, (4.0, 4.0, 20.0)), model, cpu)
    assert np.array_equal(result.mask_kji, liver)


@pytest.mark.parametrize(("threshold", "whole"), [(0.5, True), (0.7, False)])
def test_the_threshold_decides_the_mask_and_how_far_the_box_grows(threshold, whole, a_model, cpu):
    """Half of the liver has a probability of 0.62, so that it is liver for one card and not for the other."""
    hu, sure, doubtful = fat(), np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    sure[10:20, 20:40, 20:40], doubtful[20:40, 20:40, 20:40] = True, True
    hu[sure], hu[doubtful] = LIVER, LIVER + 9
    result, sizes = looks_at(scan_of(hu), a_model(rules=Rules(threshold=threshold)), cpu)
    assert np.array_equal(result.mask_kji, sure | doubtful if whole else sure)
    assert (len(sizes) > 1) == whole
    assert result.provenance.settings.rules.threshold == threshold


@pytest.mark.parametrize(("threshold", "main"), [(0.5, slice(20, 40)), (0.7, slice(5, 15))])
def test_the_threshold_decides_which_component_is_the_liver(threshold, main, tmp_path, cpu):
    """The larger of two parts has a probability of 0.62 and, at 0.5, more evidence: 8000 * 0.5 against 1000 * 3."""
    hu = fat()
    hu[5:15, 5:15, 5:15], hu[20:40, 20:40, 20:40] = LIVER + 4, LIVER + 9
    model = save_two_looks(tmp_path / "m", coarse=CoarseLook(margin_mm=200), rules=Rules(threshold=threshold))
    result, _ = looks_at(scan_of(hu), model, cpu)
    assert np.flatnonzero(result.mask_kji.any(axis=(1, 2))).tolist() == list(range(60))[main]


# A block of 10 x 20 x 20 voxels of 0.08 ml: 320 ml, of a probability of 0.73.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("rules", "warning"),
    [
        (Rules(), None),
        (
            Rules(doubtful_ml=350, doubtful_probability=0.95),
            "No liver was found; the mask is empty. What looked most like one, 320 ml, is too doubtful: "
            "less than 350 ml with a mean probability below 0.95.",
        ),
        (Rules(doubtful_ml=350, doubtful_probability=0.7), None),
        (Rules(doubtful_ml=300, doubtful_probability=0.95), None),
        (Rules(doubtful_probability=0.7, minimum_ml=330), "No liver was found; the mask is empty."),
        (Rules(threshold=0.75), "No liver was found; the mask is empty."),
    ],
)
def test_the_card_decides_what_is_too_small_or_too_doubtful(rules, warning, tmp_path, cpu):
    hu = fat()
    hu[20:30, 20:40, 20:40] = LIVER + 8
    result, _ = looks_at(scan_of(hu), save_two_looks(tmp_path / "model", rules=rules), cpu)
    assert result.warnings == (() if warning is None else (warning,))
    assert result.measurement.volume_ml == pytest.approx(320 if warning is None else 0)
    assert result.mask_kji.any() == (warning is None)


def test_without_a_liver_the_likeliest_part_and_then_the_whole_scan_are_looked_at(a_model, cpu):
    hu = fat()
    hu[30:40, 20:40, 20:40] = LIVER + 40  # a probability of 3e-7 at most
    result, sizes = looks_at(scan_of(hu), a_model(), cpu, with_probability=True)
    assert result.warnings == ("No liver was found; the mask is empty.",)
    assert not result.mask_kji.any()
    assert not result.probability_kji.any()
    (slices, rows, columns), everything = sizes
    assert everything == SHAPE
    assert slices <= 20
    assert rows <= 30
    assert columns <= 30


def test_a_short_scan_has_only_a_fine_look_at_all_of_it(a_model, cpu):
    hu, liver = fat()[:7], np.zeros((7, *SHAPE[1:]), bool)
    liver[2:5, 20:40, 30:50] = True
    hu[liver] = LIVER
    result, sizes = looks_at(scan_of(hu), a_model(), cpu)
    assert np.array_equal(result.mask_kji, liver)
    assert sizes == [(7, 60, 70)]
