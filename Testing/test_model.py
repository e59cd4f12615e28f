"""A model folder is verified before it is used, and nothing in it is executed."""

import hashlib
import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from LiverUNetLib.bundle import save_model
from LiverUNetLib.card import THRESHOLD, ModelCard
from LiverUNetLib.errors import ModelError
from LiverUNetLib.geometry import PreprocessingSpec
from LiverUNetLib.model import find_model, list_models, open_model
from LiverUNetLib.network import NetworkSpec, build_network, fold_batch_norm
from LiverUNetLib.resources import model_folders, resource_folder


@pytest.fixture
def a_copy(threshold_model, tmp_path):
    return open_model(Path(shutil.copytree(threshold_model.folder, tmp_path / "copy")))


def metadata_of(model) -> dict:
    return json.loads((model.folder / "configs/metadata.json").read_text())


def rewrite(model, change) -> None:
    content = metadata_of(model)
    change(content)
    (model.folder / "configs/metadata.json").write_text(json.dumps(content))


def test_a_saved_model_is_read_back_as_it_was(threshold_model):
    again = open_model(threshold_model.folder)
    assert again.card == threshold_model.card
    state = again.state_dict()
    assert all(torch.equal(value, threshold_model.state_dict()[key]) for key, value in state.items())


def test_saving_the_same_weights_twice_gives_the_same_checksum(threshold_model, tmp_path):
    again = save_model(tmp_path / "again", threshold_model.card, threshold_model.state_dict(), "")
    assert again.card.checksum == threshold_model.card.checksum


def test_statistics_beyond_float16_are_kept_and_kernels_beyond_it_refused(threshold_model, tmp_path):
    state = threshold_model.state_dict()
    state["0.model.0.adn.N.running_var"][0] = 3e5
    saved = save_model(tmp_path / "large", threshold_model.card, state, "").state_dict()
    assert saved["0.model.0.adn.N.running_var"][0] == 3e5
    state["1.weight"] = torch.full((1, 1, 1, 1), 1e6)
    with pytest.raises(ModelError, match=r"1.weight are not finite"):
        save_model(tmp_path / "kernel", threshold_model.card, state, "")
    assert not (tmp_path / "kernel").exists()


def test_changed_weights_are_refused(a_copy):
    weights = a_copy.folder / "models/model.pt"
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(ModelError, match="were changed"):
        a_copy.check()


def with_checksum_of(path: Path):
    """A change of the card that makes it agree with a changed model.pt."""
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    return lambda content: content["liver_unet"]["checksums"].update({"models/model.pt": checksum})


def test_weights_that_hold_code_are_refused_and_not_run(a_copy, tmp_path):
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self):
            return Path.touch, (canary,)

    weights = a_copy.folder / "models/model.pt"
    torch.save({"weight": Evil()}, weights)
    rewrite(a_copy, with_checksum_of(weights))
    with pytest.raises(ModelError, match="holds code"):
        open_model(a_copy.folder).torch_network()
    weights.write_bytes(pickle.dumps(Evil(), protocol=2))
    rewrite(a_copy, with_checksum_of(weights))
    with pytest.raises(ModelError):
        open_model(a_copy.folder).torch_network()
    assert not canary.exists()


def test_weights_of_another_network_are_refused(a_copy):
    rewrite(a_copy, lambda content: content["liver_unet"]["network"].update(channels=[4, 4]))
    with pytest.raises(ModelError, match="do not fit"):
        open_model(a_copy.folder).torch_network()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda content: content.pop("liver_unet"), "liver_unet"),
        (lambda content: content["liver_unet"].update(schema_version=99), "schema version 99"),
        (lambda content: content["liver_unet"]["network"].update(novelty=1), "novelty"),
    ],
)
def test_a_card_that_is_not_ours_is_refused(change, expected, a_copy):
    rewrite(a_copy, change)
    with pytest.raises(ModelError, match=expected):
        open_model(a_copy.folder)


def test_models_are_found_by_name_or_folder(a_copy, monkeypatch, tmp_path):
    monkeypatch.setenv("LIVER_UNET_MODELS", str(tmp_path))
    assert find_model("copy").folder == a_copy.folder
    assert find_model(str(a_copy.folder)).folder == a_copy.folder
    (a_copy.folder / "configs/metadata.json").write_text("{")
    assert isinstance(list_models()["copy"], ModelError)
    with pytest.raises(ModelError, match="not readable JSON"):
        find_model("copy")


def test_a_failed_save_leaves_the_old_model(threshold_model, a_copy):
    with pytest.raises(AttributeError):
        save_model(a_copy.folder, threshold_model.card, {"weight": "no tensor"}, "")
    assert open_model(a_copy.folder).card == a_copy.card
    assert [path.name for path in a_copy.folder.parent.iterdir()] == ["copy"]


@pytest.mark.parametrize("name", ["", "../escape", "a b", ".hidden"])
def test_a_name_that_is_no_folder_name_is_refused(name, threshold_model, tmp_path):
    with pytest.raises(ModelError, match="cannot be called"):
        save_model(tmp_path / "x", replace(threshold_model.card, name=name), {}, "")


def test_folding_batch_norm_keeps_the_logits():
    torch.manual_seed(0)
    network = build_network(NetworkSpec(in_channels=3, channels=(4, 8, 8), strides=(2, 2)))
    image = torch.randn(2, 3, 16, 16)
    for _ in range(3):
        network(image)  # running statistics that differ from 0 and 1
    network.eval()
    expected = network(image)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in fold_batch_norm(network).modules())
    assert torch.allclose(network(image), expected, atol=1e-5)


def test_monai_builds_the_network_of_the_bundle(threshold_model):
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(threshold_model.folder / "configs/inference.json")
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(threshold_model.state_dict())


def test_resources_are_found_where_they_are_installed():
    assert (resource_folder() / "Models").is_dir()
    assert model_folders()[0] == resource_folder() / "Models"


def test_the_bundled_model_is_whole_small_and_honest():
    model = find_model("liver-ct")
    model.check()
    assert (model.folder / "models/model.pt").stat().st_size < 8e6
    assert {f"ircad_e{n}" for n in range(16, 21)} == set(model.card.lineage.held_out)
    seen = {*model.card.lineage.training.values(), *model.card.lineage.validation.values()}
    assert not seen & set(model.card.lineage.held_out.values())
    assert "non-commercial" in model.card.license.lower()
    assert model.card.threshold == THRESHOLD == 0.4
    assert model.card.scores["summary"]["dice"]["mean"] > 0.942
    assert "research tool" in (model.folder / "docs/README.md").read_text()


def test_default_specs_travel_through_json(tmp_path):
    card = ModelCard("default", "1", "Text", "Apache-2.0", NetworkSpec(), PreprocessingSpec())
    state = build_network(card.network).state_dict()
    saved = save_model(tmp_path / "default", card, state, "").card
    assert replace(saved, checksums={}) == card
