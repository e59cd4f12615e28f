"""What several tests need and no fixture can be."""

import csv
import os
import re
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from LiverUNetLib.models.bundle import save_model
from LiverUNetLib.models.card import COARSE, FINE, ModelCard
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.models.network import build_network
from LiverUNetLib.models.spec import CoarseLook, FineLook, ModelSpec, NetworkSpec, Rules
from LiverUNetLib.scan.formats import write_volume
from LiverUNetLib.scan.phantom import LIVER, abdomen, axial_affine
from LiverUNetLib.segmentation.batch import TABLE_NAME
from LiverUNetTrainLib.run.settings import CoarseSettings, TrainingSettings

unix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL and deletes nothing that is open")

REPOSITORY = Path(__file__).resolve().parent.parent

# The grid of the test phantom: the whole liver, coarse enough to be fast.
SPACING_MM, SHAPE_IJK = (4.0, 4.0, 5.0), (96, 72, 44)

# Nibabel's orientation arrays for every permutation and flip of three axes.
ALL_48 = [np.column_stack(pair) for pair in product(permutations(range(3)), product([1, -1], repeat=3))]

# A training that takes a second: on the grids of the fixture `a_cache`, a fine look alone, and both looks.
NETWORK = NetworkSpec(in_channels=3, channels=(8, 16, 16), strides=(2, 2), features=4)
FINE_LOOK = FineLook(pixel_mm=8.0, slice_mm=18.0, context_mm=(-18.0, 0.0, 18.0), network=NETWORK)
COARSE_LOOK = CoarseLook(
    voxel_mm=16.0, network=NetworkSpec(1, channels=(4, 8), strides=(2,), features=4, spatial_dims=3)
)
SPEC = ModelSpec(FINE_LOOK)
TWO_LOOKS = ModelSpec(FINE_LOOK, COARSE_LOOK)
SETTINGS = TrainingSettings(
    epochs=3,
    batch_size=4,
    validate_every=2,
    canvas_mm=(256.0, 320.0),
    coarse=CoarseSettings(epochs=1, shown=2, size_mm=(192.0, 256.0, 320.0)),
)


# An ordinary U-Net small enough to give its weights by hand, see `thresholding_weights`.
THRESHOLDING = NetworkSpec(in_channels=1, channels=(2, 2), strides=(1,), features=1, residual_units=0, kernel_size=1)


def thresholding_weights(network: NetworkSpec, *, width_hu: float = 10.0) -> dict[str, torch.Tensor]:
    """Weights whose logit is 5 at the HU of the phantom's liver and 0 at `width_hu` from it.

    It falls linearly to both sides, by two ReLU in the first layer.
    """
    center, width = ModelSpec().normalize(LIVER), width_hu / 200
    state = {key: torch.zeros_like(value) for key, value in build_network(network).state_dict().items()}
    for key in state:
        if key.endswith(("N.weight", "N.running_var")):
            state[key] += 1
    first, up, head = (
        state[f"{layer}.weight"].flatten(2)[..., 0] for layer in ("0.model.0.conv", "0.model.2.conv", "1")
    )
    first[0, 0], first[1, 0] = 1, -1
    state["0.model.0.conv.bias"][:2] = torch.tensor([-center, center])
    up[:2, 0] = -5 / width
    head[:] = 1
    state["1.bias"][:] = 5
    return state


def save_two_looks(
    folder: Path,
    *,
    coarse: CoarseLook = CoarseLook(),  # noqa: B008 - frozen
    coarse_width_hu: float = 10.0,
    rules: Rules = Rules(),  # noqa: B008 - frozen
) -> LiverModel:
    """A real model folder of thresholds that looks twice."""
    coarse = replace(coarse, network=replace(THRESHOLDING, spatial_dims=3))
    spec = ModelSpec(FineLook(pixel_mm=4.0, slice_mm=5.0, context_mm=(0.0,), network=THRESHOLDING), coarse, rules)
    card = ModelCard("two-looks", "1", "Thresholds HU twice", "Apache-2.0", spec)
    weights = {
        FINE: thresholding_weights(THRESHOLDING),
        COARSE: thresholding_weights(coarse.network, width_hu=coarse_width_hu),
    }
    return save_model(folder, card, weights, "For tests.\n")


def write_pair(folder: Path, name: str, *, seed: int) -> None:
    """One small phantom patient, each with noise of its own."""
    shape = (48, 36, 12)
    volume, mask = abdomen(axial_affine((8.0, 8.0, 18.0), shape), shape[::-1], seed=seed)
    write_volume(folder / f"{name}_orig.nii.gz", volume.hu_kji, volume.affine)
    write_volume(folder / f"{name}_liver.nii.gz", mask, volume.affine)


def with_other_axes(path: Path, codes: str) -> None:
    """Store a NIfTI file with its axes in this order, as other tools do; every voxel keeps its place."""
    from nibabel import orientations

    image = nibabel.load(path)
    turn = orientations.ornt_transform(orientations.io_orientation(image.affine), orientations.axcodes2ornt(codes))
    turned = image.as_reoriented(turn)
    nibabel.save(nibabel.Nifti1Image(np.asarray(turned.dataobj), turned.affine, turned.header), path)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero((one != 0) & (other != 0)) / (np.count_nonzero(one) + np.count_nonzero(other))


def centroid_ras(mask_kji: np.ndarray, affine: np.ndarray) -> np.ndarray:
    ijk = np.argwhere(mask_kji).mean(axis=0)[::-1]
    return nibabel.affines.apply_affine(affine, ijk)


def weights_of(path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(path / "last.pt", weights_only=True)
    return checkpoint["network"] | checkpoint["averaged"]


def assert_same_weights(one, other) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def cmake_files(module: Path) -> list[str]:
    """The files that a module's CMakeLists.txt installs, by their paths in its folder."""
    text = (module / "CMakeLists.txt").read_text(encoding="utf-8")
    return re.findall(r"^  (\S+\.\w+)$", text.replace("${MODULE_NAME}", module.name), re.MULTILINE)


def read_table(folder: Path) -> list[dict[str, str]]:
    """The rows of a batch's table."""
    with (folder / TABLE_NAME).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
