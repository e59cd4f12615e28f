"""The cache: what both looks learn from, and when a case is prepared again."""

import json
from dataclasses import replace

import numpy as np
import pytest

from helpers import write_pair
from LiverUNetLib.errors import TrainingError
from LiverUNetLib.scan.formats import write_volume
from LiverUNetLib.scan.phantom import axial_affine
from LiverUNetLib.segmentation.grid import canonical_scan, resample
from LiverUNetLib.steps import finish
from LiverUNetTrainLib.data.cache import Grids, open_cache, prepare
from LiverUNetTrainLib.data.layouts import find_cases

GRIDS = Grids(pixel_mm=8.0, slice_mm=18.0, voxel_mm=16.0)


def cached(pairs, folder, grids=GRIDS) -> list[str]:
    return [finding.message for finding in prepare(find_cases([pairs]), folder, grids)]


def test_on_the_grid_of_the_scan_the_cache_holds_the_scan_itself(pairs, a_cache):
    """The files have pixels of 8 mm and slices of 18 mm, as the fine look."""
    (case,) = a_cache.select(["patient1"])
    scan, mask = find_cases([pairs])[1].read()
    np.testing.assert_array_equal(case.image, np.clip(canonical_scan(scan)[0], -160, 240))
    np.testing.assert_array_equal(case.mask, 255 * (canonical_scan(mask)[0] != 0))
    assert (case.slice_mm, case.voxel_ml) == (18.0, pytest.approx(8 * 8 * 18 / 1000))
    assert case.fine_grid == canonical_scan(scan)[1]
    assert (case.image.dtype, case.mask.dtype) == (np.int16, np.uint8)


def test_the_coarse_arrays_lie_over_the_same_scan(pairs, a_cache):
    (case,) = a_cache.select(["patient1"])
    scan, mask = find_cases([pairs])[1].read()
    hu, grid = canonical_scan(scan)
    assert case.coarse_grid == grid.cubes(16.0)
    assert case.coarse.shape == case.coarse_mask.shape == (14, 18, 24), "216 x 288 x 384 mm in cubes of 16 mm"
    expected = finish(resample(hu, grid, grid.cubes(16.0), clip=(-160, 240)))
    np.testing.assert_array_equal(case.coarse, np.rint(expected))
    liver_ml = (mask.hu_kji != 0).sum() * scan.voxel_ml
    assert case.mask.sum() / 255 * case.voxel_ml == pytest.approx(liver_ml)
    assert case.coarse_mask.sum() / 255 * 16**3 / 1000 == pytest.approx(liver_ml, rel=0.05)
    assert liver_ml > 100


def test_thin_slices_are_averaged_in_whole_numbers_and_fine_pixels_and_cubes_agree_on_the_place(tmp_path):
    """A block of 100 HU in water: 20 slices of 5 mm, in pairs of 10 mm; its edges lie between cells of every grid."""
    hu, mask = np.zeros((20, 24, 32), np.int16), np.zeros((20, 24, 32), np.uint8)
    hu[4:12, 8:16, 8:24], mask[4:12, 8:16, 8:24] = 100, 1
    hu[:, :2], hu[:, 2:4] = -1000, -100
    for name, array in (("orig", hu), ("liver", mask)):
        write_volume(tmp_path / f"a_{name}.nii.gz", array, axial_affine((10.0, 10.0, 5.0), (32, 24, 20)))
    list(prepare(find_cases([tmp_path]), tmp_path / "cache", Grids(pixel_mm=10.0, slice_mm=12.0, voxel_mm=20.0)))
    (case,) = open_cache(tmp_path / "cache").cases
    assert case.slice_mm == 10.0
    assert case.image.shape == (10, 24, 32)
    assert case.coarse.shape == (5, 12, 16)
    assert case.image.min() == -160
    middle = case.image[3, 12, 16], case.coarse[2, 6, 8], case.mask[3, 12, 16], case.coarse_mask[2, 6, 8]
    assert middle[::2] == (100, 255)
    assert middle[1] == pytest.approx(100, abs=20)
    for image, share, grid in (
        (case.image, case.mask, case.fine_grid),
        (case.coarse, case.coarse_mask, case.coarse_grid),
    ):
        places = np.argwhere(share > 0) + 0.5
        center_mm = np.average(places, axis=0, weights=share[share > 0]) * grid.spacing_mm
        assert center_mm == pytest.approx([40, 120, 160], abs=1), "of slices 4 to 11, rows 8 to 15, columns 8 to 23"
        assert np.corrcoef(image[share > 0].astype(float), share[share > 0])[0, 1] > 0.9


