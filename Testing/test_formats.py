"""Each format, written from the phantom, gives the same liver in the same place."""

import zipfile

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from dicom_files import write_enhanced, write_series
from helpers import centroid_ras, dice
from LiverUNetLib.cli.main import main
from LiverUNetLib.errors import OutputError, ScanError
from LiverUNetLib.scan.formats import read_mask, read_volume, scan_stem, write_probability, write_volume
from LiverUNetLib.scan.itk import LIVER_TERMINOLOGY
from LiverUNetLib.scan.phantom import abdomen
from LiverUNetLib.scan.volume import CTVolume
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.steps import finish


def oblique(affine: np.ndarray) -> np.ndarray:
    angle = np.radians(10)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ affine


def same(found: CTVolume, expected: CTVolume) -> None:
    assert np.array_equal(found.hu_kji, expected.hu_kji)
    assert found.affine == pytest.approx(expected.affine, abs=1e-3)
    assert found.notes == ()


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.nrrd", "ct.mha", "ct.mhd", "ct.nhdr"])
def test_files_are_read_as_they_were_written(name, a_phantom, tmp_path):
    volume = CTVolume(a_phantom[0].hu_kji, oblique(a_phantom[0].affine))
    path = tmp_path / name
    if name.endswith(("mha", "mhd", "nhdr")):
        write_volume(tmp_path / "ct.nrrd", volume.hu_kji, volume.affine)
        sitk.WriteImage(sitk.ReadImage(tmp_path / "ct.nrrd"), path)
    else:
        write_volume(path, volume.hu_kji, volume.affine)
    same(read_volume(path), volume)


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "RLE"])
def test_a_dicom_series_is_sorted_by_position_and_rescaled(compressed, a_phantom, tmp_path):
    volume = CTVolume(a_phantom[0].hu_kji, oblique(a_phantom[0].affine))
    same(read_volume(write_series(tmp_path / "series", volume, compressed=compressed)), volume)


def test_a_series_stored_from_head_to_foot_is_the_same_scan(a_phantom, tmp_path):
    volume, _ = a_phantom
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    flip[2, 3] = len(volume.hu_kji) - 1
    same(read_volume(write_series(tmp_path / "series", CTVolume(volume.hu_kji[::-1], volume.affine @ flip))), volume)


def test_a_multi_frame_file_is_read_like_a_series(a_phantom, tmp_path):
    same(read_volume(write_enhanced(tmp_path / "enhanced.dcm", a_phantom[0])), a_phantom[0])


def test_a_zip_of_dicom_is_read_like_its_folder(a_phantom, tmp_path):
    folder = write_series(tmp_path / "series", a_phantom[0])
    archive = tmp_path / "scan.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.iterdir():
            file.write(path, f"deep/down/{path.name}")
        file.writestr("DICOMDIR.txt", "something else")
    same(read_volume(archive), a_phantom[0])
    assert scan_stem(archive) == "scan"


