"""Models travel as zips; nothing is installed before everything in them was verified."""

import json
import shutil
import stat
import zipfile
from pathlib import Path

import pytest
import torch

from LiverUNetLib.cli import main
from LiverUNetLib.errors import ModelError, OutputError
from LiverUNetLib.exchange import install_model, pack_model, remove_model
from LiverUNetLib.model import find_model


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch) -> Path:
    """Where models are installed in these tests."""
    folder = tmp_path / "installed"
    monkeypatch.setenv("LIVER_UNET_MODELS", str(folder))
    return folder


@pytest.fixture
def a_zip(threshold_model, tmp_path) -> Path:
    path = tmp_path / "model.zip"
    pack_model(threshold_model, path)
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


def test_a_packed_model_is_installed_as_it_was(a_zip, threshold_model, installed):
    model = install_model(a_zip)
    assert model.folder == installed / "threshold"
    assert model.card == threshold_model.card
    assert find_model("threshold").folder == model.folder
    model.check()


def test_a_folder_is_installed_like_a_zip(threshold_model, installed):
    assert install_model(threshold_model.folder).folder == installed / "threshold"


def test_an_installed_model_is_replaced_only_if_allowed(a_zip):
    install_model(a_zip)
    with pytest.raises(OutputError, match="installed already"):
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
        "threshold/../../escape",
        "threshold/run.py",
        "threshold/models/other.pt",
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


def test_changed_weights_and_a_missing_file_are_refused(a_zip, installed):
    changed = rewritten(a_zip, lambda name, content: (name, content + b"x" if name.endswith(".pt") else content))
    with pytest.raises(ModelError, match="were changed"):
        install_model(changed)
    missing = rewritten(a_zip, lambda name, content: None if name.endswith(".pt") else (name, content))
    with pytest.raises(ModelError, match=r"no readable models/model\.pt"):
        install_model(missing)
    assert not installed.exists()


def test_a_name_that_leads_out_of_the_models_is_refused(a_zip, installed):
    def rename(name, content):
        if not name.endswith("metadata.json"):
            return name, content
        return name, json.dumps(json.loads(content) | {"name": "../../escape"}).encode()

    with pytest.raises(ModelError, match="cannot be called"):
        install_model(rewritten(a_zip, rename))
    assert not installed.exists()


def test_what_is_no_zip_is_named(tmp_path):
    path = tmp_path / "model.zip"
    path.write_text("nothing")
    with pytest.raises(ModelError, match="not a usable zip"):
        install_model(path)
    with pytest.raises(ModelError, match="does not exist"):
        install_model(tmp_path / "none.zip")


