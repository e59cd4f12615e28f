"""Models are packed as zips; nothing is installed before all files are verified."""

import hashlib
import json
import shutil
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from LiverUNetLib.cli.main import main
from LiverUNetLib.errors import ModelError, OutputError
from LiverUNetLib.models.card import COARSE
from LiverUNetLib.models.exchange import install_model, pack_model, remove_model
from LiverUNetLib.models.store import find_model
from LiverUNetLib.system.environment import Device


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch) -> Path:
    """The folder of installed models."""
    folder = tmp_path / "installed"
    monkeypatch.setenv("LIVER_UNET_MODELS", str(folder))
    return folder


@pytest.fixture
def a_zip(two_looks_model, tmp_path) -> Path:
    path = tmp_path / "model.zip"
    pack_model(two_looks_model, path)
    return path


def rewritten(path: Path, change) -> Path:
    """A zip with its entries changed: `change` maps (name, content) to (name or ZipInfo, content) or None."""
    changed = path.with_name("changed.zip")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            if (entry := change(name, old.read(name))) is not None:
                new.writestr(*entry)
    return changed


def with_extra(path: Path, name: str | zipfile.ZipInfo, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, content)
    return path


def test_a_packed_model_is_installed_as_it_was(a_zip, two_looks_model, installed):
    model = install_model(a_zip)
    assert model.folder == installed / "two-looks"
    assert model.card == two_looks_model.card
    assert find_model("two-looks").folder == model.folder
    model.check()
    assert {path.relative_to(model.folder).as_posix() for path in model.folder.rglob("*.*")} == {
        "configs/metadata.json",
        "configs/inference.json",
        "docs/README.md",
        "models/model.pt",
        "models/model.onnx",
        "models/coarse.pt",
        "models/coarse.onnx",
    }
    assert remove_model("two-looks") == model.folder
    assert list(installed.iterdir()) == []


def test_a_folder_is_installed_like_a_zip(two_looks_model, installed):
    assert install_model(two_looks_model.folder).folder == installed / "two-looks"


def test_an_installed_model_is_replaced_only_if_allowed(a_zip):
    install_model(a_zip)
    with pytest.raises(OutputError, match="already installed"):
        install_model(a_zip)
    install_model(a_zip, overwrite=True)


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    "name",
    [
        "../escape.txt",
        "/etc/escape",
        "two-looks/../../escape",
        "two-looks/run.py",
        "two-looks/models/other.pt",
        "a/b/c/models/model.pt",
    ],
)
def test_paths_that_lead_elsewhere_and_foreign_files_are_refused(name, a_zip, installed):
    with pytest.raises(ModelError, match="nothing was installed"):
        install_model(with_extra(a_zip, name))
    assert not installed.exists()


def test_a_link_in_a_zip_is_refused(a_zip, installed):
    replaced = rewritten(
        a_zip, lambda name, content: (link(name), b"/etc/passwd") if "README" in name else (name, content)
    )
    with pytest.raises(ModelError, match="nothing was installed"):
        install_model(replaced)
    assert not installed.exists()


def test_two_models_in_one_zip_are_refused(a_zip):
    with pytest.raises(ModelError, match="not a usable zip"):
        install_model(with_extra(a_zip, "second/models/model.pt"))


WEIGHTS = [f"models/{look}.{form}" for look in ("model", "coarse") for form in ("pt", "onnx")]


@pytest.mark.parametrize("file", WEIGHTS)
def test_changed_weights_and_a_missing_file_are_refused_in_one_sentence(file, a_zip, installed):
    changed = rewritten(a_zip, lambda name, content: (name, content + b"x" if name.endswith(file) else content))
    with pytest.raises(ModelError, match=rf"were changed: the SHA-256 of {file} is"):
        install_model(changed)
    missing = rewritten(a_zip, lambda name, content: None if name.endswith(file) else (name, content))
    with pytest.raises(ModelError, match=rf"^The model \S+ has no readable {file} \(No such file or directory\)\.$"):
        install_model(missing)
    assert not installed.exists()


