"""Segmenting one scan: progress, measurements, warnings and provenance."""

import json
from dataclasses import replace

import numpy as np
import pytest

from helpers import dice
from LiverUNetLib.models.card import FINE, onnx_file
from LiverUNetLib.models.engines import OnnxNetwork
from LiverUNetLib.scan.phantom import LIVER, abdomen, axial_affine
from LiverUNetLib.scan.volume import CTVolume
from LiverUNetLib.segmentation.grid import Axis, Grid
from LiverUNetLib.segmentation.measurement import Measurement, measure
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.segmentation.postprocessing import fill_holes, largest_component, without_other_components
from LiverUNetLib.segmentation.result import report_from_json
from LiverUNetLib.steps import Progress, finish
from LiverUNetLib.system.environment import Device

STAGES = ["Preparing", "Segmenting", "Restoring", "Tidying", "Measuring", "Checking"]


def test_progress_is_reported_after_every_batch_and_ends_at_the_total(a_phantom, threshold_model, cpu):
    told: list[Progress] = []
    finish(segment(a_phantom[0], threshold_model, cpu), told.append)
    assert [progress.done for progress in told if progress.stage == "Segmenting"] == [*range(0, 45, 4)]
    assert list(dict.fromkeys(progress.stage for progress in told)) == STAGES
    for stage in STAGES[1:]:
        *_, last = (progress for progress in told if progress.stage == stage)
        assert last.done == last.total > 0, stage


def test_progress_of_two_looks_names_both(a_phantom, two_looks_model, cpu):
    told: list[str] = []
    finish(segment(a_phantom[0], two_looks_model, cpu), lambda progress: told.append(progress.stage))
    assert [stage for stage, before in zip(told, [None, *told], strict=False) if stage != before] == [
        "Preparing",
        "Finding the liver",
        *STAGES,
    ]


def watched(model, device, asked):
    """The networks of a model; the fine one records the shapes of its images."""

    class Watched(OnnxNetwork):
        def __call__(self, image: np.ndarray) -> np.ndarray:
            asked.append(image.shape)
            return super().__call__(image)

    fine = Watched(model.read(onnx_file(FINE)), model.network_spec(FINE).in_channels, device)
    return replace(model.networks(device), fine=fine)


def test_a_voxel_gets_the_probability_at_its_middle_also_where_it_is_larger_than_a_pixel(threshold_model, cpu):
    """Voxels of 9 x 6 x 6 mm, pixels of 9 x 4 x 4 mm: a mean over a whole voxel would be smoother."""
    shape_kji = (8, 20, 24)
    scan, _ = abdomen(axial_affine((6.0, 6.0, 9.0), shape_kji[::-1]), shape_kji)
    random, asked = np.random.default_rng(0), []

    def noise(image: np.ndarray) -> np.ndarray:
        asked.append(random.normal(0, 2, (len(image), 1, *image.shape[2:])).astype(np.float32))
        return asked[-1]

    noise.batch_size, noise.device = 4, cpu
    networks = replace(threshold_model.networks(cpu), fine=noise)
    found = finish(segment(scan, threshold_model, cpu, networks=networks, with_probability=True)).probability_kji
    first_look = [logits for logits in asked if logits.shape[2:] == asked[0].shape[2:]]  # the check sees more rows
    expected = 1 / (1 + np.exp(-np.concatenate(first_look)[:, 0, :30, :36]))
    for axis, pixels in ((1, 30), (2, 36)):
        voxel, pixel = (np.arange(shape_kji[axis]) + 0.5) * 6, (np.arange(pixels) + 0.5) * 4
        expected = np.apply_along_axis(lambda line, x=voxel, xs=pixel: np.interp(x, xs, line), axis, expected)
    assert np.abs(found - 255 * expected).max() <= 0.51


