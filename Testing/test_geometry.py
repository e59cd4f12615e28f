"""The same liver comes out of a scan however its axes lie."""

import nibabel
import numpy as np
import pytest

from helpers import ALL_48, SHAPE_IJK, SPACING_MM, centroid_ras, dice
from LiverUNetLib.geometry import (
    Canvas,
    ModelGrid,
    PreprocessingSpec,
    body_canvas,
    context_indices,
    from_model_grid,
    to_model_grid,
)
from LiverUNetLib.phantom import abdomen, axial_affine
from LiverUNetLib.pipeline import segment
from LiverUNetLib.steps import finish
from LiverUNetLib.volume import CTVolume


@pytest.mark.parametrize("orientation", ALL_48, ids=str)
def test_every_permutation_and_flip_gives_the_same_voxels(orientation, a_phantom, threshold_model, cpu):
    volume, _ = a_phantom
    expected = finish(segment(volume, threshold_model, cpu)).mask_kji
    turned = nibabel.orientations.apply_orientation(volume.hu_kji.T, orientation).T
    affine = volume.affine @ nibabel.orientations.inv_ornt_aff(orientation, volume.hu_kji.T.shape)
    found = finish(segment(CTVolume(turned, affine), threshold_model, cpu)).mask_kji
    assert found.shape == turned.shape
    assert np.array_equal(found, nibabel.orientations.apply_orientation(expected.T, orientation).T)


def test_the_known_liver_is_found(a_phantom, threshold_model, cpu):
    volume, liver = a_phantom
    result = finish(segment(volume, threshold_model, cpu))
    assert dice(result.mask_kji, liver) > 0.9


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_oblique_scan_gives_the_liver_in_its_place(axis, a_phantom, threshold_model, cpu):
    upright, _ = a_phantom
    expected = finish(segment(upright, threshold_model, cpu))
    angle = np.radians(14)
    turn = np.eye(4)
    a, b = sorted({0, 1, 2} - {axis})
    turn[a, a] = turn[b, b] = np.cos(angle)
    turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
    shape = (104, 84, 60)
    affine = turn @ axial_affine(SPACING_MM, shape)
    oblique, _ = abdomen(affine, shape[::-1], noise_hu=0)
    found = finish(segment(oblique, threshold_model, cpu))
    assert found.measurement.volume_ml == pytest.approx(expected.measurement.volume_ml, rel=0.02)
    distance = centroid_ras(found.mask_kji, affine) - centroid_ras(expected.mask_kji, upright.affine)
    assert np.linalg.norm(distance) < 2.0


@pytest.mark.parametrize("spacing", [(1.5, 3.0, 5.0), (4.0, 4.0, 1.25), (3.0, 3.0, 10.0)])
def test_anisotropic_spacing_gives_the_same_volume(spacing, a_phantom, threshold_model, cpu):
    expected = finish(segment(a_phantom[0], threshold_model, cpu)).measurement
    shape = tuple(round(n * mm / new) for n, mm, new in zip(SHAPE_IJK, SPACING_MM, spacing, strict=True))
    volume, _ = abdomen(axial_affine(spacing, shape), shape[::-1], noise_hu=0)
    found = finish(segment(volume, threshold_model, cpu)).measurement
    # A threshold loses the pixels that the border crosses, more of them on grids that do not match its own.
    assert found.volume_ml == pytest.approx(expected.volume_ml, rel=0.08)
    assert found.extent_mm == pytest.approx(expected.extent_mm, abs=12)


def test_a_ct_clipped_to_the_window_gives_the_same_voxels_as_its_full_range(a_phantom, threshold_model, cpu):
    volume, _ = a_phantom
    clipped = CTVolume(np.clip(volume.hu_kji, -160, 240), volume.affine)
    assert np.array_equal(
        finish(segment(clipped, threshold_model, cpu)).mask_kji, finish(segment(volume, threshold_model, cpu)).mask_kji
    )


def test_a_constant_image_stays_constant_there_and_back():
    volume = CTVolume(np.full((7, 30, 20), 40, dtype=np.int16), np.diag([0.8, 0.9, 0.7, 1]))
    grid = ModelGrid.of(volume, PreprocessingSpec(pixel_mm=2.0, slice_mm=2.0))
    model = to_model_grid(volume.hu_kji, grid, (-160, 240))
    assert grid.block == 2
    assert model.shape == (4, 14, 8)
    assert model == pytest.approx(np.zeros_like(model), abs=1e-6)
    back = from_model_grid(model, grid, range(7))
    assert back.shape == (7, 30, 20)
    assert back == pytest.approx(np.zeros_like(back), abs=1e-6)


