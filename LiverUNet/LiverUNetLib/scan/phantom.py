"""A synthetic abdominal CT whose liver is known: for the demo and for tests, never for training.

The phantom consists of smooth shapes in patient coordinates (RAS, mm, origin in the middle of the body),
so that it can be sampled on any grid, in any orientation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..types import Shape, Spacing
from .volume import CTVolume

__all__ = ["abdomen", "axial_affine"]

# HU in the portal venous phase.
AIR, LUNG, FAT, MUSCLE = -1000, -850, -105, 55
BONE, MARROW, LIVER, SPLEEN, KIDNEY = 480, 190, 108, 122, 185
STOMACH, BOWEL, AORTA, VEIN, HEART, DISC = 25, 35, 165, 155, 130, 80

NOISE_HU = 14.0
# Softness of the borders in mm: the point spread of a soft tissue kernel.
EDGE_MM = 1.0

Coordinates = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Ellipsoid:
    """A rotated ellipsoid; `value` is negative inside and, near the border, about the distance in mm."""

    center: tuple[float, float, float]
    radii: tuple[float, float, float]
    turn_degrees: float = 0.0

    def value(self, ras: Coordinates) -> np.ndarray:
        """Signed value at coordinates, which are arrays of the same shape."""
        x, y, z = (axis - middle for axis, middle in zip(ras, self.center, strict=True))
        cosine, sine = np.cos(np.radians(self.turn_degrees)), np.sin(np.radians(self.turn_degrees))
        x, y = cosine * x + sine * y, cosine * y - sine * x
        a, b, c = self.radii
        value: np.ndarray = (np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2) - 1) * min(self.radii)
        return value


def axial_affine(spacing_ijk_mm: Spacing, shape_ijk: Shape) -> np.ndarray:
    """The affine (IJK to RAS, mm) of an axial scan, columns to the left, rows to posterior, centered on the origin."""
    affine = np.diag([-spacing_ijk_mm[0], -spacing_ijk_mm[1], spacing_ijk_mm[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape_ijk) - 1) / 2)
    return affine


def abdomen(
    affine: np.ndarray, shape_kji: Shape, *, seed: int = 0, noise_hu: float = NOISE_HU
) -> tuple[CTVolume, np.ndarray]:
    """Sample the phantom on a grid.

    Returns:
        The scan (int16 HU) and the mask of its liver (uint8), both of shape `shape_kji`.
    """
    hu = np.empty(shape_kji, dtype=np.float32)
    mask = np.empty(shape_kji, dtype=np.uint8)
    j, i = np.meshgrid(np.arange(shape_kji[1]), np.arange(shape_kji[2]), indexing="ij")
    for k in range(shape_kji[0]):
        ras = tuple(affine[row, 0] * i + affine[row, 1] * j + affine[row, 2] * k + affine[row, 3] for row in range(3))
        hu[k], liver = _slice(ras)
        mask[k] = liver < 0
    random = np.random.default_rng(seed)
    # White noise, smoothed a little as reconstruction kernels do, then scaled back to its deviation.
    for k in range(shape_kji[0]):
        noise = ndimage.gaussian_filter(random.standard_normal(shape_kji[1:], dtype=np.float32), 0.7)
        hu[k] += noise_hu * noise / max(float(noise.std()), 1e-6)
    return CTVolume(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), affine, "The phantom"), mask


def _slice(ras: Coordinates) -> tuple[np.ndarray, np.ndarray]:
    """HU and the signed value of the liver at these points."""
    x, y, z = ras
    body = _oval(ras, 172, 122)
    muscle = _oval(ras, 152, 102)
    cavity = _oval(ras, 138, 88)
    liver = _liver(ras, cavity)
    hu = np.full(x.shape, float(AIR), dtype=np.float32)
    paint = _Painter(hu)
    paint(body, MUSCLE)  # the skin
    paint(body + 2.5, FAT)
    paint(muscle, MUSCLE)
    paint(cavity, FAT)
    paint(np.maximum(cavity, _diaphragm(x, y) - z), LUNG)
    paint(Ellipsoid((-25, 30, 150), (60, 52, 62), 30).value(ras), HEART)
    paint(Ellipsoid((-98, -32, 18), (34, 46, 58), -20).value(ras), SPLEEN)
    stomach = Ellipsoid((-68, 28, 22), (48, 40, 52), 25).value(ras)
    paint(stomach, MUSCLE)
    paint(np.maximum(stomach + 4, y - 45), STOMACH)
    paint(np.maximum(stomach + 4, 45 - y), AIR)
    for middle in ((-60, 40, -75), (-20, 55, -95), (35, 50, -110), (80, 20, -118), (-85, 0, -105)):
        bowel = Ellipsoid(middle, (30, 24, 22), middle[0]).value(ras)
        paint(bowel, MUSCLE)
        paint(bowel + 3, BOWEL)
        paint(np.maximum(bowel + 3, middle[1] + 8 - y), AIR)
    for side in (-1, 1):
        paint(Ellipsoid((side * 62, -50, -62 - 8 * side), (27, 30, 56), side * 25).value(ras), KIDNEY)
        paint(Ellipsoid((side * 30, -72, -70), (24, 20, 160), 0).value(ras), MUSCLE)
    paint(liver, LIVER)
    _paint_vessels(paint, ras, liver)
    _paint_bones(paint, ras)
    return hu, liver


class _Painter:
    """Draws shapes with soft borders over an image."""

    def __init__(self, hu: np.ndarray) -> None:
        self._hu = hu

    def __call__(self, value: np.ndarray, hu: float) -> None:
        share = np.clip(0.5 - value / (2 * EDGE_MM), 0, 1)
        self._hu += (share * (hu - self._hu)).astype(np.float32)


def _oval(ras: Coordinates, a: float, b: float) -> np.ndarray:
    """The body's cross section: flatter at the back than an ellipse, a little narrower at the waist."""
    x, y, z = ras
    waist = 1 - 0.05 * np.exp(-(((z + 90) / 60) ** 2))
    flat = np.where(y < 0, 2.6, 2.1)
    value: np.ndarray = ((np.abs(x / (a * waist)) ** flat + np.abs(y / b) ** flat) ** (1 / flat) - 1) * b
    return value


