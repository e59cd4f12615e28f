"""What the fine look learns from, on a case whose every voxel tells where it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import SPEC, TWO_LOOKS
from LiverUNetLib.engines import TorchNetwork
from LiverUNetLib.grid import resample
from LiverUNetLib.looks import UNKNOWN, Prior
from LiverUNetLib.network import build_network
from LiverUNetLib.steps import finish
from LiverUNetTrainLib.augmentation import AugmentationSettings
from LiverUNetTrainLib.cache import CachedCase, Grids
from LiverUNetTrainLib.fine_sampling import FineSampler, Slice
from LiverUNetTrainLib.settings import PriorSettings, StackSettings, TrainingSettings

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
    prior=PriorSettings(p_hidden=0.0, p_shifted=0.0, p_distorted=0.0),
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
    """Of that case; what its coarse look has found is its mask."""

    def make(spec=BOTH, **settings) -> FineSampler:
        priors = (lambda _: Prior(case.coarse_grid, case.coarse_mask.astype(np.float32) / 255)) if spec.coarse else None
        return FineSampler([case], spec, replace(SETTINGS, **settings), priors=priors)

    return make


def values(image: torch.Tensor) -> np.ndarray:
    """The HU in the middle of each channel of the first slice of a batch, four for each slice of the case."""
    rows, columns = image.shape[-2:]
    return image[0, :, rows // 2, columns // 2].numpy() / 4


def test_what_is_drawn_depends_on_the_arguments_alone(sampler):
    usual = {"stacks": StackSettings(), "prior": PriorSettings(), "augmentation": AugmentationSettings()}
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
    one = sampler(ONE)
    assert values(one.read([Slice(case, 20)], 0)[0]).tolist() == [18, 20, 22]
    assert values(one.read([Slice(case, 0)], 0)[0]).tolist() == [0, 0, 2]
    assert values(one.read([Slice(case, 39)], 0)[0]).tolist() == [37, 39, 39]
    wide = sampler(on_grid(SPEC, context_mm=(-8.0, 0.0, 9.1)))
    assert values(wide.read([Slice(case, 20)], 0)[0]).tolist() == [16, 20, 25], "9.1 mm are 4.55 slices"


def test_a_slice_alone_is_its_own_context(sampler, case):
    alone = sampler(ONE, stacks=replace(SETTINGS.stacks, p_alone=1.0))
    assert values(alone.read([Slice(case, 20)], 0)[0]).tolist() == [20, 20, 20]


def test_a_thick_slice_is_the_mean_of_its_slices_and_of_the_share_of_liver_in_them(sampler, case):
    """Blocks of four: their mean lies 1.5 slices above the first; slice 10 is the first with liver."""
    thick = sampler(on_grid(SPEC, context_mm=(-8.0, 0.0, 8.0)), stacks=THICK)
    for seed in range(20):
        image, mask, _ = thick.read([Slice(case, 10)], seed)
        below, here, above = values(image)
        first = here - 1.5
        assert first in (7, 8, 9, 10), "a block that holds slice 10"
        assert (here - below, above - here) == (4, 4), "its neighbours are blocks, too"
        inside = len(set(range(int(first), int(first) + 4)) & set(range(10, 30)))
        assert mask.max() == pytest.approx(inside / 4)


def test_blocks_never_reach_beyond_the_case(sampler, case):
    thick = sampler(on_grid(SPEC, context_mm=(-8.0, 0.0, 8.0)), stacks=THICK)
    for seed in range(20):
        low, high = (values(thick.read([Slice(case, index)], seed)[0]) for index in (0, 39))
        assert low[:2].tolist() == [1.5, 1.5], "the first block is its own lower neighbour"
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
    whole = sampler(ONE, canvas_mm=(64.0, 80.0))  # 32 x 40 pixels, the liver has 24 x 32
    small = sampler(ONE, canvas_mm=(32.0, 32.0))  # 16 x 16
    for seed in range(30):
        shown = whole.read([Slice(case, 20)], seed)[1]
        # By up to 15 mm, that are 8 pixels, a canvas is beside the place where it shows all.
        assert shown.any(dim=-1).sum() >= 24 - 8
        assert shown.any(dim=-2).sum() >= 32 - 8
        assert small.read([Slice(case, 20)], seed)[1].sum() >= 8 * 8
    places = {tuple(whole.read([Slice(case, 20)], seed)[1][0, 0].nonzero()[0].tolist()) for seed in range(30)}
    assert len(places) > 10, "it is shown at different places"


def test_beyond_the_image_there_is_air_without_liver(sampler, case):
    image, mask, _ = sampler(ONE, canvas_mm=(160.0, 160.0)).read([Slice(case, 20)], 0)  # the image has 96 x 128 mm
    assert image.shape[-2:] == (80, 80)
    beyond = (image[0] == AIR).all(dim=0)
    assert (~beyond).sum() == 48 * 64
    assert (image[0, 1][~beyond] == 80).all()
    assert mask[0, 0][beyond].max() == 0
    assert mask.sum() == 24 * 32


@pytest.mark.parametrize("stacks", [SETTINGS.stacks, THICK], ids=["thin", "thick"])
@pytest.mark.parametrize("canvas_mm", [(64.0, 80.0), (160.0, 160.0)], ids=["inside", "beyond"])
def test_what_the_coarse_look_has_found_lies_over_the_image(sampler, case, stacks, canvas_mm):
    """Made of the mask itself it agrees with the mask but for the cube of 4 mm at the border."""
    told = sampler(stacks=stacks, canvas_mm=canvas_mm)
    for seed in range(10):
        for index in (14, 20, 26):
            _, mask, prior = told.read([Slice(case, index)], seed)
            assert prior.shape == mask.shape
            inside = torch.nn.functional.avg_pool2d((mask > 0.99).float(), 5, stride=1) == 1
            outside = torch.nn.functional.max_pool2d((mask > 0).float(), 5, stride=1) == 0
            middle = prior[..., 2:-2, 2:-2]
            assert (middle[inside] > 0.5).all()
            assert (middle[outside] < 0.05).all()
            assert inside.any()


def test_at_the_top_of_the_liver_a_thick_slice_is_told_of_as_much_as_it_holds(sampler, case):
    """Interpolated over 8 mm to both sides it is a little blunter than the share of the mask."""
    told = sampler(stacks=THICK, canvas_mm=(64.0, 80.0))
    for seed in range(20):
        _, mask, prior = told.read([Slice(case, 29)], seed)
        assert prior.max() == pytest.approx(mask.max().item(), abs=0.2)


def test_stacks_too_short_for_a_coarse_look_and_a_share_of_all_are_told_nothing(sampler, case):
    short = sampler(stacks=replace(SETTINGS.stacks, p_short=1.0, longest_short=19))  # 38 mm at most, of 40
    hidden = sampler(prior=replace(SETTINGS.prior, p_hidden=1.0))
    for seed in range(10):
        assert (short.read([Slice(case, 20)], seed)[2] == UNKNOWN).all()
        assert (hidden.read([Slice(case, 20)], seed)[2] == UNKNOWN).all()
    image, _ = hidden.batch([Slice(case, 20)], 0, "cpu")
    assert image[0, 3].abs().max() < 1e-4, "as a channel that is 0"


def test_a_prior_is_moved_by_the_millimetres_that_are_set(sampler, case):
    still, moved = sampler(), sampler(prior=replace(SETTINGS.prior, p_shifted=1.0, shift_mm=6.0))
    shifts = set()
    for seed in range(30):
        expected, prior = (each.read([Slice(case, 20)], seed)[2][0, 0] for each in (still, moved))
        (shift,) = [
            (rows, columns)
            for rows in range(-3, 4)
            for columns in range(-3, 4)
            if torch.equal(expected.roll((rows, columns), (0, 1)), prior)
        ]
        shifts.add(shift)
    assert len(shifts) > 10


def test_a_distorted_prior_is_another_probability(sampler, case):
    changed = sampler(prior=replace(SETTINGS.prior, p_distorted=1.0))
    expected, prior = (each.read([Slice(case, 20)], 3)[2] for each in (sampler(), changed))
    assert not torch.allclose(prior, expected, atol=0.001)
    assert prior.min() >= 0
    assert prior.max() <= 1


def test_in_augmentation_the_prior_moves_with_the_image(sampler, case):
    moves = replace(AS_IT_IS, p_affine=1.0)
    image, mask = sampler(canvas_mm=(160.0, 160.0), augmentation=moves).batch([Slice(case, 20)], 5, "cpu")
    _, unmoved = sampler(canvas_mm=(160.0, 160.0)).batch([Slice(case, 20)], 5, "cpu")
    assert not torch.allclose(mask, unmoved, atol=0.1)
    prior = image[:, 3:] / 2 + 0.5
    assert 2 * torch.minimum(prior, mask).sum() / (prior + mask).sum() > 0.9


def test_a_model_without_a_coarse_look_has_no_channel_for_it(sampler, case):
    assert sampler(ONE).batch([Slice(case, 20)], 0, "cpu")[0].shape[1] == 3
    assert sampler(BOTH).batch([Slice(case, 20)], 0, "cpu")[0].shape[1] == 4


@pytest.mark.parametrize("replay", [0.0, 0.5, 2.0])
def test_known_cases_are_replayed_for_new_ones(case, replay):
    cases = [replace(case, name=name) for name in ("new", "old1", "old2", "old3")]
    sampler = FineSampler(cases, ONE, replace(SETTINGS, replay=replay), replayed=["old1", "old2", "old3"])
    names = [each.case.name for each in sampler.epoch(0)]
    assert names.count("new") == 20
    assert len(names) == 20 + round(20 * replay)


def test_a_scan_too_short_for_a_coarse_look_is_validated_as_it_is_segmented(case, cpu):
    """38 mm: nobody looks coarsely, and the fine look sees all."""
    cut = slice(11, 30)
    short = replace(case, image=case.image[cut], mask=case.mask[cut])
    spot = np.zeros(case.coarse.shape, np.float32)
    spot[5, 12, 12] = 1
    torch.manual_seed(0)
    network = TorchNetwork(build_network(BOTH.fine.network), cpu)
    sampler = FineSampler([short], BOTH, SETTINGS, priors=lambda _: Prior(case.coarse_grid, spot))
    assert sampler.probability(network, short).all(), "where nothing was seen it would be 0"
