"""A model folder is verified before it is used, and nothing in it is executed."""

import functools
import hashlib
import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from LiverUNetLib.errors import ModelError
from LiverUNetLib.models import store
from LiverUNetLib.models.bundle import save_model
from LiverUNetLib.models.card import COARSE, FINE, Lineage, ModelCard
from LiverUNetLib.models.folder import open_model
from LiverUNetLib.models.network import build_network, fold_batch_norm
from LiverUNetLib.models.scores import Evaluation, Figures
from LiverUNetLib.models.spec import CoarseLook, FineLook, ModelSpec, NetworkSpec, Rules
from LiverUNetLib.models.store import find_model, list_models, model_folders, resource_folder


@pytest.fixture
def a_copy(two_looks_model, tmp_path):
    return open_model(Path(shutil.copytree(two_looks_model.folder, tmp_path / "copy")))


def metadata_of(model) -> dict:
    return json.loads((model.folder / "configs/metadata.json").read_text())


def rewrite(model, change) -> None:
    content = metadata_of(model)
    change(content)
    (model.folder / "configs/metadata.json").write_text(json.dumps(content))


def weights_of(model) -> dict[str, dict[str, torch.Tensor]]:
    return {look: model.state_dict(look) for look in model.looks}


def test_a_model_is_found_without_opening_the_others(two_looks_model, tmp_path, monkeypatch):
    monkeypatch.setenv("LIVER_UNET_MODELS", str(tmp_path))
    for name in ("one", "other"):
        shutil.copytree(two_looks_model.folder, tmp_path / name)
    opened = []
    monkeypatch.setattr(store, "open_model", lambda folder: opened.append(folder) or open_model(folder))
    assert find_model("other").folder == tmp_path / "other"
    assert opened == [tmp_path / "other"]
    assert {"one", "other", "liver-ct"} <= set(list_models())


def test_a_saved_model_is_read_back_as_it_was(two_looks_model):
    again = open_model(two_looks_model.folder)
    assert again == two_looks_model
    for look in (FINE, COARSE):
        state = two_looks_model.state_dict(look)
        assert all(torch.equal(value, state[key]) for key, value in again.state_dict(look).items())


def test_saving_the_same_weights_twice_gives_the_same_checksums(two_looks_model, tmp_path):
    again = save_model(tmp_path / "again", two_looks_model.card, weights_of(two_looks_model), "")
    assert again.card == two_looks_model.card
    assert len(set(again.card.checksums.values())) == 4


def test_statistics_beyond_float16_are_kept_and_kernels_beyond_it_refused(threshold_model, tmp_path):
    state = threshold_model.state_dict()
    state["0.model.0.adn.N.running_var"][0] = 3e5
    saved = save_model(tmp_path / "large", threshold_model.card, {FINE: state}, "").state_dict()
    assert saved["0.model.0.adn.N.running_var"][0] == 3e5
    state["1.weight"] = torch.full((1, 1, 1, 1), 1e6)
    with pytest.raises(ModelError, match=r"1.weight are not finite"):
        save_model(tmp_path / "kernel", threshold_model.card, {FINE: state}, "")
    assert not (tmp_path / "kernel").exists()


@pytest.mark.parametrize("name", [f"models/{look}.{form}" for look in ("model", "coarse") for form in ("pt", "onnx")])
def test_changed_weights_are_refused(name, a_copy):
    weights = a_copy.folder / name
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(ModelError, match=rf"were changed: the SHA-256 of {name}"):
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


