"""Headers as real scanners, archives and converters write them are read if possible, otherwise the fault is named."""

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, SecondaryCaptureImageStorage

from dicom_files import assert_same, change, put_text, without_preamble, write_enhanced, write_series
from LiverUNetLib.errors import ScanError
from LiverUNetLib.scan.formats import read_volume
from LiverUNetLib.scan.volume import CTVolume


@pytest.fixture(scope="module")
def scan(a_phantom) -> CTVolume:
    return CTVolume(a_phantom[0].hu_kji[:20], a_phantom[0].affine)


@pytest.fixture
def folder(scan, tmp_path) -> Path:
    return write_series(tmp_path / "series", scan)


@pytest.mark.parametrize(
    "keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"]
)
def test_a_decimal_comma_is_read(keyword, scan, folder):
    def with_comma(dataset):
        put_text(
            dataset, keyword, "\\".join(str(float(v)) for v in np.atleast_1d(dataset[keyword].value)).replace(".", ",")
        )

    assert_same(read_volume(change(folder, with_comma)), scan)


def test_a_decimal_comma_in_slope_and_intercept_is_read(scan, folder):
    """(HU + 1000) * 2 stored, slope 0,5, intercept -1000,0; read as 0 or -1000 they would give other HU."""

    def with_comma(dataset):
        hu = np.frombuffer(dataset.PixelData, "<u2").astype(int) - 1024
        dataset.PixelData = ((hu + 1000) * 2).astype("<u2").tobytes()
        put_text(dataset, "RescaleSlope", "0,5")
        put_text(dataset, "RescaleIntercept", "-1000,0")

    assert_same(read_volume(change(folder, with_comma)), scan)


def test_a_decimal_comma_in_functional_groups_is_read(scan, tmp_path):
    path = write_enhanced(tmp_path / "enhanced.dcm", scan)

    def with_comma(dataset):
        shared = dataset.SharedFunctionalGroupsSequence[0]
        put_text(shared.PixelMeasuresSequence[0], "PixelSpacing", "4,0\\4,0")
        put_text(shared.PixelValueTransformationSequence[0], "RescaleIntercept", "-1024,0")
        for group in dataset.PerFrameFunctionalGroupsSequence:
            place = group.PlanePositionSequence[0]
            put_text(place, "ImagePositionPatient", "\\".join(map(str, place.ImagePositionPatient)).replace(".", ","))

    change(tmp_path, with_comma)
    assert_same(read_volume(path), scan)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("ImagePositionPatient", "0\\0\\nan"),
        ("ImagePositionPatient", "left\\0\\0"),
        ("ImageOrientationPatient", "0\\0\\0\\0\\0\\0"),
        ("PixelSpacing", "0\\4"),
        ("PixelSpacing", "1,024.5\\4"),
        ("RescaleIntercept", "none"),
    ],
)
def test_a_value_that_is_not_a_number_is_named_or_its_file_is_skipped(keyword, text, scan, folder):
    shutil.copytree(folder, folder.parent / "all")
    with pytest.raises(ScanError, match=f"0000, 0001, 0002, and 17 more .attribute {keyword} holds ") as raised:
        read_volume(change(folder.parent / "all", lambda dataset: put_text(dataset, keyword, text)))
    assert text in str(raised.value)
    for number, file in enumerate(list(folder.iterdir())[:2]):
        shutil.copy(file, folder / f"more{number}")
    change(folder, lambda dataset: put_text(dataset, keyword, text), files=slice(20, None))
    note = f"2 files were skipped that may belong to series: more0, more1 (attribute {keyword} holds {text})."
    assert_same(read_volume(folder), scan, note)


def test_ct_without_positions_is_distinguished_from_no_ct(folder):
    def without(dataset):
        del dataset.ImagePositionPatient

    with pytest.raises(ScanError, match="series holds 20 CT images without a position in the patient"):
        read_volume(change(folder, without))


def test_a_multi_frame_file_without_positions_is_named(scan, tmp_path):
    path = write_enhanced(tmp_path / "enhanced.dcm", scan)

    def without(dataset):
        for group in dataset.PerFrameFunctionalGroupsSequence:
            del group.PlanePositionSequence

    change(tmp_path, without)
    with pytest.raises(ScanError, match="holds 1 CT image without a position"):
        read_volume(path)


