"""Interpolation in the plane agrees with PyTorch's."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from LiverUNetLib.resampling import resample_plane


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(
    ("size", "wanted"), [((1, 1), (1, 1)), ((5, 7), (3, 9)), ((64, 64), (39, 37)), ((1, 6), (5, 4)), ((3, 2), (2, 30))]
)
def test_slices_are_interpolated_as_by_torch(size, wanted, antialias):
    slices = np.random.default_rng(0).random((3, *size), dtype=np.float32)
    found = resample_plane(slices, wanted, antialias=antialias)
    expected = interpolate(torch.from_numpy(slices)[:, None], size=wanted, mode="bilinear", antialias=antialias)[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32