@pytest.mark.slow
def test_of_several_series_one_is_chosen_and_localizers_are_ignored(a_phantom, tmp_path):
    volume, _ = a_phantom
    folder = tmp_path / "study"
    write_series(folder / "a", volume)
    write_series(folder / "b", CTVolume(volume.hu_kji[:9], volume.affine), SeriesNumber=7, SeriesDescription="Native")
    scout = CTVolume(volume.hu_kji[:1], volume.affine)
    write_series(folder / "c", scout, SeriesNumber=1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(folder / "d", scout, SeriesNumber=9, Modality="SR")
    with pytest.raises(
        ScanError, match=r"2 CT series: 2 \(Portal, 44 slices\) of 4.00 x 4.00 x 5.00 mm; 7 \(Native, 9 s.* Choose one"
    ):
        read_volume(folder)
    for series in ("7", "native"):
        assert len(read_volume(folder, series=series).hu_kji) == 9
    with pytest.raises(ScanError, match="no CT series '8'"):
        read_volume(folder, series="8")


@pytest.mark.slow
def test_a_tilted_gantry_is_moved_upright_and_reported(a_phantom, threshold_model, tmp_path, cpu):
    upright, liver = a_phantom
    sheared = upright.affine.copy()
    sheared[1, 2] += np.tan(np.radians(15)) * sheared[2, 2]
    sheared[1, 3] -= (sheared @ [0, 0, 22, 0])[1]
    tilted, _ = abdomen(sheared, upright.hu_kji.shape, noise_hu=0)
    found = read_volume(write_series(tmp_path / "series", tilted))
    assert "tilted by 15.0 degrees" in found.notes[0]
    result = finish(segment(found, threshold_model, cpu))
    expected = finish(segment(upright, threshold_model, cpu))
    assert result.measurement.volume_ml == pytest.approx(expected.measurement.volume_ml, rel=0.05)
    distance = centroid_ras(result.mask_kji, found.affine) - centroid_ras(liver, upright.affine)
    assert np.linalg.norm(distance) < 2.0
    assert found.notes[0] in result.warnings


@pytest.mark.slow
def test_one_missing_slice_is_interpolated_and_reported(a_phantom, threshold_model, tmp_path, cpu):
    volume, liver = a_phantom
    folder = write_series(tmp_path / "series", volume)
    (sorted(folder.iterdir())[20]).unlink()
    found = read_volume(folder)
    assert "5.00 to 10.00 mm apart" in found.notes[0]
    assert found.hu_kji.shape == volume.hu_kji.shape
    assert dice(finish(segment(found, threshold_model, cpu)).mask_kji, liver) > 0.9


def test_several_missing_slices_are_refused(a_phantom, tmp_path):
    volume, _ = a_phantom
    folder = write_series(tmp_path / "low", CTVolume(volume.hu_kji[:10], volume.affine), SeriesInstanceUID="1.2.3")
    high = volume.affine.copy()
    high[:3, 3] = (volume.affine @ [0, 0, 14, 1])[:3]
    write_series(tmp_path / "low" / "high", CTVolume(volume.hu_kji[14:], high), SeriesInstanceUID="1.2.3")
    with pytest.raises(ScanError, match=r"lacks slices: between -62.5 and -37.5 mm"):
        read_volume(folder)


@pytest.mark.slow
def test_two_phases_in_one_series_are_refused(a_phantom, tmp_path):
    volume, _ = a_phantom
    for hu in (0, 40):
        phase = CTVolume(volume.hu_kji + np.int16(hu), volume.affine)
        write_series(tmp_path / "series" / str(hu), phase, SeriesInstanceUID="1.2.3")
    with pytest.raises(ScanError, match="several slices at one position"):
        read_volume(tmp_path / "series")


def test_a_single_dicom_slice_is_as_thick_as_its_header_says(a_phantom, tmp_path):
    folder = write_series(tmp_path / "series", CTVolume(a_phantom[0].hu_kji[20:21], a_phantom[0].affine))
    assert read_volume(next(folder.iterdir())).spacing_kji_mm == pytest.approx((5, 4, 4))


@pytest.mark.parametrize("name", ["broken.nrrd", "broken.mha", "broken.zip", "broken.dcm"])
def test_a_file_that_only_looks_like_a_scan_is_named(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"\0" * 128 + b"DICM" + b"\1" * 99 if name.endswith("dcm") else b"NRRD0004\nnonsense")
    with pytest.raises(ScanError, match=name):
        read_volume(path)


def test_a_color_nrrd_and_a_2d_one_are_refused(tmp_path):
    sitk.WriteImage(sitk.Image([4, 5, 6], sitk.sitkVectorUInt8, 3), tmp_path / "rgb.nrrd")
    with pytest.raises(ScanError, match="3 values per voxel"):
        read_volume(tmp_path / "rgb.nrrd")
    sitk.WriteImage(sitk.Image([4, 5], sitk.sitkInt16), tmp_path / "flat.nrrd")
    with pytest.raises(ScanError, match="2 dimensions"):
        read_volume(tmp_path / "flat.nrrd")


def test_a_sheared_grid_goes_into_nifti_but_not_into_nrrd(a_phantom, tmp_path):
    _, mask = a_phantom
    sheared = a_phantom[0].affine.copy()
    sheared[1, 2] += 1.0
    write_volume(tmp_path / "mask.nii.gz", mask, sheared)
    assert read_mask(tmp_path / "mask.nii.gz").affine == pytest.approx(sheared, abs=1e-3)
    with pytest.raises(OutputError, match="not perpendicular"):
        write_volume(tmp_path / "mask.nrrd", mask, sheared)


@pytest.mark.parametrize("name", ["p.nii.gz", "p.nrrd"])
def test_a_probability_is_read_as_fractions_of_one(name, a_phantom, tmp_path):
    probability = (a_phantom[1] * 204).astype(np.uint8)
    write_probability(tmp_path / name, probability, a_phantom[0])
    assert read_volume(tmp_path / name).hu_kji.max() == pytest.approx(0.8)


def test_3d_slicer_opens_the_segmentation_with_name_color_and_terminology(
    a_phantom, a_ct_file, threshold_model, tmp_path
):
    import slicer as vtk_mrml

    output = tmp_path / "liver.seg.nrrd"
    assert main(["segment", str(a_ct_file), "-o", str(output), "--model", str(threshold_model.folder)]) == 0
    scene = vtk_mrml.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(output))
    assert storage.ReadData(node)
    segmentation = node.GetSegmentation()
    assert [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())] == ["liver"]
    part = segmentation.GetSegment("liver")
    assert part.GetName() == "liver"
    assert np.asarray(part.GetColor()) * 255 == pytest.approx([221, 130, 101], abs=0.5)
    import vtk

    terminology = vtk.reference("")
    assert part.GetTag("TerminologyEntry", terminology)
    assert str(terminology) == LIVER_TERMINOLOGY
    bounds = np.zeros(6)
    node.GetRASBounds(bounds)
    ras = (a_phantom[0].affine @ np.append(np.argwhere(read_mask(output).hu_kji)[:, ::-1].mean(axis=0), 1))[:3]
    assert (bounds[::2] < ras).all()
    assert (bounds[1::2] > ras).all()


