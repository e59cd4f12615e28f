"""The slices of one scan: rounded headers do not divide it, copies count once, phases are separated."""

import shutil

import numpy as np
import pydicom
import pytest

from dicom_files import assert_same, change, put_text, write_series
from LiverUNetLib.errors import ScanError
from LiverUNetLib.scan.dicom.reader import find_series
from LiverUNetLib.scan.formats import read_volume, write_volume
from LiverUNetLib.scan.volume import CTVolume

UID = "1.2.3"


@pytest.fixture(scope="module")
def scan(a_phantom) -> CTVolume:
    return CTVolume(a_phantom[0].hu_kji[:20], a_phantom[0].affine)


def moved(scan: CTVolume, *, z_mm: float = 0, hu: int = 0) -> CTVolume:
    affine = scan.affine.copy()
    affine[2, 3] += z_mm
    return CTVolume(scan.hu_kji + np.int16(hu), affine)


def titles(folder) -> list[str]:
    return [one.title for one in find_series(folder)]


@pytest.mark.parametrize(("middle", "jitter"), [(5e-5, 1e-5), (0.0, 2e-4)], ids=["at a rounding edge", "wide"])
def test_orientations_that_jitter_are_one_series(middle, jitter, scan, tmp_path):
    random = np.random.default_rng(0)

    def shaken(dataset):
        cosines = np.array([1, middle, 0, 0, 1, 0]) + random.uniform(-jitter, jitter, 6)
        put_text(dataset, "ImageOrientationPatient", "\\".join(f"{value:.8f}" for value in cosines))

    assert_same(read_volume(change(write_series(tmp_path / "series", scan), shaken)), scan)


def test_rounded_orientations_are_made_perpendicular(scan, tmp_path):
    """Turned about two axes and rounded to two decimals, as some archives do: NRRD could not hold such a grid."""
    folder = write_series(tmp_path / "series", scan)
    change(folder, lambda dataset: put_text(dataset, "ImageOrientationPatient", "0.97\\0.17\\-0.17\\-0.14\\0.97\\0.17"))
    found = read_volume(folder)
    directions = found.affine[:3, :3] / np.linalg.norm(found.affine[:3, :3], axis=0)
    assert directions.T @ directions == pytest.approx(np.eye(3), abs=1e-9)
    assert directions[:, 0] * [-1, -1, 1] == pytest.approx([0.97, 0.17, -0.17], abs=0.01)
    write_volume(tmp_path / "mask.nrrd", found.hu_kji, found.affine)


def test_pixel_sizes_that_differ_in_rounding_are_one_series(scan, tmp_path):
    folder = write_series(tmp_path / "series", scan)
    change(folder, lambda dataset: put_text(dataset, "PixelSpacing", "4.0000001\\4"), files=slice(0, None, 3))
    assert_same(read_volume(folder), scan)


def test_a_difference_of_half_a_pixel_at_the_far_corner_makes_another_series(scan, tmp_path):
    """95 columns of 4 mm: 0.02 mm more a column moves the last one by 1.9 mm, 0.022 mm by 2.1 mm; half is 2 mm."""
    folder = write_series(tmp_path / "series", scan)
    change(folder, lambda dataset: put_text(dataset, "PixelSpacing", "4\\4.020"), files=slice(5))
    assert titles(folder) == ["2 (Portal, 20 slices)"]
    change(folder, lambda dataset: put_text(dataset, "PixelSpacing", "4\\4.022"), files=slice(5))
    assert sorted(titles(folder)) == ["2 (Portal, 15 slices)", "2 (Portal, 5 slices)"]


def test_two_fields_of_view_under_one_uid_are_two_series_and_the_message_says_why(scan, tmp_path):
    folder = write_series(tmp_path / "series", scan, SeriesInstanceUID=UID)
    wider = CTVolume(scan.hu_kji, scan.affine @ np.diag([1.25, 1.25, 1, 1]))
    write_series(folder / "wide", wider, SeriesInstanceUID=UID)
    with pytest.raises(ScanError) as raised:
        read_volume(folder)
    assert "2 (Portal, 1 of 2, 20 slices) of 4.00 x 4.00 x 5.00 mm; 2 (Portal, 2 of 2, 20 sl" in str(raised.value)
    assert "Slices under one series UID that differ in orientation, pixel size or matrix" in str(raised.value)
    assert_same(read_volume(folder, series="2 (Portal, 2 of 2, 20 slices)"), wider)


def test_copies_of_a_file_count_once(scan, tmp_path):
    folder = write_series(tmp_path / "series", scan)
    shutil.copytree(folder, folder / "again")
    assert_same(read_volume(folder), scan)


def test_copies_under_other_instance_uids_count_once_and_are_reported(scan, tmp_path):
    for name in ("one", "two"):
        write_series(tmp_path / "series" / name, scan, SeriesInstanceUID=UID)
    note = "series holds copies of 20 of its slices; they count once."
    assert_same(read_volume(tmp_path / "series"), scan, note)


