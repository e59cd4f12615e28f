"""Volumes that are accepted as a CT in HU, and volumes that are refused."""

import numpy as np
import pytest
from scipy import ndimage

from LiverUNetLib.errors import ScanError
from LiverUNetLib.scan.ct_checks import check_ct
from LiverUNetLib.scan.formats import read_volume
from LiverUNetLib.scan.phantom import abdomen, axial_affine
from LiverUNetLib.scan.volume import CTVolume

PADDING = [-1024, -2000, -3024, -32768, 0, 30000]


@pytest.fixture(scope="session")
def a_noisy_phantom():
    """With the noise of a real scan."""
    shape = (60, 128, 160)
    return abdomen(axial_affine((2.5, 2.5, 4.0), shape[::-1]), shape)


@pytest.fixture(params=["phantom", "ircad_e17", "lits_v003"])
def a_scan(request, a_noisy_phantom):
    """A scan and its liver; of the real ones, one holds all HU and one was clipped and kept in 8 bits."""
    if request.param == "phantom":
        return a_noisy_phantom
    folder = request.getfixturevalue("real_data") / request.param.split("_")[0]
    scan, liver = (read_volume(folder / f"{request.param}_{part}.nii.gz") for part in ("orig", "liver"))
    every_second = CTVolume(scan.hu_kji[:, ::2, ::2], scan.affine @ np.diag([2, 2, 1, 1]), scan.name)
    return every_second, liver.hu_kji[:, ::2, ::2]


def outside(shape):
    """The corners outside the circle of the field of view."""
    j, i = (np.linspace(-1, 1, n) for n in shape[1:])
    return np.broadcast_to(j[:, None] ** 2 + i**2 > 1, shape)


def padded(hu, value):
    return np.where(outside(hu.shape), hu.dtype.type(value), hu)


def checked(hu, scan, affine=None):
    check_ct(CTVolume(np.ascontiguousarray(hu), scan.affine if affine is None else affine, "x"))


@pytest.mark.slow
def test_every_real_scan_is_accepted(real_data):
    scans = sorted(real_data.glob("*/*_orig.nii.gz"))
    assert len(scans) == 30
    for path in scans:
        check_ct(read_volume(path))


@pytest.mark.slow
@pytest.mark.parametrize("value", PADDING)
def test_padding_outside_the_field_of_view_is_accepted(value, a_scan):
    scan, _ = a_scan
    checked(padded(scan.hu_kji.astype(np.int32), value), scan)


