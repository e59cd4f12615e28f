"""What a training will cost, before it begins: disk, time and memory."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from LiverUNetLib.engines import TorchNetwork
from LiverUNetLib.environment import Device
from LiverUNetLib.errors import TrainingError
from LiverUNetLib.inference import predict
from LiverUNetLib.model import LiverModel
from LiverUNetLib.network import NetworkSpec, build_network
from LiverUNetLib.steps import Progress, finish

from .augmentation import augment
from .cache import Cache
from .dataset import Case
from .learner import Learner
from .order import TrainingOrder
from .recipes import choose_recipe, split_cases
from .sampling import SliceSampler
from .settings import TrainingSettings

__all__ = ["Cost", "check_disk", "estimate_order", "estimate_training"]

# int16 image and uint8 mask, and both again as a cube, which is larger where slices are far apart.
BYTES_A_VOXEL = 8
# The first steps are slower: memory is fetched and kernels are chosen.
WARM_STEPS, TIMED_STEPS = 1, 2
# Activations are kept for the way back, and again as gradients; allocators round up.
ACTIVATION_COPIES = 3


@dataclass(frozen=True)
class Cost:
    """Seconds for an epoch, its share of validation included, and for all; memory in GiB beside Python's own."""

    epoch_seconds: float
    total_seconds: float
    memory_gib: float

    def words(self, budget_minutes: float | None = None) -> str:
        """In a line, and what a time budget allows."""
        minutes = self.total_seconds / 60
        length = f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
        line = f"about {length} ({self.epoch_seconds:.0f} s an epoch), {self.memory_gib:.1f} GiB of memory"
        if budget_minutes is not None and budget_minutes < minutes:
            line += f"; {budget_minutes:g} min are enough for {60 * budget_minutes // self.epoch_seconds:.0f} epochs"
        return line


def check_disk(cases: Sequence[Case], folder: Path, *, canvas_px: int = 256, slices: int = 250) -> None:
    """Raise TrainingError unless the prepared slices of those cases that are not in `folder` yet fit on its disk.

    Args:
        slices: of a long scan on the model grid; most have fewer.
    """
    new = [case for case in cases if not (folder / case.name).is_dir()]
    needed = len(new) * slices * canvas_px**2 * BYTES_A_VOXEL
    parent = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise TrainingError(
            f"{len(new)} cases need up to {needed / 2**30:.1f} GiB in {folder}, {free / 2**30:.1f} GiB are free; "
            "free some space or choose another folder."
        )


def estimate_order(
    order: TrainingOrder, cache: Cache, parent: LiverModel | None, device: Device
) -> Generator[Progress, None, Cost]:
    """What a training costs as it is ordered, see `estimate_training`.

    Raises:
        TrainingError: nothing is left to learn from, or what is to be held out cannot be.
    """
    recipe = choose_recipe(order.recipe, parent, vars(order))
    split, replayed = split_cases(cache, recipe, parent, order.held_out)
    training, validation = (
        SliceSampler(recipe.view(cache), cache.select(names)) for names in (split.training, split.validation)
    )
    settings = recipe.settings
    slices = training.epoch(0, 0, empty_slices=settings.empty_slices, replayed=replayed, replay=settings.replay)
    validated = sum(len(stack.has_liver) for stack in validation.stacks)
    return (
        yield from estimate_training(
            len(slices), recipe.network, settings, device, validated=validated, canvas_px=cache.canvas_px
        )
    )


def estimate_training(
    slices: int,
    network: NetworkSpec,
    settings: TrainingSettings,
    device: Device,
    *,
    validated: int = 0,
    canvas_px: int = 256,
) -> Generator[Progress, None, Cost]:
    """Take a few steps on random slices and reckon from them.

    Args:
        slices: that an epoch shows.
        validated: slices of the patients that validate, in all views.
    """
    random = torch.Generator().manual_seed(0)
    shape = (settings.batch_size, network.in_channels, canvas_px, canvas_px)
    image = torch.rand(shape, generator=random) * 2 - 1
    mask = (torch.rand(shape, generator=random)[:, :1] > 0.8).float()
    made = build_network(network)
    memory = _memory_gib(made, shape)
    pupil = Learner(
        made,
        device,
        loss=settings.loss,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        ema_decay=settings.ema_decay,
        gradient_norm=settings.gradient_norm,
    )
    context = np.zeros(shape[:2], dtype=np.int64)
    steps, looks = [], []
    for step in range(WARM_STEPS + TIMED_STEPS):
        yield Progress("Estimating", step, WARM_STEPS + TIMED_STEPS)
        started = time.perf_counter()
        changed = augment(image.to(device.name), mask.to(device.name), settings.augmentation, random)
        pupil.step(*changed, settings.learning_rate)
        stepped = time.perf_counter()
        finish(predict(TorchNetwork(made, device), image[:, 0].numpy(), context))
        steps.append(stepped - started)
        looks.append(time.perf_counter() - stepped)
    step, look = (float(np.median(seconds[WARM_STEPS:])) for seconds in (steps, looks))
    validation = look * validated / settings.batch_size * math.ceil(settings.epochs / settings.validate_every)
    epoch = step * math.ceil(slices / settings.batch_size) + validation / settings.epochs
    return Cost(epoch, epoch * settings.epochs, memory)


def _memory_gib(network: torch.nn.Module, shape: tuple[int, ...]) -> float:
    """Weights with their averages and Adam's two moments, and the activations of a batch, all float32."""
    elements = [0]

    def count(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        elements[0] += output.numel()

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    with torch.no_grad():
        network(torch.zeros(1, *shape[1:]))
    for hook in hooks:
        hook.remove()
    weights = sum(parameter.numel() for parameter in network.parameters())
    return 4 * (5 * weights + ACTIVATION_COPIES * shape[0] * elements[0]) / 2**30
