"""The bundled model on real CTs that were held out."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from helpers import dice
from LiverUNetLib.cli.main import main
from LiverUNetLib.errors import ScanError
from LiverUNetLib.models.store import find_model
from LiverUNetLib.scan.formats import read_volume
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.segmentation.verdict import LOOK, UNUSABLE
from LiverUNetLib.steps import finish
from LiverUNetTrainLib.data.cases import content_hash
from LiverUNetTrainLib.evaluation.altered_runs import SPOILT


@pytest.mark.slow
@pytest.mark.parametrize(("patient", "least"), [("ircad_e17", 0.95), ("ircad_e18", 0.91)])
def test_the_bundled_model_finds_the_liver_of_a_held_out_patient(patient, least, real_data, tmp_path):
    output, report = tmp_path / "liver.nii.gz", tmp_path / "report.json"
    scan = real_data / f"ircad/{patient}_orig.nii.gz"
    assert main(["segment", str(scan), "-o", str(output), "--json", str(report)]) == 0
    found, reference = (
        np.asarray(nibabel.load(path).dataobj) for path in (output, str(scan).replace("_orig", "_liver"))
    )
    assert dice(found, reference) > least
    made = json.loads(report.read_text())
    assert made["warnings"] == []
    assert made["provenance"]["settings"]["coarse"]["voxel_mm"] > 0


def test_the_bundled_model_recognizes_a_held_out_patient_in_any_order_of_axes(real_data):
    scan = read_volume(real_data / "ircad/ircad_e17_orig.nii.gz")
    roles = find_model("liver-ct").card.lineage.roles()
    flip = np.eye(4)
    flip[2, 2], flip[2, 3] = -1, len(scan.hu_kji) - 1
    flipped = replace(scan, hu_kji=scan.hu_kji[::-1], affine=scan.affine @ flip)
    assert roles[content_hash(scan)] == roles[content_hash(flipped)] == "held out"


@pytest.mark.slow
@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_spoilt_scan_is_never_called_good(spoilt, real_data, cpu):
    for patient in ("ircad_e17", "ircad_e16", "ircad_e20", "ircad_e18", "ircad_e19"):
        scan, liver = (read_volume(real_data / f"ircad/{patient}_{kind}.nii.gz") for kind in ("orig", "liver"))
        if pair := SPOILT[spoilt](scan, liver.hu_kji != 0):
            break  # others show too little besides the liver
    try:
        result = finish(segment(pair[0], find_model("liver-ct"), cpu))
    except ScanError:
        return  # refused, which is plainer still
    assert result.verdict.word in (LOOK, UNUSABLE), result.verdict