def test_slices_whose_positions_are_rounded_stay_as_they_are(a_phantom, tmp_path):
    affine = a_phantom[0].affine.copy()
    affine[2, 2] = 1.25
    volume = CTVolume(a_phantom[0].hu_kji, affine)
    folder = write_series(tmp_path / "series", volume)
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.ImagePositionPatient = [round(float(mm), 1) for mm in dataset.ImagePositionPatient]
        dataset.save_as(file)
    found = read_volume(folder)
    assert np.array_equal(found.hu_kji, volume.hu_kji)
    assert found.spacing_kji_mm[0] == pytest.approx(1.25, abs=0.005)
    assert found.notes == ()


def test_irregularly_spaced_slices_are_interpolated_to_both_ends(a_phantom, tmp_path):
    volume = CTVolume(a_phantom[0].hu_kji[:11], a_phantom[0].affine)
    folder = write_series(tmp_path / "series", volume)
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        x, y, z = map(float, dataset.ImagePositionPatient)
        step = (z - affine_z(volume)) / 5
        dataset.ImagePositionPatient = [x, y, z + (0.3 if step % 2 else 0.0) + (0.9 if step == 10 else 0.0)]
        dataset.save_as(file)
    found = read_volume(folder)
    assert "irregular" in found.notes[0]
    assert len(found.hu_kji) == 11
    assert np.array_equal(found.hu_kji[-1], volume.hu_kji[-1])
    assert found.spacing_kji_mm[0] == pytest.approx(50.9 / 10)


def affine_z(volume: CTVolume) -> float:
    return float(volume.affine[2, 3])


