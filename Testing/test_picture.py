"""A picture shows a scan from below, upright and in its proportions, for every order of axes."""

import numpy as np
import pytest

from LiverUNetLib.scan.volume import CTVolume
from LiverUNetLib.segmentation.picture import draw_montage

# Slices to superior, rows to posterior, columns to the left: steps of 3, 1 and 2 mm.
AFFINE = np.diag([-2.0, -1.0, 3.0, 1.0])


@pytest.fixture
def a_scan():
    """Ten slices, the number of each in its voxels; the liver lies in 4 to 6."""
    hu = np.zeros((10, 8, 6), np.int16) + np.arange(10, dtype=np.int16)[:, None, None]
    hu[:, 0, 0] = 100  # anterior, right
    mask = np.zeros(hu.shape, np.uint8)
    mask[4:7, 2:5, 2:4] = 1
    return CTVolume(hu, AFFINE), mask


def shown(figure):
    return [(axes.get_title(), axes.images[0].get_array(), axes.get_aspect()) for axes in figure.axes]


def test_the_slices_of_the_liver_are_shown_from_above_to_below(a_scan):
    volume, mask = a_scan
    pictures = shown(draw_montage(volume, {"liver": mask}))
    assert [title for title, _, _ in pictures] == ["slice 7", "slice 6", "slice 5"]
    for (_, image, aspect), k in zip(pictures, (6, 5, 4), strict=True):
        assert np.array_equal(image, volume.hu_kji[k])
        assert aspect == pytest.approx(0.5), "a row is half as far as a column"


def test_without_a_liver_slices_of_the_whole_scan_are_shown(a_scan):
    volume, mask = a_scan
    assert [title for title, _, _ in shown(draw_montage(volume, {"liver": 0 * mask}, tiles=3))] == [
        "slice 10",
        "slice 5",
        "slice 1",
    ]


def test_the_order_of_axes_does_not_change_the_picture(a_scan):
    volume, mask = a_scan
    expected = shown(draw_montage(volume, {"liver": mask}))
    # Stored with i to superior, j to the right, k to anterior.
    affine = np.array([[0, 2.0, 0, -10], [0, 0, 1.0, -7], [3.0, 0, 0, 0], [0, 0, 0, 1]])
    hu, liver = (array[:, ::-1, ::-1].transpose(1, 2, 0) for array in (volume.hu_kji, mask))
    found = shown(draw_montage(CTVolume(hu, affine), {"liver": liver}))
    for one, other in zip(found, expected, strict=True):
        assert one[0] == other[0]
        assert np.array_equal(one[1], other[1])
        assert one[2] == other[2]
