"""Positions in a scan, interpolation between grids, and the same liver for every order of axes."""

import nibabel
import numpy as np
import pytest
import torch

from helpers import ALL_48, SHAPE_IJK, SPACING_MM, centroid_ras, dice
from LiverUNetLib.scan.phantom import abdomen, axial_affine
from LiverUNetLib.scan.volume import CTVolume
from LiverUNetLib.segmentation import grid
from LiverUNetLib.segmentation.grid import Axis, Grid, body_slices, canonical_scan, canonical_view, resample
from LiverUNetLib.segmentation.pipeline import segment
from LiverUNetLib.steps import finish
from LiverUNetLib.system.environment import Device


@pytest.fixture(scope="module")
def found_upright(a_phantom, two_looks_model):
    return finish(segment(a_phantom[0], two_looks_model, Device("cpu", "onnx"))).mask_kji


@pytest.mark.parametrize("orientation", ALL_48, ids=str)
def test_every_permutation_and_flip_gives_the_same_voxels(orientation, a_phantom, two_looks_model, found_upright, cpu):
    volume, expected = a_phantom[0], found_upright
    turned = nibabel.orientations.apply_orientation(volume.hu_kji.T, orientation).T
    affine = volume.affine @ nibabel.orientations.inv_ornt_aff(orientation, volume.hu_kji.T.shape)
    found = finish(segment(CTVolume(turned, affine), two_looks_model, cpu)).mask_kji
    assert found.shape == turned.shape
    assert np.array_equal(found, nibabel.orientations.apply_orientation(expected.T, orientation).T)


def test_the_known_liver_is_found(a_phantom, two_looks_model, cpu):
    volume, liver = a_phantom
    result = finish(segment(volume, two_looks_model, cpu))
    assert dice(result.mask_kji, liver) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_oblique_scan_gives_the_liver_in_its_place(axis, a_phantom, two_looks_model, cpu):
    upright, _ = a_phantom
    expected = finish(segment(upright, two_looks_model, cpu))
    angle = np.radians(14)
    turn = np.eye(4)
    a, b = sorted({0, 1, 2} - {axis})
    turn[a, a] = turn[b, b] = np.cos(angle)
    turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
    shape = (104, 84, 60)
    affine = turn @ axial_affine(SPACING_MM, shape)
    oblique, _ = abdomen(affine, shape[::-1], noise_hu=0)
    found = finish(segment(oblique, two_looks_model, cpu))
    assert found.measurement.volume_ml == pytest.approx(expected.measurement.volume_ml, rel=0.02)
    distance = centroid_ras(found.mask_kji, affine) - centroid_ras(expected.mask_kji, upright.affine)
    assert np.linalg.norm(distance) < 2.0


@pytest.mark.slow
@pytest.mark.parametrize("spacing", [(1.5, 3.0, 5.0), (4.0, 4.0, 1.25), (3.0, 3.0, 10.0)])
def test_anisotropic_spacing_gives_the_same_volume(spacing, a_phantom, two_looks_model, cpu):
    expected = finish(segment(a_phantom[0], two_looks_model, cpu)).measurement
    shape = tuple(round(n * mm / new) for n, mm, new in zip(SHAPE_IJK, SPACING_MM, spacing, strict=True))
    volume, _ = abdomen(axial_affine(spacing, shape), shape[::-1], noise_hu=0)
    found = finish(segment(volume, two_looks_model, cpu)).measurement
    # A threshold loses the pixels that the border crosses, more of them on grids that do not match its own.
    assert found.volume_ml == pytest.approx(expected.volume_ml, rel=0.08)
    assert found.extent_mm == pytest.approx(expected.extent_mm, abs=12)


def test_a_ct_clipped_to_the_window_gives_the_same_voxels_as_its_full_range(a_phantom, two_looks_model, cpu):
    volume, _ = a_phantom
    clipped = CTVolume(np.clip(volume.hu_kji, -160, 240), volume.affine)
    assert np.array_equal(
        finish(segment(clipped, two_looks_model, cpu)).mask_kji, finish(segment(volume, two_looks_model, cpu)).mask_kji
    )


def test_positions_are_in_mm_from_the_outer_edge():
    axis = Axis(3.0, 2.5, 4)
    assert axis.stop_mm == 13.0
    assert axis.part(slice(1, 3)) == Axis(5.5, 2.5, 2)


