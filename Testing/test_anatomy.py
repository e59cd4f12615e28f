"""Scans that are stored mirrored, upside down or with other HU are told from others, on the phantom of an abdomen."""

from dataclasses import replace

import numpy as np
import pytest

from LiverUNetLib.segmentation.anatomy import Anatomy, look_around, tissue_hu
from LiverUNetLib.segmentation.grid import body_slices, canonical_scan, canonical_view
from LiverUNetLib.segmentation.plausibility import about_the_body

LEFT = "The liver lies on the left of the body"
SPINE = "The spine lies before the liver"
LUNGS = "The lungs lie below the liver"
FAT = "Fat has about"


def complaints(scan, liver) -> list[str]:
    hu, grid = canonical_scan(scan)
    body = body_slices(hu)
    mask = canonical_view(liver != 0, scan.affine)[body]
    reasons = about_the_body(look_around(hu[body], mask, grid.part((body, *grid.whole[1:]))))
    return [words for words in (LEFT, SPINE, LUNGS, FAT) for reason in reasons if reason.sentence.startswith(words)]


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ((), []),
        ((2,), [LEFT]),
        ((1,), [SPINE]),
        ((0,), [LUNGS]),
        ((1, 2), [LEFT, SPINE]),  # turned by 180 degrees
    ],
)
def test_a_scan_whose_array_was_flipped_is_noticed(axes, expected, a_phantom):
    scan, liver = a_phantom
    flipped = replace(scan, hu_kji=np.flip(scan.hu_kji, axes))
    assert complaints(flipped, np.flip(liver, axes)) == expected


def test_an_array_that_was_flipped_with_its_geometry_is_as_before(a_phantom):
    scan, liver = a_phantom
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = scan.hu_kji.shape[2] - 1
    assert complaints(replace(scan, hu_kji=scan.hu_kji[..., ::-1], affine=scan.affine @ flip), liver[..., ::-1]) == []


@pytest.mark.parametrize("shift_hu", [-70, 60, 150])
def test_hu_that_are_shifted_are_noticed_by_fat_and_soft_tissue(shift_hu, a_phantom):
    scan, liver = a_phantom
    shifted = np.where(scan.hu_kji > -500, scan.hu_kji + shift_hu, scan.hu_kji)
    assert complaints(replace(scan, hu_kji=shifted), liver) == [FAT]


def test_fat_and_muscle_of_the_phantom_are_found_in_a_window_too(a_phantom):
    for hu in (a_phantom[0].hu_kji, np.clip(a_phantom[0].hu_kji, -160, 240)):
        assert tissue_hu(hu) == pytest.approx((-105, 55), abs=10)


def test_noise_makes_no_fat_of_air_that_was_clipped(a_phantom):
    clipped = np.clip(a_phantom[0].hu_kji, -200, 300)
    noisy = clipped + np.random.default_rng(0).normal(0, 30, clipped.shape)
    assert tissue_hu(noisy) == pytest.approx((-105, 55), abs=30)


def test_without_fat_or_bone_nothing_is_told():
    hu = np.random.default_rng(0).normal(50, 10, (20, 40, 40))
    assert tissue_hu(hu) is None
    mask = np.zeros(hu.shape, bool)
    mask[5:15, 10:20, 30:39] = True
    _, grid = canonical_scan_of(hu)
    assert look_around(hu, mask, grid) == Anatomy()
    assert look_around(hu, np.zeros_like(mask), grid) == Anatomy()
    assert about_the_body(Anatomy()) == []


def canonical_scan_of(hu):
    from LiverUNetLib.scan.phantom import axial_affine
    from LiverUNetLib.scan.volume import CTVolume

    return canonical_scan(CTVolume(hu, axial_affine((5.0, 5.0, 5.0), hu.shape[::-1])))
