"""The choice among many series: the only original axial scan, the one that is named, or the best by a rule."""

import numpy as np
import pytest

from dicom_files import assert_same, change, write_series
from LiverUNetLib.cli.main import SERIES_HELP, main
from LiverUNetLib.errors import ScanError
from LiverUNetLib.scan.dicom.reader import SERIES_RULES
from LiverUNetLib.scan.formats import read_volume
from LiverUNetLib.scan.volume import CTVolume

CORONAL = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
DERIVED = {"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]}


def scan(a_phantom, *, slices: int = 20, slice_mm: float = 5.0, hu: int = 0) -> CTVolume:
    volume = a_phantom[0]
    return CTVolume(volume.hu_kji[:slices] + np.int16(hu), volume.affine @ np.diag([1, 1, slice_mm / 5, 1]))


@pytest.fixture(scope="module")
def study(a_phantom, tmp_path_factory):
    """What scanners send besides the scan: scout, bolus watch, biopsy, perfusion, reformat, projection, report."""
    study = tmp_path_factory.mktemp("study") / "study"
    portal = scan(a_phantom)
    write_series(study / "portal", portal, SeriesNumber=3, SeriesDescription="PORTAL VENOUS 3.0 B30f")
    scout = CTVolume(portal.hu_kji[:1], CORONAL @ portal.affine)
    write_series(study / "scout", scout, SeriesNumber=1, SeriesDescription="Topogram")
    for n in range(9):
        watch = CTVolume(portal.hu_kji[5:6] + np.int16(n), portal.affine)
        attributes = {"SeriesNumber": 2, "SeriesDescription": "Monitoring", "SeriesInstanceUID": "1.2.3"}
        write_series(study / "watch" / str(n), watch, ContentTime=f"1015{n:02d}", **attributes)
    biopsy = scan(a_phantom, slices=6, slice_mm=2)
    write_series(study / "biopsy", biopsy, SeriesNumber=6, SeriesDescription="i-Fluoro")
    for n in range(3):
        perfusion = CTVolume(portal.hu_kji[:20:9] + np.int16(n), portal.affine @ np.diag([1, 1, 9, 1]))
        attributes = {"SeriesNumber": 7, "SeriesDescription": "Perfusion", "SeriesInstanceUID": "1.2.4"}
        write_series(study / "perfusion" / str(n), perfusion, **attributes)
    coronal = CTVolume(portal.hu_kji, CORONAL @ portal.affine)
    write_series(study / "cor", coronal, SeriesNumber=4, SeriesDescription="PORTAL VENOUS COR", **DERIVED)
    mip = {"SeriesNumber": 5, "SeriesDescription": "MIP", "ImageType": ["DERIVED", "SECONDARY", "MIP"]}
    write_series(study / "mip", scan(a_phantom, hu=100), **mip)
    dose = write_series(study / "dose", scout, SeriesNumber=501, SeriesDescription="Dose Report")
    change(dose, without_place)
    return study


def without_place(dataset):
    del dataset.ImagePositionPatient, dataset.ImageOrientationPatient, dataset.PixelSpacing


NOTE = (
    "study holds 7 CT series; 3 (PORTAL VENOUS 3.0 B30f, 20 slices) was read, skipped: 1 (Topogram, 1 slice), "
    "2 (Monitoring, 9 slices), 4 (PORTAL VENOUS COR, 20 slices), 5 (MIP, 20 slices), "
    "6 (i-Fluoro, 6 slices), 7 (Perfusion, 9 slices)."
)


@pytest.mark.slow
@pytest.mark.parametrize("series", [None, "thinnest", "largest", "Portal Venous", " portal"])
def test_the_only_original_axial_scan_is_read_and_skipped_series_are_named(series, study, a_phantom):
    assert_same(read_volume(study, series=series), scan(a_phantom), NOTE)


@pytest.mark.slow
def test_a_series_that_is_named_is_read_even_if_it_is_not_a_scan(study, a_phantom):
    coronal = CTVolume(scan(a_phantom).hu_kji, CORONAL @ scan(a_phantom).affine)
    for series in ("4", "portal venous cor", "4 (PORTAL VENOUS COR, 20 slices)"):
        assert_same(read_volume(study, series=series), coronal)
    assert_same(read_volume(study, series="MIP"), scan(a_phantom, hu=100))


def test_a_part_of_a_description_can_name_a_reformat_too(study):
    assert "4 (PORTAL VENOUS COR, 20 slices) was read" in read_volume(study, series="ous cor").notes[0]


def test_a_missing_series_is_reported_with_those_that_exist(study):
    with pytest.raises(ScanError, match=r"no CT series 'arterial'; there are 1 .Topogram, 1 slice., 2 .Monitoring"):
        read_volume(study, series="arterial")
    with pytest.raises(ScanError, match="no CT series '30'"):  # a number, no part of a description
        read_volume(study, series="30")


def test_without_an_original_scan_the_only_derived_axial_one_is_read(a_phantom, tmp_path):
    """Some anonymisers mark all images as derived."""
    axial = scan(a_phantom)
    write_series(tmp_path / "study/a", axial, ImageType=["DERIVED", "PRIMARY", "AXIAL"], SeriesNumber=3)
    write_series(tmp_path / "study/b", CTVolume(axial.hu_kji, CORONAL @ axial.affine), SeriesNumber=4, **DERIVED)
    note = "study holds 2 CT series; 3 (Portal, 20 slices) was read, skipped: 4 (Portal, 20 slices)."
    assert_same(read_volume(tmp_path / "study"), axial, note)


def test_a_single_series_is_read_even_if_it_is_coronal_or_derived(a_phantom, tmp_path):
    coronal = CTVolume(scan(a_phantom).hu_kji, CORONAL @ scan(a_phantom).affine)
    assert_same(read_volume(write_series(tmp_path / "series", coronal, **DERIVED)), coronal)


@pytest.fixture
def phases(a_phantom, tmp_path):
    """Three possible scans: 20 slices of 5 mm, 40 of 2.5 mm, 44 of 5 mm."""
    study = tmp_path / "phases"
    thick = {"SeriesNumber": 3, "SeriesDescription": "Native 5.0", "ConvolutionKernel": "B30f"}
    write_series(study / "thick", scan(a_phantom, hu=1), **thick)
    thin = {"SeriesNumber": 4, "SeriesDescription": "Portal 2.5", "ContrastBolusAgent": "Ultravist 370"}
    write_series(study / "thin", scan(a_phantom, slices=40, slice_mm=2.5, hu=2), **thin)
    long = {"SeriesNumber": 12, "SeriesDescription": "Portal 5.0"}
    write_series(study / "long", scan(a_phantom, slices=44, hu=3), **long)
    return study


@pytest.mark.slow
def test_several_scans_are_refused_with_facts_that_help_to_choose(phases):
    with pytest.raises(ScanError) as raised:
        read_volume(phases)
    assert str(raised.value) == (
        f"{phases} holds 3 CT series: 3 (Native 5.0, 20 slices) of 4.00 x 4.00 x 5.00 mm, kernel B30f; "
        "4 (Portal 2.5, 40 slices) of 4.00 x 4.00 x 2.50 mm, contrast Ultravist 370; "
        "12 (Portal 5.0, 44 slices) of 4.00 x 4.00 x 5.00 mm. Choose one by number, by a part of its description, "
        "as written here, or by a rule (--series; rules are thinnest and largest)."
    )


@pytest.mark.slow
def test_rules_choose_the_thinnest_and_the_largest(phases, a_phantom):
    thin = read_volume(phases, series="thinnest")
    assert np.array_equal(thin.hu_kji, scan(a_phantom, slices=40, hu=2).hu_kji)
    assert thin.notes == (
        "phases holds 3 CT series; 4 (Portal 2.5, 40 slices) was read, "
        "skipped: 3 (Native 5.0, 20 slices), 12 (Portal 5.0, 44 slices).",
    )
    assert len(read_volume(phases, series="LARGEST").hu_kji) == 44


@pytest.mark.slow
def test_equal_distances_are_decided_by_the_number_of_slices_and_a_tie_is_refused(phases, a_phantom):
    more = {"SeriesNumber": 5, "SeriesDescription": "Late"}
    write_series(phases / "more", scan(a_phantom, slices=42, slice_mm=2.502, hu=5), **more)
    assert len(read_volume(phases, series="thinnest").hu_kji) == 42
    write_series(phases / "same", scan(a_phantom, slices=42, slice_mm=2.5, hu=6), SeriesNumber=6)
    with pytest.raises(ScanError, match=r"2 CT series that are the thinnest: 5 \(Late, 42 slices\).*; 6 \(Portal"):
        read_volume(phases, series="thinnest")


@pytest.mark.slow
def test_equal_numbers_of_slices_are_decided_by_extent_and_a_tie_is_refused(phases, a_phantom):
    write_series(phases / "longer", scan(a_phantom, slices=44, slice_mm=6, hu=5), SeriesNumber=5)
    assert read_volume(phases, series="largest").spacing_kji_mm[0] == pytest.approx(6)
    write_series(phases / "same", scan(a_phantom, slices=44, slice_mm=6, hu=6), SeriesNumber=6)
    with pytest.raises(ScanError, match=r"2 CT series that are the largest: 5 "):
        read_volume(phases, series="largest")


@pytest.mark.slow
def test_a_part_of_a_description_that_fits_several_is_refused(phases, a_phantom):
    assert_same_hu = read_volume(phases, series="native").hu_kji
    assert np.array_equal(assert_same_hu, scan(a_phantom, hu=1).hu_kji)
    with pytest.raises(ScanError, match=r"holds 2 CT series 'portal': 4 .Portal 2.5, .*; 12 .Portal 5.0, 44"):
        read_volume(phases, series="portal")


@pytest.mark.slow
def test_long_lists_are_shortened(a_phantom, tmp_path):
    for number in range(15):
        write_series(tmp_path / "study" / str(number), scan(a_phantom, slices=8), SeriesNumber=number)
    with pytest.raises(ScanError, match=r"15 CT series: .*11 .Portal, 8 slices.*; and 3 more\. Choose"):
        read_volume(tmp_path / "study")


def test_the_help_names_the_rules(capsys):
    assert all(rule in SERIES_HELP for rule in SERIES_RULES)


def test_the_command_line_names_skipped_series(study, capsys):
    assert main(["info", str(study), "--series", "thinnest"]) == 0
    assert f"note         {NOTE}" in capsys.readouterr().out