@pytest.mark.parametrize(
    ("axis", "step_mm", "size"),
    [
        (Axis(7.0, 0.1, 100), 1.0, 10),  # 100 * 0.1 is 10.000000000000002 in places
        (Axis(0.0, 0.7, 512), 1.25, 287),  # 358.4 mm are 286.72 pixels
        (Axis(0.0, 5.0, 3), 4.0, 4),
        (Axis(0.0, 1.0, 2), 4.0, 1),
    ],
)
def test_an_axis_is_covered_from_its_start(axis, step_mm, size):
    assert axis.covered(step_mm) == Axis(axis.start_mm, step_mm, size)


@pytest.mark.parametrize(
    ("start_mm", "stop_mm", "cells"),
    [
        (14.0, 18.0, slice(2, 4)),  # from border to border: no cell more
        (13.9, 18.1, slice(1, 5)),
        (15.0, 15.5, slice(2, 3)),
        (14.0, 14.0, slice(2, 3)),  # at least one
        (-50.0, 11.0, slice(0, 1)),
        (27.0, 99.0, slice(8, 10)),
        (-50.0, -40.0, slice(0, 1)),  # beyond the ends: the nearest
        (90.0, 99.0, slice(9, 10)),
    ],
)
def test_the_cells_that_overlap_an_interval(start_mm, stop_mm, cells):
    assert Axis(10.0, 2.0, 10).cells(start_mm, stop_mm) == cells


def test_a_box_of_another_grid_is_found_with_its_margin_within_the_scan():
    scan = Grid(Axis(20.0, 5.0, 10), Axis(0.0, 1.0, 100), Axis(0.0, 1.0, 100))  # 50 mm of it, 100 x 100 mm
    cubes = scan.cubes(4.0)
    assert cubes == Grid(Axis(20.0, 4.0, 13), Axis(0.0, 4.0, 25), Axis(0.0, 4.0, 25))
    box = (slice(5, 6), slice(0, 2), slice(20, 25))  # mm 40 to 44, 0 to 8, 80 to 100
    assert scan.around(cubes, box, 0.0) == (slice(4, 5), slice(0, 8), slice(80, 100))
    assert scan.around(cubes, box, 6.0) == (slice(2, 6), slice(0, 14), slice(74, 100))


@pytest.mark.parametrize(
    ("slice_mm", "slices", "thick_mm", "left"),
    [
        (1.0, 7, 2.0, 4),  # pairs; the last is alone
        (1.0000001, 8, 2.0000002, 4),  # rounded in a header
        (1.1, 7, 1.1, 7),
        (0.5, 8, 2.0, 2),
        (5.0, 3, 5.0, 3),
        (0.5, 2, 1.0, 1),  # a block is no thicker than the scan
    ],
)
def test_blocks_of_slices_become_one_slice(slice_mm, slices, thick_mm, left):
    scan = Grid(Axis(30.0, slice_mm, slices), Axis(0.0, 0.7, 100), Axis(5.0, 1.25, 80))
    pixels = scan.pixels(1.25, 2.0)
    assert pixels.slices == Axis(30.0, pytest.approx(thick_mm), left)
    assert (pixels.rows, pixels.columns) == (Axis(0.0, 1.25, 56), Axis(5.0, 1.25, 80))


def dense(target: Axis, source: Axis, *, antialias: bool = True) -> np.ndarray:
    """The weights as a full matrix."""
    used, weights = target.weights(source, antialias=antialias)
    matrix = np.zeros((target.size, source.size))
    matrix[:, used] = weights.toarray()
    return matrix


def test_weights_worked_out_on_paper():
    four = Axis(0.0, 1.0, 4)
    assert dense(Axis(0.0, 0.5, 2), four) == pytest.approx(np.array([[1, 0, 0, 0], [0.75, 0.25, 0, 0]]))
    assert dense(Axis(1.0, 2.0, 1), four) == pytest.approx(np.array([[0.125, 0.375, 0.375, 0.125]]))
    assert dense(Axis(1.0, 2.0, 1), four, antialias=False) == pytest.approx(np.array([[0, 0.5, 0.5, 0]]))


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("target", [Axis(-40.0, 1.0, 3), Axis(-40.0, 7.0, 2), Axis(60.0, 1.0, 3), Axis(60.0, 7.0, 2)])
def test_beyond_the_ends_the_last_sample_counts(target, antialias):
    source = Axis(0.0, 2.0, 5)
    last = 0 if target.start_mm < 0 else 4
    assert np.array_equal(dense(target, source, antialias=antialias), np.eye(5)[[last] * target.size])


