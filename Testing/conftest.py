"""Fixtures that read like prose. No test needs a GPU, a network or an order."""

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import (
    REPOSITORY,
    SETTINGS,
    SHAPE_IJK,
    SPACING_MM,
    SPEC,
    THRESHOLDING,
    TWO_LOOKS,
    save_two_looks,
    thresholding_weights,
    write_pair,
)
from LiverUNetLib.models import folder as model_folder
from LiverUNetLib.models.bundle import save_model
from LiverUNetLib.models.card import FINE, ModelCard
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.models.spec import FineLook, ModelSpec
from LiverUNetLib.scan.formats import write_volume
from LiverUNetLib.scan.phantom import abdomen, axial_affine
from LiverUNetLib.scan.volume import CTVolume
from LiverUNetLib.segmentation.batch import segment_folder
from LiverUNetLib.steps import finish
from LiverUNetLib.system import environment
from LiverUNetLib.system.environment import Device
from LiverUNetTrainLib.data.cache import Cache, Grids, open_cache, prepare
from LiverUNetTrainLib.data.layouts import find_cases
from LiverUNetTrainLib.data.splits import split_by_patient
from LiverUNetTrainLib.run.settings import TrainingSettings
from LiverUNetTrainLib.training.model_training import ModelTraining
from LiverUNetTrainLib.training.plan import Plan


@pytest.fixture
def cpu() -> Device:
    """Plain float32, so that results do not depend on what the processor can do."""
    return Device("cpu", "onnx")


@pytest.fixture
def signals_heard() -> Iterator[None]:
    """Let Ctrl-C and SIGHUP reach the processes of a test, though a background job of a shell ignores them."""
    numbers = [number for number in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_IGN]
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session")
def a_phantom() -> tuple[CTVolume, np.ndarray]:
    """A noiseless axial scan whose liver is known, and that liver."""
    return abdomen(axial_affine(SPACING_MM, SHAPE_IJK), SHAPE_IJK[::-1], noise_hu=0)


@pytest.fixture
def a_ct_file(a_phantom, tmp_path) -> Path:
    volume, _ = a_phantom
    path = tmp_path / "ct.nii.gz"
    write_volume(path, volume.hu_kji, volume.affine)
    return path


@pytest.fixture
def read_only(tmp_path) -> Iterator[Path]:
    """A folder that nothing can be written to; as root chmod proves nothing, so a file system is mounted."""
    folder = tmp_path / "read only"
    folder.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if mounted.returncode:
        pytest.skip(f"cannot mount a read-only file system here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="session")
def threshold_model(tmp_path_factory) -> LiverModel:
    """A real model folder whose network says liver within 10 HU of the phantom's liver.

    Tests of geometry and formats then never hang on trained weights.
    """
    spec = ModelSpec(FineLook(pixel_mm=4.0, slice_mm=5.0, context_mm=(0.0,), network=THRESHOLDING))
    card = ModelCard("threshold", "1", "Thresholds HU", "Apache-2.0", spec)
    weights = {FINE: thresholding_weights(spec.fine.network)}
    return save_model(tmp_path_factory.mktemp("models") / "threshold", card, weights, "For tests.\n")


@pytest.fixture(scope="session")
def two_looks_model(tmp_path_factory) -> LiverModel:
    """The same with a coarse look before it, which does so too."""
    return save_two_looks(tmp_path_factory.mktemp("models") / "two-looks")


@pytest.fixture
def without_torch(monkeypatch):
    """As if PyTorch were not installed."""
    for module in (environment, model_folder):
        monkeypatch.setattr(module, "find_spec", {}.get)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real CTs, or a skip."""
    folder = Path(os.environ.get("LIVER_UNET_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real CTs: {folder} does not exist (LIVER_UNET_DATA can name another folder)")
    return folder


@pytest.fixture
def pairs(tmp_path) -> Path:
    """A folder of four phantom patients as pairs of scan and mask."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    for n in range(4):
        write_pair(folder, f"patient{n}", seed=n)
    return folder


@pytest.fixture
def a_cache(pairs, tmp_path) -> Cache:
    list(prepare(find_cases([pairs]), tmp_path / "cache", Grids(pixel_mm=8.0, slice_mm=18.0, voxel_mm=16.0)))
    return open_cache(tmp_path / "cache")


@pytest.fixture
def a_trainer(a_cache, tmp_path, cpu):
    """Make the training of a model in a run folder of that name; patient3 is held out."""

    def make(
        run: str, *, spec: ModelSpec = SPEC, settings: TrainingSettings = SETTINGS, resume: bool = False
    ) -> ModelTraining:
        names = [case.name for case in a_cache.cases]
        split = split_by_patient(names, held_out=["patient3"], validation=0.3)
        start = ModelTraining.resume if resume else ModelTraining.begin
        return start(Plan(a_cache, split, spec, settings), tmp_path / run, cpu)

    return make


@pytest.fixture
def small_recipes(monkeypatch) -> None:
    """The recipes, with both looks as small as those of the other tests."""
    from LiverUNetTrainLib.training.recipes import RECIPES

    small = ModelSpec(replace(TWO_LOOKS.fine, pixel_mm=1.25, slice_mm=2.0), replace(TWO_LOOKS.coarse, voxel_mm=4.0))
    for name, recipe in RECIPES.items():
        coarse = replace(recipe.settings.coarse, shown=1, size_mm=(48.0, 64.0, 80.0))
        settings = replace(recipe.settings, canvas_mm=(64.0, 80.0), coarse=coarse)
        spec = small if recipe.spec.coarse else SPEC
        monkeypatch.setitem(RECIPES, name, replace(recipe, spec=spec, settings=settings))


@pytest.fixture
def scene():
    """A real MRML scene of Slicer, empty, that the logic takes for the application's."""
    import slicer

    import slicer_without_qt

    slicer_without_qt.install()
    yield slicer_without_qt.new_scene()
    slicer.mrmlScene.Clear(1)


@pytest.fixture
def logic(scene):
    from LiverUNetPanel.logic import LiverUNetLogic  # importable once `slicer` is complete

    return LiverUNetLogic()


@pytest.fixture
def segmented(logic, threshold_model):
    """Segment a volume node by the model of thresholds and return its outcome."""

    def segment(volume, segmentation=None, **options):
        return logic.process(volume, segmentation, modelName=str(threshold_model.folder), deviceName="cpu", **options)

    return segment


@pytest.fixture
def a_volume(scene, a_phantom):
    from mrml_helpers import add_volume

    volume, _ = a_phantom
    return add_volume(volume.hu_kji, volume.affine)


@pytest.fixture
def own_models(tmp_path, monkeypatch):
    monkeypatch.setenv("LIVER_UNET_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def scans(a_phantom, tmp_path):
    """Two good scans, a bad one, and a mask that lies beside them."""
    folder = tmp_path / "scans with späces"
    folder.mkdir()
    volume, liver = a_phantom
    write_volume(folder / "a.nii.gz", volume.hu_kji, volume.affine)
    write_volume(folder / "b.nrrd", volume.hu_kji, volume.affine)
    write_volume(folder / "flat.nii.gz", np.zeros((40, 50, 50), np.int16), np.diag([4.0, 4.0, 4.0, 1.0]))
    write_volume(folder / "a_liver.nii.gz", liver, volume.affine)
    return folder


@pytest.fixture
def run_batch(scans, tmp_path, threshold_model, cpu):
    def start(target="out", ending=".nii.gz", series=None):
        return finish(segment_folder(scans, tmp_path / target, threshold_model, cpu, ending=ending, series=series))

    return start