def test_many_frames_with_one_position_are_not_a_scan(scan, tmp_path):
    """A multi-frame file without functional groups, as some secondary captures are."""
    folder = write_series(tmp_path / "series", CTVolume(scan.hu_kji[:1], scan.affine))

    def repeated(dataset):
        dataset.NumberOfFrames, dataset.PixelData = 3, dataset.PixelData * 3

    with pytest.raises(ScanError, match="holds 1 CT image without a position"):
        read_volume(change(folder, repeated))


@pytest.mark.parametrize("share", [0.6, 0.9, 0.99])
def test_a_deflated_file_cut_short_is_skipped_and_named(share, scan, folder):
    file = folder / "deflated"
    dataset = pydicom.dcmread(folder / "0000")
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(file)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(ScanError, match=r"deflated .not readable: .* incomplete or truncated stream"):
        read_volume(file)
    found = read_volume(folder)
    assert np.array_equal(found.hu_kji, scan.hu_kji)
    (note,) = found.notes
    assert note.startswith("1 file was skipped that may belong to series: deflated (not readable:")


def test_a_header_cut_short_is_named(scan, folder):
    start = (folder / "0000").read_bytes()
    (folder / "stump").write_bytes(start[: start.index(b"CT\x08\x00") + 2])  # up to the modality
    found = read_volume(folder)
    assert np.array_equal(found.hu_kji, scan.hu_kji)
    assert found.notes == ("1 file was skipped that may belong to series: stump (no image in it, perhaps cut short).",)


@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
def test_files_without_a_preamble_are_recognized(implicit, scan, folder):
    without_preamble(folder, implicit=implicit)
    (folder / "notes.txt").write_text("\x08\x00 not DICOM at all")
    assert_same(read_volume(folder), scan)
    assert read_volume(folder / "0003").hu_kji.shape == (1, 72, 96)


def test_a_file_that_only_begins_like_dicom_has_an_unknown_format(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"\x08\x00" * 200)
    with pytest.raises(ScanError, match="unknown format"):
        read_volume(tmp_path / "x.bin")


def test_a_damaged_binary_number_is_named(scan, folder):
    file = folder / "0000"
    content = file.read_bytes()
    file.write_bytes(content.replace(b"\x28\x00\x10\x00US\x02\x00\x48\x00", b"\x28\x00\x10\x00US\x03\x00\x48\x00"))
    found = read_volume(folder)
    assert found.notes[0].startswith("1 file was skipped that may belong to series: 0000 (not readable: ")
    assert len(found.notes[0]) < 300


def test_files_without_a_modality_are_recognized_by_their_kind(scan, folder):
    def without(dataset):
        del dataset.Modality

    assert_same(read_volume(change(folder, without)), scan)
    change(folder, lambda dataset: setattr(dataset, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.4"))  # MR
    with pytest.raises(ScanError, match="holds no CT series"):
        read_volume(folder)


def test_color_screenshots_are_not_slices(scan, folder, tmp_path):
    def to_color(dataset):
        dataset.SOPClassUID, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (
            SecondaryCaptureImageStorage,
            3,
            "RGB",
        )

    shots = change(write_series(tmp_path / "shots", scan, SeriesNumber=99), to_color)
    with pytest.raises(ScanError, match="a color image"):
        read_volume(shots)
    shutil.move(shots, folder / "shots")
    assert_same(read_volume(folder), scan)


def test_a_slice_without_a_thickness_gets_a_note(scan, tmp_path):
    folder = write_series(tmp_path / "series", CTVolume(scan.hu_kji[:1], scan.affine))
    change(folder, lambda dataset: put_text(dataset, "SliceThickness", "thin"))
    found = read_volume(folder)
    assert found.spacing_kji_mm == pytest.approx((1, 4, 4))
    assert "of unknown thickness" in found.notes[0]
    change(folder, lambda dataset: put_text(dataset, "SliceThickness", "1,6"))
    assert read_volume(folder).spacing_kji_mm == pytest.approx((1.6, 4, 4))


@pytest.mark.slow
def test_private_data_are_not_held_in_memory(scan, folder):
    mib = 2**20

    def with_private_data(dataset):
        dataset.private_block(0x0029, "SOME VENDOR", create=True).add_new(0x10, "OB", b"\0" * (4 * mib))

    change(folder, with_private_data)
    tracemalloc.start()
    assert_same(read_volume(folder), scan)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * mib, "not those of a single file"