@pytest.mark.parametrize("file", WEIGHTS)
def test_a_card_without_one_of_the_checksums_is_not_trusted(file, a_zip, installed):
    """Weights that PyTorch needs must be there; graphs are for those who have no PyTorch, and both looks need one."""

    def spoil(name, content):
        if not name.endswith("metadata.json"):
            return None if name.endswith(file) else (name, content)
        metadata = json.loads(content)
        del metadata["liver_unet"]["checksums"][file]
        return name, json.dumps(metadata).encode()

    without = rewritten(a_zip, spoil)
    if file.endswith(".pt"):
        with pytest.raises(ModelError, match=f"no readable {file}"):
            install_model(without)
        assert not installed.exists()
    else:
        device = install_model(without).networks(Device("cpu", "onnx")).fine.device
        assert device.engine == "torch"
        assert device.note == f"The model two-looks has no {file}; it was computed with PyTorch."


@pytest.mark.parametrize("file", WEIGHTS)
def test_without_torch_a_model_is_verified_as_far_as_it_can_be(file, a_zip, installed, without_torch):
    assert install_model(a_zip).has_onnx
    shutil.rmtree(installed)
    damaged = with_other_weights(a_zip, file, b"no weights")
    if file.endswith(".onnx"):
        with pytest.raises(ModelError, match=rf"{file} is damaged \("):
            install_model(damaged)
        assert not installed.exists()
    else:
        assert install_model(damaged).folder.is_dir(), "only its checksum can be compared, and that fits"


@pytest.mark.parametrize("file", WEIGHTS)
def test_with_torch_every_file_of_weights_is_loaded(file, a_zip, installed):
    with pytest.raises(ModelError, match=rf"{file} (is damaged|holds code)"):
        install_model(with_other_weights(a_zip, file, b"no weights"))
    assert not installed.exists()


def with_other_weights(path: Path, file: str, weights: bytes) -> Path:
    """A zip with other weights, and their checksum in its card."""

    def change(name, content):
        if name.endswith(file):
            return name, weights
        if not name.endswith("metadata.json"):
            return name, content
        metadata = json.loads(content)
        metadata["liver_unet"]["checksums"][file] = hashlib.sha256(weights).hexdigest()
        return name, json.dumps(metadata).encode()

    return rewritten(path, change)


def test_a_name_that_leads_out_of_the_models_is_refused(a_zip, installed):
    def rename(name, content):
        if not name.endswith("metadata.json"):
            return name, content
        return name, json.dumps(json.loads(content) | {"name": "../../escape"}).encode()

    with pytest.raises(ModelError, match="cannot be called"):
        install_model(rewritten(a_zip, rename))
    assert not installed.exists()


def test_a_file_that_is_not_a_zip_is_named(tmp_path):
    path = tmp_path / "model.zip"
    path.write_text("nothing")
    with pytest.raises(ModelError, match="not a usable zip"):
        install_model(path)
    with pytest.raises(ModelError, match="does not exist"):
        install_model(tmp_path / "none.zip")


