"""What a segmentation says besides its mask."""

import contextlib
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import dice
from LiverUNetLib.card import ONNX
from LiverUNetLib.engines import OnnxNetwork, TorchNetwork
from LiverUNetLib.environment import Device
from LiverUNetLib.inference import predict
from LiverUNetLib.measurement import Measurement, measure
from LiverUNetLib.phantom import LIVER, abdomen, axial_affine
from LiverUNetLib.pipeline import segment
from LiverUNetLib.postprocessing import fill_holes, largest_component, without_other_components
from LiverUNetLib.steps import Progress, finish
from LiverUNetLib.volume import CTVolume


def test_progress_is_told_after_every_batch_and_ends_at_the_total(a_phantom, threshold_model, cpu):
    told: list[Progress] = []
    finish(segment(a_phantom[0], threshold_model, cpu), told.append)
    # A count is told again while a thread is waited for.
    segmenting = list(dict.fromkeys(progress.done for progress in told if progress.stage == "Segmenting"))
    assert segmenting == [0, 8, 16, 24, 32, 40, 44]
    assert list(dict.fromkeys(progress.stage for progress in told)) == [
        "Preparing",
        "Segmenting",
        "Restoring",
        "Tidying",
        "Measuring",
    ]


def test_a_run_can_be_cancelled_between_batches(a_phantom, threshold_model, cpu):
    asked = []

    class Watched(OnnxNetwork):
        def __call__(self, slices: np.ndarray) -> np.ndarray:
            asked.append(1)
            return super().__call__(slices)

    network = Watched(threshold_model.read(ONNX), 1, cpu)
    steps = segment(a_phantom[0], threshold_model, cpu, network=network)
    while not asked:
        next(steps)
    steps.close()
    assert len(asked) == 1
    with pytest.raises(StopIteration):
        next(steps)


def test_two_runs_give_the_same_voxels(a_phantom, threshold_model, cpu):
    first, second = (finish(segment(a_phantom[0], threshold_model, cpu)).mask_kji for _ in range(2))
    assert np.array_equal(first, second)


def test_a_whole_liver_is_measured_without_warning(a_phantom, threshold_model, cpu):
    volume, liver = a_phantom
    result = finish(segment(volume, threshold_model, cpu))
    assert result.warnings == ()
    assert result.measurement.volume_ml == pytest.approx(liver.sum() * volume.voxel_ml, rel=0.2)
    assert result.measurement.volume_ml == pytest.approx(result.mask_kji.sum() * volume.voxel_ml)
    assert result.measurement.mean_hu == pytest.approx(LIVER, abs=2)


def test_no_liver_is_an_answer_with_a_warning(threshold_model, cpu):
    shape = (96, 72, 10)
    pelvis = axial_affine((4.0, 4.0, 5.0), shape)
    pelvis[2, 3] -= 250
    volume, liver = abdomen(pelvis, shape[::-1], noise_hu=0)
    assert not liver.any()
    result = finish(segment(volume, threshold_model, cpu))
    assert not result.mask_kji.any()
    assert result.measurement == Measurement()
    assert "No liver was found; the mask is empty." in result.warnings


@pytest.mark.parametrize(("radius_px", "off_hu", "found"), [(8, 0, True), (8, 9, False), (14, 9, True)])
def test_what_is_small_and_doubtful_is_no_liver(radius_px, off_hu, found, threshold_model, cpu):
    """A ball of 0.14 or 0.74 litres, of the HU that the network takes for liver or beside it (probability 0.6)."""
    shape = (40, 60, 60)
    distance = np.linalg.norm(np.indices(shape) - np.array([20, 30, 30])[:, None, None, None], axis=0)
    fat = np.random.default_rng(0).normal(-90, 12, shape)
    hu = np.where(distance < radius_px, LIVER + off_hu, fat).astype(np.int16)
    result = finish(segment(CTVolume(hu, axial_affine((4.0, 4.0, 4.0), shape[::-1])), threshold_model, cpu))
    assert bool(result.mask_kji.any()) == found
    assert found or "too doubtful: less than 200 ml" in result.warnings[0]


def test_a_liver_cut_off_by_the_scan_has_a_lower_bound_and_says_where(threshold_model, cpu):
    shape = (96, 72, 20)
    volume, _ = abdomen(axial_affine((4.0, 4.0, 5.0), shape), shape[::-1], noise_hu=0)
    result = finish(segment(volume, threshold_model, cpu))
    assert result.measurement.cut_off == ("inferior", "superior")
    assert result.measurement.volume_ml > 500
    assert (
        "The liver reaches the inferior and superior edge of the image and may be cut off; its volume is a lower bound."
        in result.warnings
    )


