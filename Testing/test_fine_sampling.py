"""What the fine look learns from, on a case whose every voxel tells where it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import SPEC, TWO_LOOKS
from LiverUNetLib.models.engines import TorchNetwork
from LiverUNetLib.models.network import build_network
from LiverUNetLib.segmentation.grid import resample
from LiverUNetLib.segmentation.looks import fine_probabilities
from LiverUNetLib.steps import finish
from LiverUNetTrainLib.data.cache import CachedCase, Grids
from LiverUNetTrainLib.run.settings import AugmentationSettings, StackSettings, TrainingSettings
from LiverUNetTrainLib.training.fine_sampling import FineSampler, Slice

# Slices of 2 mm with pixels of 2 mm, 40 of 48 x 64; cubes of 4 mm.
GRIDS = Grids(pixel_mm=2.0, slice_mm=2.0, voxel_mm=4.0)
SHAPE = (40, 48, 64)
LIVER = (slice(10, 30), slice(12, 36), slice(8, 40))
AIR = GRIDS.window_hu[0]
AS_IT_IS = AugmentationSettings(
    **{name: 0.0 for name in AugmentationSettings.__dataclass_fields__ if name.startswith("p_")}
)
SETTINGS = TrainingSettings(
    canvas_mm=(96.0, 128.0),
    empty_slices=0.0,
    stacks=StackSettings(p_thick=0.0, p_short=0.0, p_alone=0.0),
    augmentation=AS_IT_IS,
)
THICK = StackSettings(p_thick=1.0, thinnest_mm=8.0, thickest_mm=8.0, p_short=0.0, p_alone=0.0)


def on_grid(spec, context_mm=(-4.0, 0.0, 4.0)):
    fine = replace(spec.fine, pixel_mm=2.0, slice_mm=2.0, context_mm=context_mm)
    return replace(spec, fine=fine, coarse=spec.coarse and replace(spec.coarse, voxel_mm=4.0))


ONE, BOTH = on_grid(SPEC), on_grid(TWO_LOOKS)


@pytest.fixture(scope="module")
def case() -> CachedCase:
    """HU are four times the number of the slice, the liver is a block."""
    image = np.broadcast_to(4 * np.arange(SHAPE[0], dtype=np.int16)[:, None, None], SHAPE).copy()
    mask = np.zeros(SHAPE, np.uint8)
    mask[LIVER] = 255
    empty = np.zeros((20, 24, 32), np.uint8)
    made = CachedCase("a", "hash", "hash", 2.0, 0.008, image, mask, empty.astype(np.int16), empty, GRIDS)
    coarse_mask = finish(resample(mask, made.fine_grid, made.coarse_grid))
    return replace(made, coarse_mask=np.rint(coarse_mask).astype(np.uint8))


@pytest.fixture
def sampler(case):
    """Of that case."""

    def make(spec=ONE, **settings) -> FineSampler:
        return FineSampler([case], spec, replace(SETTINGS, **settings))

    return make


def values(image: torch.Tensor) -> np.ndarray:
    """The HU in the middle of each channel of the first slice of a batch, four for each slice of the case."""
    rows, columns = image.shape[-2:]
    return image[0, :, rows // 2, columns // 2].numpy() / 4


def test_what_is_drawn_depends_on_the_arguments_alone(sampler):
    usual = {"stacks": StackSettings(), "augmentation": AugmentationSettings()}
    one, other = sampler(empty_slices=0.5, **usual), sampler(empty_slices=0.5, **usual)
    later = [(each.case.name, each.index) for each in one.epoch(1)]
    first = one.epoch(0)
    expected = [batch.clone() for batch in one.batch(first[:4], 7, "cpu")]
    other.batch(other.epoch(3)[:8], 1, "cpu")
    assert [(each.case.name, each.index) for each in other.epoch(1)] == later
    again = other.batch(other.epoch(0)[:4], 7, "cpu")
    assert all(torch.equal(a, b) for a, b in zip(expected, again, strict=True))
    assert not torch.equal(other.batch(first[:4], 8, "cpu")[0], expected[0]), "another seed draws otherwise"


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 20, 20), (1.0, 40, 40), (0.5, 22, 38)])
def test_an_epoch_shows_every_slice_with_liver_once_and_a_share_of_the_others(share, least, most, sampler):
    shown = [each.index for each in sampler(empty_slices=share).epoch(0)]
    assert len(set(shown)) == len(shown)
    assert set(range(10, 30)) <= set(shown)
    assert least <= len(shown) <= most


def test_the_context_is_taken_at_distances_in_mm_and_repeats_the_last_slice_at_the_ends(sampler, case):
    one = sampler()
    assert values(one.read([Slice(case, 20)], 0)[0]).tolist() == [18, 20, 22]
    assert values(one.read([Slice(case, 0)], 0)[0]).tolist() == [0, 0, 2]
    assert values(one.read([Slice(case, 39)], 0)[0]).tolist() == [37, 39, 39]
    wide = sampler(on_grid(SPEC, context_mm=(-8.0, 0.0, 9.1)))
    assert values(wide.read([Slice(case, 20)], 0)[0]).tolist() == [16, 20, 25], "9.1 mm are 4.55 slices"


def test_a_slice_alone_is_its_own_context(sampler, case):
    alone = sampler(stacks=replace(SETTINGS.stacks, p_alone=1.0))
    assert values(alone.read([Slice(case, 20)], 0)[0]).tolist() == [20, 20, 20]


def test_a_thick_slice_is_the_mean_of_its_slices_and_of_the_share_of_liver_in_them(sampler, case):
    """Blocks of four: their mean lies 1.5 slices above the first; slice 10 is the first with liver."""
    thick = sampler(on_grid(SPEC, context_mm=(-8.0, 0.0, 8.0)), stacks=THICK)
    for seed in range(20):
        image, mask = thick.read([Slice(case, 10)], seed)
        below, here, above = values(image)
        first = here - 1.5
        assert first in (7, 8, 9, 10), "a block that holds slice 10"
        assert (here - below, above - here) == (4, 4), "its neighbors are blocks, too"
        inside = len(set(range(int(first), int(first) + 4)) & set(range(10, 30)))
        assert mask.max() == pytest.approx(inside / 4)


def test_blocks_never_reach_beyond_the_case(sampler, case):
    thick = sampler(on_grid(SPEC, context_mm=(-8.0, 0.0, 8.0)), stacks=THICK)
    for seed in range(20):
        low, high = (values(thick.read([Slice(case, index)], seed)[0]) for index in (0, 39))
        assert low[:2].tolist() == [1.5, 1.5], "the first block is its own lower neighbor"
        assert high[1:].tolist() == [37.5, 37.5]
        assert low[2] == 5.5


def test_a_short_stack_repeats_its_last_slice_beyond_its_ends(sampler, case):
    spec = on_grid(SPEC, context_mm=(-8.0, -4.0, 0.0, 4.0, 8.0))
    single = sampler(spec, stacks=replace(SETTINGS.stacks, p_short=1.0, longest_short=1))
    assert set(values(single.read([Slice(case, 20)], 0)[0])) == {20}
    few = sampler(spec, stacks=replace(SETTINGS.stacks, p_short=1.0, longest_short=5))
    seen = [values(few.read([Slice(case, 20)], seed)[0]).tolist() for seed in range(200)]
    for channels in seen:
        assert channels[2] == 20
        assert channels == sorted(channels)
        assert channels[4] - channels[0] <= 4, "five slices at most"
    assert [20, 20, 20, 22, 24] in seen, "one that begins here"
    assert [16, 18, 20, 20, 20] in seen, "one that ends here"


def test_a_canvas_shows_as_much_of_the_liver_as_it_can(sampler, case):
    whole = sampler(canvas_mm=(64.0, 80.0))  # 32 x 40 pixels, the liver has 24 x 32
    small = sampler(canvas_mm=(32.0, 32.0))  # 16 x 16
    for seed in range(30):
        shown = whole.read([Slice(case, 20)], seed)[1]
        # By up to 15 mm, that are 8 pixels, a canvas is beside the place where it shows all.
        assert shown.any(dim=-1).sum() >= 24 - 8
        assert shown.any(dim=-2).sum() >= 32 - 8
        assert small.read([Slice(case, 20)], seed)[1].sum() >= 8 * 8
    places = {tuple(whole.read([Slice(case, 20)], seed)[1][0, 0].nonzero()[0].tolist()) for seed in range(30)}
    assert len(places) > 10, "it is shown at different places"


def test_beyond_the_image_there_is_air_without_liver(sampler, case):
    image, mask = sampler(canvas_mm=(160.0, 160.0)).read([Slice(case, 20)], 0)  # the image has 96 x 128 mm
    assert image.shape[-2:] == (80, 80)
    beyond = (image[0] == AIR).all(dim=0)
    assert (~beyond).sum() == 48 * 64
    assert (image[0, 1][~beyond] == 80).all()
    assert mask[0, 0][beyond].max() == 0
    assert mask.sum() == 24 * 32


@pytest.mark.parametrize("replay", [0.0, 0.5, 2.0])
def test_known_cases_are_replayed_for_new_ones(case, replay):
    cases = [replace(case, name=name) for name in ("new", "old1", "old2", "old3")]
    sampler = FineSampler(cases, ONE, replace(SETTINGS, replay=replay), replayed=["old1", "old2", "old3"])
    names = [each.case.name for each in sampler.epoch(0)]
    assert names.count("new") == 20
    assert len(names) == 20 + round(20 * replay)


@pytest.fixture
def network(cpu) -> TorchNetwork:
    torch.manual_seed(0)
    return TorchNetwork(build_network(BOTH.fine.network), cpu)


def test_without_a_coarse_look_all_of_a_case_is_validated(sampler, case, network):
    assert sampler(ONE).probability(network, case).all(), "where nothing was looked at it would be 0"


def test_validation_looks_where_a_right_coarse_look_would(case, network):
    """At the liver and 6 mm, that are 3 voxels, around it; the network sees no more of the case than that."""
    spec = replace(BOTH, coarse=replace(BOTH.coarse, margin_mm=6.0))
    found = FineSampler([case], spec, SETTINGS).probability(network, case)
    seen = tuple(slice(part.start - 3, part.stop + 3) for part in LIVER)
    assert found[seen].all()
    assert np.count_nonzero(found) == found[seen].size
    alone = finish(fine_probabilities(case.image[seen].astype(np.float32), 2.0, spec, network))
    np.testing.assert_array_equal(found[seen], alone)


def test_a_case_without_liver_is_validated_as_a_whole(case, network):
    empty = replace(case, mask=np.zeros_like(case.mask))
    assert FineSampler([empty], BOTH, SETTINGS).probability(network, empty).all()
