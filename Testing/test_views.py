"""One volume in three views, there and back."""

from dataclasses import replace

import numpy as np
import pytest

from helpers import dice
from LiverUNetLib import inference
from LiverUNetLib.bundle import save_model
from LiverUNetLib.pipeline import segment
from LiverUNetLib.steps import finish
from LiverUNetLib.views import VIEWS, assemble, cut, isotropic, usable_views
from LiverUNetTrainLib.sampling import SliceSampler

ALL = ("axial", "coronal", "sagittal")


def test_a_view_shows_the_right_axes_with_heads_up():
    cube = np.zeros((3, 4, 5), np.float32)  # slices to superior, rows to posterior, columns to the left
    cube[2, 1, 3] = 1
    assert np.argwhere(cut(cube, "axial")).tolist() == [[2, 1, 3]]
    assert np.argwhere(cut(cube, "coronal")).tolist() == [[1, 0, 3]], "slice: row, row: from the head down"
    assert np.argwhere(cut(cube, "sagittal")).tolist() == [[3, 0, 1]]


@pytest.mark.parametrize("view", VIEWS)
def test_what_is_cut_is_assembled_again(view):
    random = np.random.default_rng(0).random((6, 7, 8), dtype=np.float32)
    np.testing.assert_array_equal(assemble(cut(random, view), view, 6), random)
    smooth = np.linspace(0, 1, 6, dtype=np.float32)[:, None, None] * np.ones((6, 7, 8), np.float32)
    there = isotropic(smooth, 4.0, 2.0)
    assert there.shape == (12, 7, 8)
    back = assemble(cut(there, view), view, 6)
    np.testing.assert_allclose(back[1:-1], smooth[1:-1], atol=1e-5)


def test_thick_slices_are_seen_from_above_alone():
    assert usable_views(ALL, 5.0) == ALL
    assert usable_views(ALL, 5.1) == ("axial",)


@pytest.fixture
def three_views(threshold_model, tmp_path):
    """The network of thresholds sees the same in every view, so only geometry can differ."""
    card = replace(
        threshold_model.card, preprocessing=replace(threshold_model.card.preprocessing, views=ALL), name="three"
    )
    return save_model(tmp_path / "three", card, threshold_model.state_dict(), "For tests.\n")


def test_three_views_find_the_liver_that_one_does(a_phantom, threshold_model, three_views, cpu):
    scan, liver = a_phantom
    one = finish(segment(scan, threshold_model, cpu)).mask_kji
    three = finish(segment(scan, three_views, cpu)).mask_kji
    assert dice(three, one) > 0.98
    assert dice(three, liver) > 0.95


def test_a_scan_that_ends_inside_the_liver_is_seen_from_above_alone(a_phantom, three_views, cpu):
    scan, liver = a_phantom
    middle = np.flatnonzero(liver.any(axis=(1, 2))).mean().astype(int)
    half = replace(scan, hu_kji=scan.hu_kji[middle:])

    def slices_seen(part):
        return [step.done for step in segment(part, three_views, cpu) if step.stage == "Segmenting"][-1]

    assert slices_seen(half) == len(half.hu_kji)
    assert slices_seen(scan) > 2 * len(scan.hu_kji)


def test_an_epoch_shows_of_each_view_its_share(a_cache):
    thin = replace(a_cache, cases=tuple(replace(case, slice_mm=4.0) for case in a_cache.cases))
    views = replace(thin, preprocessing=replace(thin.preprocessing, views=ALL))
    sampler = SliceSampler(views, views.cases)
    assert len(sampler.stacks) == 3 * len(a_cache.cases)
    slices = sampler.epoch(0, 0, empty_slices=0.0)
    with_liver = sum(int(stack.has_liver.sum()) for stack in sampler.stacks)
    assert len(slices) == pytest.approx(with_liver / 3, rel=0.3)
    image, mask = sampler.batch(slices[:4])
    assert image.shape == (4, 3, 64, 64)
    assert mask.shape == (4, 1, 64, 64)
    assert mask.max() > 0.5
    axial = SliceSampler(thin, thin.cases)
    assert len(axial.epoch(0, 0, empty_slices=0.0)) == sum(int(stack.has_liver.sum()) for stack in axial.stacks)


def test_a_case_with_one_view_is_shown_whole(a_cache):
    three = replace(a_cache, preprocessing=replace(a_cache.preprocessing, views=tuple(VIEWS)))
    sampler = SliceSampler(three, a_cache.cases)  # their slices lie 18 mm apart
    shown = sampler.epoch(0, 0, empty_slices=0.0)
    assert len(shown) == sum(int(stack.has_liver.sum()) for stack in sampler.stacks) > 0


def test_every_view_counts_alike(a_phantom, three_views, cpu, monkeypatch):
    found = iter([0.1, 0.5, 0.9])

    def predict(network, image, context):
        yield len(image)
        return np.full(image.shape, next(found), np.float32)

    monkeypatch.setattr(inference, "predict", predict)
    monkeypatch.setattr(inference, "_ends_inside_the_liver", lambda *_: False)
    spec = three_views.card.preprocessing
    image = np.zeros((8, 16, 16), np.float32)
    probability = finish(inference.predict_volume(None, image, spec.pixel_mm, spec, multiple=1, threshold=0.5))
    np.testing.assert_allclose(probability, 0.5, atol=1e-6)


@pytest.mark.parametrize("end", [slice(0, 22), slice(22, 44)], ids=["lower half", "upper half"])
def test_a_scan_that_is_cut_at_either_end_is_seen_from_above_alone(end, a_phantom, three_views, cpu, monkeypatch):
    asked, predict = [], inference.predict
    monkeypatch.setattr(inference, "predict", lambda *given: asked.append(1) or predict(*given))
    finish(segment(replace(a_phantom[0], hu_kji=a_phantom[0].hu_kji[end]), three_views, cpu))
    assert len(asked) == 1


@pytest.mark.parametrize(("end_share", "inside"), [(0.1, False), (0.3, True)])
@pytest.mark.parametrize("end", [0, -1])
def test_a_scan_ends_inside_the_liver_if_its_end_shows_much_of_it(end_share, inside, end):
    probability = np.zeros((5, 10, 10), np.float32)
    probability[1:-1] = 0.9
    probability[end].flat[: round(100 * end_share)] = 0.9
    assert inference._ends_inside_the_liver(probability, 0.4) is inside


def test_the_channels_that_a_network_learns_from_are_the_slices_at_their_places(a_cache):
    three = replace(a_cache.preprocessing, context_mm=(-18.0, 0.0, 18.0))
    sampler = SliceSampler(replace(a_cache, preprocessing=three), a_cache.cases[:1])
    stack = sampler.stacks[0]
    numbered = replace(stack, image=np.broadcast_to(np.arange(12, dtype=np.int16)[:, None, None], stack.image.shape))
    image, _ = sampler.batch([(numbered, 5)])
    hu = (image[0, :, 32, 32] + 1) / 2 * 400 - 160
    assert hu.round().tolist() == [4, 5, 6]