def test_blocks_of_thin_slices_are_averaged_and_interpolated_between_their_centres():
    hu = np.repeat(np.array([0, 2, 4, 6], dtype=np.int16), 4).reshape(4, 2, 2)
    grid = ModelGrid.of(CTVolume(hu, np.diag([-2.0, -2.0, 1.0, 1.0])), PreprocessingSpec(pixel_mm=2.0, slice_mm=2.0))
    model = to_model_grid(hu, grid, (0, 8))
    assert (model[:, 0, 0] + 1) * 4 == pytest.approx([1, 5])
    back = from_model_grid(model, grid, range(4))
    assert (back[:, 0, 0] + 1) * 4 == pytest.approx([1, 2, 4, 5])


def test_context_is_taken_at_distances_in_mm_not_at_neighbours():
    assert context_indices(9, 0.5, (-1.0, 0.0, 1.0))[4].tolist() == [2, 4, 6]
    assert context_indices(9, 4.0, (-4.0, 0.0, 4.0))[4].tolist() == [3, 4, 5]


def test_at_the_ends_of_the_stack_the_last_slice_is_the_context():
    assert context_indices(3, 4.0, (-8.0, -4.0, 0.0, 4.0, 8.0))[0].tolist() == [0, 0, 0, 1, 2]


def test_a_single_or_thick_slice_is_its_own_context():
    assert context_indices(1, 5.0, (-8.0, 0.0, 8.0)).tolist() == [[0, 0, 0]]
    assert context_indices(2, 30.0, (-8.0, 0.0, 8.0)).tolist() == [[0, 0, 0], [1, 1, 1]]


def test_a_canvas_that_reaches_beyond_the_image_crops_and_pastes_back():
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    canvas = Canvas(row=-1, column=1, rows=6, columns=6)
    cropped = canvas.crop(image, fill=-1)
    assert cropped[0, 0].tolist() == [-1] * 6
    assert cropped[0, 1].tolist() == [1, 2, 3, -1, -1, -1]
    assert canvas.paste(cropped, (3, 4), fill=0)[0].tolist() == [[0, 1, 2, 3], [0, 5, 6, 7], [0, 9, 10, 11]]


@pytest.mark.parametrize("air", [-1000, -160], ids=["full range", "clipped"])
def test_the_body_is_found_with_and_without_air_at_minus_1000(air):
    spec = PreprocessingSpec(pixel_mm=2.0)
    hu = np.full((4, 60, 80), air, dtype=np.int16)
    hu[:, 20:40, 10:50] = 40
    grid = ModelGrid.of(CTVolume(hu, np.diag([-2.0, -2.0, 2.0, 1.0])), spec)
    image = to_model_grid(hu, grid, spec.window_hu)
    canvas = body_canvas(image, spec.normalise(-130), 2.0, multiple=32)
    assert (canvas.rows, canvas.columns) == (32, 64)
    assert canvas.row <= 20
    assert canvas.row + canvas.rows >= 40
    assert canvas.column <= 10
    assert canvas.column + canvas.columns >= 50


# Slices of 5 mm: a torso, two legs within its outline, a head, two raised arms, a table, air. Rows and columns of each.
PARTS = {
    "torso": [(slice(20, 60), slice(30, 110))],
    "legs": [(slice(30, 50), slice(30, 60)), (slice(30, 50), slice(80, 110))],
    "head": [(slice(25, 50), slice(55, 85))],
    "arms": [(slice(30, 40), slice(32, 44)), (slice(30, 40), slice(96, 108))],
    "table": [(slice(64, 66), slice(10, 130))],
    "air": [],
}


def slices_of(count: int, *parts: str) -> np.ndarray:
    image = np.full((count, 80, 140), -1, np.float32)
    for rows, columns in (box for part in parts for box in PARTS[part]):
        image[:, rows, columns] = 0
    return image


