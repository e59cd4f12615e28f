"""Masks whose values are not labels have the right volume, or are refused in one sentence."""

import numpy as np
import pytest
from scipy import ndimage

from LiverUNetLib.errors import ScanError
from LiverUNetLib.scan.formats import read_mask, write_volume


@pytest.fixture
def stored(a_phantom, tmp_path):
    """Write a mask, read it, and return its volume as a share of the true one."""

    def share(values, **options):
        write_volume(tmp_path / "mask.nii.gz", values, a_phantom[0].affine)
        return int(read_mask(tmp_path / "mask.nii.gz", **options).hu_kji.sum()) / int(a_phantom[1].sum())

    return share


def softened(mask):
    """As linear interpolation to another grid and back leaves it."""
    return ndimage.uniform_filter(mask.astype(np.float32), 3)


@pytest.mark.parametrize("scale", [1.0, 100.0, 255.0])
def test_a_soft_border_is_cut_at_half_and_reported(scale, a_phantom, stored, tmp_path, caplog):
    soft = softened(a_phantom[1]) * np.float32(scale)
    assert np.count_nonzero(soft) > 1.3 * a_phantom[1].sum()
    assert stored(soft) == pytest.approx(1, abs=0.01)
    told = f"mask.nii.gz has a soft border, as interpolation leaves it; it is cut at {scale / 2:g}."
    assert caplog.messages == [told]
    assert read_mask(tmp_path / "mask.nii.gz").notes == (told,)


def test_overshoot_of_cubic_interpolation_is_not_liver(a_phantom, stored):
    soft = softened(a_phantom[1]) * np.float32(1.2)
    soft[soft == 0] = -0.1
    assert stored(soft - np.float32(0.1) * (soft > 0)) == pytest.approx(1, abs=0.02)


def test_a_soft_border_in_bytes_is_cut_at_half(a_phantom, stored, caplog):
    soft = ndimage.gaussian_filter(a_phantom[1] * np.float32(255), 1)
    assert stored(np.rint(soft).astype(np.uint8)) == pytest.approx(1, abs=0.02)
    assert caplog.messages[0].endswith("it is cut at 127.5.")


def test_a_tumor_with_a_soft_border_belongs_to_the_liver(a_phantom, stored):
    labels = a_phantom[1].astype(np.float32)
    labels[ndimage.binary_erosion(a_phantom[1], iterations=4)] = 2
    assert stored(softened(labels)) == pytest.approx(1, abs=0.01)


def test_interpolated_labels_are_refused(a_phantom, stored):
    with pytest.raises(ScanError, match=r"holds fractions, .* labels 1, 2 cannot be told apart"):
        stored(softened(a_phantom[1]), labels=(1, 2))


@pytest.mark.parametrize("outside", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_outside(outside, a_phantom, stored, caplog):
    values = a_phantom[1].astype(np.float32)
    values[:, :10] = outside
    assert stored(values) == 1
    assert stored(values, labels=(1,)) == 1
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("kind", "inside"), [("u1", 1), ("u1", 255), ("i1", -1), ("i2", 2), ("f4", 1), ("f4", 255), ("f4", 0.25), ("f4", 7)]
)
def test_any_two_values_are_a_mask(kind, inside, a_phantom, stored, caplog):
    assert stored(a_phantom[1].astype(kind) * np.dtype(kind).type(inside)) == 1
    assert caplog.messages == []


@pytest.mark.parametrize("kind", ["u1", "f4"])
def test_only_the_given_labels_are_inside(kind, a_phantom, stored, caplog):
    labels = a_phantom[1].astype(kind)
    labels[:10] *= 2
    labels[:, :3] = 7
    ones = int((labels == 1).sum()) / int(a_phantom[1].sum())
    assert stored(labels, labels=(1,)) == ones < 1
    assert stored(labels * np.dtype(kind).type(1.0), labels=(1, 2)) == 1
    assert stored(labels) > 1
    assert caplog.messages == []
