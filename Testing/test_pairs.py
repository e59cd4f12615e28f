"""Pairs on disk: public data sets, and the user's own training set."""

import json
from dataclasses import replace

import numpy as np
import pytest

from LiverUNetLib.errors import ScanError, TrainingError
from LiverUNetLib.scan.formats import read_mask, read_volume
from LiverUNetTrainLib.data.layouts import find_cases
from LiverUNetTrainLib.data.pairs import add_case, write_pairs
from LiverUNetTrainLib.training import cost
from LiverUNetTrainLib.training.cost import check_disk


def test_pairs_are_written_from_any_layout_and_existing_ones_kept(pairs, tmp_path):
    (pairs / "patient1_liver.nii.gz").write_bytes(b"damaged")
    found = {finding.name: finding for finding in write_pairs(pairs, tmp_path / "out")}
    assert [name for name, finding in found.items() if not finding.usable] == ["patient1"]
    assert found["patient1"].message.startswith("left out: ")
    assert found["patient0"].facts.size == read_volume(pairs / "patient0_orig.nii.gz").hu_kji.shape[::-1]
    assert [case.name for case in find_cases([tmp_path / "out"])] == ["patient0", "patient2", "patient3"]
    scan, mask = find_cases([tmp_path / "out"])[0].read()
    np.testing.assert_array_equal(mask.hu_kji, read_mask(pairs / "patient0_liver.nii.gz").hu_kji)
    np.testing.assert_array_equal(scan.hu_kji, read_volume(pairs / "patient0_orig.nii.gz").hu_kji)
    again = {finding.name: finding.message for finding in write_pairs(pairs, tmp_path / "out")}
    assert again["patient0"] == "exists already"


def test_pairs_of_nothing_usable_are_an_error(pairs, tmp_path):
    for mask in pairs.glob("*_liver.nii.gz"):
        mask.write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="None of the cases can be used"):
        list(write_pairs(pairs, tmp_path / "out"))


def test_a_case_of_the_user_tells_nothing_about_the_patient_and_replaces_its_older_correction(a_phantom, tmp_path):
    scan, liver = a_phantom
    named = replace(scan, name="Doe^Jane 1970-01-01")
    name = add_case(tmp_path, named, liver, {"model": "liver-ct 0.1.0"})
    corrected = liver.copy()
    corrected[:20] = 0
    assert add_case(tmp_path, named, corrected, {"model": "liver-ct 0.1.0"}) == name
    (case,) = find_cases([tmp_path])
    np.testing.assert_array_equal(case.read()[1].hu_kji, corrected)
    assert all(b"Doe" not in path.read_bytes() and "Doe" not in path.name for path in tmp_path.iterdir())
    provenance = json.loads((tmp_path / f"{name}_provenance.json").read_text())
    assert provenance["model"] == "liver-ct 0.1.0"
    assert name == f"case_{provenance['content_hash'][:12]}"


def test_a_case_that_cannot_be_learned_from_is_refused_and_nothing_is_written(a_phantom, tmp_path):
    scan, liver = a_phantom
    with pytest.raises(ScanError, match="The mask of The phantom is empty"):
        add_case(tmp_path / "own", scan, np.zeros_like(liver), {})
    with pytest.raises(ScanError, match="The mask has shape"):
        add_case(tmp_path / "own", scan, liver[1:], {})
    with pytest.raises(ScanError, match="is constant"):
        add_case(tmp_path / "own", replace(scan, hu_kji=np.zeros_like(scan.hu_kji)), liver, {})
    assert not (tmp_path / "own").exists()


def test_a_disk_that_is_too_small_is_named_with_the_number(pairs, tmp_path, monkeypatch):
    cases = find_cases([pairs])
    check_disk(cases, tmp_path / "not/yet/there")
    usage = type("Usage", (), {"free": 2**20})
    monkeypatch.setattr(cost.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(TrainingError, match=r"4 cases need up to 0\.3 GiB in .*, 0\.0 GiB are free"):
        check_disk(cases, tmp_path / "not/yet/there")