@pytest.mark.parametrize("seed", range(40))
def test_the_weights_of_every_sample_are_a_mean_whatever_the_axes(seed):
    random = np.random.default_rng(seed)
    source, target = (
        Axis(random.uniform(-30, 30), float(np.exp(random.uniform(-2, 3))), int(random.integers(1, 40)))
        for _ in range(2)
    )
    for antialias in (True, False):
        weights = dense(target, source, antialias=antialias)
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)


def cube_of(axis: Axis) -> Grid:
    """A grid of two slices and rows and all columns of an axis."""
    return Grid(Axis(0.0, 1.0, 2), Axis(0.0, 1.0, 2), axis)


def middles(axis: Axis) -> np.ndarray:
    return axis.start_mm + (np.arange(axis.size) + 0.5) * axis.step_mm


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(("source_mm", "target_mm"), [(3.0, 2.0), (2.0, 3.0), (0.7, 1.25), (1.25, 0.7), (4.0, 1.25)])
def test_a_sample_has_the_value_at_its_position(source_mm, target_mm, antialias):
    """Each value is the position of its sample in mm, so that interpolation must give those of the new samples."""
    source, target = Axis(11.0, source_mm, 60), Axis(11.0, source_mm, 60).covered(target_mm)
    values = np.broadcast_to(middles(source), (2, 2, 60))
    found = finish(resample(values, cube_of(source), cube_of(target), antialias=antialias))
    assert found.dtype == np.float32
    inside = slice(4, -4)
    # A triangle that is not centered on a sample has a mean beside its middle; a tenth of a pixel at most.
    tolerance = 0.15 * source_mm if antialias and target_mm > source_mm else 1e-3
    np.testing.assert_allclose(found[0, 0, inside], middles(target)[inside], atol=tolerance)


@pytest.mark.parametrize(("shape", "wanted"), [((20, 30, 44), (10, 10, 11)), ((9, 14, 12), (6, 7, 9))])
def test_an_aligned_grid_is_interpolated_as_torch_does(shape, wanted):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    source = Grid(*(Axis(0.0, 1.0, size) for size in shape))
    target = Grid(*(Axis(0.0, size / new, new) for size, new in zip(shape, wanted, strict=True)))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None], wanted[1:], mode="bilinear", antialias=True, align_corners=False
    )[0]
    expected = torch.nn.functional.interpolate(
        expected.permute(1, 2, 0)[None], (wanted[2], wanted[0]), mode="bilinear", antialias=True, align_corners=False
    )[0].permute(2, 0, 1)
    np.testing.assert_allclose(finish(resample(values, source, target)), expected, atol=1e-5)


def test_blocks_of_thin_slices_are_averaged_and_interpolated_between_their_middles():
    hu = np.repeat(np.array([0, 2, 4, 6], dtype=np.int16), 4).reshape(4, 2, 2)
    scan = Grid(Axis(0.0, 1.0, 4), Axis(0.0, 2.0, 2), Axis(0.0, 2.0, 2))
    pixels = scan.pixels(2.0, 2.0)
    model = finish(resample(hu, scan, pixels))
    # A triangle of 2 mm to both sides reaches the next block too: (0 * 3 + 2 * 3 + 4) / 7.
    assert model[:, 0, 0] == pytest.approx([10 / 7, 32 / 7])
    back = finish(resample(np.array([[[1.0]], [[5.0]]]) + np.zeros((2, 2, 2)), pixels, scan, antialias=False))
    assert back[:, 0, 0] == pytest.approx([1, 2, 4, 5])


@pytest.mark.parametrize("pixels", [(1.3, 2.0), (0.4, 0.3), (7.0, 9.0)])
def test_a_constant_image_stays_constant_there_and_back(pixels):
    scan = Grid(Axis(-2.0, 0.7, 7), Axis(0.0, 0.9, 30), Axis(5.0, 0.8, 20))
    other = scan.pixels(*pixels)
    there = finish(resample(np.full(scan.shape, 40, np.int16), scan, other))
    assert there == pytest.approx(np.full(other.shape, 40.0), abs=1e-4)
    back = finish(resample(there, other, scan, antialias=False))
    assert back == pytest.approx(np.full(scan.shape, 40.0), abs=1e-4)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("at_once", [1, 3, 5])