@pytest.mark.parametrize("model", ["threshold_model", "two_looks_model"])
def test_a_run_can_be_cancelled_between_batches(model, a_phantom, cpu, request):
    model, asked = request.getfixturevalue(model), []
    steps = segment(a_phantom[0], model, cpu, networks=watched(model, cpu, asked))
    while not asked:
        next(steps)
    steps.close()
    assert len(asked) == 1
    with pytest.raises(StopIteration):
        next(steps)


@pytest.mark.parametrize("speck", [False, True])
def test_a_liver_that_the_coarse_look_misses_is_still_found(speck, a_phantom, two_looks_model, cpu):
    def misled(image: np.ndarray) -> np.ndarray:
        logits = np.full_like(image, -10)
        logits[..., -1, -1, -1] = 10  # in a corner of the scan
        return logits

    scan, mask = a_phantom
    if speck:  # something like liver is there, less than the smallest liver
        hu_kji = scan.hu_kji.copy()
        hu_kji[:: len(mask) - 1, :: mask.shape[1] - 1, :: mask.shape[2] - 1] = LIVER
        scan = replace(scan, hu_kji=hu_kji)
    networks = replace(two_looks_model.networks(cpu), coarse=misled)
    found = finish(segment(scan, two_looks_model, cpu, networks=networks))
    assert dice(found.mask_kji, mask) > 0.95


def test_two_runs_give_the_same_voxels(a_phantom, two_looks_model, cpu):
    networks = two_looks_model.networks(cpu)
    first, second, third = (
        finish(segment(a_phantom[0], two_looks_model, cpu, networks=loaded)).mask_kji
        for loaded in (networks, networks, None)
    )
    assert np.array_equal(first, second)
    assert np.array_equal(first, third)


def test_a_report_comes_back_from_json(a_phantom, two_looks_model, cpu):
    result = finish(segment(a_phantom[0], two_looks_model, cpu))
    found = report_from_json(json.loads(json.dumps(result.to_json())))
    assert found.measurement == result.measurement
    assert found.warnings == result.warnings
    assert found.provenance == result.provenance
    assert found.provenance.settings == two_looks_model.card.spec


@pytest.mark.parametrize("model", ["threshold_model", "two_looks_model"])
def test_a_whole_liver_is_measured_without_warning(model, a_phantom, cpu, request):
    volume, liver = a_phantom
    result = finish(segment(volume, request.getfixturevalue(model), cpu))
    assert result.warnings == ()
    assert result.measurement.volume_ml == pytest.approx(liver.sum() * volume.voxel_ml, rel=0.2)
    assert result.measurement.volume_ml == pytest.approx(result.mask_kji.sum() * volume.voxel_ml)
    assert result.measurement.mean_hu == pytest.approx(LIVER, abs=2)


def test_no_liver_gives_an_empty_mask_and_a_warning(threshold_model, cpu):
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
def test_a_small_doubtful_volume_is_not_a_liver(radius_px, off_hu, found, threshold_model, cpu):
    """A ball of 0.14 or 0.74 liters, of the HU that the network takes for liver or beside it (probability 0.6)."""
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


@pytest.mark.slow
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("model", "slices"), [("threshold_model", 6), ("two_looks_model", 6), ("two_looks_model", 9)])
def test_empty_slices_at_the_ends_change_no_voxel_no_measurement_and_no_warning(model, slices, axis, cpu, request):
    """A part of the liver on the grid of a longer scan, stored along any axis."""
    model, shape = request.getfixturevalue(model), (96, 72, slices)
    volume, _ = abdomen(axial_affine((4.0, 4.0, 5.0), shape), shape[::-1], noise_hu=0)
    turned = np.moveaxis(volume.hu_kji, 0, axis)
    columns_of_kji = [1, 0]
    columns_of_kji.insert(axis, 2)
    affine = volume.affine[:, [*columns_of_kji[::-1], 3]]
    ends = [(0, 0)] * 3
    ends[axis] = (30, 20)
    longer = CTVolume(np.pad(turned, ends, constant_values=-1000), affine)
    expected = finish(segment(CTVolume(turned, affine), model, cpu, with_probability=True))
    found = finish(segment(longer, model, cpu, with_probability=True))
    assert np.array_equal(found.mask_kji, np.pad(expected.mask_kji, ends))
    assert np.array_equal(found.probability_kji, np.pad(expected.probability_kji, ends))
    assert found.measurement == expected.measurement
    assert found.measurement.cut_off == ("inferior", "superior")
    assert found.warnings == expected.warnings
    assert ("The scan shows the body in 6 slices (30 mm)" in found.warnings[0]) == (slices == 6)


