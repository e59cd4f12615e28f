"""Image and mask move together; intensities change in the image alone."""

from dataclasses import fields, replace

import pytest
import torch

from LiverUNetTrainLib.augmentation import AugmentationSettings, augment

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


def test_with_every_probability_at_zero_nothing_changes(batch):
    image, mask = augment(*batch, NOTHING, seeded())
    assert torch.allclose(image, batch[0], atol=1e-5)
    assert torch.allclose(mask, batch[1], atol=1e-5)


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


@pytest.mark.parametrize(
    "name",
    ["p_contrast", "p_gamma", "p_shift", "p_liver_shift", "p_noise", "p_blur", "p_low_resolution", "p_streaks"],
)
def test_intensity_changes_leave_the_mask_alone_and_the_range_kept(name, batch):
    image, mask = augment(*batch, replace(NOTHING, **{name: 1.0}), seeded())
    assert not torch.allclose(image, batch[0], atol=0.01)
    assert torch.allclose(mask, batch[1], atol=1e-5)
    assert image.min() >= -1
    assert image.max() <= 1


@pytest.mark.parametrize("name", ["p_contrast", "p_gamma", "p_shift"])
def test_air_stays_air_when_contrast_changes(name, batch):
    image, _ = augment(*batch, replace(NOTHING, **{name: 1.0}), seeded())
    assert torch.allclose(image[batch[0] == -1], torch.tensor(-1.0))


def test_the_liver_alone_can_change_its_attenuation(batch):
    image, mask = augment(*batch, replace(NOTHING, p_liver_shift=1.0), seeded())
    change = (image - batch[0]).abs()
    assert change[:, 1, 25:35, 17:27].mean() > 0.05
    assert change[:, 1, 50:, 45:].max() < 1e-5
    assert torch.allclose(mask, batch[1], atol=1e-5)


def test_context_drop_out_puts_the_middle_slice_everywhere(batch):
    image, _ = augment(*batch, replace(NOTHING, p_context_dropout=1.0), seeded())
    assert torch.allclose(image, batch[0][:, 1:2].expand(-1, 3, -1, -1), atol=1e-5)
