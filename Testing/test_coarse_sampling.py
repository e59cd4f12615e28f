"""What the coarse look learns from: parts of scans in one size, padded with air."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import TWO_LOOKS
from LiverUNetTrainLib.data.cache import CachedCase, Grids
from LiverUNetTrainLib.run.settings import AugmentationSettings, CoarseSettings, TrainingSettings
from LiverUNetTrainLib.training.coarse_sampling import CoarseSampler, Part

GRIDS = Grids(pixel_mm=8.0, slice_mm=18.0, voxel_mm=16.0)
AS_IT_IS = AugmentationSettings(
    **{name: 0.0 for name in AugmentationSettings.__dataclass_fields__ if name.startswith("p_")}
)
# 12, 10 and 14 cubes.
COARSE = CoarseSettings(shown=3, size_mm=(192.0, 160.0, 224.0), p_short=0.0, shortest_mm=32.0, longest_short_mm=64.0)
SETTINGS = TrainingSettings(coarse=COARSE, augmentation=AS_IT_IS)


def a_case(*shape: int, name: str = "a") -> CachedCase:
    """HU are the number of the slice, the liver is one cube in every slice."""
    image = np.broadcast_to(np.arange(shape[0], dtype=np.int16)[:, None, None], shape).copy()
    mask = np.zeros(shape, np.uint8)
    mask[:, shape[1] // 2, shape[2] // 2] = 255
    fine = np.zeros((2, 2, 2))
    return CachedCase(name, name, name, 18.0, 1.0, fine, fine, image, mask, GRIDS)


def sampler(*cases: CachedCase, **coarse: object) -> CoarseSampler:
    return CoarseSampler(cases, TWO_LOOKS, replace(SETTINGS, coarse=replace(COARSE, **coarse)))


def hu(image: torch.Tensor) -> np.ndarray:
    """The first of a batch, in HU again."""
    low, high = TWO_LOOKS.window_hu
    return ((image[0, 0] + 1) / 2 * (high - low) + low).numpy()


def test_an_epoch_shows_every_case_as_often_as_set_and_the_same_parts_again():
    cases = [a_case(20, 10, 14, name=name) for name in "abc"]
    first = [(part.case.name, part.slices) for part in sampler(*cases).epoch(4)]
    assert sorted(name for name, _ in first) == sorted("abc" * 3)
    assert first == [(part.case.name, part.slices) for part in sampler(*cases).epoch(4)]
    assert first != [(part.case.name, part.slices) for part in sampler(*cases).epoch(5)]


def test_parts_lie_within_their_case_and_are_as_long_as_a_batch_or_the_case():
    for length, shown in ((20, 12), (12, 12), (7, 7)):
        parts = [part.slices for n in range(10) for part in sampler(a_case(length, 10, 14)).epoch(n)]
        assert {part.stop - part.start for part in parts} == {shown}
        assert all(part.start >= 0 and part.stop <= length for part in parts)
    long = {part.slices.start for n in range(20) for part in sampler(a_case(20, 10, 14)).epoch(n)}
    assert long == set(range(9))


def test_short_parts_have_the_length_that_is_set():
    made = sampler(a_case(20, 10, 14), p_short=1.0)
    lengths = {part.slices.stop - part.slices.start for n in range(20) for part in made.epoch(n)}
    assert lengths == {2, 3, 4}, "32 to 64 mm"


def test_the_size_of_a_batch_is_a_multiple_of_what_the_network_takes():
    case = a_case(20, 10, 14)
    made = sampler(case, size_mm=(180.0, 140.0, 220.0))  # 11, 9 and 14 cubes
    image, mask = made.batch([Part(case, slice(0, 11))] * 2, 0, "cpu")
    assert image.shape == mask.shape == (2, 1, 12, 10, 14)
    assert image.dtype == mask.dtype == torch.float32


def test_a_short_part_lies_in_the_middle_of_air():
    case = a_case(20, 10, 14)
    image, mask = sampler(case).batch([Part(case, slice(5, 9))], 0, "cpu")
    shown = hu(image)
    assert shown[4:8, 0, 0] == pytest.approx([5, 6, 7, 8], abs=0.01)
    assert shown[:4].max() == pytest.approx(-160, abs=0.01)
    assert shown[8:].max() == pytest.approx(-160, abs=0.01)
    assert (mask[0, 0] > 0.001).nonzero().tolist() == [[n, 5, 7] for n in range(4, 8)]
    assert mask.max().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("rows", "columns"), [(4, 6), (30, 40), (9, 41)])
def test_image_and_mask_are_cut_or_padded_around_the_same_middle(rows, columns):
    case = a_case(12, rows, columns)
    case.coarse[:, rows // 2, columns // 2] = 200
    image, mask = sampler(case).batch([Part(case, slice(0, 12))], 0, "cpu")
    assert image.shape == mask.shape == (1, 1, 12, 10, 14)
    assert np.array_equal(hu(image) > 199, mask[0, 0].numpy() > 0.5)
    assert (mask > 0.5).sum() == 12
    assert (hu(image) < -159).sum() == 12 * (140 - min(rows, 10) * min(columns, 14))


def test_augmentation_depends_only_on_the_seed():
    case = a_case(12, 10, 14)
    made = CoarseSampler([case], TWO_LOOKS, replace(SETTINGS, augmentation=AugmentationSettings()))
    one, same, other = (made.batch([Part(case, slice(0, 12))], seed, "cpu") for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])
