"""The coarse look finds the region of the liver; the fine look sees that region."""

import numpy as np
import pytest
import torch

from LiverUNetLib.models.engines import TorchNetwork
from LiverUNetLib.models.spec import CoarseLook, FineLook, ModelSpec, NetworkSpec
from LiverUNetLib.segmentation import looks
from LiverUNetLib.segmentation.grid import Axis, Grid, canonical_scan
from LiverUNetLib.segmentation.looks import coarse_probabilities, context_indices, fine_probabilities, look_coarsely
from LiverUNetLib.segmentation.measurement import bounding_box
from LiverUNetLib.steps import finish
from LiverUNetLib.system.environment import Device


class Watched:
    """A network that records its images and computes logits with `compute`."""

    device = Device("cpu", "onnx")

    def __init__(self, compute, batch_size=8):
        self.given, self.compute, self.batch_size = [], compute, batch_size

    def __call__(self, image: np.ndarray) -> np.ndarray:
        self.given.append(image)
        return self.compute(image)


def zeros(image: np.ndarray) -> np.ndarray:
    return np.zeros_like(image[:, :1])


def fine_spec(context_mm=(0.0,), *, strides=(1,)) -> ModelSpec:
    return ModelSpec(FineLook(context_mm=context_mm, network=NetworkSpec(len(context_mm), strides=strides)))


def coarse_spec(**options) -> ModelSpec:
    return ModelSpec(coarse=CoarseLook(network=NetworkSpec(1, strides=(1,), spatial_dims=3), **options))


def test_context_is_taken_at_distances_in_mm_not_at_neighbors():
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
    box = finish(look_coarsely(hu, scan, spec, two_looks_model.networks(cpu).coarse)).box
    for seen, liver, step_mm, size in zip(box, bounding_box(mask), scan.spacing_mm, scan.shape, strict=True):
        # As far as the margin, less the border that the cubes blur, and no farther than a cube and a voxel more.
        for margin_mm, room_mm in (
            ((liver.start - seen.start) * step_mm, liver.start * step_mm),
            ((seen.stop - liver.stop) * step_mm, (size - liver.stop) * step_mm),
        ):
            assert min(12, room_mm) <= margin_mm <= 16 + 4 + step_mm


def seen_where(probability: np.ndarray, **options):
    """The box for the fine look in a scan of 12 cm, for these probabilities of the coarse look in cubes of 4 mm."""
    scan = Grid(Axis(0.0, 2.0, 60), Axis(0.0, 1.0, 120), Axis(0.0, 1.0, 120))
    network = Watched(lambda _: np.log(probability / (1 - probability))[None, None])
    hu = np.zeros(scan.shape, np.int16)
    return finish(look_coarsely(hu, scan, coarse_spec(margin_mm=6.0, **options), network)).box


def test_the_component_with_the_most_probability_is_looked_at():
    probability = np.full((30, 30, 30), 0.001, np.float32)
    probability[2:4, 3, 3] = 0.99  # sure and small
    probability[10:14, 10:13, 20:22] = 0.2  # 24 cubes of it
    # Slices from 40 - 6 to 56 + 6 mm, rows from 40 - 6 to 52 + 6, columns from 80 - 6 to 88 + 6.
    assert seen_where(probability, threshold=0.1) == (slice(17, 31), slice(34, 58), slice(74, 94))
    assert seen_where(probability, threshold=0.3) == (slice(1, 11), slice(6, 22), slice(6, 22))


def test_without_a_finding_the_surroundings_of_the_likeliest_voxel_are_looked_at():
    probability = np.full((30, 30, 30), 0.001, np.float32)
    probability[10, 20, 29] = 0.002
    assert seen_where(probability, threshold=0.1) == (slice(17, 25), slice(74, 90), slice(110, 120))


@pytest.mark.parametrize(("slices", "looked"), [(7, False), (8, True)])
def test_short_scans_have_only_the_fine_look(slices, looked):
    """The shortest scan with a coarse look shows 40 mm of the body, wherever the body begins."""
    scan = Grid(Axis(35.0, 5.0, slices), Axis(0.0, 4.0, 30), Axis(0.0, 4.0, 30))
    network = Watched(lambda image: image - 5)  # a liver in what is bright
    hu = np.zeros(scan.shape, np.int16)
    hu[:, 10, 10] = 3000
    box = finish(look_coarsely(hu, scan, coarse_spec(shortest_mm=40.0), network)).box
    assert bool(network.given) == looked
    assert (box == scan.whole) == (not looked)


def test_without_a_coarse_look_the_whole_scan_is_seen(threshold_model, cpu):
    scan = Grid(Axis(0.0, 5.0, 20), Axis(0.0, 4.0, 30), Axis(0.0, 4.0, 30))
    networks, hu = threshold_model.networks(cpu), np.zeros(scan.shape, np.int16)
    assert networks.coarse is None
    assert finish(look_coarsely(hu, scan, threshold_model.card.spec, None)).box == scan.whole


@pytest.mark.parametrize("slices", [96, 97, 128, 129, 250])
def test_a_tall_body_is_seen_in_windows_that_agree_with_one_piece(slices, monkeypatch):
    torch.manual_seed(0)
    # Every cube sees 16 others above and below, as many as a window has beyond its part.
    layer = torch.nn.Conv3d(1, 1, (2 * looks.OVERLAP + 1, 1, 1), padding="same")
    network = TorchNetwork(layer, Device("cpu"))
    seen = Watched(network)
    spec = coarse_spec()
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
    network = Watched(zeros, batch_size=5)
    image = np.zeros((12, 4, 4), np.float32) + np.arange(12, dtype=np.float32)[:, None, None]
    steps = []
    finish(fine_probabilities(image, 2.0, fine_spec((-4.0, 0.0, 4.0)), network), steps.append)
    assert [len(batch) for batch in network.given] == [5, 5, 2]
    assert steps == [(0, 12), (5, 12), (10, 12), (12, 12)]
    hu = (np.concatenate(network.given)[:, :, 0, 0] + 1) / 2 * 400 - 160
    assert hu.round().tolist() == [[max(k - 2, 0), k, min(k + 2, 11)] for k in range(12)]


def test_slices_are_padded_with_air_only_in_their_plane_and_cropped_again():
    network = Watched(lambda image: 10 * image)
    probability = finish(fine_probabilities(np.full((3, 5, 8), 240, np.float32), 2.0, fine_spec(strides=(4,)), network))
    (given,) = network.given
    assert given.shape == (3, 1, 8, 8)
    assert given[:, :, :5].min() == 1
    assert given[:, :, 5:].max() == -1
    assert probability.shape == (3, 5, 8)
    assert probability.min() > 0.99


def test_the_same_slices_give_the_same_in_batches_of_any_size(two_looks_model, cpu):
    image = np.random.default_rng(0).uniform(80, 130, (10, 20, 20)).astype(np.float32)
    network = two_looks_model.networks(cpu).fine
    one, three = (
        finish(fine_probabilities(image, 5.0, two_looks_model.card.spec, Watched(network, size))) for size in (1, 3)
    )
    np.testing.assert_allclose(one, three, atol=1e-6)


@pytest.mark.parametrize(("logit", "expected"), [(1e30, 1), (-1e30, 0), (np.inf, 1), (0, 0.5)])
def test_extreme_logits_are_plain_probabilities(logit, expected):
    network = Watched(lambda image: np.full_like(image[:, :1], logit))
    found = finish(fine_probabilities(np.zeros((2, 2, 2), np.float32), 5.0, fine_spec(), network))
    assert found.dtype == np.float32
    assert found == pytest.approx(np.full((2, 2, 2), expected))
