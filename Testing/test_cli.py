"""The command line: its outputs, and its messages for bad input. A traceback is a bug."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from dicom_files import write_series
from helpers import dice
from LiverUNetLib import doctor
from LiverUNetLib.cli.main import main
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.system import environment
from LiverUNetTrainLib.cli.main import main as train_main


@pytest.fixture
def segment_with(threshold_model):
    """Run `liver-unet segment` with the threshold model; returns the exit code."""
    return lambda *arguments: main(
        ["segment", "--model", str(threshold_model.folder), "--device", "cpu", *map(str, arguments)]
    )


def test_segment_writes_mask_probability_and_report(a_phantom, a_ct_file, segment_with, tmp_path, capsys):
    volume, liver = a_phantom
    mask_file, probability_file, report_file = (tmp_path / name for name in ("m.nii.gz", "p.nii.gz", "r.json"))
    code = segment_with(a_ct_file, "-o", mask_file, "--probability", probability_file, "--json", report_file)
    assert code == 0
    mask = nibabel.load(mask_file)
    assert mask.get_data_dtype() == np.uint8
    assert np.array_equal(mask.affine, nibabel.load(a_ct_file).affine)
    assert dice(np.asarray(mask.dataobj).T, liver) > 0.9
    probability = nibabel.load(probability_file).get_fdata()
    assert probability.shape == mask.shape
    assert 0.95 < probability.max() <= 1
    report = json.loads(report_file.read_text())
    assert report["measurement"]["volume_ml"] == pytest.approx(np.asarray(mask.dataobj).sum() * volume.voxel_ml)
    assert " ".join(report) == "schema_version measurement verdict signals warnings provenance"
    assert " ".join(report["provenance"]) == (
        "scan model model_version model_checksum model_license settings device engine dtype seconds packages"
    )
    assert report["provenance"]["device"] == "cpu"
    printed = capsys.readouterr()
    assert printed.out.startswith(f"Liver: {report['measurement']['volume_ml']:.0f} ml")
    assert "license: Apache-2.0" in printed.err


def test_without_output_the_mask_lies_beside_the_ct(a_ct_file, segment_with):
    assert segment_with(a_ct_file) == 0
    assert a_ct_file.with_name("ct_liver.nii.gz").is_file()


def test_the_mask_of_the_current_folder_lies_beside_it(a_phantom, segment_with, tmp_path, monkeypatch):
    monkeypatch.chdir(write_series(tmp_path / "series", a_phantom[0]))
    assert segment_with(Path()) == 0
    assert (tmp_path / "series_liver.nii.gz").is_file()


def test_names_with_spaces_and_accents_work(a_ct_file, segment_with, tmp_path):
    folder = tmp_path / "Übung für Anaïs"
    folder.mkdir()
    moved = a_ct_file.rename(folder / "ein CT.nii.gz")
    assert segment_with(moved) == 0
    assert (folder / "ein CT_liver.nii.gz").is_file()


def write(path: Path, array_kji: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(array_kji.T, np.diag([-2, -2, 2, 1.0]) if affine is None else affine), path)
    return path


def soft_tissue(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-150, 230, shape).astype(np.int16)


def rgb(path: Path) -> Path:
    return write(path, np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]))


def with_singular_affine(path: Path) -> Path:
    image = nibabel.Nifti1Image(soft_tissue(4, 5, 6).T, np.eye(4))
    image.set_sform(np.diag([1.0, 1.0, 0.0, 1.0]), code=1)
    nibabel.save(image, path)
    return path


def truncated(path: Path) -> Path:
    write(path, soft_tissue(20, 30, 40))
    path.write_bytes(path.read_bytes()[:5000])
    return path


def with_value(value: float) -> np.ndarray:
    array = soft_tissue(4, 20, 20).astype(np.float32)
    array[1, 2, 3] = value
    return array


BAD_SCANS = {
    "a text file": (lambda path: path.write_text("not a scan") and path, "not a readable NIfTI file"),
    "truncated": (truncated, "damaged: it is cut short; copy it again"),
    "empty": (lambda path: path.touch() or path, "not a readable NIfTI file"),
    "2D": (lambda path: write(path, soft_tissue(20, 20)), "2 dimensions"),
    "4D": (lambda path: write(path, soft_tissue(3, 4, 20, 20)), "4 dimensions"),
    "RGB": (rgb, "colors"),
    "a mask": (lambda path: write(path, (soft_tissue(9, 20, 20) > 0).astype(np.uint8)), "is it a mask"),
    "two values": (
        lambda path: write(path, np.where(soft_tissue(9, 20, 20) > 0, 50, -1000).astype(np.int16)),
        "one of two values",
    ),
    "labels": (lambda path: write(path, soft_tissue(9, 20, 20).clip(0, 90).astype(np.uint8)), "no value below 0"),
    "constant": (lambda path: write(path, np.full((4, 20, 20), 7, np.int16)), "every voxel is 7"),
    "NaN": (lambda path: write(path, with_value(np.nan)), "not finite"),
    "infinity": (lambda path: write(path, with_value(np.inf)), "not finite"),
    "no HU": (lambda path: write(path, (soft_tissue(9, 20, 20).astype(np.float32)) * 1e4), "does not look like HU"),
    "stored without its intercept": (lambda path: write(path, soft_tissue(9, 20, 20) + 1024), "rescale"),
    "singular affine": (with_singular_affine, "singular"),
}


@pytest.mark.parametrize("kind", BAD_SCANS)
def test_a_bad_scan_gets_one_sentence_and_leaves_nothing(kind, segment_with, tmp_path, capsys):
    make, expected = BAD_SCANS[kind]
    scan = make(tmp_path / "scan.nii.gz")
    assert segment_with(scan) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    sentence = printed.err.strip().splitlines()[-1]
    assert expected in sentence
    assert "scan.nii.gz" in sentence
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii.gz"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("none.nii.gz", "does not exist"), ("folder", "holds no CT series"), ("x.jpg", "has an unknown format")],
)
def test_a_file_that_is_not_a_scan_is_named(name, expected, segment_with, tmp_path, capsys):
    (tmp_path / "x.jpg").touch()
    (tmp_path / "folder").mkdir()
    assert segment_with(tmp_path / name) == 1
    assert expected in capsys.readouterr().err


def test_an_output_without_nifti_ending_is_refused(a_ct_file, segment_with, tmp_path, capsys):
    assert segment_with(a_ct_file, "-o", tmp_path / "m.png") == 1
    assert "must end in .nii.gz, .nii, .seg.nrrd, .nrrd" in capsys.readouterr().err


def test_an_existing_output_stays_unless_overwriting_is_allowed(a_ct_file, segment_with, tmp_path, capsys):
    output = tmp_path / "m.nii.gz"
    output.write_text("precious")
    assert segment_with(a_ct_file, "-o", output) == 1
    assert "exists already" in capsys.readouterr().err
    assert output.read_text() == "precious"
    assert segment_with(a_ct_file, "-o", output, "--overwrite") == 0
    assert nibabel.load(output).shape == nibabel.load(a_ct_file).shape


def test_the_ct_is_never_overwritten(a_ct_file, segment_with, capsys):
    before = a_ct_file.read_bytes()
    assert segment_with(a_ct_file, "-o", a_ct_file, "--overwrite") == 1
    assert "different files" in capsys.readouterr().err
    assert a_ct_file.read_bytes() == before


def test_a_read_only_folder_is_named(a_ct_file, segment_with, read_only, capsys):
    assert segment_with(a_ct_file, "-o", read_only / "m.nii.gz") == 1
    assert "Nothing can be written" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["demo -o OUT", "demo -o OUT/new", "batch HERE -o OUT/new", "models install MODEL"])
def test_a_read_only_target_is_named_before_any_work(words, a_ct_file, threshold_model, read_only, monkeypatch, capsys):
    monkeypatch.setattr(LiverModel, "networks", lambda *_, **__: pytest.fail("work is done"))
    monkeypatch.setenv("LIVER_UNET_MODELS", str(read_only / "models"))
    places = {"HERE": a_ct_file.parent, "MODEL": threshold_model.folder}
    arguments = [str(places.get(word, word.replace("OUT", str(read_only)))) for word in words.split()]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Read-only file system" in printed.err.splitlines()[-1]


def test_unknown_models_and_devices_are_named(a_ct_file, segment_with, capsys):
    assert main(["segment", str(a_ct_file), "--model", "no-such-model"]) == 1
    assert "no model 'no-such-model'" in capsys.readouterr().err
    assert segment_with(a_ct_file, "--device", "cuda:7") == 1
    assert "cuda:7 cannot be used" in capsys.readouterr().err
    assert segment_with(a_ct_file, "--device", "toaster") == 1
    assert "toaster cannot be used" in capsys.readouterr().err


def test_wrong_usage_exits_with_2(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["segment"])
    assert exit_.value.code == 2
    assert "the following arguments are required: CT" in capsys.readouterr().err


@pytest.mark.parametrize("command", [main, train_main])
def test_the_version_is_printed(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        command(["--version"])
    assert exit_.value.code == 0
    program, version = capsys.readouterr().out.split()
    assert program == ("liver-unet" if command is main else "liver-unet-train")
    assert version == importlib.metadata.version("liver-unet")


@pytest.mark.slow
def test_folders_of_outputs_are_made(tmp_path):
    assert main(["models", "pack", "liver-ct", str(tmp_path / "new/below/m.zip")]) == 0
    assert (tmp_path / "new/below/m.zip").is_file()


TOO_LONG = "x" * 300


@pytest.mark.parametrize(
    "words",
    [
        "info LONG", "segment LONG", "segment LONG.nii.gz", "segment CT -o LONG.nii.gz", "segment CT --json LONG",
        "segment CT --probability LONG.nii", "segment CT --model LONG", "batch LONG -o OUT", "batch HERE -o LONG",
        "demo -o LONG", "models card LONG", "models verify LONG", "models install LONG", "models remove LONG",
        "models pack liver-ct LONG",
    ],
)  # fmt: skip
def test_an_impossible_name_gets_one_sentence(words, a_ct_file, tmp_path, capsys):
    places = {"CT": str(a_ct_file), "OUT": str(tmp_path / "out"), "HERE": str(tmp_path)}
    assert main([places.get(word, word.replace("LONG", TOO_LONG)) for word in words.split()]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) <= 2, "perhaps the model and its license, and one sentence"
    assert TOO_LONG in printed.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct.nii.gz"]


def test_a_log_is_not_filled_with_progress(a_ct_file, segment_with, capsys):
    assert segment_with(a_ct_file) == 0
    assert len(capsys.readouterr().err.splitlines()) == 1, "the model and its license"


def test_info_prints_grid_spacing_orientation_and_range(a_ct_file, capsys):
    assert main(["info", str(a_ct_file)]) == 0
    told = capsys.readouterr().out
    assert "96 x 72 x 44 (i, j, k), int16" in told
    assert "4.000 x 4.000 x 5.000 mm" in told
    assert "LPS" in told


def test_doctor_tests_the_cpu_and_the_models(capsys):
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "cpu: works, ONNX Runtime and PyTorch in" in told
    assert "liver-ct: " in told
    assert "weights verified" in told


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["segment", "--help"]])
def test_commands_that_need_no_packages_import_none(arguments):
    code = (
        "import sys; from LiverUNetLib.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print('imported:', {'numpy', 'scipy', 'nibabel', 'onnxruntime'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported: set()"


@pytest.mark.slow
def test_help_needs_no_torch():
    code = (
        "import sys, LiverUNetLib.cli.main, LiverUNetLib.segmentation.pipeline;"
        "sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_doctor_names_missing_packages_what_needs_them_and_how_to_install_them(monkeypatch, capsys):
    absent = {"torch", "monai", "matplotlib", "onnxruntime", "tqdm"}
    monkeypatch.setattr(environment, "find_spec", {}.get)
    monkeypatch.setattr(environment, "gpu_driver_present", lambda: True)
    versions = {name: "not installed" if name in absent else "1.0" for name in environment.PACKAGES}
    monkeypatch.setattr(doctor, "package_versions", lambda: versions)
    monkeypatch.setattr(doctor, "list_models", dict)
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "missing      onnxruntime: install with pip; in Slicer, press Segment\n" in told
    assert (
        'missing      torch, monai, matplotlib: only training, reports and GPUs need them (pip install "liver' in told
    )
    assert "device       cpu: no engine is installed\n" in told
    assert "device       gpu: visible, but PyTorch is not installed; the CPU is used\n" in told


@pytest.mark.slow
def test_without_matplotlib_the_demo_draws_no_picture(tmp_path, threshold_model, monkeypatch, capsys):
    monkeypatch.setattr("LiverUNetLib.cli.main.find_spec", {}.get)
    assert main(["demo", "-o", str(tmp_path), "--model", str(threshold_model.folder)]) == 0
    assert capsys.readouterr().out.endswith(": phantom_ct.nii.gz, phantom_liver.nii.gz\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["phantom_ct.nii.gz", "phantom_liver.nii.gz"]


@pytest.mark.slow
def test_demo_finds_the_known_liver_with_the_bundled_model(tmp_path, capsys):
    assert main(["demo", "-o", str(tmp_path / "demo")]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Dice"))
    assert float(line.split()[-1]) >= 0.95
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {
        "phantom_ct.nii.gz",
        "phantom_liver.nii.gz",
        "phantom.png",
    }
