"""What a training will cost, before it begins: disk, time and memory."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from LiverUNetLib.errors import TrainingError
from LiverUNetLib.models.engines import TorchNetwork
from LiverUNetLib.models.folder import LiverModel
from LiverUNetLib.models.network import build_network
from LiverUNetLib.models.spec import NetworkSpec
from LiverUNetLib.steps import Progress
from LiverUNetLib.system.environment import Device

from ..data.cache import Cache, CachedCase
from ..data.cases import Case
from ..run.options import TrainingOptions
from ..run.settings import TrainingSettings
from .coarse_sampling import CoarseSampler
from .fine_sampling import FineSampler
from .learner import Learner
from .plan import Plan
from .recipes import choose_recipe
from .sampler import Sampler

__all__ = ["Cost", "check_disk", "estimate_options", "estimate_training"]

# int16 image and uint8 mask, and a little for both on the coarse grid.
BYTES_A_VOXEL = 3.2
# The first steps are slower: memory is fetched and kernels are chosen.
WARM_STEPS, TIMED_STEPS = 1, 2
# Activations are kept for the backward pass, and again as gradients; allocators round up.
ACTIVATION_COPIES = 3


@dataclass(frozen=True)
class Cost:
    """The estimated time and memory of a training.

    Attributes:
        epoch_seconds: for an epoch of the fine look, its share of validation included.
        total_seconds: for all epochs of both looks.
        memory_gib: in addition to Python's own.
        coarse_seconds: the part of `total_seconds` that the coarse look takes.
    """

    epoch_seconds: float
    total_seconds: float
    memory_gib: float
    coarse_seconds: float = 0.0

    def summary(self, budget_minutes: float | None = None) -> str:
        """A line with time and memory, and how many epochs a time budget allows."""
        minutes = self.total_seconds / 60
        length = f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
        line = f"about {length} ({self.epoch_seconds:.0f} s an epoch), {self.memory_gib:.1f} GiB of memory"
        if budget_minutes is not None and budget_minutes < minutes:
            left = max(60 * budget_minutes - self.coarse_seconds, 0)
            line += f"; {budget_minutes:g} min are enough for {left // self.epoch_seconds:.0f} epochs"
        return line


def check_disk(cases: Sequence[Case], folder: Path, *, plane_px: int = 340, slices: int = 250) -> None:
    """Raise TrainingError unless the prepared slices of those cases that are not in `folder` yet fit on its disk.

    Args:
        plane_px, slices: of a large scan on the fine grid; most have fewer.
    """
    new = [case for case in cases if not (folder / case.name).is_dir()]
    needed = len(new) * slices * plane_px**2 * BYTES_A_VOXEL
    parent = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise TrainingError(
            f"{len(new)} cases need up to {needed / 2**30:.1f} GiB in {folder}, {free / 2**30:.1f} GiB are free; "
            "free some space or choose another folder."
        )


def estimate_options(
    options: TrainingOptions, cache: Cache, parent: LiverModel | None, device: Device
) -> Generator[Progress, None, Cost]:
    """What a training with these options costs, see `estimate_training`.

    Raises:
        TrainingError: nothing is left to learn from, or what is to be held out cannot be.
    """
    plan = Plan.for_recipe(
        cache, choose_recipe(options.recipe, parent, vars(options)), parent=parent, held_out=options.held_out
    )
    spec, settings = plan.spec, plan.settings
    sampler = FineSampler(plan.training, spec, settings, replayed=plan.replayed)
    fine = yield from estimate_training(sampler, spec.fine.network, settings, device, validated=plan.validation)
    if spec.coarse is None or parent:
        return fine
    settings = replace(settings, epochs=settings.coarse.epochs, batch_size=settings.coarse.batch_size)
    coarse_sampler = CoarseSampler(plan.training, spec, settings)
    coarse = yield from estimate_training(coarse_sampler, spec.coarse.network, settings, device)
    return replace(
        fine,
        total_seconds=fine.total_seconds + coarse.total_seconds,
        coarse_seconds=coarse.total_seconds,
        memory_gib=max(fine.memory_gib, coarse.memory_gib),
    )


def estimate_training(
    sampler: Sampler,
    network: NetworkSpec,
    settings: TrainingSettings,
    device: Device,
    *,
    validated: Sequence[CachedCase] = (),
) -> Generator[Progress, None, Cost]:
    """Take a few steps and calculate the whole from them."""
    shown = sampler.epoch(0)
    made = build_network(network)
    learner, size = Learner(made, device, settings), settings.batch_size
    steps = []
    for step in range(WARM_STEPS + TIMED_STEPS):
        yield Progress("Estimating", step, WARM_STEPS + TIMED_STEPS)
        started = time.perf_counter()
        image, mask = sampler.batch([shown[n % len(shown)] for n in range(size)], step, device.name)
        learner.step(image, mask, settings.learning_rate)
        steps.append(time.perf_counter() - started)
    validation = 0.0
    if validated:
        yield Progress("Estimating", WARM_STEPS + TIMED_STEPS, WARM_STEPS + TIMED_STEPS)
        started = time.perf_counter()
        sampler.probability(TorchNetwork(made, device), validated[0])
        validation = (time.perf_counter() - started) * len(validated)
    validation *= math.ceil(settings.epochs / settings.validate_every) / settings.epochs
    epoch = float(np.median(steps[WARM_STEPS:])) * math.ceil(len(shown) / size) + validation
    return Cost(epoch, epoch * settings.epochs, _memory_gib(made, tuple(image.shape), device))


def _memory_gib(network: torch.nn.Module, shape: tuple[int, ...], device: Device) -> float:
    """Weights with their averages and Adam's two moments, and the activations of a batch, all float32."""
    elements = [0]

    def count(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        elements[0] += output.numel()

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    with torch.no_grad():
        network(torch.zeros(1, *shape[1:], device=device.name))
    for hook in hooks:
        hook.remove()
    weights = sum(parameter.numel() for parameter in network.parameters())
    return 4 * (5 * weights + ACTIVATION_COPIES * shape[0] * elements[0]) / 2**30
