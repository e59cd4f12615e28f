"""Image and mask move together; intensities change in the image alone."""

import math
from dataclasses import fields, replace

import pytest
import torch

from LiverUNetTrainLib.run.settings import AugmentationSettings
from LiverUNetTrainLib.training.augmentation import augment

NOTHING = replace(
    AugmentationSettings(), **{field.name: 0.0 for field in fields(AugmentationSettings) if field.name.startswith("p_")}
)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Eight slices of three channels: a body with a liver off the middle, brighter from channel to channel."""
    image = torch.full((8, 3, 64, 64), -1.0)
    image[:, :, 10:54, 6:58] = torch.tensor([-0.1, 0.0, 0.1]).view(1, 3, 1, 1)
    mask = torch.zeros(8, 1, 64, 64)
    mask[:, :, 20:40, 12:32] = 1
    return image + 0.4 * mask, mask


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.slow
def test_with_every_probability_at_zero_nothing_changes(batch):
    image, mask = augment(*batch, NOTHING, seeded())
    assert torch.allclose(image, batch[0], atol=1e-5)
    assert torch.allclose(mask, batch[1], atol=1e-5)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_batch(batch):
    first, second, other = (augment(*batch, AugmentationSettings(), seeded(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("name", "axis"), [("p_flip_left_right", 3), ("p_flip_top_bottom", 2)])
def test_a_flip_mirrors_image_and_mask(name, axis, batch):
    image, mask = augment(*batch, replace(NOTHING, **{name: 1.0}), seeded())
    assert torch.allclose(image, batch[0].flip(axis), atol=1e-5)
    assert torch.allclose(mask, batch[1].flip(axis), atol=1e-5)


def test_the_mask_follows_the_liver_through_rotation_scaling_and_shift(batch):
    settings = replace(NOTHING, p_affine=1.0)
    image, mask = augment(*batch, settings, seeded(3))
    assert not torch.allclose(mask, batch[1], atol=0.1)
    inside, outside = mask > 0.99, (mask < 0.01) & (image[:, 1:2] > -0.5)
    assert torch.allclose(image[:, 1:2][inside], torch.tensor(0.4), atol=0.02)
    assert image[:, 1:2][outside].max() < 0.02


def test_noise_is_drawn_up_to_its_largest_and_correlated_between_neighboring_pixels():
    flat = torch.zeros(400, 1, 32, 32)
    image, _ = augment(flat, flat, replace(NOTHING, p_noise=1.0, noise=0.1), seeded())
    deviations = image.std(dim=(1, 2, 3))
    assert deviations.max() <= 0.1
    assert deviations.mean() == pytest.approx(0.05, abs=0.005)
    neighbors = (image[..., 1:] * image[..., :-1]).mean(dim=(1, 2, 3)) / deviations**2
    # A Gaussian of s pixels: exp(-1 / 4 s²), from nothing at 0.2 to 0.78 at 1.
    assert neighbors.max() == pytest.approx(0.78, abs=0.1)
    assert neighbors.min() < 0.1


@pytest.mark.parametrize(
    "name",
    [
        "p_contrast",
        "p_gamma",
        "p_brightness",
        "p_liver_brightness",
        "p_noise",
        "p_blur",
        "p_low_resolution",
        "p_streaks",
    ],
)
def test_intensity_changes_leave_the_mask_alone_and_the_range_kept(name, batch):
    image, mask = augment(*batch, replace(NOTHING, **{name: 1.0}), seeded())
    assert not torch.allclose(image, batch[0], atol=0.01)
    assert torch.allclose(mask, batch[1], atol=1e-5)
    assert image.min() >= -1
    assert image.max() <= 1


@pytest.mark.parametrize("name", ["p_contrast", "p_gamma", "p_brightness"])
def test_air_stays_air_when_contrast_changes(name, batch):
    image, _ = augment(*batch, replace(NOTHING, **{name: 1.0}), seeded())
    assert torch.allclose(image[batch[0] == -1], torch.tensor(-1.0))


def test_the_liver_alone_can_change_its_attenuation(batch):
    image, mask = augment(*batch, replace(NOTHING, p_liver_brightness=1.0), seeded())
    change = (image - batch[0]).abs()
    assert change[:, 1, 25:35, 17:27].mean() > 0.05
    assert change[:, 1, 50:, 45:].max() < 1e-5
    assert torch.allclose(mask, batch[1], atol=1e-5)


def test_a_lesion_has_one_density_in_all_slices_and_changes_neither_air_nor_mask(batch):
    image, mask = augment(*batch, replace(NOTHING, p_lesion=1.0), seeded())
    assert torch.allclose(mask, batch[1], atol=1e-5)
    assert torch.allclose(image[batch[0] == -1], torch.tensor(-1.0), atol=1e-5)
    change = image - batch[0]
    changed = (change.abs() > 1e-4).any(dim=1)
    assert changed.flatten(1).any(dim=1).all(), "every slice gets one"
    for before, after, shown in zip(batch[0], change, changed, strict=True):
        inside = after.abs().sum(dim=0) == after.abs().sum(dim=0)[shown].max()
        density = (before + after / 0.8)[:, inside]
        assert torch.allclose(density, density[0, 0], atol=1e-3), "in its middle it is mixed 4 to 1 with the tissue"
        assert -0.25 <= density[0, 0] <= 0.35
        assert shown.float().mean() < 0.25


def test_lesions_lie_in_the_liver_and_outside_of_it_but_not_across_its_border(batch):
    image, mask = augment(*batch, replace(NOTHING, p_lesion=1.0), seeded())
    changed = ((image - batch[0]).abs() > 1e-4).any(dim=1)
    inside = [bool(mask[n, 0][changed[n]].min() > 0.5) for n in range(len(mask))]
    outside = [bool(mask[n, 0][changed[n]].max() < 0.5) for n in range(len(mask))]
    assert all(one != other for one, other in zip(inside, outside, strict=True))
    assert any(inside)
    assert any(outside)


def test_fat_around_the_liver_becomes_fluid_and_all_else_stays():
    image, mask = torch.full((2, 1, 64, 64), -0.6), torch.zeros(2, 1, 64, 64)
    mask[:, :, 24:40, 24:40] = 1
    image[mask > 0] = 0.4
    image[:, :, 30:34, 42:44] = 0.1  # muscle beside the liver
    changed, same = augment(image, mask, replace(NOTHING, p_fluid=1.0), seeded())
    assert torch.allclose(same, mask, atol=1e-5)
    fluid = changed[:, :, 22:24, 24:40]
    assert torch.allclose(fluid, torch.tensor(0.2 * -0.6 - 0.12), atol=1e-4), "beside the liver"
    far = torch.ones_like(mask, dtype=torch.bool)
    far[:, :, 8:56, 8:56] = False
    for unchanged in (far, mask > 0, image == 0.1):
        assert torch.allclose(changed[unchanged], image[unchanged], atol=1e-4)


def spread(mask: torch.Tensor) -> torch.Tensor:
    """The covariance of the places of what a mask shows, weighted by its shares, in steps of its grid."""
    places = torch.stack(torch.meshgrid(*(torch.arange(side) for side in mask.shape), indexing="ij"), dim=-1)
    places, weight = places.reshape(-1, mask.ndim).double(), mask.flatten().double()
    return torch.cov(places.T, aweights=weight, correction=0)


def ball(*sides: int, radius: float) -> torch.Tensor:
    """One of a batch of one, in the middle."""
    axes = (torch.arange(side) - (side - 1) / 2 for side in sides)
    squares = sum(axis**2 for axis in torch.meshgrid(*axes, indexing="ij"))
    return (radius + 0.5 - squares.sqrt()).clamp(0, 1)[None, None]


@pytest.mark.parametrize("sides", [(48, 80), (80, 48), (24, 48, 80), (24, 80, 48)])
def test_what_is_round_stays_round_when_it_is_rotated_on_a_canvas_that_is_not_square(sides):
    mask = ball(*sides, radius=10)
    turned = replace(NOTHING, p_affine=1.0, rotation_degrees=80.0, scaling=0.0, shift=0.0)
    for seed in range(4):
        _, moved = augment(2 * mask - 1, mask, turned, seeded(seed))
        assert torch.allclose(spread(moved[0, 0]), spread(mask[0, 0]), atol=0.3)
        assert moved.sum().item() == pytest.approx(mask.sum().item(), rel=0.01)


def test_what_lies_off_the_middle_keeps_its_distance_in_a_rotation():
    mask = torch.zeros(1, 1, 64, 96)
    mask[:, :, 30:34, 66:70] = 1  # 20 pixels to the right of the middle
    turned = replace(NOTHING, p_affine=1.0, rotation_degrees=80.0, scaling=0.0, shift=0.0)
    _, moved = augment(2 * mask - 1, mask, turned, seeded(1))
    rows, columns = (moved[0, 0] > 0.5).nonzero().double().mean(dim=0) - torch.tensor([31.5, 47.5])
    assert abs(rows) > 2, "it was rotated"
    assert math.hypot(rows, columns) == pytest.approx(20, abs=0.3)


@pytest.fixture
def volumes() -> tuple[torch.Tensor, torch.Tensor]:
    """Two volumes of 16 slices: a body with a liver off the middle."""
    image, mask = torch.full((2, 1, 16, 40, 56), -1.0), torch.zeros(2, 1, 16, 40, 56)
    image[:, :, :, 6:34, 6:50] = 0
    mask[:, :, 4:12, 10:24, 12:28] = 1
    return image + 0.4 * mask, mask


def test_a_volume_with_every_probability_at_zero_stays_as_it_is(volumes):
    image, mask = augment(*volumes, NOTHING, seeded())
    assert torch.allclose(image, volumes[0], atol=1e-5)
    assert torch.allclose(mask, volumes[1], atol=1e-5)


def test_image_and_mask_of_a_volume_move_alike_and_again_with_the_same_seed(volumes):
    moves = replace(NOTHING, p_affine=1.0)
    image, mask = augment(*volumes, moves, seeded(3))
    assert not torch.allclose(mask, volumes[1], atol=0.1)
    assert torch.allclose(image[mask > 0.99], torch.tensor(0.4), atol=0.02)
    assert image[(mask < 0.01) & (image > -0.5)].max() < 0.02
    again, other = (augment(*volumes, AugmentationSettings(), seeded(seed))[0] for seed in (3, 4))
    assert torch.equal(again, augment(*volumes, AugmentationSettings(), seeded(3))[0])
    assert not torch.equal(again, other)
    assert again.min() >= -1
    assert again.max() <= 1


def test_volumes_are_never_mirrored(volumes):
    flips = replace(NOTHING, p_flip_left_right=1.0, p_flip_top_bottom=1.0)
    image, mask = augment(*volumes, flips, seeded())
    assert torch.allclose(image, volumes[0], atol=1e-5)
    assert torch.allclose(mask, volumes[1], atol=1e-5)


SIDES = [(64, 64), (24, 40, 40)]
MASS = replace(NOTHING, p_mass=1.0, mass=0.15)


def small_livers(*sides: int, count: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Liver of 1.0 in the middle of a body of 0.8 that fills the image: both are brighter than any mass."""
    mask = torch.zeros(count, 1, *sides)
    mask[(..., *(slice(side // 2 - 4, side // 2 + 4) for side in sides))] = 1
    return 0.8 + 0.2 * mask, mask


def with_masses(*sides: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Small livers before and after, and the share of mass at every place, from the image."""
    before, liver = small_livers(*sides)
    image, mask = augment(before, liver, MASS, seeded())
    density = image.flatten(1).amin(dim=1).view(-1, *[1] * (image.ndim - 1))
    share = (before - image) / (before - density).clamp(0.1)  # of images without a mass it is 0
    return liver, mask, share


@pytest.mark.parametrize("sides", SIDES, ids=["slices", "volumes"])
def test_where_a_mass_is_there_is_no_liver_and_elsewhere_all_of_it(sides):
    liver, mask, share = with_masses(*sides)
    assert torch.allclose(mask, liver * (1 - share), atol=1e-3)
    assert 8 < (share > 0.99).flatten(1).any(dim=1).sum() < 24
    assert liver.sum() / 2 < mask.sum() < 0.99 * liver.sum(), "they take some of the liver, not all"


@pytest.mark.parametrize("sides", SIDES, ids=["slices", "volumes"])
def test_the_middle_of_a_mass_is_outside_of_the_liver(sides):
    _, _, share = with_masses(*sides)
    distances = []
    for found in share[:, 0]:
        places = (found > 1e-3).nonzero()
        if len(places) and (places > 0).all() and (places < torch.tensor(sides) - 1).all():  # it is seen whole
            middle = (places * found[tuple(places.T)][:, None]).sum(dim=0) / found[tuple(places.T)].sum()
            distances.append((middle - torch.tensor(sides) / 2 + 0.5).abs().max().item())
    assert len(distances) > 4
    assert min(distances) > 3.8, "the liver reaches 4 pixels from the middle to every side"


@pytest.mark.slow
@pytest.mark.parametrize("sides", SIDES, ids=["slices", "volumes"])
def test_the_same_generator_makes_the_same_masses_and_where_none_is_made_all_stays(sides):
    before = small_livers(*sides)
    rare = replace(MASS, p_mass=0.5)
    one, same, other = (augment(*before, rare, seeded(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])
    changed = ((one[0] - before[0]).abs() > 1e-4).flatten(1).any(dim=1)
    assert 2 < changed.sum() < 18
    assert torch.allclose(one[1][~changed], before[1][~changed], atol=1e-5)


def test_without_liver_there_is_no_mass_and_air_is_no_place_for_one():
    image, mask = small_livers(64, 64)
    empty, _ = augment(image, torch.zeros_like(mask), MASS, seeded())
    assert torch.allclose(empty, image, atol=1e-5)
    image[..., 36:] = -1  # air begins at the right border of the liver
    changed, _ = augment(image, mask, MASS, seeded())
    assert not torch.allclose(changed[..., :36], image[..., :36], atol=0.1)
    assert torch.allclose(changed[..., 36:], image[..., 36:], atol=1e-5)