def test_a_liver_beyond_the_outline_of_the_body_is_found_whole(threshold_model, cpu):
    """A fifth of the slices is twice as wide, and so is the liver in them."""
    shape = (50, 60, 160)
    hu = np.random.default_rng(0).normal(-900, 20, shape)
    hu[:, 20:40, 10:70] = -90
    hu[20:30, 20:40, 10:150] = -90
    liver = np.zeros(shape, bool)
    liver[21:29, 24:36, 14:146] = True
    hu[liver] = LIVER
    result = finish(
        segment(CTVolume(hu.astype(np.int16), axial_affine((4.0, 4.0, 5.0), shape[::-1])), threshold_model, cpu)
    )
    assert np.array_equal(result.mask_kji, liver)
    assert result.warnings == ()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_empty_slices_at_the_ends_change_neither_voxels_nor_measures_nor_warnings(axis, threshold_model, cpu):
    """A part of the liver on the grid of a longer scan, stored along any axis."""
    shape = (96, 72, 6)
    volume, _ = abdomen(axial_affine((4.0, 4.0, 5.0), shape), shape[::-1], noise_hu=0)
    turned = np.moveaxis(volume.hu_kji, 0, axis)
    columns_of_kji = [1, 0]
    columns_of_kji.insert(axis, 2)
    affine = volume.affine[:, [*columns_of_kji[::-1], 3]]
    ends = [(0, 0)] * 3
    ends[axis] = (30, 20)
    longer = CTVolume(np.pad(turned, ends, constant_values=-1000), affine)
    expected = finish(segment(CTVolume(turned, affine), threshold_model, cpu, with_probability=True))
    found = finish(segment(longer, threshold_model, cpu, with_probability=True))
    assert np.array_equal(found.mask_kji, np.pad(expected.mask_kji, ends))
    assert np.array_equal(found.probability_kji, np.pad(expected.probability_kji, ends))
    assert found.measurement == expected.measurement
    assert found.measurement.cut_off == ("inferior", "superior")
    assert found.warnings == expected.warnings
    assert "The scan shows the body in 6 slices (30 mm)" in found.warnings[0]


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_one_to_three_slices_are_segmented_with_a_word_of_caution(slices, threshold_model, cpu):
    shape = (96, 72, slices)
    volume, liver = abdomen(axial_affine((4.0, 4.0, 5.0), shape), shape[::-1], noise_hu=0)
    result = finish(segment(volume, threshold_model, cpu))
    assert dice(result.mask_kji, liver) > 0.9
    assert result.warnings[0].startswith(f"The scan shows the body in {slices} slice")


def test_slices_far_apart_and_tilted_scans_ask_for_care(threshold_model, cpu):
    shape = (96, 72, 12)
    affine = axial_affine((4.0, 4.0, 15.0), shape)
    angle = np.radians(30)
    turn = np.array(
        [[1, 0, 0, 0], [0, np.cos(angle), -np.sin(angle), 0], [0, np.sin(angle), np.cos(angle), 0], [0, 0, 0, 1]]
    )
    volume, _ = abdomen(turn @ affine, shape[::-1], noise_hu=0)
    warnings = " ".join(finish(segment(volume, threshold_model, cpu)).warnings)
    assert "15.0 mm apart" in warnings
    assert "tilted by 30 degrees" in warnings


def test_the_probability_is_that_of_every_voxel(a_phantom, threshold_model, cpu):
    volume, _ = a_phantom
    result = finish(segment(volume, threshold_model, cpu, with_probability=True))
    assert result.probability_kji.shape == volume.hu_kji.shape
    assert result.probability_kji.dtype == np.uint8
    assert (result.probability_kji[result.mask_kji == 1] >= 127).mean() > 0.98


def test_one_component_without_holes_is_left():
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[1:6, 1:6, 1:6] = True
    mask[3, 3, 3] = False
    mask[8, 8, 8] = True
    tidied = fill_holes(largest_component(mask))
    assert tidied.sum() == 125
    assert not tidied[8, 8, 8]


def test_a_mask_that_fills_the_volume_has_no_holes():
    assert fill_holes(np.ones((2, 2, 2), dtype=bool)).all()


def test_probability_below_the_threshold_survives_for_the_border():
    probability = np.array([[[0.9, 0.8, 0.3, 0.7, 0.2]]], dtype=np.float32)
    assert without_other_components(probability, 0.5)[0, 0] == pytest.approx([0.9, 0.8, 0.3, 0, 0.2])