@pytest.mark.parametrize("name", ["configs/metadata.json", "models/model.pt", "models/coarse.onnx", "docs/README.md"])
def test_a_damaged_file_in_a_zip_is_found_by_its_checksum(name, a_zip, installed):
    stored = a_zip.with_name("stored.zip")
    with zipfile.ZipFile(a_zip) as old, zipfile.ZipFile(stored, "w", zipfile.ZIP_STORED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
        content = old.read(f"two-looks/{name}")
    damaged = bytearray(stored.read_bytes())
    damaged[damaged.index(content) + len(content) // 2] ^= 1
    stored.write_bytes(damaged)
    with pytest.raises(ModelError, match=rf"not a usable zip \(Bad CRC-32 for file 'two-looks/{name}'\)"):
        install_model(stored)
    assert not installed.exists()


def test_an_impossible_name_is_refused_in_one_sentence(two_looks_model, tmp_path):
    long = tmp_path / ("x" * 300)
    for attempt in (install_model, lambda path: find_model(str(path))):
        with pytest.raises(ModelError, match=r"cannot be used \(File name too long\); name another"):
            attempt(long)
    with pytest.raises(OutputError, match=r"cannot be used \(File name too long\); name another"):
        pack_model(two_looks_model, long)


def test_a_model_is_packed_into_a_folder_that_is_not_there_yet(two_looks_model, tmp_path):
    pack_model(two_looks_model, tmp_path / "new/below/model.zip")
    assert install_model(tmp_path / "new/below/model.zip").card == two_looks_model.card


def test_a_model_whose_weights_were_changed_is_not_packed(two_looks_model, tmp_path):
    changed = replace(two_looks_model, folder=tmp_path / "changed")
    shutil.copytree(two_looks_model.folder, changed.folder)
    with (changed.folder / "models/coarse.pt").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelError, match=r"were changed: the SHA-256 of models/coarse\.pt"):
        pack_model(changed, tmp_path / "changed.zip")
    assert not (tmp_path / "changed.zip").exists()


def test_the_command_line_lists_shows_verifies_packs_and_installs(two_looks_model, tmp_path, capsys):
    archive = tmp_path / "t.zip"
    assert main(["models", "pack", str(two_looks_model.folder), str(archive)]) == 0
    assert main(["models", "install", str(archive)]) == 0
    assert main(["models", "verify", "two-looks"]) == 0
    assert main(["models", "card", "two-looks"]) == 0
    assert main(["models"]) == 0
    told = capsys.readouterr().out
    for expected in (
        "Packed two-looks",
        "Installed two-looks",
        "two-looks 1: weights verified",
        "For tests.",
        "not evaluated",
    ):
        assert expected in told
    assert main(["models", "pack", "two-looks", str(archive)]) == 1
    assert "exists already" in capsys.readouterr().err


def test_monai_verifies_and_loads_the_bundled_model():
    from monai.bundle import ConfigParser, load, verify_net_in_out

    model = find_model("liver-ct")
    configs = model.folder / "configs"
    files = {"meta_file": str(configs / "metadata.json"), "config_file": str(configs / "inference.json")}
    verify_net_in_out("network_def", device="cpu", **files)
    network = load("liver-ct", bundle_dir=str(model.folder.parent), source="github", workflow_type="inference")
    state = model.state_dict()
    assert all(torch.equal(value, state[key].to(value.dtype)) for key, value in network.state_dict().items())
    parser = ConfigParser()
    parser.read_config(configs / "inference.json")
    parser.get_parsed_content("coarse_network_def").load_state_dict(model.state_dict(COARSE))


def test_monai_verifies_a_model_of_two_looks(two_looks_model):
    from monai.bundle import verify_net_in_out

    configs = two_looks_model.folder / "configs"
    files = {"meta_file": str(configs / "metadata.json"), "config_file": str(configs / "inference.json")}
    verify_net_in_out("network_def", device="cpu", **files)


def test_a_name_of_a_bundled_model_is_refused(two_looks_model, tmp_path, installed):
    folder = shutil.copytree(two_looks_model.folder, tmp_path / "mine")
    metadata = json.loads((folder / "configs/metadata.json").read_text())
    (folder / "configs/metadata.json").write_text(json.dumps(metadata | {"name": "liver-ct"}))
    with pytest.raises(OutputError, match="liver-ct is the name of a bundled model, which would be used instead"):
        install_model(folder, overwrite=True)
    assert not installed.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "../two-looks", "two-looks/models", "liver-ct"])
def test_only_the_users_own_models_are_removed(name, a_zip, installed):
    install_model(a_zip)
    with pytest.raises(ModelError, match=r"There is no model .* among your own"):
        remove_model(name)
    assert (installed / "two-looks/models/model.pt").is_file()
    assert not remove_model("two-looks").exists()


def test_a_model_without_its_card_is_refused(a_zip, installed):
    bare = rewritten(a_zip, lambda name, content: None if "README" in name else (name, content))
    with pytest.raises(ModelError, match=r"lacks docs/README\.md"):
        install_model(bare)
    assert not installed.exists()


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("rules", {"threshold": 1.5}, "unusable rules.threshold"),
        ("fine", {"pixel_mm": 0}, "unusable fine.pixel_mm"),
        ("coarse", {"voxel_mm": "4"}, "unusable coarse.voxel_mm"),
        ("fine.network", {"channels": [2, 2, 2], "strides": [2]}, "do not fit its network"),
        ("coarse.network", {"channels": [2, 2, 2], "strides": [2]}, "do not fit its network"),
    ],
)
def test_a_card_that_cannot_be_used_is_refused(part, change, words, a_zip, installed):
    def spoil(name, content):
        if not name.endswith("metadata.json"):
            return name, content
        metadata = json.loads(content)
        place = metadata["liver_unet"]["spec"]
        for key in part.split("."):
            place = place[key]
        place.update(change)
        return name, json.dumps(metadata).encode()

    with pytest.raises(ModelError, match=words):
        install_model(rewritten(a_zip, spoil))
    assert not installed.exists()
