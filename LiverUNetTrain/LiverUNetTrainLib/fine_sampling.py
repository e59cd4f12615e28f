"""What the fine look learns from: slices out of stacks such as scanners make, and what the coarse look has found."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import interpolate

from LiverUNetLib.engines import Network
from LiverUNetLib.grid import Grid, resample
from LiverUNetLib.looks import UNKNOWN, Prior, fine_probabilities, prior_channel
from LiverUNetLib.spec import ModelSpec
from LiverUNetLib.steps import finish

from .augmentation import augment
from .cache import CachedCase
from .settings import PriorSettings, StackSettings, TrainingSettings

__all__ = ["FineSampler", "Slice"]

# A canvas is moved by up to so much beyond the place where it shows the whole liver, or as much of it as it can.
JITTER_MM = 15.0
# The log odds that a distorted prior keeps to; of surer ones nothing would be left to distort.
SUREST = 6.0


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice of a case; with its neighbours it is drawn as part of some stack."""

    case: CachedCase
    index: int


@dataclass(frozen=True)
class _Stack:
    """Blocks of slices of a case: block n begins at slice `first` + n * `block`; there are blocks `low` to `high`."""

    first: int
    block: int
    low: int
    high: int

    def slices(self, block: int) -> slice:
        start = self.first + block * self.block
        return slice(start, start + self.block)