@pytest.mark.parametrize(("part", "look"), [("fine", FINE), ("coarse", COARSE)])
def test_weights_of_another_network_are_refused(part, look, a_copy):
    rewrite(a_copy, lambda content: content["liver_unet"]["spec"][part]["network"].update(channels=[4, 4]))
    with pytest.raises(ModelError, match="do not fit"):
        open_model(a_copy.folder).torch_network(look)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda content: content.pop("liver_unet"), "liver_unet"),
        (lambda content: content["liver_unet"].update(schema_version=99), "schema version 99"),
        (lambda content: content["liver_unet"].update(schema_version=1), "made by an older LiverUNet"),
        (lambda content: content["liver_unet"].pop("spec"), "spec"),
        (lambda content: content["liver_unet"]["spec"].pop("coarse"), "coarse"),
        (lambda content: content["liver_unet"]["spec"]["fine"]["network"].update(novelty=1), "novelty"),
        (lambda content: content["liver_unet"]["spec"]["rules"].update(novelty=1), "novelty"),
        (lambda content: content["liver_unet"].update(checksums={"models/model.pt": 5}), "unusable checksums"),
        (
            lambda content: content["liver_unet"].update(checksums={"../secret": "x"}),
            r"not a file of a model: \.\./secret",
        ),
        (
            lambda content: content["liver_unet"]["checksums"].update({"/etc/passwd": "x", "docs/README.md": "x"}),
            r"not a file of a model: /etc/passwd, docs/README\.md",
        ),
        (lambda content: content["liver_unet"].update(scores={"x": 1}), "'summary'"),
    ],
)
def test_a_card_that_is_not_ours_is_refused(change, expected, a_copy):
    rewrite(a_copy, change)
    with pytest.raises(ModelError, match=expected):
        open_model(a_copy.folder)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("window_hu", [[240, -160], [0, 0], [1, 2, 3], [1], [None, 240], [-160, float("nan")]]),
        ("fine.context_mm", [[-4.0, 0.0], [], ["0"], [float("inf")]]),
        ("fine.pixel_mm", [0, -1, "1.25", None, float("nan"), float("inf")]),
        ("fine.slice_mm", [0, -1, "2", float("inf")]),
        ("coarse.voxel_mm", [0, -4, "4", float("inf")]),
        ("coarse.threshold", [0, 1, -0.1, "0.1", None]),
        ("coarse.margin_mm", [0, -1, "16", float("inf")]),
        ("coarse.shortest_mm", ["40", None, float("nan")]),
        ("rules.threshold", [0, 1, 1.5, "0.4", None, float("nan")]),
        ("rules.minimum_ml", [-1, "1", float("inf")]),
        ("rules.doubtful_ml", [-1, "200", float("nan")]),
        ("rules.doubtful_probability", ["0.87", None, float("nan")]),
    ],
)
def test_an_invalid_value_is_refused_by_its_name(name, values, a_copy):
    before = metadata_of(a_copy)
    for value in values:

        def change(content, value=value):
            *parts, key = name.split(".")
            place = content["liver_unet"]["spec"]
            for part in parts:
                place = place[part]
            place[key] = value

        rewrite(a_copy, change)
        with pytest.raises(ModelError, match=rf"is not the card of a LiverUNet model \(unusable {name}\)\.$"):
            open_model(a_copy.folder)
        rewrite(a_copy, lambda content: content.update(before))


@pytest.mark.parametrize("place", ["spec.fine", "spec.coarse", "spec.rules", "spec.fine.network", "lineage"])
def test_a_card_that_lacks_a_value_is_refused_and_gets_no_default(place, a_copy):
    before = metadata_of(a_copy)

    def part_of(content):
        return functools.reduce(dict.get, place.split("."), content["liver_unet"])

    for key in part_of(before):
        rewrite(a_copy, lambda content, key=key: part_of(content).pop(key))
        with pytest.raises(ModelError, match=rf"is not the card of a LiverUNet model \(.*\b{key}\b.*\)\.$"):
            open_model(a_copy.folder)
        rewrite(a_copy, lambda content: content["liver_unet"].update(before["liver_unet"]))


@pytest.mark.parametrize(
    ("part", "change", "name"),
    [
        ("fine", {"in_channels": 2}, "fine.context_mm"),
        ("fine", {"spatial_dims": 3}, "fine.network"),
        ("fine", {"strides": [0]}, "fine.network"),
        ("fine", {"strides": [2.0]}, "fine.network"),
        ("coarse", {"in_channels": 2}, "coarse.network"),
        ("coarse", {"spatial_dims": 2}, "coarse.network"),
        ("coarse", {"strides": [-1]}, "coarse.network"),
    ],
)
def test_a_network_that_does_not_fit_its_look_is_refused_by_name(part, change, name, a_copy):
    rewrite(a_copy, lambda content: content["liver_unet"]["spec"][part]["network"].update(change))
    with pytest.raises(ModelError, match=rf"unusable {name}\)"):
        open_model(a_copy.folder)


def test_models_are_found_by_name_or_folder(a_copy, monkeypatch, tmp_path):
    monkeypatch.setenv("LIVER_UNET_MODELS", str(tmp_path))
    assert find_model("copy").folder == a_copy.folder
    assert find_model(str(a_copy.folder)).folder == a_copy.folder
    (a_copy.folder / "configs/metadata.json").write_text("{")
    assert isinstance(list_models()["copy"], ModelError)
    with pytest.raises(ModelError, match="not readable JSON"):
        find_model("copy")


def test_a_failed_save_leaves_the_old_model(two_looks_model, a_copy):
    with pytest.raises(AttributeError):
        save_model(a_copy.folder, two_looks_model.card, {FINE: {}, COARSE: {"weight": "no tensor"}}, "")
    assert open_model(a_copy.folder).card == a_copy.card
    assert [path.name for path in a_copy.folder.parent.iterdir()] == ["copy"]


