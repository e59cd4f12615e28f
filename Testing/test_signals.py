"""What a run tells of its own quality, on arrays small enough to do the sums on paper."""

from dataclasses import replace

import numpy as np
import pytest

from LiverUNetLib.models.spec import ModelSpec
from LiverUNetLib.segmentation.grid import Axis, Grid
from LiverUNetLib.segmentation.looks import CoarseLooked
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.segmentation.signals import coarse_dice, dice, expected_dice, noise_hu
from LiverUNetLib.steps import finish


def grid_of(shape, spacing_mm, start_mm=(0.0, 0.0, 0.0)) -> Grid:
    return Grid(*(Axis(start, step, size) for start, step, size in zip(start_mm, spacing_mm, shape, strict=True)))


def test_dice_is_twice_what_both_share_by_what_both_have():
    assert dice(np.array([1, 1, 0], bool), np.array([0, 1, 1], bool)) == 2 * 1 / (2 + 2)
    assert dice(np.array([1, 1], bool), np.array([0, 0], bool)) == 0
    assert dice(np.zeros(2, bool), np.zeros(2, bool)) == 1


def test_the_expected_dice_counts_what_the_probabilities_expect_inside_and_outside():
    probability = np.array([[[0.9, 0.8], [0.2, 0.1]]])
    mask = probability > 0.5
    # 1.7 of 2 voxels are expected to be liver, and 2.0 in all.
    assert expected_dice(probability, mask) == pytest.approx(2 * 1.7 / (2 + 2.0))
    assert expected_dice(mask.astype(float), mask) == 1


def test_the_coarse_look_is_compared_where_the_fine_one_looked():
    fine = grid_of((4, 4, 4), (2.0, 2.0, 2.0), (4.0, 0.0, 0.0))
    mask = np.zeros((4, 4, 4), bool)
    mask[:2, :2, :2] = True
    probability = np.zeros((4, 2, 2), np.float32)
    probability[1, 0, 0] = 0.9  # the cube of the mask
    probability[2, 1, 1] = 0.6  # another that the fine look saw
    probability[3, 0, 0] = 0.9  # one beyond it
    coarse = CoarseLooked(fine.whole, grid_of((4, 2, 2), (4.0, 4.0, 4.0)), probability)
    assert coarse_dice(mask, fine, coarse, ModelSpec()) == pytest.approx(2 * 1 / (1 + 2))
    assert coarse_dice(mask, fine, CoarseLooked(fine.whole), ModelSpec()) is None


def test_noise_is_measured_beside_edges_and_slopes():
    rows = np.linspace(-60, 60, 200)[:, None]  # brighter towards the back, which is no noise along the rows
    image = rows + np.random.default_rng(0).normal(100, 12, (3, 200, 200))
    inside = np.ones(image.shape, bool)
    assert noise_hu(image, inside) == pytest.approx(12, rel=0.02)
    image[..., 100:] += 300
    assert noise_hu(image, inside) == pytest.approx(12, rel=0.03)
    assert noise_hu(image, np.zeros(image.shape, bool)) == 0


def test_a_sure_run_agrees_with_itself_and_a_noisy_one_does_not(a_phantom, two_looks_model, cpu):
    scan, _ = a_phantom
    sure = finish(segment(scan, two_looks_model, cpu)).signals
    noise = np.random.default_rng(0).normal(0, 20, scan.hu_kji.shape)
    noisy = replace(scan, hu_kji=(scan.hu_kji + noise).round().astype(np.int16))
    unsure = finish(segment(noisy, two_looks_model, cpu)).signals
    for name in ("expected_dice", "coarse_dice"):
        assert getattr(unsure, name) < getattr(sure, name), name
    # A network that sees one pixel at a time gives the same wherever its image begins.
    assert sure.repeated_dice == unsure.repeated_dice == 1


def test_a_model_that_looks_once_has_no_coarse_signal_and_an_empty_mask_has_none(a_phantom, threshold_model, cpu):
    scan, _ = a_phantom
    assert finish(segment(scan, threshold_model, cpu)).signals.coarse_dice is None
    darker = replace(scan, hu_kji=np.minimum(scan.hu_kji, 40))
    result = finish(segment(darker, threshold_model, cpu))
    assert result.measurement.volume_ml == 0
    assert result.signals is None