@pytest.mark.parametrize("model", ["threshold_model", "two_looks_model"])
@pytest.mark.parametrize("slices", [1, 2, 3])
def test_one_to_three_slices_are_segmented_with_a_warning(slices, model, cpu, request):
    shape = (96, 72, slices)
    volume, liver = abdomen(axial_affine((4.0, 4.0, 5.0), shape), shape[::-1], noise_hu=0)
    result = finish(segment(volume, request.getfixturevalue(model), cpu))
    assert dice(result.mask_kji, liver) > 0.9
    assert result.warnings[0].startswith(f"The scan shows the body in {slices} slice")


def test_slices_far_apart_and_tilted_scans_get_a_warning(threshold_model, cpu):
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


@pytest.mark.parametrize("model", ["threshold_model", "two_looks_model"])
def test_the_probability_is_that_of_every_voxel(model, a_phantom, cpu, request):
    volume, _ = a_phantom
    result = finish(segment(volume, request.getfixturevalue(model), cpu, with_probability=True))
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


def test_measurements_of_a_box_worked_out_on_paper():
    mask = np.zeros((5, 6, 7), dtype=bool)
    mask[1:3, 0:4, 2:3] = True
    hu = np.zeros(mask.shape, dtype=np.int16)
    hu[1], hu[2] = 90, 110
    scan = Grid(Axis(0, 5.0, 5), Axis(0, 2.0, 6), Axis(0, 3.0, 7))
    measured = measure(mask, hu, scan, scan.whole, 0.03)
    assert measured.volume_ml == pytest.approx(8 * 0.03)
    assert (measured.mean_hu, measured.sd_hu) == (100, 10)
    assert measured.extent_mm == (10, 8, 3)
    assert measured.cut_off == ("anterior",)


def test_a_padded_ct_with_metal_is_tolerated(a_phantom, threshold_model, cpu):
    volume, _ = a_phantom
    hu = volume.hu_kji.astype(np.int16)
    hu[:, :3], hu[10, 40:43, 40:43] = -3024, 3071
    plain = finish(segment(volume, threshold_model, cpu)).measurement.volume_ml
    found = finish(segment(CTVolume(hu, volume.affine), threshold_model, cpu)).measurement.volume_ml
    assert found == pytest.approx(plain, rel=0.02)


def test_the_note_of_a_device_becomes_a_warning(a_phantom, threshold_model):
    result = finish(segment(a_phantom[0], threshold_model, Device("cpu", "onnx", note="cuda is present but broken.")))
    assert "cuda is present but broken." in result.warnings


FACES = [("inferior", "superior"), ("anterior", "posterior"), ("right", "left")]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [0, 1])
def test_the_side_at_which_a_scan_cuts_the_liver_is_named(axis, side):
    mask, hu, scan = np.ones((4, 5, 6), bool), np.zeros((20, 20, 20)), Grid(*[Axis(30.0, 1.0, 20)] * 3)
    part = [slice(3, 7), slice(4, 9), slice(5, 11)]
    assert measure(mask, hu, scan, tuple(part), 0.001).cut_off == ()
    size = mask.shape[axis]
    part[axis] = slice(20 - size, 20) if side else slice(0, size)
    assert measure(mask, hu, scan, tuple(part), 0.001).cut_off == (FACES[axis][side],)
    mask[(slice(None),) * axis + (-1 if side else 0,)] = False
    assert measure(mask, hu, scan, tuple(part), 0.001).cut_off == ()
