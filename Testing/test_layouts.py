"""Every layout of a data set gives the same cases."""

import json
import shutil
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest

from dicom_files import write_series
from LiverUNetLib.errors import TrainingError
from LiverUNetLib.scan.volume import CTVolume
from LiverUNetTrainLib.cli.main import main
from LiverUNetTrainLib.data.cases import check_case
from LiverUNetTrainLib.data.layouts import find_cases, find_data_sets


@pytest.fixture
def ircad(a_phantom, tmp_path) -> Path:
    """Patients 1 and 12 as IRCAD distributes them; the second one zipped."""
    volume, liver = a_phantom
    root = tmp_path / "3Dircadb1"
    for number in (1, 12):
        patient = root / f"3Dircadb1.{number}"
        scan = CTVolume(volume.hu_kji + np.int16(number), volume.affine)
        write_series(patient / "PATIENT_DICOM", scan)
        for organ, mask in (("liver", liver), ("bone", 1 - liver)):
            masks = CTVolume(mask.astype(np.int16) * 255, volume.affine)
            write_series(patient / "MASKS_DICOM" / organ, masks, Modality="OT")
    zipped = root / "3Dircadb1.12"
    for name in ("PATIENT_DICOM", "MASKS_DICOM"):
        with zipfile.ZipFile(zipped / f"{name}.zip", "w") as archive:
            for path in (zipped / name).rglob("*"):
                archive.write(path, path.relative_to(zipped))
        shutil.rmtree(zipped / name)
    return root


@pytest.fixture
def decathlon(a_phantom, tmp_path) -> Path:
    """One case whose liver holds a tumor, label 2."""
    volume, liver = a_phantom
    labels = liver.copy()
    labels[20:24, 30:40][labels[20:24, 30:40] == 1] = 2
    root = tmp_path / "Task03_Liver"
    for part, array in (("imagesTr", volume.hu_kji), ("labelsTr", labels)):
        (root / part).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(array.T, volume.affine), root / part / "liver_7.nii.gz")
    (root / "imagesTr/._liver_7.nii.gz").touch()  # what macOS leaves in the Decathlon's archives
    (root / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "liver", "2": "cancer"}}))
    return root


@pytest.mark.slow
def test_ircad_is_recognized_in_folders_and_zips(ircad, a_phantom):
    (data,) = find_data_sets([ircad])
    assert data.layout == "3D-IRCADb-01 as downloaded"
    assert [case.name for case in data.cases] == ["ircad_e01", "ircad_e12"]
    for case, offset in zip(data.cases, (1, 12), strict=True):
        checked = check_case(case)
        assert np.array_equal(checked.scan.hu_kji, a_phantom[0].hu_kji + offset)
        assert np.array_equal(checked.mask.hu_kji, a_phantom[1])


def zipped(folder: Path) -> Path:
    """All of a folder as one zip, as IRCAD offers it for download."""
    return Path(shutil.make_archive(str(folder), "zip", folder.parent, folder.name))


@pytest.mark.slow
def test_ircad_as_one_zip_becomes_pairs_and_nothing_else_stays(ircad, a_phantom, tmp_path, capsys):
    (ircad / "3Dircadb1.1/MESHES_VTK").mkdir()
    assert main(["export-pairs", str(zipped(ircad)), "-o", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[1].startswith("ircad_e12: 96 x 72 x 44 of 4.00 x 4.00 x 5.00 mm, ")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"ircad_{name}_{part}.nii.gz" for name in ("e01", "e12") for part in ("liver", "orig")
    ]
    for case, offset in zip(find_cases([tmp_path / "out"]), (1, 12), strict=True):
        scan, mask = case.read()
        assert np.array_equal(scan.hu_kji, a_phantom[0].hu_kji + offset)
        assert np.array_equal(mask.hu_kji, a_phantom[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda archive: archive.write_bytes(b"no zip"), "cannot be unpacked"),
        (lambda archive: archive.write_bytes(archive.read_bytes()[:-400]), "cannot be unpacked"),
        (lambda archive: zipfile.ZipFile(archive, "w").close(), "holds no patient 3Dircadb1.N"),
    ],
)
def test_a_zip_that_is_not_ircad_is_named(ircad, tmp_path, capsys, damage, words):
    archive = zipped(ircad)
    damage(archive)
    assert main(["export-pairs", str(archive), "-o", str(tmp_path / "out")]) == 1
    assert words in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_tumors_of_the_decathlon_are_liver(decathlon, a_phantom):
    (data,) = find_data_sets([decathlon])
    assert data.layout == "nnU-Net or Decathlon"
    (case,) = data.cases
    assert case.name == "liver_7"
    assert np.array_equal(check_case(case).mask.hu_kji, a_phantom[1])