def test_a_small_part_that_is_certain_outweighs_a_larger_doubtful_one():
    probability = np.array([[[0.6, 0.6, 0.6, 0.6, 0.2, 0.99, 1.0]]], dtype=np.float32)
    assert without_other_components(probability, 0.5)[0, 0] == pytest.approx([0, 0, 0, 0, 0.2, 0.99, 1.0])


def test_measures_of_a_box_worked_out_on_paper():
    mask = np.zeros((5, 6, 7), dtype=bool)
    mask[1:3, 0:4, 2:3] = True
    hu = np.zeros(mask.shape, dtype=np.int16)
    hu[1], hu[2] = 90, 110
    measured = measure(mask, hu, (5.0, 2.0, 3.0), 0.03)
    assert measured.volume_ml == pytest.approx(8 * 0.03)
    assert (measured.mean_hu, measured.sd_hu) == (100, 10)
    assert measured.extent_mm == (10, 8, 3)
    assert measured.cut_off == ("anterior",)


class SmallGpu(Device):
    """A GPU whose memory holds `most` slices, played by the CPU."""

    kind = property(lambda self: "cpu" if self.note else "cuda")

    def autocast(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()


class Greedy(torch.nn.Module):
    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.seen = most, []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(batch))
        if len(batch) > self.most:
            raise torch.OutOfMemoryError
        return batch[:, :1]


def test_out_of_memory_on_a_gpu_halves_the_batch_in_words(caplog):
    image = np.linspace(-1, 1, 40 * 4, dtype=np.float32).reshape(40, 2, 2)
    network = Greedy(most=10)
    with caplog.at_level(logging.WARNING):
        probability = finish(predict(TorchNetwork(network, SmallGpu("cpu")), image, np.arange(40)[:, None]))
    assert network.seen == [32, 16, 8, 8, 8, 8, 8]
    assert probability == pytest.approx(1 / (1 + np.exp(-image)), abs=1e-6)
    assert "going on with batches of 8 slices" in caplog.text


def test_out_of_memory_for_one_slice_goes_on_with_the_cpu(caplog):
    class NeedsCpu(Greedy):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            if len(self.seen) < 6:
                return super().forward(batch)
            return batch[:, :1]

    with caplog.at_level(logging.WARNING):
        network = TorchNetwork(NeedsCpu(most=0), SmallGpu("cpu"))
        probability = finish(predict(network, np.zeros((3, 2, 2), np.float32), np.arange(3)[:, None]))
    assert probability == pytest.approx(np.full((3, 2, 2), 0.5))
    assert "going on with the CPU" in caplog.text


def test_a_padded_ct_with_metal_is_tolerated(a_phantom, threshold_model, cpu):
    volume, _ = a_phantom
    hu = volume.hu_kji.astype(np.int16)
    hu[:, :3], hu[10, 40:43, 40:43] = -3024, 3071
    plain = finish(segment(volume, threshold_model, cpu)).measurement.volume_ml
    found = finish(segment(CTVolume(hu, volume.affine), threshold_model, cpu)).measurement.volume_ml
    assert found == pytest.approx(plain, rel=0.02)


def test_the_threshold_is_that_of_the_card(threshold_model, cpu):
    shape = (48, 36, 12)
    volume, _ = abdomen(axial_affine((8.0, 8.0, 18.0), shape), shape[::-1], noise_hu=8)
    volumes = [
        finish(segment(volume, replace(threshold_model, card=replace(threshold_model.card, threshold=t)), cpu))
        for t in (0.1, 0.5, 0.9)
    ]
    low, middle, high = (result.measurement.volume_ml for result in volumes)
    assert low > middle > high > 0


def test_a_device_that_is_not_what_was_hoped_for_is_said(a_phantom, threshold_model):
    result = finish(segment(a_phantom[0], threshold_model, Device("cpu", "onnx", note="cuda is present but broken.")))
    assert "cuda is present but broken." in result.warnings


@pytest.mark.parametrize(("cut", "words"), [(slice(30, None), "right"), (slice(0, 40), "left")])
def test_the_side_at_which_a_scan_cuts_the_liver_is_named(cut, words):
    mask = np.zeros((4, 4, 96), bool)
    mask[1:3, 1:3, 20:60] = True
    assert measure(mask[:, :, cut], np.zeros(mask[:, :, cut].shape), (1, 1, 1), 0.001).cut_off == (words,)