def test_resampling_in_slabs_equals_resampling_at_once(at_once, antialias, monkeypatch):
    values = np.random.default_rng(1).normal(size=(31, 20, 24)).astype(np.float32)
    scan = Grid(Axis(3.0, 1.1, 31), Axis(0.0, 0.7, 20), Axis(0.0, 0.9, 24))
    for target in (scan.cubes(4.0), scan.cubes(0.6), scan.pixels(1.25, 2.5)):
        monkeypatch.setattr(grid, "SLICES_AT_ONCE", 1000)
        whole = finish(resample(values, scan, target, antialias=antialias))
        monkeypatch.setattr(grid, "SLICES_AT_ONCE", at_once)
        steps = []
        slabs = finish(resample(values, scan, target, antialias=antialias), steps.append)
        np.testing.assert_allclose(slabs, whole, atol=1e-5)
        assert steps[0] == (min(at_once, target.shape[0]), target.shape[0])
        assert steps[-1] == (target.shape[0], target.shape[0])


def test_a_part_of_a_grid_gives_that_part_of_the_values():
    values = np.random.default_rng(2).normal(size=(20, 30, 40)).astype(np.float32)
    scan = Grid(Axis(0.0, 2.0, 20), Axis(0.0, 0.7, 30), Axis(0.0, 0.7, 40))
    cubes = scan.cubes(1.5)
    box = (slice(3, 20), slice(2, 11), slice(9, 10))
    part = finish(resample(values, scan, cubes.part(box)))
    np.testing.assert_allclose(part, finish(resample(values, scan, cubes))[box], atol=1e-5)


def test_values_are_clipped_before_they_are_averaged():
    values = np.array([-1000, 40], np.int16).reshape(1, 1, 2)
    source, target = (Grid(Axis(0, 1, 1), Axis(0, 1, 1), Axis(0, 2 / n, n)) for n in (2, 1))
    assert finish(resample(values, source, target, clip=(-160, 240))).item() == -60
    assert values.tolist() == [[[-1000, 40]]], "the scan stays as it is"


def test_finish_is_applied_to_the_values():
    scan = Grid(Axis(0, 1, 40), Axis(0, 1, 4), Axis(0, 1, 4))
    values = np.arange(40, dtype=np.float32)[:, None, None] + np.zeros(scan.shape, np.float32)
    above = finish(resample(values, scan, scan, finish=lambda slab: slab > 20.5))
    assert above.dtype == bool
    assert np.array_equal(above, values > 20.5)


def test_a_canonical_scan_is_a_view_that_runs_to_superior_posterior_and_left():
    # Stored with i to anterior, j to superior, k to the right: steps of 0.5, 3 and 2 mm.
    affine = np.array([[0, 0, 2.0, 10], [0.5, 0, 0, 20], [0, 3.0, 0, 30], [0, 0, 0, 1]])
    stored = np.arange(5 * 4 * 3).reshape(5, 4, 3)  # k, j, i
    hu, scan = canonical_scan(CTVolume(stored, affine))
    assert scan == Grid(Axis(0.0, 3.0, 4), Axis(0.0, 0.5, 3), Axis(0.0, 2.0, 5))
    assert np.array_equal(hu, stored[::-1, :, ::-1].transpose(1, 2, 0))
    canonical_view(stored, affine)[0, 0, 0] = -7
    assert stored[4, 0, 2] == -7


@pytest.mark.parametrize("air", [-1000, -160], ids=["full range", "clipped"])
def test_empty_slices_at_the_ends_are_left_out_and_those_in_between_stay(air):
    hu = np.full((12, 40, 40), air, np.int16)
    assert body_slices(hu) == slice(0, 12), "all, if all are empty"
    hu[4, 8:12, 8:20] = -90  # 48 of 1600 pixels
    hu[9, 8:12, 8:20] = 40
    hu[1, 8, 8] = 40  # one of 100 that are looked at is not more than 1 %
    assert body_slices(hu) == slice(4, 10)


@pytest.mark.parametrize("body_percent", [27, 25.5, 20])
def test_air_around_the_body_changes_no_voxel(body_percent, a_phantom, two_looks_model, cpu):
    volume, _ = a_phantom
    expected = finish(segment(volume, two_looks_model, cpu)).mask_kji
    slices = len(volume.hu_kji)
    missing = round(100 * slices / body_percent) - slices
    above_and_below = ((missing // 3, missing - missing // 3), (0, 0), (0, 0))
    hu = np.pad(volume.hu_kji, above_and_below, constant_values=-1000)
    found = finish(segment(CTVolume(hu, volume.affine), two_looks_model, cpu)).mask_kji
    assert np.array_equal(found, np.pad(expected, above_and_below))