def test_slices_that_share_one_instance_uid_are_not_copies(scan, tmp_path):
    folder = write_series(tmp_path / "series", scan)
    change(folder, lambda dataset: setattr(dataset, "SOPInstanceUID", "1.2.3.4"))
    assert_same(read_volume(folder), scan)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keyword", "values", "parts"),
    [
        ("AcquisitionNumber", (1, 2), ("acquisition 1", "acquisition 2")),
        ("ContentTime", ("101500.1", "101620"), ("content time 101500.1", "content time 101620")),
        ("AcquisitionTime", ("101500", "101620"), ("acquisition time 101500", "acquisition time 101620")),
        ("TriggerTime", (10.5, 400), ("trigger time 10.5", "trigger time 400.0")),
        ("TemporalPositionIdentifier", (1, 2), ("time point 1", "time point 2")),
        ("ImageComments", ("arterial", "venous"), ("comment arterial", "comment venous")),
        ("ConvolutionKernel", ("B30f", "B70f"), ("kernel B30f", "kernel B70f")),
        ("ContrastBolusAgent", ("", "Iodine"), ("contrast not given", "contrast Iodine")),
    ],
)
def test_two_scans_under_one_uid_become_two_choosable_series(keyword, values, parts, scan, tmp_path):
    phases = [moved(scan, hu=hu) for hu in (0, 30)]
    for phase, value in zip(phases, values, strict=True):
        attributes = {"SeriesInstanceUID": UID, keyword: value}
        write_series(tmp_path / "series" / f"{value}-", phase, **attributes)
    assert set(titles(tmp_path / "series")) == {f"2 (Portal, {part}, 20 slices)" for part in parts}
    with pytest.raises(ScanError, match=r"holds 2 CT series: 2 .Portal, .*; 2 .Portal, .* Choose one"):
        read_volume(tmp_path / "series")
    for phase, part in zip(phases, parts, strict=True):
        assert_same(read_volume(tmp_path / "series", series=part), phase)


@pytest.mark.slow
def test_phases_are_told_apart_by_times_that_differ_from_slice_to_slice(scan, tmp_path):
    """Each slice has a different time; the whole first phase comes before the second."""
    for phase, hour in (("one", 10), ("two", 11)):
        folder = write_series(tmp_path / "series" / phase, moved(scan, hu=hour), SeriesInstanceUID=UID)
        for n, file in enumerate(sorted(folder.iterdir())):
            dataset = pydicom.dcmread(file)
            dataset.ContentTime = f"{hour}15{n:02d}"
            dataset.save_as(file)
    assert titles(tmp_path / "series") == [
        f"2 (Portal, content time {hour}1500 to {hour}1519, 20 slices)" for hour in (10, 11)
    ]
    assert_same(read_volume(tmp_path / "series", series="content time 111500 to 111519"), moved(scan, hu=11))


@pytest.mark.slow
def test_two_phases_in_two_kernels_are_four_series(scan, tmp_path):
    for number in (1, 2):
        for kernel in ("B30f", "B70f"):
            attributes = {"AcquisitionNumber": number, "ConvolutionKernel": kernel, "SeriesInstanceUID": UID}
            hu = 10 * number + (kernel == "B70f")
            write_series(tmp_path / "series" / f"{number}{kernel}", moved(scan, hu=hu), **attributes)
    assert len(find_series(tmp_path / "series")) == 4
    found = read_volume(tmp_path / "series", series="acquisition 1, kernel B70f")
    assert_same(found, moved(scan, hu=11))


def test_two_acquisitions_whose_slices_interleave_are_not_mixed(scan, tmp_path):
    """The second phase lies 2 mm higher, so that no two slices share a position."""
    phases = scan, moved(scan, z_mm=2, hu=30)
    for number, phase in enumerate(phases, start=1):
        write_series(tmp_path / "series" / str(number), phase, SeriesInstanceUID=UID, AcquisitionNumber=number)
    for number, phase in enumerate(phases, start=1):
        assert_same(read_volume(tmp_path / "series", series=f"acquisition {number}"), phase)


def test_acquisitions_that_follow_each_other_are_one_scan(scan, tmp_path):
    """Scanners that move the table between rotations number every rotation."""
    folder = write_series(tmp_path / "series", scan)

    def numbered(dataset):
        k = round((float(dataset.ImagePositionPatient[2]) - scan.affine[2, 3]) / 5)
        dataset.AcquisitionNumber = 1 + k // 10

    assert_same(read_volume(change(folder, numbered)), scan)


def test_phases_that_cannot_be_distinguished_are_refused(scan, tmp_path):
    for hu in (0, 30):
        write_series(tmp_path / "series" / str(hu), moved(scan, hu=hu), SeriesInstanceUID=UID)
    with pytest.raises(
        ScanError, match=r"several slices at one position .at -107.5 mm.: it mixes phases or reconstructions"
    ):
        read_volume(tmp_path / "series")


def test_thick_slices_beside_thin_ones_are_not_a_gap(a_phantom, tmp_path):
    """Slices 1 to 20 lie 5 mm apart, 21 to 25 are 15 mm thick and as far apart: the scan is whole."""
    volume, _ = a_phantom
    part = CTVolume(volume.hu_kji[:20], volume.affine)
    thick = CTVolume(
        volume.hu_kji[22:37:3], volume.affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 3, 22], [0, 0, 0, 1.0]])
    )
    folder = write_series(tmp_path / "series", part, SeriesInstanceUID=UID)
    write_series(folder / "thick", thick, SeriesInstanceUID=UID)
    with pytest.raises(ScanError, match=r"lacks slices: between -12.5 and 2.5 mm"):
        read_volume(folder)
    change(folder / "thick", lambda dataset: setattr(dataset, "SliceThickness", 15))
    found = read_volume(folder)
    assert "5.00 to 15.00 mm apart" in found.notes[0]
    assert found.hu_kji.shape == (35, 72, 96)
    assert np.array_equal(found.hu_kji[:20], part.hu_kji)
    assert np.array_equal(found.hu_kji[22::3], thick.hu_kji)