@pytest.mark.parametrize("name", ["", "../escape", "a b", ".hidden"])
def test_a_name_that_cannot_be_a_folder_is_refused(name, threshold_model, tmp_path):
    with pytest.raises(ModelError, match="cannot be called"):
        save_model(tmp_path / "x", replace(threshold_model.card, name=name), {}, "")


@pytest.mark.parametrize("dims", [2, 3])
def test_folding_batch_norm_keeps_the_logits(dims):
    torch.manual_seed(0)
    network = build_network(NetworkSpec(in_channels=3, channels=(4, 8, 8), strides=(2, 2), spatial_dims=dims))
    image = torch.randn(2, 3, *[16] * dims)
    for _ in range(3):
        network(image)  # running statistics that differ from 0 and 1
    network.eval()
    expected = network(image)
    norms = (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)
    assert not any(isinstance(part, norms) for part in fold_batch_norm(network).modules())
    assert torch.allclose(network(image), expected, atol=1e-5)


def test_monai_builds_the_networks_of_the_bundle(two_looks_model):
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(two_looks_model.folder / "configs/inference.json")
    for name, look in (("network_def", FINE), ("coarse_network_def", COARSE)):
        network = parser.get_parsed_content(name)
        network.load_state_dict(two_looks_model.state_dict(look))
        spec = two_looks_model.network_spec(look)
        image = torch.zeros(1, spec.in_channels, *[2 * spec.multiple] * spec.spatial_dims)
        assert network.eval()(image).shape == (1, 1, *image.shape[2:])


def test_the_metadata_describe_the_channels_of_the_fine_network(two_looks_model):
    inputs = metadata_of(two_looks_model)["network_data_format"]["inputs"]["image"]
    assert inputs["num_channels"] == 1
    assert inputs["channel_def"] == {"0": "slice at 0 mm"}


def test_resources_are_found_where_they_are_installed():
    assert (resource_folder() / "Models").is_dir()
    assert model_folders()[0] == resource_folder() / "Models"


def test_the_bundled_model_is_complete_small_and_honest():
    model = find_model("liver-ct")
    model.check()
    assert model.looks == (FINE, COARSE)
    assert model.has_onnx
    assert model.note == ""
    assert sum(path.stat().st_size for path in (model.folder / "models").iterdir()) <= 12e6
    assert {f"ircad_e{n}" for n in range(16, 21)} == set(model.card.lineage.held_out)
    seen = {*model.card.lineage.training.values(), *model.card.lineage.validation.values()}
    assert not seen & set(model.card.lineage.held_out.values())
    assert "non-commercial" in model.card.license.lower()
    assert model.card.scores.summary["dice"].mean >= 0.950
    assert "research tool" in (model.folder / "docs/README.md").read_text()


COARSE_NETWORK = NetworkSpec(1, channels=(4, 8), strides=(2,), features=4, norm="instance", spatial_dims=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec(),
        ModelSpec(coarse=CoarseLook()),
        ModelSpec(
            FineLook(0.9, 3.0, (-3.0, 0.0), NetworkSpec(2, (4, 8), (4,), 2, 1, 5)),
            CoarseLook(5.0, COARSE_NETWORK, threshold=0.2, margin_mm=7.5, shortest_mm=60.0),
            Rules(threshold=0.7, minimum_ml=2.0, doubtful_ml=50.0, doubtful_probability=0.9),
            window_hu=(-200.0, 300.0),
        ),
    ],
    ids=["default", "two looks", "all else"],
)
def test_a_card_travels_through_json(spec, tmp_path):
    lineage = Lineage({"a": "1"}, {"b": "2"}, {"c": "3"}, {"1": "4"})
    scores = Evaluation("evaluate", {"dice": Figures(0.9, 0.1, 0.9, worst=0.8)}, ({"case": "c"},))
    card = ModelCard(
        "travels", "1.2", "Text ä", "MIT", spec, lineage, {"epochs": 3}, scores, notes="## Notes\n", checksums={}
    )
    weights = {FINE: build_network(spec.fine.network).state_dict()}
    if spec.coarse:
        weights[COARSE] = build_network(spec.coarse.network).state_dict()
    saved = save_model(tmp_path / "travels", card, weights, "").card
    assert replace(saved, checksums={}) == card
    assert len(saved.checksums) == 2 * len(weights)


@pytest.mark.parametrize("rule", ["above", "below"])
def test_the_least_volume_depends_on_the_mean_probability(rule):
    rules = Rules(minimum_ml=3, doubtful_ml=90, doubtful_probability=0.8)
    assert rules.least_ml(0.8 if rule == "above" else 0.79) == (3 if rule == "above" else 90)
