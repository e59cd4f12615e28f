"""HU are those of the stored phantom for every rescale, order of frames and encoding."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless

from dicom_files import assert_same, change, without_preamble, write_enhanced_by_frame, write_series
from LiverUNetLib.errors import ScanError
from LiverUNetLib.scan.formats import read_volume
from LiverUNetLib.scan.volume import CTVolume

SLICES = 20


@pytest.fixture(scope="module")
def scan(a_phantom) -> CTVolume:
    return CTVolume(a_phantom[0].hu_kji[:SLICES], a_phantom[0].affine)


@pytest.mark.parametrize(
    "rescales",
    [
        [(1, -1024)] * 10 + [(1, -2048)] * 10,
        [(1, -1024), (0.5, -1000)] * 10,
        [(1, 0), (1, -100)] * 10,  # stored values below 0
        [(0.25, -1024.25), (1, -1024)] * 10,
    ],
    ids=["two intercepts", "two slopes", "signed", "quarters"],
)
@pytest.mark.parametrize("order", ["sorted", "reversed", "shuffled"])
def test_each_frame_has_its_own_rescale(rescales, order, scan, tmp_path):
    orders = {
        "sorted": range(SLICES),
        "reversed": range(SLICES)[::-1],
        "shuffled": np.random.default_rng(1).permutation(SLICES),
    }
    path = write_enhanced_by_frame(tmp_path / "enhanced.dcm", scan, rescales, orders[order])
    assert_same(read_volume(path), scan)


def test_each_slice_has_its_own_rescale_and_none_is_cut_to_the_type_of_the_first(scan, tmp_path):
    folder = write_series(tmp_path / "series", scan)

    def halved(dataset):
        stored = np.frombuffer(dataset.PixelData, "<u2").astype(int)
        dataset.PixelData = (2 * stored + 1).astype("<u2").tobytes()
        dataset.RescaleSlope, dataset.RescaleIntercept = "0.5", "-1024"

    change(folder, halved, files=slice(1, None, 2))
    difference = read_volume(folder).hu_kji - scan.hu_kji
    assert sorted(np.unique(difference)) == [0, 0.5]


def big_endian(folder):
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        pydicom.dcmwrite(file, dataset, implicit_vr=False, little_endian=False)


def deflated(folder):
    change(folder, lambda dataset: setattr(dataset.file_meta, "TransferSyntaxUID", DeflatedExplicitVRLittleEndian))


ENCODINGS = {
    "plain": lambda _folder: None,
    "RLE": lambda folder: change(folder, lambda dataset: dataset.compress(RLELossless)),
    "big-endian": big_endian,
    "deflated": deflated,
    "bare explicit": lambda folder: without_preamble(folder, implicit=False),
    "bare implicit": lambda folder: without_preamble(folder, implicit=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("gray", ["MONOCHROME2", "MONOCHROME1"])
def test_an_inverted_gray_scale_does_not_change_hu(gray, encoding, scan, tmp_path):
    """The gray scale only concerns the display, but GDCM inverts the pixels, so these files are decoded without it."""
    folder = write_series(tmp_path / "series", scan)
    change(folder, lambda dataset: setattr(dataset, "PhotometricInterpretation", gray))
    ENCODINGS[encoding](folder)
    assert_same(read_volume(folder), scan)


def test_signed_pixels_of_12_bits_below_rubbish_are_read(scan, tmp_path):
    """The four bits above are not part of the value, and its sign is in the twelfth."""

    def packed(dataset):
        hu = np.frombuffer(dataset.PixelData, "<u2").astype(int) - 1024
        dataset.PixelData = ((hu & 0xFFF) | 0xA000).astype("<u2").tobytes()
        dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit, dataset.RescaleIntercept = 1, 12, 11, 0

    folder = change(write_series(tmp_path / "series", scan), packed)
    assert_same(read_volume(folder), scan)
    change(folder, lambda dataset: setattr(dataset, "PhotometricInterpretation", "MONOCHROME1"))
    assert_same(read_volume(folder), scan)


def test_a_private_sop_class_is_decoded(scan, tmp_path):
    def private(dataset):
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.3.4"

    assert_same(read_volume(change(write_series(tmp_path / "series", scan), private)), scan)


def test_padding_far_above_hu_stays_above_when_slices_are_interpolated(scan, tmp_path):
    folder = write_series(tmp_path / "series", scan)

    def padded(dataset):
        pixels = np.frombuffer(dataset.PixelData, "<u2").copy()
        pixels[0] = 65535
        dataset.PixelData = pixels.tobytes()

    change(folder, padded)
    (folder / "0007").unlink()
    found = read_volume(folder)
    assert "apart" in found.notes[0]
    assert found.hu_kji[:, 0, 0].min() > 3000


def test_slices_without_a_rescale_among_others_are_refused(scan, tmp_path):
    def without(dataset):
        del dataset.RescaleSlope, dataset.RescaleIntercept

    folder = change(write_series(tmp_path / "series", scan), without, files=slice(3))
    with pytest.raises(ScanError, match="3 of its 20 slices have no rescale"):
        read_volume(folder)


def test_a_missing_rescale_is_none_where_all_values_are_hu(scan, tmp_path):
    def stored_as_hu(dataset):
        stored = np.frombuffer(dataset.PixelData, "<u2").astype(int) - 1024
        dataset.PixelData = stored.astype("<i2").tobytes()
        dataset.PixelRepresentation, dataset.RescaleIntercept = 1, 0

    def without(dataset):
        del dataset.RescaleSlope, dataset.RescaleIntercept

    folder = change(write_series(tmp_path / "series", scan), stored_as_hu)
    assert_same(read_volume(change(folder, without, files=slice(5))), scan)


def test_a_rescale_to_another_unit_than_hu_is_refused(scan, tmp_path):
    folder = write_series(tmp_path / "series", scan, RescaleType="Z_EFF")
    with pytest.raises(ScanError, match="not in HU: its RescaleType is Z_EFF"):
        read_volume(folder)
    change(folder, lambda dataset: setattr(dataset, "RescaleType", "US"))  # unspecified, as archives write it
    assert_same(read_volume(folder), scan)


def test_a_file_with_fewer_frames_than_its_header_says_is_named(scan, tmp_path):
    path = write_enhanced_by_frame(tmp_path / "enhanced.dcm", scan, [(1, -1024)] * SLICES, range(SLICES))

    def fewer(dataset):
        dataset.NumberOfFrames = SLICES - 2
        dataset.PixelData = dataset.PixelData[: -2 * 2 * 72 * 96]

    change(tmp_path, fewer)
    with pytest.raises(ScanError, match=r"promises 20 images of \(72, 96\), it holds 18"):
        read_volume(path)


def test_a_scan_in_two_multi_frame_files_is_one(scan, tmp_path):
    """A concatenation: one series, its frames in several files."""
    half = SLICES // 2
    upper = scan.affine.copy()
    upper[:3, 3] = (scan.affine @ [0, 0, half, 1])[:3]
    parts = CTVolume(scan.hu_kji[:half], scan.affine), CTVolume(scan.hu_kji[half:], upper)
    (tmp_path / "study").mkdir()
    for number, part in enumerate(parts):
        rescales = [(1, -1024 - number)] * half
        write_enhanced_by_frame(tmp_path / f"study/{number}.dcm", part, rescales, range(half))
    change(tmp_path / "study", lambda dataset: setattr(dataset, "SeriesInstanceUID", "1.2.3"))
    assert_same(read_volume(tmp_path / "study"), scan)
