"""The coarse look finds the part of the body with the liver; the fine look sees that part, and what was found."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from LiverUNetLib import looks
from LiverUNetLib.engines import TorchNetwork
from LiverUNetLib.environment import Device
from LiverUNetLib.grid import Axis, Grid, canonical_scan
from LiverUNetLib.looks import Prior, coarse_probabilities, context_indices, fine_probabilities, look_coarsely
from LiverUNetLib.measurement import bounding_box
from LiverUNetLib.phantom import LIVER
from LiverUNetLib.spec import CoarseLook, FineLook, ModelSpec, NetworkSpec
from LiverUNetLib.steps import finish


class Watched:
    """A network that notes what it is given; its logits are what `compute` makes of that."""

    device = Device("cpu", "onnx")

    def __init__(self, compute, batch_size=8):
        self.given, self.compute, self.batch_size = [], compute, batch_size

    def __call__(self, image: np.ndarray) -> np.ndarray:
        self.given.append(image)
        return self.compute(image)


def zeros(image: np.ndarray) -> np.ndarray:
    return np.zeros_like(image[:, :1])


def fine_spec(context_mm=(0.0,), *, prior=False, strides=(1,)) -> ModelSpec:
    network = NetworkSpec(in_channels=len(context_mm) + prior, strides=strides)
    return ModelSpec(FineLook(context_mm=context_mm, network=network), CoarseLook() if prior else None)


def test_context_is_taken_at_distances_in_mm_not_at_neighbours():
    assert context_indices(9, 0.5, (-1.0, 0.0, 1.0))[4].tolist() == [2, 4, 6]
    assert context_indices(9, 4.0, (-4.0, 0.0, 4.0))[4].tolist() == [3, 4, 5]


def test_at_the_ends_of_the_stack_the_last_slice_is_the_context():
    assert context_indices(3, 4.0, (-8.0, -4.0, 0.0, 4.0, 8.0))[0].tolist() == [0, 0, 0, 1, 2]


def test_a_single_or_thick_slice_is_its_own_context():
    assert context_indices(1, 5.0, (-8.0, 0.0, 8.0)).tolist() == [[0, 0, 0]]
    assert context_indices(2, 30.0, (-8.0, 0.0, 8.0)).tolist() == [[0, 0, 0], [1, 1, 1]]


def test_the_coarse_look_finds_the_phantoms_liver_with_its_margin(a_phantom, two_looks_model, cpu):
    volume, mask = a_phantom
    spec = two_looks_model.card.spec
    hu, scan = canonical_scan(volume)
    prior = finish(look_coarsely(hu, scan, spec, two_looks_model.networks(cpu).coarse))
    assert prior.grid == Grid(Axis(0.0, 4.0, 55), Axis(0.0, 4.0, 72), Axis(0.0, 4.0, 96))
    box = prior.box(scan, spec)
    for seen, liver, step_mm, size in zip(box, bounding_box(mask), scan.spacing_mm, scan.shape, strict=True):
        # As far as the margin, less the border that the cubes blur, and no farther than a cube and a voxel more.
        for margin_mm, room_mm in (
            ((liver.start - seen.start) * step_mm, liver.start * step_mm),
            ((seen.stop - liver.stop) * step_mm, (size - liver.stop) * step_mm),
        ):
            assert min(12, room_mm) <= margin_mm <= 16 + 4 + step_mm


def test_what_holds_the_most_probability_is_looked_at():
    scan = Grid(Axis(0.0, 2.0, 60), Axis(0.0, 1.0, 120), Axis(0.0, 1.0, 120))
    prior = Prior(scan.cubes(4.0), np.zeros((30, 30, 30), np.float32))
    prior.probability[2:4, 3, 3] = 0.99  # sure and small
    prior.probability[10:14, 10:13, 20:22] = 0.2  # 24 cubes of it
    spec = ModelSpec(coarse=CoarseLook(threshold=0.1, margin_mm=6.0))
    # Slices from 40 - 6 to 56 + 6 mm, rows from 40 - 6 to 52 + 6, columns from 80 - 6 to 88 + 6.
    assert prior.box(scan, spec) == (slice(17, 31), slice(34, 58), slice(74, 94))
    certain = replace(spec, coarse=replace(spec.coarse, threshold=0.3))
    assert prior.box(scan, certain) == (slice(1, 11), slice(6, 22), slice(6, 22))


def test_where_nothing_is_found_the_surroundings_of_the_likeliest_voxel_are_looked_at():
    scan = Grid(Axis(0.0, 2.0, 60), Axis(0.0, 1.0, 120), Axis(0.0, 1.0, 120))
    prior = Prior(scan.cubes(4.0), np.full((30, 30, 30), 0.001, np.float32))
    prior.probability[10, 20, 29] = 0.002
    spec = ModelSpec(coarse=CoarseLook(threshold=0.1, margin_mm=6.0))
    assert prior.box(scan, spec) == (slice(17, 25), slice(74, 90), slice(110, 120))


@pytest.mark.parametrize(("slices", "looked"), [(7, False), (8, True)])
def test_short_scans_are_left_to_the_fine_look(slices, looked, two_looks_model, cpu):
    """The shortest scan that it looks at shows 40 mm; where the body begins in the scan does not matter."""
    scan = Grid(Axis(35.0, 5.0, slices), Axis(0.0, 4.0, 30), Axis(0.0, 4.0, 30))
    hu = np.full(scan.shape, LIVER, np.int16)
    spec, networks = two_looks_model.card.spec, two_looks_model.networks(cpu)
    prior = finish(look_coarsely(hu, scan, spec, networks.coarse))
    assert (prior is not None) == looked


def test_a_model_without_a_coarse_look_has_no_prior(threshold_model, cpu):
    scan = Grid(Axis(0.0, 5.0, 20), Axis(0.0, 4.0, 30), Axis(0.0, 4.0, 30))
    networks = threshold_model.networks(cpu)
    assert networks.coarse is None
    assert finish(look_coarsely(np.zeros(scan.shape), scan, threshold_model.card.spec, None)) is None


@pytest.mark.parametrize("slices", [96, 97, 128, 129, 250])
def test_a_tall_body_is_seen_in_windows_that_agree_with_one_piece(slices, monkeypatch):
    torch.manual_seed(0)
    # Every cube sees 16 others above and below, as many as a window has beyond its part.
    layer = torch.nn.Conv3d(1, 1, (2 * looks.OVERLAP + 1, 1, 1), padding="same")
    network = TorchNetwork(layer, Device("cpu"))
    seen = Watched(network)
    spec = ModelSpec(coarse=CoarseLook(network=NetworkSpec(1, strides=(1,), spatial_dims=3)))
    image = np.random.default_rng(0).uniform(-160, 240, (slices, 3, 4)).astype(np.float32)
    steps = []
    windows = finish(coarse_probabilities(image, spec, seen), steps.append)
    assert max(part.shape[2] for part in seen.given) <= looks.WINDOW
    assert [steps[0], steps[-1]] == [(0, slices), (slices, slices)]
    monkeypatch.setattr(looks, "WINDOW", 1000)
    whole = finish(coarse_probabilities(image, spec, network))
    np.testing.assert_allclose(windows, whole, atol=1e-6)
    assert whole.std() > 0.01


def test_images_are_padded_with_air_to_sides_that_a_network_takes_and_cropped_again():
    spec = ModelSpec(coarse=CoarseLook(network=NetworkSpec(1, strides=(2, 2), spatial_dims=3)))
    network = Watched(lambda image: 10 * image)
    probability = finish(coarse_probabilities(np.full((5, 8, 9), 240, np.float32), spec, network))
    (given,) = network.given
    assert given.shape == (1, 1, 8, 8, 12)
    assert given[0, 0, :5, :, :9].min() == 1
    assert given[0, 0, 5:].max() == given[..., 9:].max() == -1
    assert probability.shape == (5, 8, 9)
    assert probability.min() > 0.99


def test_the_channels_of_a_slice_are_the_slices_at_their_distances():
    grid = Grid(Axis(0.0, 2.0, 12), Axis(0.0, 1.25, 4), Axis(0.0, 1.25, 4))
    spec = fine_spec((-4.0, 0.0, 4.0))
    network = Watched(zeros, batch_size=5)
    image = np.zeros(grid.shape, np.float32) + np.arange(12, dtype=np.float32)[:, None, None]
    steps = []
    finish(fine_probabilities(image, grid, spec, network, None), steps.append)
    assert [len(batch) for batch in network.given] == [5, 5, 2]
    assert steps == [(0, 12), (5, 12), (10, 12), (12, 12)]
    hu = (np.concatenate(network.given)[:, :, 0, 0] + 1) / 2 * 400 - 160
    assert hu.round().tolist() == [[max(k - 2, 0), k, min(k + 2, 11)] for k in range(12)]


def test_the_fine_look_is_told_what_was_found_at_its_place():
    scan = Grid(Axis(0.0, 4.0, 10), Axis(0.0, 1.0, 40), Axis(0.0, 1.0, 40))
    prior = Prior(scan.cubes(4.0), np.zeros((10, 10, 10), np.float32))
    prior.probability[5:, :, :5] = 1  # from 20 mm up, the first 20 mm of the columns
    part = scan.part((slice(2, 8), slice(10, 30), slice(10, 30)))
    network = Watched(zeros)
    finish(fine_probabilities(np.zeros(part.shape, np.float32), part, fine_spec(prior=True), network, prior))
    told = np.concatenate(network.given)[:, 1]
    # Slices 2 to 7 begin at 8 mm; columns 10 to 29. Between the middles of two cubes, at 18 and 22 mm, it falls.
    expected = np.where(np.arange(6) >= 3, 1, 0)[:, None, None] * np.interp(np.arange(10, 30) + 0.5, [18, 22], [1, 0])
    np.testing.assert_allclose(told, np.broadcast_to(2 * expected - 1, part.shape), atol=1e-5)


def test_where_there_was_no_coarse_look_the_fine_one_is_told_that_nothing_is_known():
    grid = Grid(Axis(0.0, 2.0, 3), Axis(0.0, 1.0, 4), Axis(0.0, 1.0, 4))
    network = Watched(zeros)
    finish(fine_probabilities(np.zeros(grid.shape, np.float32), grid, fine_spec(prior=True), network, None))
    assert network.given[0].shape == (3, 2, 4, 4)
    assert not network.given[0][:, 1].any()


def test_the_padding_of_the_prior_is_surely_no_liver():
    grid = Grid(Axis(0.0, 2.0, 1), Axis(0.0, 1.0, 3), Axis(0.0, 1.0, 4))
    network = Watched(zeros)
    spec = fine_spec(prior=True, strides=(4,))
    finish(fine_probabilities(np.zeros(grid.shape, np.float32), grid, spec, network, None))
    assert network.given[0].shape == (1, 2, 4, 4)
    assert (network.given[0][0, :, 3] == -1).all()


def test_a_real_network_finds_nothing_where_it_is_told_that_there_is_nothing(two_looks_model, cpu):
    grid = Grid(Axis(0.0, 5.0, 10), Axis(0.0, 4.0, 20), Axis(0.0, 4.0, 20))
    prior = Prior(grid.cubes(4.0), np.zeros(grid.cubes(4.0).shape, np.float32))
    prior.probability[:, :, 10:] = 1
    image = np.full(grid.shape, LIVER, np.float32)
    networks = two_looks_model.networks(cpu)
    found = finish(fine_probabilities(image, grid, two_looks_model.card.spec, networks.fine, prior)) > 0.5
    assert not found[:, :, :10].any()
    assert found[:, :, 10:].all()


def test_the_same_slices_give_the_same_in_batches_of_any_size(two_looks_model, cpu):
    grid = Grid(Axis(0.0, 5.0, 10), Axis(0.0, 4.0, 20), Axis(0.0, 4.0, 20))
    image = np.random.default_rng(0).uniform(80, 130, grid.shape).astype(np.float32)
    network = two_looks_model.networks(cpu).fine
    one, three = (
        finish(fine_probabilities(image, grid, two_looks_model.card.spec, Watched(network, size), None))
        for size in (1, 3)
    )
    np.testing.assert_allclose(one, three, atol=1e-6)


@pytest.mark.parametrize(("logit", "expected"), [(1e30, 1), (-1e30, 0), (np.inf, 1), (0, 0.5)])
def test_extreme_logits_are_plain_probabilities(logit, expected):
    network = Watched(lambda image: np.full_like(image[:, :1], logit))
    spec = fine_spec(prior=False)
    grid = Grid(*(Axis(0.0, mm, 2) for mm in (5.0, 4.0, 4.0)))
    found = finish(fine_probabilities(np.zeros(grid.shape, np.float32), grid, spec, network, None))
    assert found.dtype == np.float32
    assert found == pytest.approx(np.full((2, 2, 2), expected))
