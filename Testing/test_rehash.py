"""The hashes in a model's card are renewed from the scans themselves, all or none."""

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest

from helpers import REPOSITORY, write_pair
from LiverUNetLib.bundle import save_model
from LiverUNetLib.card import Lineage
from LiverUNetLib.errors import ModelError
from LiverUNetLib.formats import read_mask, read_volume, write_volume
from LiverUNetLib.model import METADATA, find_model, open_model
from LiverUNetTrainLib.dataset import content_hash
from LiverUNetTrainLib.layouts import find_cases


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("rehash_model", REPOSITORY / "Testing/benchmarks/rehash_model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def an_old_model(tool, pairs, threshold_model, tmp_path):
    """A model as schema version 1 kept it: patient0 trained, patient1 validated, patient3 is held out."""
    former = {case.name: [tool.former_hash(part) for part in case.read()] for case in find_cases([pairs])}
    scans = {name: scan for name, (scan, _) in former.items()}
    parts = [{name: scans[name]} for name in ("patient0", "patient1", "patient3")]
    masks = {scan: mask for name, (scan, mask) in former.items() if name in ("patient0", "patient1")}
    card = replace(threshold_model.card, lineage=Lineage(*parts, masks=masks))
    folder = save_model(tmp_path / "old", card, threshold_model.state_dict(), "For tests.\n").folder
    metadata = json.loads((folder / METADATA).read_text())
    checksums = metadata["liver_unet"].pop("checksums")
    metadata["liver_unet"] |= {"schema_version": 1, "checksum": checksums["models/model.pt"]}
    (folder / METADATA).write_text(json.dumps(metadata))
    return folder


def test_an_old_card_is_refused_until_its_hashes_are_renewed(tool, an_old_model, pairs):
    before = json.loads((an_old_model / METADATA).read_text())
    with pytest.raises(ModelError, match="made by an older LiverUNet, whose scan hashes do not recognise"):
        open_model(an_old_model)
    tool.rehash(an_old_model, [pairs])
    lineage = open_model(an_old_model).card.lineage
    hashes = {case.name: [content_hash(part) for part in case.read()] for case in find_cases([pairs])}
    assert lineage.training == {"patient0": hashes["patient0"][0]}
    assert lineage.validation == {"patient1": hashes["patient1"][0]}
    assert lineage.held_out == {"patient3": hashes["patient3"][0]}
    assert lineage.masks == dict([hashes["patient0"], hashes["patient1"]])
    after = json.loads((an_old_model / METADATA).read_text())
    for card in (before, after):
        del card["liver_unet"]["lineage"], card["liver_unet"]["schema_version"]
    assert after == before
    open_model(an_old_model).verify()
    with pytest.raises(ModelError, match="nothing to rewrite"):
        tool.rehash(an_old_model, [pairs])


def without(pairs, name):
    (pairs / f"{name}_orig.nii.gz").unlink()


def with_another_scan(pairs, name):
    (mask,) = pairs.glob(f"{name}_liver*")
    before = mask.read_bytes()
    write_pair(pairs, name, seed=50)
    mask.write_bytes(before)


def with_another_mask(pairs, name):
    mask = read_mask(pairs / f"{name}_liver.nii.gz")
    write_volume(pairs / f"{name}_liver.nii.gz", np.roll(mask.hu_kji, 1, axis=2), mask.affine)


@pytest.mark.parametrize(
    ("change", "name", "expected"),
    [
        (without, "patient3", "The data hold no case patient3"),
        (with_another_scan, "patient0", "patient0 is not what the card was written for"),
        (with_another_scan, "patient3", "patient3 is not what the card was written for"),
        (with_another_mask, "patient1", "The mask of patient1 is not what the card was written for"),
    ],
)
def test_a_card_stays_as_it_is_unless_every_scan_and_mask_is_the_stored_one(
    change, name, expected, tool, an_old_model, pairs
):
    before = (an_old_model / METADATA).read_bytes()
    change(pairs, name)
    with pytest.raises(ModelError, match=expected):
        tool.rehash(an_old_model, [pairs])
    assert (an_old_model / METADATA).read_bytes() == before


def test_the_bundled_model_knows_a_held_out_patient_in_any_order_of_axes(real_data):
    scan = read_volume(real_data / "ircad/ircad_e17_orig.nii.gz")
    roles = find_model("liver-ct").card.lineage.roles()
    flip = np.eye(4)
    flip[2, 2], flip[2, 3] = -1, len(scan.hu_kji) - 1
    flipped = replace(scan, hu_kji=scan.hu_kji[::-1], affine=scan.affine @ flip)
    assert roles[content_hash(scan)] == roles[content_hash(flipped)] == "held out"
