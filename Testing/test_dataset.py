"""Pairs are checked before anything learns from them, and no patient is in two parts of a split."""

import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from helpers import ALL_48, with_other_axes, write_pair
from LiverUNetLib.errors import ScanError, TrainingError
from LiverUNetLib.scan.formats import read_volume, write_volume
from LiverUNetLib.scan.volume import CTVolume
from LiverUNetTrainLib.cli.main import main
from LiverUNetTrainLib.data.cache import Grids, is_cache, open_cache, prepare
from LiverUNetTrainLib.data.cases import align_mask, check_case, content_hash
from LiverUNetTrainLib.data.layouts import find_cases
from LiverUNetTrainLib.data.splits import split_by_patient

GRIDS = Grids(pixel_mm=8.0, slice_mm=18.0, voxel_mm=16.0)
# A turn by 30 degrees about the patient's long axis.
OBLIQUE = np.array([[0.75**0.5, -0.5, 0, 0], [0.5, 0.75**0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.fixture
def a_small_scan() -> CTVolume:
    """Noise on a grid whose axes have different lengths, off the origin."""
    hu = np.random.default_rng(0).integers(-1024, 1500, (5, 6, 7)).astype(np.int16)
    hu[0, 0, :3] = 0, -1024, -1024
    return CTVolume(hu, np.array([[-0.7, 0, 0, 81.3], [0, -0.8, 0, 60.1], [0, 0, 2.5, -940.7], [0, 0, 0, 1]]))


def stored_as(volume: CTVolume, orientation: np.ndarray) -> CTVolume:
    """The same volume with its i, j, k permuted and flipped."""
    turned = nibabel.orientations.apply_orientation(volume.hu_kji.T, orientation).T
    affine = volume.affine @ nibabel.orientations.inv_ornt_aff(orientation, volume.hu_kji.T.shape)
    return replace(volume, hu_kji=turned, affine=affine)


def change_mask(folder, name, change) -> None:
    path = folder / f"{name}_liver.nii.gz"
    image = nibabel.load(path)
    changed = change(np.asarray(image.dataobj).copy(), image.affine.copy())
    nibabel.save(nibabel.Nifti1Image(*changed), path)


def test_pairs_are_found_by_name(pairs):
    assert [case.name for case in find_cases([pairs])] == ["patient0", "patient1", "patient2", "patient3"]


def test_a_scan_without_mask_is_named_and_left_out(pairs, tmp_path, capsys):
    (pairs / "patient1_liver.nii.gz").unlink()
    assert main(["prepare", str(pairs), "--cache", str(tmp_path / "cache")]) == 0
    assert f"patient1: left out: {pairs / 'patient1_liver.nii.gz'} does not exist." in capsys.readouterr().out


def test_a_strict_run_stops_at_the_first_fault(pairs, tmp_path, capsys):
    (pairs / "patient1_liver.nii.gz").unlink()
    assert main(["prepare", str(pairs), "--cache", str(tmp_path / "cache"), "--strict"]) == 1
    assert "patient1_liver.nii.gz does not exist" in capsys.readouterr().err
    assert not is_cache(tmp_path / "cache")


def test_a_folder_without_pairs_and_a_missing_one_are_named(tmp_path):
    with pytest.raises(TrainingError, match="holds no case"):
        find_cases([tmp_path])
    with pytest.raises(TrainingError, match="does not exist"):
        find_cases([tmp_path / "none"])


def test_two_cases_of_one_name_are_refused(pairs, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    write_pair(other, "patient2", seed=9)
    with pytest.raises(TrainingError, match="Two cases are called patient2"):
        find_cases([pairs, other])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda mask, affine: (mask[1:], affine), "has shape"),
        (lambda mask, affine: (mask, affine + np.diag([0, 0, 0.5, 0])), "lies elsewhere"),
        (lambda mask, affine: (mask * 0, affine), "is empty"),
        (lambda mask, affine: (np.ones_like(mask), affine), "a liver has"),
    ],
    ids=["another grid", "another place", "empty", "implausible"],
)
def test_a_faulty_mask_is_named(change, expected, pairs):
    change_mask(pairs, "patient0", change)
    with pytest.raises(ScanError, match=expected):
        check_case(find_cases([pairs])[0])


def test_a_scan_has_the_same_content_hash_under_another_name_and_compression(pairs, tmp_path):
    first, second = (case.read()[0] for case in find_cases([pairs])[:2])
    plain = tmp_path / "other.nii"
    nibabel.save(nibabel.load(pairs / "patient0_orig.nii.gz"), plain)
    shutil.copy(pairs / "patient0_liver.nii.gz", pairs / "same_liver.nii.gz")
    assert content_hash(read_volume(plain)) == content_hash(first)
    assert content_hash(second) != content_hash(first)


def test_a_split_never_shares_a_patient_and_is_drawn_by_its_seed():
    names = [f"p{n}" for n in range(20)]
    for seed in range(50):
        split = split_by_patient(names, held_out=["p3", "p7"], validation=0.2, seed=seed)
        parts = [set(split.training), set(split.validation), set(split.held_out)]
        assert set.union(*parts) == set(names)
        assert sum(map(len, parts)) == len(names)
        assert (len(split.validation), len(split.held_out)) == (4, 2)
        assert split == split_by_patient(names[::-1], held_out=["p7", "p3"], validation=0.2, seed=seed)
    assert len({split_by_patient(names, seed=seed).validation for seed in range(50)}) > 20


def test_a_split_that_cannot_be_made_says_why():
    with pytest.raises(TrainingError, match="Cannot hold out typo"):
        split_by_patient(["a", "b", "c"], held_out=["typo"])
    with pytest.raises(TrainingError, match="No patient is left for training"):
        split_by_patient(["a", "b"], held_out=["a", "b"])
    with pytest.raises(TrainingError, match="between 0 and 1"):
        split_by_patient(["a", "b"], validation=1.5)


def test_faulty_and_repeated_cases_are_named_and_left_out(pairs, tmp_path, capsys):
    change_mask(pairs, "patient0", lambda mask, affine: (mask * 0, affine))
    for ending in ("orig", "liver"):
        shutil.copy(pairs / f"patient1_{ending}.nii.gz", pairs / f"twin_{ending}.nii.gz")
    assert main(["prepare", str(pairs), "--cache", str(tmp_path / "cache")]) == 0
    told = capsys.readouterr().out
    assert "patient0: left out: patient0_liver.nii.gz is empty" in told
    assert "twin: left out: twin is the same scan as patient1" in told
    assert [case.name for case in open_cache(tmp_path / "cache").cases] == ["patient1", "patient2", "patient3"]


def test_a_folder_that_is_no_cache_is_named(tmp_path, capsys):
    assert main(["train", str(tmp_path)]) == 1
    assert "cache.json does not exist" in capsys.readouterr().err


@pytest.mark.slow
def test_the_content_hash_is_the_same_in_every_format(pairs, tmp_path):
    scan = read_volume(pairs / "patient0_orig.nii.gz")
    random = np.random.default_rng(0)
    for _ in range(40):
        affine = scan.affine.copy()
        affine[:3, 3] = random.uniform(-300, 300, 3).round(5)
        hashes = set()
        for name in ("scan.nii.gz", "scan.nrrd"):
            write_volume(tmp_path / name, scan.hu_kji[:2], affine)
            hashes.add(content_hash(read_volume(tmp_path / name)))
        assert len(hashes) == 1


@pytest.mark.slow
@pytest.mark.parametrize("change", ["first slice", "last slice", "mirrored", "turned", "cut"])
def test_any_change_of_a_scan_changes_its_content_hash(pairs, change):
    scan = read_volume(pairs / "patient0_orig.nii.gz")
    hu = scan.hu_kji.copy()
    if change.endswith("slice"):
        hu[0 if change == "first slice" else -1, 3, 3] += 1
    hu = {"mirrored": hu[:, :, ::-1], "turned": hu.swapaxes(1, 2), "cut": hu[1:]}.get(change, hu)
    assert content_hash(replace(scan, hu_kji=hu)) != content_hash(scan)


@pytest.mark.parametrize("turn", [np.eye(4), OBLIQUE], ids=["upright", "oblique"])
@pytest.mark.parametrize("orientation", ALL_48, ids=str)
def test_a_scan_in_any_order_of_axes_is_the_same_scan(orientation, turn, a_small_scan):
    scan = replace(a_small_scan, affine=turn @ a_small_scan.affine)
    assert content_hash(stored_as(scan, orientation)) == content_hash(scan)


def test_the_same_voxels_in_two_orders_of_axes_without_the_affine_of_it_are_two_scans(a_small_scan):
    hashes = {content_hash(replace(stored_as(a_small_scan, each), affine=a_small_scan.affine)) for each in ALL_48}
    assert len(hashes) == 48


@pytest.mark.parametrize(
    "change",
    [
        lambda scan: replace(scan, hu_kji=scan.hu_kji.astype(np.float64)),
        lambda scan: replace(scan, hu_kji=scan.hu_kji.astype(np.int32)),
        lambda scan: replace(scan, hu_kji=scan.hu_kji.astype(">i2")),
        lambda scan: replace(scan, hu_kji=scan.hu_kji + np.float32(0.003)),
        lambda scan: replace(scan, hu_kji=np.where(scan.hu_kji == 0, np.float32(-0.0), scan.hu_kji)),
        lambda scan: replace(scan, hu_kji=np.where(scan.hu_kji == -1024, np.int16(-2000), scan.hu_kji)),
        lambda scan: replace(scan, affine=scan.affine.astype(np.float32).astype(np.float64)),
        lambda scan: replace(scan, affine=scan.affine + np.eye(4, k=3) * 0.001),
        lambda scan: replace(scan, affine=scan.affine * [1, 1, 1, 0] + np.diag([0, 0, 0, 1])),
        lambda scan: replace(scan, affine=scan.affine @ np.diag([1.001, 1.001, 1, 1])),
    ],
    ids=[
        "float64",
        "int32",
        "big-endian",
        "rescaled",
        "minus-zero",
        "padding",
        "float32",
        "moved",
        "no-origin",
        "spacing",
    ],
)
def test_a_scan_kept_in_another_way_is_the_same_scan(change, a_small_scan):
    assert content_hash(change(a_small_scan)) == content_hash(a_small_scan)


@pytest.mark.slow
@pytest.mark.parametrize("codes", ["RAS", "LAS", "ASR", "PIR"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd"])
def test_a_reoriented_file_is_the_same_scan_in_every_format(codes, ending, pairs, tmp_path):
    path = pairs / "patient0_orig.nii.gz"
    before = content_hash(read_volume(path))
    with_other_axes(path, codes)
    turned = read_volume(path)
    assert "".join(nibabel.aff2axcodes(turned.affine)) == codes
    write_volume(tmp_path / f"turned{ending}", turned.hu_kji, turned.affine)
    assert content_hash(read_volume(tmp_path / f"turned{ending}")) == before


def test_a_patient_stored_with_other_axes_is_left_out_as_the_same_scan(pairs, tmp_path):
    for ending in ("orig", "liver"):
        twin = shutil.copy(pairs / f"patient1_{ending}.nii.gz", pairs / f"twin_{ending}.nii.gz")
        with_other_axes(twin, "RAS")
    told = [str(finding) for finding in prepare(find_cases([pairs]), tmp_path / "cache", GRIDS)]
    assert told[-1] == "twin: left out: twin is the same scan as patient1; remove one of them."


@pytest.mark.parametrize("orientation", ALL_48, ids=str)
def test_a_mask_in_any_order_of_axes_is_laid_on_its_scan(orientation, a_small_scan):
    mask = replace(a_small_scan, hu_kji=(a_small_scan.hu_kji > 0).astype(np.uint8), name="mask.nii")
    found = align_mask(stored_as(mask, orientation), a_small_scan, "its scan")
    np.testing.assert_array_equal(found.hu_kji, mask.hu_kji)
    assert found.affine == pytest.approx(a_small_scan.affine)
    assert found.hu_kji.flags.c_contiguous
    far = replace(mask, affine=mask.affine + np.eye(4, k=3))
    with pytest.raises(ScanError, match="lies elsewhere than its scan"):
        align_mask(stored_as(far, orientation), a_small_scan, "its scan")


def test_a_case_whose_mask_has_other_axes_is_read_on_the_grid_of_its_scan(pairs):
    case = find_cases([pairs])[0]
    before = case.read()[1]
    with_other_axes(case.mask, "RAS")
    assert not np.array_equal(case.read_mask().hu_kji, before.hu_kji)
    np.testing.assert_array_equal(case.read()[1].hu_kji, before.hu_kji)


def test_scan_and_mask_of_a_case_have_a_hash_each(pairs):
    checked = check_case(find_cases([pairs])[0])
    assert checked.content_hash == content_hash(checked.scan) != checked.mask_hash == content_hash(checked.mask)