@pytest.mark.parametrize(
    "others",
    [
        [slices_of(400, "air")],
        [slices_of(3000, "air")],
        [slices_of(200, "legs")],
        [slices_of(400, "legs", "table")],
        [slices_of(300, "table")],
        [slices_of(50, "head"), slices_of(200, "arms")],
        [slices_of(60, "head", "arms"), slices_of(180, "legs"), slices_of(500, "air")],
    ],
    ids=["air", "much air", "legs", "legs on a table", "table", "arms up", "whole body"],
)
@pytest.mark.parametrize("torso_slices", [40, 60, 120])
def test_the_torso_is_found_however_small_a_part_of_the_scan_it_is(torso_slices, others):
    torso = slices_of(torso_slices, "torso")
    for image in (np.concatenate([torso, *others]), np.concatenate([*others, torso])):
        canvas = body_canvas(image, -0.85, 5.0)
        assert canvas == body_canvas(torso, -0.85, 5.0) == Canvas(row=20, column=30, rows=41, columns=81)


@pytest.mark.parametrize("little", ["air", "table", "arms"])
def test_slices_that_show_little_do_not_count(little):
    """A torso of 50 mm alone has an outline."""
    image = np.concatenate([slices_of(45, little), slices_of(10, "torso"), slices_of(45, little)])
    assert body_canvas(image, -0.85, 5.0) == Canvas(row=20, column=30, rows=41, columns=81)


def test_what_is_body_in_few_slices_of_every_part_does_not_widen_the_canvas():
    """A hand, or a tube, beside the torso in a fifth of the slices."""
    image = slices_of(200, "torso")
    image[::5, 30:40, 110:130] = 0
    assert body_canvas(image, -0.85, 5.0) == Canvas(row=20, column=30, rows=41, columns=81)


@pytest.mark.parametrize("body_percent", [27, 25.5, 20])
def test_air_around_the_body_changes_no_voxel(body_percent, a_phantom, threshold_model, cpu):
    volume, _ = a_phantom
    expected = finish(segment(volume, threshold_model, cpu)).mask_kji
    slices = len(volume.hu_kji)
    missing = round(100 * slices / body_percent) - slices
    above_and_below = ((missing // 3, missing - missing // 3), (0, 0), (0, 0))
    hu = np.pad(volume.hu_kji, above_and_below, constant_values=-1000)
    found = finish(segment(CTVolume(hu, volume.affine), threshold_model, cpu)).mask_kji
    assert np.array_equal(found, np.pad(expected, above_and_below))


def test_a_canvas_cuts_what_reaches_a_side_of_it_inside_the_image():
    canvas, mask = Canvas(row=-2, column=3, rows=6, columns=4), np.zeros((2, 8, 9), bool)
    assert not canvas.cuts(mask)
    mask[1, 0, 4] = True  # the image ends here before the canvas does
    assert not canvas.cuts(mask)
    for row, column in ((3, 4), (1, 3), (1, 6)):
        one_more = mask.copy()
        one_more[0, row, column] = True
        assert canvas.cuts(one_more)
    assert not Canvas(0, 0, 8, 9).cuts(np.ones_like(mask))


def test_a_canvas_is_moved_no_farther_than_needed():
    canvas = Canvas(row=10, column=20, rows=8, columns=8)
    assert canvas.showing(slice(11, 18), slice(20, 28)) == canvas
    assert canvas.showing(slice(5, 12), slice(25, 31)) == Canvas(row=5, column=23, rows=8, columns=8)


def test_a_pixel_of_the_model_grid_shows_what_lies_at_its_place():
    """Values are the places of the pixels' middles in mm, so interpolation must give the places of the model's."""
    spacing_mm, pixel_mm, size = 3.0, 2.0, 40
    middles = (np.arange(size) + 0.5) * spacing_mm
    hu = np.broadcast_to(middles, (4, size, size)).astype(np.float32)
    spec = PreprocessingSpec(pixel_mm=pixel_mm, slice_mm=5.0)
    grid = ModelGrid.of(CTVolume(hu, np.diag([-spacing_mm, -spacing_mm, 5.0, 1.0])), spec)
    found = (to_model_grid(hu, grid, (0, 120)) + 1) / 2 * 120
    expected = (np.arange(grid.shape[2]) + 0.5) * pixel_mm
    np.testing.assert_allclose(found[0, 0, 3:-3], expected[3:-3], atol=0.01)
    back = from_model_grid(found, grid, range(4))
    np.testing.assert_allclose(back[0, 0, 3:-3], middles[3:-3], atol=0.01)
