"""NIfTI: damaged files are refused, and a mask has the geometry of its scan."""

import gzip
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from helpers import dice
from LiverUNetLib.cli.main import main
from LiverUNetLib.errors import ScanError
from LiverUNetLib.scan.formats import read_mask, read_volume, scan_stem, write_mask, write_probability
from LiverUNetLib.scan.volume import CTVolume


def altered(path, name, change):
    """A copy of a gzipped file whose bytes were changed before they were packed."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    change(content)
    copy = path.with_name(name)
    copy.write_bytes(gzip.compress(bytes(content), 1) if name.endswith("gz") else bytes(content))
    return copy


@pytest.mark.parametrize("where", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("read", [read_volume, read_mask])
def test_a_flipped_bit_is_found_wherever_it_is(where, read, a_ct_file):
    content = bytearray(a_ct_file.read_bytes())
    for bit in range(8):
        content[int(where * len(content))] ^= 1 << bit
        a_ct_file.write_bytes(content)
        with pytest.raises(ScanError, match=r"ct\.nii\.gz is damaged: .*; copy it again"):
            read(a_ct_file)
        content[int(where * len(content))] ^= 1 << bit


@pytest.mark.parametrize("place", [-8, -1])
def test_a_wrong_checksum_or_length_is_reported_as_such(place, a_ct_file, capsys):
    content = bytearray(a_ct_file.read_bytes())
    content[place] ^= 1
    a_ct_file.write_bytes(content)
    assert main(["info", str(a_ct_file)]) == 1
    assert capsys.readouterr().err == f"{a_ct_file} is damaged: its checksum is wrong; copy it again.\n"


@pytest.mark.parametrize("missing", [1, 4, 8, 9, 1000])
def test_a_file_that_was_cut_short_is_damaged(missing, a_ct_file):
    a_ct_file.write_bytes(a_ct_file.read_bytes()[:-missing])
    with pytest.raises(ScanError, match="damaged: it is cut short"):
        read_volume(a_ct_file)


@pytest.mark.parametrize("tail", [b"\0" * 512, b"something else", b""])
def test_bytes_that_gzip_ignores_after_the_end_are_ignored(tail, a_ct_file, a_phantom):
    """Here also two members in one file, as parallel packers write them."""
    content = gzip.decompress(a_ct_file.read_bytes())
    a_ct_file.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]) + tail)
    assert np.array_equal(read_volume(a_ct_file).hu_kji, a_phantom[0].hu_kji)


@pytest.mark.parametrize(("packed", "name"), [(True, "ct.nii"), (False, "ct.nii.gz"), (True, "ct.GZ"), (False, "ct")])
def test_the_content_of_a_file_counts_not_its_ending(packed, name, a_ct_file, a_phantom, tmp_path):
    content = a_ct_file.read_bytes()
    path = tmp_path / "other" / name
    path.parent.mkdir()
    path.write_bytes(content if packed else gzip.decompress(content))
    assert np.array_equal(read_volume(path).hu_kji, a_phantom[0].hu_kji)


@pytest.mark.parametrize("given", ["ct.hdr", "ct.img", "CT.HDR", "ct.img.gz"])
def test_a_pair_is_read_by_either_name(given, a_ct_file, a_phantom, tmp_path):
    image = nibabel.load(a_ct_file)
    nibabel.save(nibabel.Nifti1Pair(np.asarray(image.dataobj), image.affine), tmp_path / "pair.hdr")
    stem, _, ending = given.partition(".")
    other = {"hdr": "img", "img": "hdr", "HDR": "IMG", "img.gz": "hdr"}[ending]
    if ending.endswith("gz"):
        (tmp_path / "pair.img.gz").write_bytes(gzip.compress((tmp_path / "pair.img").read_bytes()))
    for part in (ending, other):
        shutil.move(tmp_path / f"pair.{part.lower()}", tmp_path / f"{stem}.{part}")
    found = read_volume(tmp_path / given)
    assert np.array_equal(found.hu_kji, a_phantom[0].hu_kji)
    assert found.affine == pytest.approx(a_phantom[0].affine)
    assert scan_stem(tmp_path / given) == stem
    (tmp_path / f"{stem}.{other}").unlink()
    with pytest.raises(ScanError, match=rf"half of a pair: ct\.{other.lower()} is not beside it"):
        read_volume(tmp_path / given)


def test_analyze_is_refused_since_its_left_side_is_unknown(a_ct_file, tmp_path):
    image = nibabel.load(a_ct_file)
    nibabel.save(nibabel.AnalyzeImage(np.asarray(image.dataobj), image.affine), tmp_path / "old.hdr")
    with pytest.raises(ScanError, match=r"old\.img is not a readable NIfTI file: it has no NIfTI header; convert it"):
        read_volume(tmp_path / "old.img")


@pytest.mark.parametrize("name", ["scan.vtk", "scan.gipl", "scan.tar.gz"])
def test_an_unknown_format_is_refused_with_a_remedy(name, tmp_path):
    (tmp_path / name).write_bytes(b"# vtk DataFile Version 3.0\n" * 30)
    with pytest.raises(ScanError, match=r"has an unknown format: .*; convert it, for example with 3D Slicer"):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("name", ["huge.nii", "huge.nii.gz"])
@pytest.mark.parametrize("size", [(32767, 32767, 32767), (96, -72, 44), (96, 72, 45), (96, 0, 44)])
def test_a_header_that_claims_more_than_the_file_holds_is_refused(name, size, a_ct_file):
    def claim(content):
        content[42:48] = np.array(size, "<i2").tobytes()

    path = altered(a_ct_file, name, claim)
    with pytest.raises(ScanError, match=f"its header claims {' x '.join(map(str, size))} voxels, but it"):
        read_volume(path)


def test_voxels_begin_after_the_header_even_if_it_gives_no_offset(a_ct_file, a_phantom):
    """At byte 352, the least that the standard allows; nibabel would read the header as voxels."""

    def forget(content):
        content[108:112] = bytes(4)

    path = altered(a_ct_file, "bare.nii.gz", forget)
    assert np.array_equal(read_volume(path).hu_kji, a_phantom[0].hu_kji)


@pytest.mark.parametrize(("code", "mm"), [(0, 1.0), (1, 1000.0), (2, 1.0), (3, 0.001)])
def test_lengths_are_read_in_the_unit_of_the_header(code, mm, a_phantom, tmp_path):
    affine = np.diag([1 / mm, 1 / mm, 1 / mm, 1]) @ a_phantom[0].affine
    image = nibabel.Nifti1Image(a_phantom[0].hu_kji.T, affine)
    image.header["xyzt_units"] = code | 8  # seconds
    nibabel.save(image, tmp_path / "ct.nii.gz")
    found = read_volume(tmp_path / "ct.nii.gz")
    assert found.affine == pytest.approx(a_phantom[0].affine, rel=1e-5)
    assert found.voxel_ml == pytest.approx(0.08, rel=1e-5)
    assert found.notes == ()


@pytest.mark.parametrize("code", [1, 3])
def test_an_impossible_unit_is_read_as_mm_and_reported(code, a_phantom, tmp_path):
    image = nibabel.Nifti1Image(a_phantom[0].hu_kji.T, a_phantom[0].affine)
    image.header["xyzt_units"] = code
    nibabel.save(image, tmp_path / "ct.nii.gz")
    found = read_volume(tmp_path / "ct.nii.gz")
    assert found.affine == pytest.approx(a_phantom[0].affine)
    assert "which no CT fits; they are read as mm" in found.notes[0]


def moved(affine, mm):
    other = affine.copy()
    other[:3, 3] += mm
    return other


def two_places(volume, path, *, mm=(30, -20, 45), codes=(2, 1)):
    """A scan whose qform lies elsewhere than its sform."""
    image = nibabel.Nifti1Image(volume.hu_kji.T, None)
    image.set_sform(volume.affine, code=codes[0])
    image.set_qform(moved(volume.affine, mm), code=codes[1])
    image.header["xyzt_units"] = 2
    nibabel.save(image, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("codes", [(2, 1), (4, 1), (0, 1), (1, 0), (0, 0)])
def test_a_mask_has_the_sform_and_the_qform_of_its_scan(codes, a_phantom, threshold_model, tmp_path, capsys):
    scan = two_places(a_phantom[0], tmp_path / "ct.nii.gz", codes=codes)
    outputs = [tmp_path / "mask.nii.gz", tmp_path / "probability.nii"]
    options = ["-o", str(outputs[0]), "--probability", str(outputs[1]), "--model", str(threshold_model.folder)]
    assert main(["segment", str(scan), *options]) == 0
    told = capsys.readouterr().err
    assert ("gives two places in the patient, sform and qform, which are 57.7 mm apart" in told) == all(codes)
    expected, itk_expected = nibabel.load(scan).header, sitk.ReadImage(scan)
    for path in outputs:
        found, itk_found = nibabel.load(path).header, sitk.ReadImage(path)
        for get in ("get_sform", "get_qform"):
            (form, code), (scans_form, scans_code) = (getattr(header, get)(coded=True) for header in (found, expected))
            assert code == scans_code
            assert form is None if scans_form is None else np.array_equal(form, scans_form)
        assert found.get_zooms() == expected.get_zooms()
        assert itk_found.GetOrigin() == pytest.approx(itk_expected.GetOrigin())
        assert itk_found.GetDirection() == pytest.approx(itk_expected.GetDirection())
        assert itk_found.GetSpacing() == pytest.approx(itk_expected.GetSpacing())
    assert dice(read_mask(outputs[0]).hu_kji, a_phantom[1]) > 0.9


def test_an_sform_and_a_qform_that_agree_to_half_a_voxel_are_not_reported(a_phantom, tmp_path):
    assert read_volume(two_places(a_phantom[0], tmp_path / "near.nii", mm=(1.9, 0, 0))).notes == ()
    (note,) = read_volume(two_places(a_phantom[0], tmp_path / "far.nii", mm=(2.1, 0, 0))).notes
    assert "2.1 mm apart; the sform is used" in note


def test_a_mask_of_a_scan_in_metres_is_in_metres(a_phantom, tmp_path):
    """The mask has the same numbers as the scan, since many viewers ignore the unit."""
    image = nibabel.Nifti1Image(a_phantom[0].hu_kji.T, np.diag([1e-3, 1e-3, 1e-3, 1]) @ a_phantom[0].affine)
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "ct.nii.gz")
    scan = read_volume(tmp_path / "ct.nii.gz")
    write_mask(tmp_path / "mask.nii.gz", a_phantom[1], scan)
    assert nibabel.load(tmp_path / "mask.nii.gz").affine == pytest.approx(image.affine)
    assert read_mask(tmp_path / "mask.nii.gz").affine == pytest.approx(scan.affine)
    write_mask(tmp_path / "mask.nrrd", a_phantom[1], scan)
    assert read_mask(tmp_path / "mask.nrrd").affine == pytest.approx(scan.affine, rel=1e-5)


def test_nothing_but_geometry_is_taken_from_the_scan(a_phantom, tmp_path):
    """Neither a patient's name in the description nor the range of the CT's values."""
    image = nibabel.Nifti1Image(a_phantom[0].hu_kji.T, a_phantom[0].affine)
    image.header["descrip"], image.header["cal_max"] = b"Doe, John", 300
    nibabel.save(image, tmp_path / "ct.nii.gz")
    scan = read_volume(tmp_path / "ct.nii.gz")
    write_probability(tmp_path / "p.nii.gz", a_phantom[1] * np.uint8(255), scan)
    written = nibabel.load(tmp_path / "p.nii.gz").header
    assert (written["descrip"].item(), float(written["cal_max"])) == (b"", 0.0)
    assert written.get_data_dtype() == np.uint8
    assert read_volume(tmp_path / "p.nii.gz").hu_kji.max() == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["int16", "uint16", ">i2", ">f4", "int32", "float64", "uint8", "int8"])
@pytest.mark.parametrize("image_class", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_every_type_of_number_is_read_as_nibabel_reads_it(kind, image_class, tmp_path):
    values = np.random.default_rng(0).integers(0, 100, (5, 6, 7)).astype(kind)
    image = image_class(values, np.diag([1.5, 1.5, 3, 1]))
    image.header.set_slope_inter(2, -50)
    if kind.startswith(">"):
        image = image_class(values, image.affine, image.header.as_byteswapped(">"))
    nibabel.save(image, tmp_path / "a.nii.gz")
    expected = nibabel.load(tmp_path / "a.nii.gz").get_fdata().T
    assert np.array_equal(read_volume(tmp_path / "a.nii.gz").hu_kji, expected)


def test_a_real_scan_is_read_as_nibabel_reads_it(real_data):
    path = real_data / "ircad/ircad_e17_orig.nii.gz"
    found, image = read_volume(path), nibabel.load(path)
    assert np.array_equal(found.hu_kji, np.asarray(image.dataobj).T)
    assert np.array_equal(found.affine, image.affine)
    assert found.hu_kji.dtype == np.int16
    assert isinstance(found, CTVolume)