@pytest.mark.slow
def test_a_slice_in_another_orientation_is_another_series(a_phantom, tmp_path):
    volume = a_phantom[0]
    folder = write_series(tmp_path / "series", volume, SeriesInstanceUID="1.2.3")
    write_series(folder / "odd", CTVolume(volume.hu_kji[:1], oblique(volume.affine)), SeriesInstanceUID="1.2.3")
    found = read_volume(folder)
    assert np.array_equal(found.hu_kji, volume.hu_kji)
    assert found.notes == (
        "series holds 2 CT series; 2 (Portal, 44 slices) was read, skipped: 2 (Portal, 1 slice). "
        "Slices under one series UID that differ in orientation, pixel size or matrix are separate series.",
    )
    same(read_volume(folder, series="2 (Portal, 44 slices)"), volume)


def test_files_without_attributes_that_a_slice_needs_are_skipped_and_named(a_phantom, tmp_path):
    folder = write_series(tmp_path / "series", a_phantom[0])
    for number, (name, value) in enumerate({"PixelSpacing": 4.0, "ImageOrientationPatient": [1, 0]}.items()):
        dataset = pydicom.dcmread(next(folder.iterdir()))
        setattr(dataset, name, value)
        dataset.save_as(folder / f"broken{number}", enforce_file_format=True)
    found = read_volume(folder)
    assert np.array_equal(found.hu_kji, a_phantom[0].hu_kji)
    assert found.notes == (
        "2 files were skipped that may belong to series: broken0 (attribute PixelSpacing holds 4.0), "
        r"broken1 (attribute ImageOrientationPatient holds 1.0\0.0).",
    )


def test_nifti_without_orientation_is_placed_as_itk_does_and_reported(a_phantom, tmp_path):
    hu = a_phantom[0].hu_kji
    image = nibabel.Nifti1Image(hu.T, None)
    image.header.set_zooms((4.0, 4.0, 5.0))
    nibabel.save(image, tmp_path / "bare.nii.gz")
    found, as_itk = read_volume(tmp_path / "bare.nii.gz"), sitk.ReadImage(tmp_path / "bare.nii.gz")
    assert "does not say how it lies in the patient" in found.notes[0]
    assert found.affine == pytest.approx(np.diag([-4.0, -4.0, 5.0, 1.0]))
    assert (as_itk.GetDirection(), as_itk.GetOrigin()) == ((1, 0, 0, 0, 1, 0, 0, 0, 1), (0, 0, 0))


def test_voxels_of_eight_bytes_are_read_as_a_type_that_every_format_can_hold(a_phantom, tmp_path):
    image = sitk.GetImageFromArray(a_phantom[0].hu_kji.astype(np.int64))
    for name in ("wide.nii.gz", "wide.nrrd"):
        sitk.WriteImage(image, tmp_path / name)
        found = read_volume(tmp_path / name)
        assert found.hu_kji.dtype == np.float32
        assert np.array_equal(found.hu_kji, a_phantom[0].hu_kji)
        write_volume(tmp_path / f"again-{name}", found.hu_kji, found.affine)


@pytest.mark.parametrize("turned", [np.eye(4), np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])])
def test_rows_and_columns_of_dicom_are_not_exchanged(turned, a_phantom, tmp_path):
    """Pixels that are not square, in axial slices and in others."""
    volume = CTVolume(a_phantom[0].hu_kji[:20], turned @ np.diag([-3.0, -4.0, 5.0, 1.0]))
    same(read_volume(write_series(tmp_path / "series", volume)), volume)


def test_a_nifti_that_is_scaled_is_read_in_hu(a_phantom, tmp_path):
    image = nibabel.Nifti1Image(((a_phantom[0].hu_kji.T + 1024) // 2).astype(np.int16), a_phantom[0].affine)
    image.header.set_slope_inter(2, -1024)
    nibabel.save(image, tmp_path / "scaled.nii.gz")
    found = read_volume(tmp_path / "scaled.nii.gz").hu_kji
    assert np.abs(found - a_phantom[0].hu_kji).max() <= 1