def _diaphragm(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Its height at (x, y): a dome on each side, lower towards the back."""
    right = 95 - ((x - 65) / 11) ** 2 * 1.1 - ((y - 8) / 11) ** 2 * 1.2
    left = 80 - ((x + 75) / 11) ** 2 * 1.1 - ((y - 8) / 11) ** 2 * 1.2
    return np.maximum(np.maximum(right, left), -60)


def _liver(ras: Coordinates, cavity: np.ndarray) -> np.ndarray:
    """Right and left lobe under the diaphragm, without gallbladder, vena cava and hilum."""
    x, y, z = ras
    right = Ellipsoid((68, -2, 12), (76, 88, 98), 12).value(ras)
    left = Ellipsoid((-2, 48, 42), (82, 34, 40), -12).value(ras)
    lobes = _smooth_union(right, left, 12.0)
    under = z - (_diaphragm(x, y) - 3)
    visceral = _plane(ras, (0.45, 0.35, 0.82), -72)  # the surface that faces stomach, kidney and bowel
    liver: np.ndarray = np.maximum.reduce([lobes, cavity + 5, under, visceral])
    for hollow in (_gallbladder(ras), _vena_cava(ras), Ellipsoid((22, 8, -2), (16, 10, 24), 35).value(ras)):
        liver = np.maximum(liver, -hollow)
    return liver


def _plane(ras: Coordinates, normal: tuple[float, float, float], offset: float) -> np.ndarray:
    """Negative on the side of the normal beyond `offset`."""
    (x, y, z), (a, b, c) = ras, normal
    value: np.ndarray = offset - (a * x + b * y + c * z)
    return value


def _smooth_union(one: np.ndarray, other: np.ndarray, softness_mm: float) -> np.ndarray:
    blend = np.clip(0.5 + 0.5 * (other - one) / softness_mm, 0, 1)
    union: np.ndarray = other + (one - other) * blend - softness_mm * blend * (1 - blend)
    return union


def _gallbladder(ras: Coordinates) -> np.ndarray:
    return Ellipsoid((52, 50, -38), (13, 20, 26), 0).value(ras)


def _vena_cava(ras: Coordinates) -> np.ndarray:
    return Ellipsoid((22, -42, 0), (13, 11, 1e4), 0).value(ras)


def _paint_vessels(paint: Callable[[np.ndarray, float], None], ras: Coordinates, liver: np.ndarray) -> None:
    paint(_gallbladder(ras) + 1, 8)
    paint(_vena_cava(ras) + 1, VEIN)
    paint(Ellipsoid((-14, -48, 0), (12, 12, 1e4), 0).value(ras), AORTA)
    paint(Ellipsoid((20, 8, -4), (9, 8, 22), 0).value(ras), VEIN)
    for center, turn, length in (
        ((60, 5, 8), 15, 45),
        ((70, -35, 25), -30, 40),
        ((50, 30, 40), 70, 36),
        ((10, 40, 40), 170, 40),
    ):
        branch = Ellipsoid(center, (length, 4.5, 4.5), turn).value(ras)
        paint(np.maximum(branch, liver + 4), VEIN)


def _paint_bones(paint: Callable[[np.ndarray, float], None], ras: Coordinates) -> None:
    """Spine with canal and discs, and ribs that descend to the front."""
    _, y, z = ras
    spine = Ellipsoid((0, -76, 0), (24, 19, 1e4), 0).value(ras)
    disc = np.abs((z + 10) % 34 - 17) - 13.5  # positive between two vertebrae
    paint(spine, BONE)
    paint(spine + 3, MARROW)
    paint(np.maximum(spine, -disc), DISC)
    paint(np.maximum(Ellipsoid((0, -108, 0), (9, 14, 1e4), 0).value(ras), disc), BONE)
    paint(Ellipsoid((0, -101, 0), (10, 8, 1e4), 0).value(ras), 20)
    shell = np.abs(_oval(ras, 145, 95)) - 5
    height = z - 0.45 * y
    rib = np.maximum(shell, np.abs((height + 500) % 30 - 15) - 7)
    rib = np.maximum(rib, -z - 70)
    rib = np.maximum(rib, y - 75)
    paint(rib, BONE)
    paint(rib + 2.5, MARROW)