@pytest.mark.slow
def test_parts_of_a_scan_are_accepted(a_scan):
    scan, liver = a_scan
    for k in (0, len(liver) // 2, len(liver) - 1):
        checked(scan.hu_kji[k : k + 1], scan)
    checked(scan.hu_kji[10:13], scan)
    middle = [round(n) for n in ndimage.center_of_mass(liver)]
    for size_mm in (60, 120):
        half = [round(size_mm / 2 / mm) for mm in scan.spacing_kji_mm]
        checked(scan.hu_kji[tuple(slice(max(m - h, 0), m + h) for m, h in zip(middle, half, strict=True))], scan)
    (box,) = ndimage.find_objects(liver)
    checked(scan.hu_kji[box], scan)


@pytest.mark.slow
def test_noise_metal_and_an_unenhanced_liver_are_accepted(a_scan):
    scan, liver = a_scan
    hu = scan.hu_kji.astype(np.float32)
    checked(hu + np.random.default_rng(0).normal(0, 60, hu.shape).astype(np.float32), scan)
    checked(np.where(liver > 0, hu - 55, hu), scan)
    metal = hu.copy()
    metal[10:20, 60:70, 60:70] = 30000
    checked(metal, scan)
    checked(np.clip(hu, -160, 240), scan)
    checked(np.clip(hu, -200, 300), scan)


@pytest.mark.slow
@pytest.mark.parametrize("air", ["one value", "noise", "clipped"])
def test_a_scan_that_is_a_small_part_of_its_grid_is_accepted(air, a_scan):
    """The grid of a PET or a plan: 4 % and less of it are soft tissue."""
    scan, _ = a_scan
    hu = scan.hu_kji.astype(np.float32)
    air_hu, noise_hu = {"one value": (-1024, 0), "noise": (-1000, 40), "clipped": (-160, 0)}[air]
    hu = np.clip(hu, -160, 240) if air == "clipped" else hu
    grid = np.random.default_rng(0).normal(air_hu, noise_hu, (3 * len(hu), *(2 * n for n in hu.shape[1:])))
    grid = grid.astype(np.float32)
    grid[tuple(slice(n) for n in hu.shape)] = hu
    assert np.mean((grid > -150) & (grid < 240)) < 0.05
    checked(grid, scan)


SCALES = {
    "[-1, 1]": lambda hu: (np.clip(hu, -160, 240) + 160) / 200 - 1,
    "z-score": lambda hu: (hu - hu.mean()) / hu.std(),
    "z-score of a window": lambda hu: (np.clip(hu, -160, 240) - 40) / 110,
    "HU / 1000": lambda hu: hu / 1000,
    "HU / 1024": lambda hu: hu / 1024,
}


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("value", [None, -1, -1024, -2000])
def test_normalized_intensities_are_refused(scale, value, a_scan):
    scan, _ = a_scan
    values = SCALES[scale](scan.hu_kji.astype(np.float32))
    with pytest.raises(
        ScanError, match="not in HU: nearly all of its values lie between -20 and 20; it looks normalized"
    ):
        checked(values if value is None else padded(values, value), scan)


@pytest.mark.slow
@pytest.mark.parametrize("value", [None, -1, -1024, -2000])
def test_a_window_scaled_to_bytes_is_refused(value, a_scan):
    scan, _ = a_scan
    values = (np.clip(scan.hu_kji.astype(np.float32), -160, 240) + 160) / 400 * 255
    besides = "" if value is None else f" besides padding of {value}"
    with pytest.raises(ScanError, match=f"is not in HU: it holds no value below 0{besides}, but fat and air are below"):
        checked(values if value is None else padded(values, value), scan)


def test_a_window_scaled_to_one_is_refused(a_scan):
    scan, _ = a_scan
    values = (np.clip(scan.hu_kji.astype(np.float32), -160, 240) + 160) / 400
    with pytest.raises(ScanError, match="is not in HU: it holds no value below 0, but fat and air are below"):
        checked(values, scan)
    with pytest.raises(ScanError, match="it looks normalized"):
        checked(padded(values, -1024), scan)


@pytest.mark.slow
@pytest.mark.parametrize("offset", [1000, 1023, 1024])
@pytest.mark.parametrize("value", [None, *PADDING[:-1], -1])
def test_stored_values_without_their_rescale_are_refused(offset, value, a_scan):
    scan, _ = a_scan
    values = scan.hu_kji.astype(np.int32) + offset
    with pytest.raises(ScanError, match="is not in HU: it"):
        checked(values if value is None else padded(values, value), scan)


def test_stored_values_whose_padding_was_interpolated_are_refused(a_noisy_phantom):
    """Interpolation leaves a few voxels of every value between padding and air, and some below the padding."""
    scan, _ = a_noisy_phantom
    values = ndimage.zoom(padded(scan.hu_kji + np.int32(1024), -2000).astype(np.float32), (1, 0.8, 0.8), order=3)
    with pytest.raises(ScanError, match="its soft tissue lies between 840 and 1264, where a CT has bone"):
        checked(values, scan)


def test_a_rescale_that_was_applied_twice_is_refused(a_noisy_phantom):
    scan, _ = a_noisy_phantom
    with pytest.raises(ScanError, match="does not look like HU"):
        checked(scan.hu_kji - 1024, scan)


def test_bone_alone_does_not_make_a_ct_whose_rescale_was_applied_twice(a_noisy_phantom):
    """Without contrast medium: soft tissue is at -900 and below, like air, and bone is at 0."""
    scan, _ = a_noisy_phantom
    bone = scan.hu_kji > 480
    assert 0.002 < bone.mean() < 0.004
    values = np.where(bone, 1024, np.minimum(scan.hu_kji, 60)) - 1024
    with pytest.raises(ScanError, match="does not look like HU: 0"):
        checked(values, scan)


@pytest.mark.parametrize(
    ("factor", "fault"),
    [
        (0.02, "voxels of 0.05 x 0.05 x 0.08 mm, a CT of a body has 0.1 to 30 mm"),
        (1000, "voxels of 2500 x 2500 x 4000 mm, a CT of a body has 0.1 to 30 mm"),
    ],
)
def test_a_size_that_no_body_has_is_refused(factor, fault, a_noisy_phantom):
    scan, _ = a_noisy_phantom
    with pytest.raises(ScanError) as told:
        checked(scan.hu_kji, scan, scan.affine @ np.diag([factor, factor, factor, 1]))
    assert str(told.value) == f"x has {fault}; its spacing is wrong or not in mm: convert the scan again."


@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [((1, 128, 160), (20.0, 2.5, 2.5)), ((1900, 20, 20), (1.0, 20.0, 20.0)), ((20, 200, 200), (3.0, 0.15, 0.15))],
    ids=["one thick slice", "whole body", "fine pixels"],
)
def test_a_size_that_a_body_can_have_is_accepted(shape, spacing_mm, a_noisy_phantom):
    hu = np.resize(a_noisy_phantom[0].hu_kji, shape)
    checked(hu, a_noisy_phantom[0], np.diag([*spacing_mm[::-1], 1.0]))


def test_a_scan_that_is_longer_than_any_table_is_refused(a_noisy_phantom):
    scan, _ = a_noisy_phantom
    with pytest.raises(ScanError, match=r"a length of 3\.6 m, no CT is longer than 3 m; its spacing is wrong"):
        checked(scan.hu_kji, scan, scan.affine @ np.diag([9, 9, 1, 1]))


def test_a_scan_too_narrow_for_an_organ_is_refused(a_noisy_phantom):
    scan, _ = a_noisy_phantom
    with pytest.raises(ScanError, match=r"a width of 17\.5 mm, too little to show an organ"):
        checked(scan.hu_kji[:, 60:67, 60:64], scan)
