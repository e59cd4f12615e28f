"""The bundled model on a real CT that it has never seen."""

import nibabel
import numpy as np

from helpers import dice
from LiverUNetLib.cli import main


def test_the_bundled_model_finds_the_liver_of_a_held_out_patient(real_data, tmp_path):
    output = tmp_path / "liver.nii.gz"
    scan = real_data / "ircad/ircad_e18_orig.nii.gz"
    assert main(["segment", str(scan), "-o", str(output)]) == 0
    found, reference = (
        np.asarray(nibabel.load(path).dataobj) for path in (output, str(scan).replace("_orig", "_liver"))
    )
    assert dice(found, reference) > 0.90