class FineSampler:
    """Draws slices of cached cases; what it draws depends on its arguments alone.

    Args:
        priors: what the coarse look has found in a case, by its name; None if the model has no coarse look.
        replayed: cases of which only some slices are shown, `settings.replay` for each slice of the others.
    """

    def __init__(
        self,
        cases: Sequence[CachedCase],
        spec: ModelSpec,
        settings: TrainingSettings,
        *,
        priors: Callable[[str], Prior] | None = None,
        replayed: Collection[str] = (),
    ) -> None:
        self._cases, self._spec, self._settings = cases, spec, settings
        self._priors, self._replayed = priors, replayed
        self._has_liver = {case.name: (case.mask > 127).any(axis=(1, 2)) for case in cases}
        self._box = {case.name: _plane_box(case.mask) for case in cases}
        sides = (math.ceil(mm / case.grids.pixel_mm) for mm in settings.canvas_mm for case in cases[:1])
        multiple = spec.fine.network.multiple
        self._canvas = tuple(-(-side // multiple) * multiple for side in sides)

    def epoch(self, epoch: int) -> list[Slice]:
        """Slices with liver and a share of those without, in random order."""
        random = np.random.default_rng([self._settings.seed, epoch])
        new, old = [], []
        for case in self._cases:
            has_liver = self._has_liver[case.name]
            chosen = has_liver | (random.random(len(has_liver)) < self._settings.empty_slices)
            part = old if case.name in self._replayed else new
            part += [Slice(case, int(index)) for index in np.flatnonzero(chosen)]
        random.shuffle(old)
        new += old[: round(self._settings.replay * len(new))]
        random.shuffle(new)
        return new

    def batch(self, slices: Sequence[Slice], seed: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Slices as they are learned from.

        Returns:
            What the network takes, float32 (batch, channels, *canvas), and share of liver (batch, 1, *canvas).
        """
        image, mask, prior = self.read(slices, seed)
        others = torch.cat([mask, prior], dim=1).to(device)
        generator = torch.Generator().manual_seed(seed)
        image = self._spec.normalise(image).to(device)
        image, others = augment(image, others, self._settings.augmentation, generator)
        mask, prior = others[:, :1], others[:, 1:]
        return (image if self._priors is None else torch.cat([image, prior_channel(prior)], dim=1)), mask

    def read(self, slices: Sequence[Slice], seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """HU with context, share of liver and prior, before augmentation; float32 (batch, …, *canvas)."""
        random = np.random.default_rng(seed)
        parts = zip(*(self._read(each, random) for each in slices), strict=True)
        return tuple(torch.from_numpy(np.stack(part)) for part in parts)

    def probability(self, network: Network, case: CachedCase) -> np.ndarray:
        """What the network finds in a whole case, as `pipeline.segment` sees it: where the prior says, float32."""
        probability = np.zeros(case.image.shape, np.float32)
        coarse, shown_mm = self._spec.coarse, case.fine_grid.slices.stop_mm
        prior = self._priors(case.name) if coarse and shown_mm >= coarse.shortest_mm else None
        box = prior.box(case.fine_grid, self._spec) if prior else case.fine_grid.whole
        steps = fine_probabilities(
            case.image[box].astype(np.float32), case.fine_grid.part(box), self._spec, network, prior
        )
        probability[box] = finish(steps)
        return probability

    def image(self, case: CachedCase) -> np.ndarray:
        """The HU of a whole case."""
        return case.image

    def mask(self, case: CachedCase) -> np.ndarray:
        """Its share of liver, uint8."""
        return case.mask

    def _read(self, each: Slice, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        case, settings = each.case, self._settings
        stack = _stack(case, each.index, settings.stacks, random)
        steps = np.rint(np.array(self._spec.fine.context_mm) / (stack.block * case.slice_mm)).astype(int)
        context = steps.clip(stack.low, stack.high) if random.random() >= settings.stacks.p_alone else 0 * steps
        rows, columns = (
            _place(found, size, full, round(JITTER_MM / case.grids.pixel_mm), random)
            for found, size, full in zip(self._box[case.name], self._canvas, case.image.shape[1:], strict=True)
        )
        blocks = {n: _crop(case.image, stack.slices(n), rows, columns, self._spec.window_hu[0]) for n in set(context)}
        image = np.stack([blocks[n] for n in context])
        mask = _crop(case.mask, stack.slices(0), rows, columns, 0)[None] / 255
        shown_mm = (stack.high - stack.low + 1) * stack.block * case.slice_mm
        place = case.fine_grid.part((stack.slices(0), rows, columns))
        return image, mask, self._prior(case.name, place, shown_mm, random)

    def _prior(self, name: str, place: Grid, shown_mm: float, random: np.random.Generator) -> np.ndarray:
        """What the fine look is told of a slice, (1, rows, columns)."""
        settings, shape = self._settings.prior, (1, *place.shape[1:])
        short = self._priors is None or shown_mm < self._spec.coarse.shortest_mm
        if short or random.random() < settings.p_hidden:
            return np.full(shape, UNKNOWN, np.float32)
        known = self._priors(name)
        thick = Grid(place.slices.covered(place.slices.size * place.slices.step_mm), place.rows, place.columns)
        prior = finish(resample(known.probability, known.grid, thick))
        return _changed(prior, settings, place.rows.step_mm, random)


def _changed(prior: np.ndarray, settings: PriorSettings, pixel_mm: float, random: np.random.Generator) -> np.ndarray:
    """A prior as wrong as one may be."""
    if random.random() < settings.p_shifted:
        most = round(settings.shift_mm / pixel_mm)
        prior = np.roll(prior, random.integers(-most, most + 1, 2), axis=(1, 2))
    if random.random() < settings.p_distorted:
        few = random.standard_normal((1, 1, *(max(side // 32, 2) for side in prior.shape[1:])), dtype=np.float32)
        field = interpolate(torch.from_numpy(few), size=prior.shape[1:], mode="bicubic")[0].numpy()
        odds = np.log((prior + 1e-6) / (1 - prior + 1e-6)).clip(-SUREST, SUREST)
        prior = 1 / (1 + np.exp(-(odds + field * random.uniform(0, settings.distortion))))
    return prior.astype(np.float32)


def _stack(case: CachedCase, index: int, settings: StackSettings, random: np.random.Generator) -> _Stack:
    """A stack that has this slice in its block 0."""
    length, block = len(case.image), 1
    if random.random() < settings.p_thick:
        thickness_mm = math.exp(random.uniform(math.log(settings.thinnest_mm), math.log(settings.thickest_mm)))
        block = min(max(round(thickness_mm / case.slice_mm), 1), length)
    first = min(max(index - int(random.integers(block)), 0), length - block)
    low, high = -(first // block), (length - first) // block - 1
    if random.random() < settings.p_short:
        count = int(random.integers(1, settings.longest_short + 1))
        below = int(random.integers(count))
        low, high = max(low, -below), min(high, count - 1 - below)
    return _Stack(first, block, low, high)


def _place(found: slice, size: int, full: int, jitter: int, random: np.random.Generator) -> slice:
    """Where along an axis a canvas shows the liver; it may reach a little beyond the image."""
    free = abs(size - (found.stop - found.start)) / 2 + jitter
    start = (found.start + found.stop - size) / 2 + random.uniform(-free, free)
    start = round(min(max(start, min(-jitter, full - size)), max(full - size + jitter, 0)))
    return slice(start, start + size)


def _crop(volume: np.ndarray, slices: slice, rows: slice, columns: slice, fill: float) -> np.ndarray:
    """The mean of some slices on a canvas, float32; `fill` where there is no image."""
    canvas = np.full((rows.stop - rows.start, columns.stop - columns.start), fill, dtype=np.float32)
    inside, there = [], []
    for part, full in zip((rows, columns), volume.shape[1:], strict=True):
        start, stop = max(part.start, 0), min(part.stop, full)
        inside.append(slice(start, stop))
        there.append(slice(start - part.start, stop - part.start))
    canvas[tuple(there)] = volume[(slices, *inside)].mean(axis=0, dtype=np.float32)
    return canvas


def _plane_box(mask: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns that show liver in any slice; all if none does."""
    found = np.logical_or.reduce(mask > 127)
    box = []
    for axis in (1, 0):
        shown = np.flatnonzero(found.any(axis=axis))
        box.append(slice(int(shown[0]), int(shown[-1]) + 1) if shown.size else slice(0, found.shape[1 - axis]))
    return tuple(box)