def test_unchanged_cases_are_kept_and_changed_ones_prepared_again(pairs, tmp_path):
    folder = tmp_path / "cache"
    assert not any("unchanged" in words for words in cached(pairs, folder))
    before = (folder / "patient0/image.npy").stat().st_mtime_ns
    assert all("unchanged" in words for words in cached(pairs, folder))
    write_pair(pairs, "patient1", seed=77)
    assert ["unchanged" in words for words in cached(pairs, folder)] == [True, False, True, True]
    assert (folder / "patient0/image.npy").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed", [{"pixel_mm": 9.0}, {"slice_mm": 40.0}, {"voxel_mm": 20.0}, {"window_hu": (-200.0, 300.0)}], ids=str
)
def test_on_other_grids_all_cases_are_prepared_again(changed, pairs, tmp_path):
    folder = tmp_path / "cache"
    cached(pairs, folder)
    assert not any("unchanged" in words for words in cached(pairs, folder, replace(GRIDS, **changed)))
    assert open_cache(folder).grids == replace(GRIDS, **changed)


def test_an_unfinished_cache_on_other_grids_is_not_mixed_with_the_old_one(pairs, tmp_path):
    folder = tmp_path / "cache"
    cached(pairs, folder)
    steps = prepare(find_cases([pairs]), folder, replace(GRIDS, pixel_mm=9.0))
    next(steps)
    steps.close()
    with pytest.raises(TrainingError, match=r"cache\.json does not exist"):
        open_cache(folder)


@pytest.mark.slow
def test_an_older_cache_says_to_prepare_again(a_cache):
    index = a_cache.folder / "cache.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"schema_version": 4}))
    with pytest.raises(TrainingError, match="was prepared by another version of LiverUNet; run prepare again"):
        open_cache(a_cache.folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["image", "mask", "coarse", "coarse_mask"])
def test_an_array_that_is_gone_or_damaged_is_named(name, a_cache):
    path = a_cache.folder / "patient2" / f"{name}.npy"
    path.write_bytes(b"damaged")
    with pytest.raises(TrainingError, match=r"patient2 is damaged .* delete it and run prepare again"):
        open_cache(a_cache.folder)
    path.unlink()
    with pytest.raises(TrainingError, match="patient2 is damaged"):
        open_cache(a_cache.folder)


@pytest.mark.parametrize("content", ["{}", "[1]", "3", '{"facts": 3}', '{"schema_version": 5}', '{"facts": {}}'])
def test_damaged_files_of_a_cache_are_named_and_a_damaged_case_is_prepared_again(content, pairs, tmp_path):
    folder = tmp_path / "cache"
    cached(pairs, folder)
    (folder / "patient2/case.json").write_text(content)
    with pytest.raises(TrainingError, match=r"cache/patient2 is damaged \(.+\); delete it and run prepare again"):
        open_cache(folder)
    assert [message == "unchanged" for message in cached(pairs, folder)] == [True, True, False, True]
    assert open_cache(folder).cases[2].name == "patient2"
    (folder / "cache.json").write_text(content)
    with pytest.raises(TrainingError, match=r"cache is damaged \(.+\); delete it and run prepare again"):
        open_cache(folder)
    cached(pairs, folder)
    assert len(open_cache(folder).cases) == 4


def test_a_case_that_a_cache_does_not_hold_is_named(a_cache):
    assert [case.name for case in a_cache.select(["patient2", "patient0"])] == ["patient0", "patient2"]
    with pytest.raises(TrainingError, match="holds no case typo; prepare it"):
        a_cache.select(["patient0", "typo"])
