"""Models of schema 2 still open and run: one look, no ONNX form, up to three views of which one is used."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from LiverUNetLib.errors import ModelError
from LiverUNetLib.models.bundle import save_model
from LiverUNetLib.models.card import FINE, onnx_file
from LiverUNetLib.models.exchange import install_model, pack_model
from LiverUNetLib.models.folder import METADATA, LiverModel, open_model
from LiverUNetLib.models.spec import Rules
from LiverUNetLib.models.store import list_models
from LiverUNetLib.scan.phantom import LIVER, axial_affine
from LiverUNetLib.scan.volume import CTVolume
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.steps import finish
from LiverUNetLib.system.environment import Device
from LiverUNetTrainLib.evaluation.export import record_scores
from LiverUNetTrainLib.evaluation.metrics import CaseScores, compare_masks
from LiverUNetTrainLib.run.settings import TrainingSettings

ON_CPU = Device("cpu", "onnx")


@pytest.fixture
def an_old_folder(threshold_model, tmp_path):
    """As LiverUNet wrote them: its network and preprocessing side by side, one threshold, one checksum."""

    def make(views=("axial",), threshold=0.4):
        folder = save_model(tmp_path / "old", threshold_model.card, {FINE: threshold_model.state_dict()}, "").folder
        (folder / onnx_file(FINE)).unlink()
        metadata = json.loads((folder / METADATA).read_text())
        ours = metadata["liver_unet"]
        fine = ours.pop("spec")["fine"]
        checksums = ours.pop("checksums")
        ours |= {
            "schema_version": 2,
            "network": fine.pop("network"),
            "preprocessing": fine | {"window_hu": [-160.0, 240.0], "views": list(views)},
            "threshold": threshold,
            "checksum": checksums["models/model.pt"],
        }
        (folder / METADATA).write_text(json.dumps(metadata))
        return folder

    return make


@pytest.fixture
def an_old_model(an_old_folder) -> LiverModel:
    return open_model(an_old_folder())


def test_its_card_is_that_of_a_fine_look_with_its_threshold(an_old_model, threshold_model):
    card, spec = an_old_model.card, an_old_model.card.spec
    assert spec.fine == threshold_model.card.spec.fine
    assert spec.coarse is None
    assert spec.rules == Rules(threshold=0.4)
    assert spec.window_hu == (-160.0, 240.0)
    assert card.checksum == replace(threshold_model.card, spec=spec).checksum
    assert not an_old_model.has_onnx
    an_old_model.check()


def test_an_evaluation_can_be_recorded_in_its_card(an_old_folder):
    folder = an_old_folder()
    metadata = json.loads((folder / METADATA).read_text())
    training = asdict(TrainingSettings()) | {"weights": "best", "validated": ["a"]}
    metadata["liver_unet"]["training"] = {name: training[name] for name in training.keys() - {"coarse", "refinement"}}
    (folder / METADATA).write_text(json.dumps(metadata))
    mask = np.ones((3, 3, 3), bool)
    scores = [CaseScores("b", "new", compare_masks(mask, mask, (1.0, 1.0, 1.0)), seconds=1.0)]
    recorded = record_scores(open_model(folder), scores, "liver-unet-train evaluate")
    assert recorded.card.scores.summary["dice"].mean == 1
    assert "| b (new) | 1.0000 |" in (folder / "docs/README.md").read_text()


def test_torch_computes_it_and_a_warning_says_so(a_phantom, an_old_model, threshold_model):
    result = finish(segment(a_phantom[0], an_old_model, ON_CPU))
    assert result.warnings == ("The model threshold has no models/model.onnx; it was computed with PyTorch.",)
    assert result.provenance.engine == "torch"
    assert np.array_equal(result.mask_kji, finish(segment(a_phantom[0], threshold_model, ON_CPU)).mask_kji)


@pytest.mark.parametrize(("threshold", "found"), [(0.3, True), (0.4, False)])
def test_its_threshold_is_used(threshold, found, an_old_folder):
    hu = np.random.default_rng(0).normal(-90, 12, (40, 50, 50)).astype(np.int16)
    hu[10:30, 10:30, 10:40] = LIVER + 11  # a probability of 0.38
    scan = CTVolume(hu, axial_affine((4.0, 4.0, 5.0), hu.shape[::-1]))
    result = finish(segment(scan, open_model(an_old_folder(threshold=threshold)), ON_CPU))
    assert np.array_equal(result.mask_kji, (hu == LIVER + 11) & found)


def test_a_model_of_three_views_warns_that_one_is_used(a_phantom, an_old_folder):
    model = open_model(an_old_folder(["axial", "coronal", "sagittal"]))
    words = "The model threshold was trained on three views; only axial slices are used, which costs accuracy."
    for device, notes in (
        (ON_CPU, f"The model threshold has no models/model.onnx; it was computed with PyTorch. {words}"),
        (Device("cpu", "torch", note="A note."), f"A note. {words}"),
    ):
        assert finish(segment(a_phantom[0], model, device)).warnings == (notes,)


def test_listing_a_model_logs_nothing(an_old_folder, monkeypatch, caplog):
    folder = an_old_folder(["axial", "coronal", "sagittal"])
    monkeypatch.setenv("LIVER_UNET_MODELS", str(folder.parent))
    assert "old" in list_models()
    assert caplog.text == ""


def test_it_is_packed_and_installed(an_old_model, tmp_path, monkeypatch):
    monkeypatch.setenv("LIVER_UNET_MODELS", str(tmp_path / "installed"))
    pack_model(an_old_model, tmp_path / "old.zip")
    installed = install_model(tmp_path / "old.zip")
    assert installed.card == an_old_model.card
    assert [path.name for path in (installed.folder / "models").iterdir()] == ["model.pt"]


def test_without_torch_it_is_refused_with_a_remedy(an_old_model, without_torch):
    with pytest.raises(ModelError, match=r"needs PyTorch: install liver-unet\[train\], or export the model again"):
        an_old_model.networks(ON_CPU)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("threshold", 1.5, "unusable rules.threshold"),
        ("threshold", "0.4", "unusable rules.threshold"),
        ("preprocessing", {}, "not the card"),
        ("checksum", None, "unusable checksums"),
    ],
)
def test_its_faulty_values_are_refused(key, value, words, an_old_folder):
    folder = an_old_folder()
    metadata = json.loads((folder / METADATA).read_text())
    metadata["liver_unet"][key] = value
    (folder / METADATA).write_text(json.dumps(metadata))
    with pytest.raises(ModelError, match=words):
        open_model(folder)