@pytest.mark.parametrize("name", ["configs/metadata.json", "models/model.pt", "docs/README.md"])
def test_a_damaged_file_in_a_zip_is_found_by_its_checksum(name, a_zip, installed):
    stored = a_zip.with_name("stored.zip")
    with zipfile.ZipFile(a_zip) as old, zipfile.ZipFile(stored, "w", zipfile.ZIP_STORED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
        content = old.read(f"threshold/{name}")
    damaged = bytearray(stored.read_bytes())
    damaged[damaged.index(content) + len(content) // 2] ^= 1
    stored.write_bytes(damaged)
    with pytest.raises(ModelError, match=rf"not a usable zip \(Bad CRC-32 for file 'threshold/{name}'\)"):
        install_model(stored)
    assert not installed.exists()


def test_an_impossible_name_is_told_in_one_sentence(threshold_model, tmp_path):
    long = tmp_path / ("x" * 300)
    for attempt in (install_model, lambda path: find_model(str(path))):
        with pytest.raises(ModelError, match=r"cannot be used \(File name too long\); name another"):
            attempt(long)
    with pytest.raises(OutputError, match=r"cannot be used \(File name too long\); name another"):
        pack_model(threshold_model, long)


def test_a_model_is_packed_into_a_folder_that_is_not_there_yet(threshold_model, tmp_path):
    pack_model(threshold_model, tmp_path / "new/below/model.zip")
    assert install_model(tmp_path / "new/below/model.zip").card == threshold_model.card


def test_the_command_line_lists_shows_verifies_packs_and_installs(threshold_model, tmp_path, capsys):
    archive = tmp_path / "t.zip"
    assert main(["models", "pack", str(threshold_model.folder), str(archive)]) == 0
    assert main(["models", "install", str(archive)]) == 0
    assert main(["models", "verify", "threshold"]) == 0
    assert main(["models", "card", "threshold"]) == 0
    assert main(["models"]) == 0
    told = capsys.readouterr().out
    for expected in (
        "Packed threshold",
        "Installed threshold",
        "threshold 1: weights verified",
        "For tests.",
        "not evaluated",
    ):
        assert expected in told
    assert main(["models", "pack", "threshold", str(archive)]) == 1
    assert "exists already" in capsys.readouterr().err


def test_monai_verifies_and_loads_the_bundled_model():
    from monai.bundle import load, verify_net_in_out

    model = find_model("liver-ct")
    configs = model.folder / "configs"
    files = {"meta_file": str(configs / "metadata.json"), "config_file": str(configs / "inference.json")}
    verify_net_in_out("network_def", device="cpu", **files)
    network = load("liver-ct", bundle_dir=str(model.folder.parent), source="github", workflow_type="inference")
    state = model.state_dict()
    assert all(torch.equal(value, state[key].to(value.dtype)) for key, value in network.state_dict().items())


def test_a_name_of_a_bundled_model_is_refused(threshold_model, tmp_path, installed):
    folder = shutil.copytree(threshold_model.folder, tmp_path / "mine")
    metadata = json.loads((folder / "configs/metadata.json").read_text())
    (folder / "configs/metadata.json").write_text(json.dumps(metadata | {"name": "liver-ct"}))
    with pytest.raises(OutputError, match="liver-ct is the name of a bundled model, which would be used instead"):
        install_model(folder, overwrite=True)
    assert not installed.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "../threshold", "threshold/models", "liver-ct"])
def test_nothing_but_an_own_model_is_removed(name, a_zip, installed):
    install_model(a_zip)
    with pytest.raises(ModelError, match=r"There is no model .* among your own"):
        remove_model(name)
    assert (installed / "threshold/models/model.pt").is_file()
    assert not remove_model("threshold").exists()


def test_a_model_without_its_card_is_refused(a_zip, installed):
    bare = rewritten(a_zip, lambda name, content: None if "README" in name else (name, content))
    with pytest.raises(ModelError, match=r"lacks docs/README\.md"):
        install_model(bare)
    assert not installed.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threshold": "0.4"}, "not the card"),
        ({"threshold": 1.5}, "unusable threshold"),
        ({"scores": {"x": 1}}, "'summary'"),
        ({"preprocessing": {"context_mm": [-4.0, 0.0]}}, "unusable context_mm"),
        ({"preprocessing": {"views": ["oblique"]}}, "unusable views"),
        ({"preprocessing": {"window_hu": [1, 2, 3]}}, "not the card"),
        ({"preprocessing": {"pixel_mm": 0}}, "unusable pixel_mm"),
        ({"network": {"channels": [2, 2, 2], "strides": [2]}}, "do not fit its network"),
    ],
)
def test_a_card_that_cannot_be_used_is_refused(change, words, a_zip, installed):
    def spoil(name, content):
        if not name.endswith("metadata.json"):
            return name, content
        metadata = json.loads(content)
        for key, value in change.items():
            ours = metadata["liver_unet"]
            ours[key] = ours[key] | value if key in ("preprocessing", "network") else value
        return name, json.dumps(metadata).encode()

    with pytest.raises(ModelError, match=words):
        install_model(rewritten(a_zip, spoil))
    assert not installed.exists()