@pytest.mark.slow
def test_what_is_exported_for_nnunet_is_read_back_as_it_was(ircad, tmp_path, capsys):
    output = tmp_path / "Dataset001_Liver"
    assert main(["export-nnunet", str(ircad), "-o", str(output)]) == 0
    assert "ircad_e12: 96 x 72 x 44 of 4.00 x 4.00 x 5.00 mm" in capsys.readouterr().out
    assert json.loads((output / "dataset.json").read_text())["numTraining"] == 2
    assert sorted(path.name for path in (output / "imagesTr").iterdir()) == [
        "ircad_e01_0000.nii.gz",
        "ircad_e12_0000.nii.gz",
    ]
    for before, after in zip(find_cases([ircad]), find_cases([output]), strict=True):
        assert before.name == after.name
        assert check_case(before).content_hash == check_case(after).content_hash
        assert np.array_equal(check_case(before).mask.hu_kji, check_case(after).mask.hu_kji)
    assert main(["export-nnunet", str(ircad), "-o", str(output)]) == 1
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.slow
def test_prepare_names_each_layout(ircad, decathlon, tmp_path, capsys):
    assert main(["prepare", str(ircad), str(decathlon), "--cache", str(tmp_path / "cache")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{ircad}: 3D-IRCADb-01 as downloaded, 2 cases"
    assert told[1] == f"{decathlon}: nnU-Net or Decathlon, 1 cases"
    assert told[2].startswith("ircad_e01: 96 x 72 x 44 of 4.00 x 4.00 x 5.00 mm, ")


def test_a_dataset_without_liver_is_refused(decathlon):
    (decathlon / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "spleen": 1}}))
    with pytest.raises(TrainingError, match="names no label of the liver among background, spleen"):
        find_cases([decathlon])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"0": "background", "1": "liver", "2": "cancer"}, (1, 2)),
        ({"background": 0, "liver": [1, 2], "tumor": 2}, (1, 2)),
        ({"background": 0, "liver": 1, "kidney tumor": 3, "pancreas cancer": 4}, (1,)),
        ({"background": 0, "liver": 1, "liver tumor": 2, "spleen": 3}, (1, 2)),
    ],
)
def test_labels_of_the_liver_are_told_from_those_of_other_organs(decathlon, labels, expected):
    (decathlon / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert find_cases([decathlon])[0].labels == expected


def test_hidden_files_beside_pairs_are_no_cases(pairs):
    (pairs / "._patient0_orig.nii.gz").write_bytes(b"macOS")
    assert len(find_cases([pairs])) == 4


def test_lits_as_downloaded_is_found_in_all_its_batches(pairs, tmp_path):
    for number, batch in ((0, "Training Batch 1"), (28, "Training Batch 2")):
        folder = tmp_path / "LiTS" / batch
        folder.mkdir(parents=True)
        shutil.copy(pairs / "patient0_orig.nii.gz", folder / f"volume-{number}.nii.gz")
        shutil.copy(pairs / "patient0_liver.nii.gz", folder / f"segmentation-{number}.nii.gz")
    (data,) = find_data_sets([tmp_path / "LiTS"])
    assert data.layout == "LiTS as downloaded"
    assert [case.name for case in data.cases] == ["lits_v000", "lits_v028"]
    assert check_case(data.cases[1]).facts.liver_ml > 1000
