"""One step of learning, and the state that changes with it: network, averaged weights, optimizer."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss, DiceFocalLoss, DiceLoss
from torch import nn
from torch.optim.swa_utils import AveragedModel

from LiverUNetLib.card import THRESHOLD
from LiverUNetLib.engines import TorchNetwork
from LiverUNetLib.environment import Device
from LiverUNetLib.geometry import PreprocessingSpec
from LiverUNetLib.inference import predict_volume
from LiverUNetLib.steps import finish

from .cache import CachedCase
from .world import World

__all__ = ["LOSSES", "Agreement", "Learner", "NotFiniteError"]

logger = logging.getLogger(__name__)

# A pixel of a mask is liver if half of it is.
HALF = 0.5
# By the names that the settings use; the first one is the standard.
LOSSES = {"dice+cross-entropy": DiceCELoss, "dice": DiceLoss, "dice+focal": DiceFocalLoss}


class NotFiniteError(Exception):
    """The loss is infinite or not a number; the weights have not been changed by it."""


@dataclass(frozen=True)
class Agreement:
    """How an output agrees with its mask: loss, hard Dice, share of equal voxels."""

    loss: float
    dice: float
    accuracy: float


class Learner:
    """A network with all that learning needs.

    Args:
        network: fresh or trained, on the CPU.
        loss: one of LOSSES.
        learning_rate, weight_decay: of AdamW; the rate is given anew with every step.
        ema_decay: of the averaged weights.
        start_share: of the weights of the beginning in the averaged ones. What a trained network has learned
            before is kept by it (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022).
        gradient_norm: gradients are clipped to it.
        world: the processes that share the work.
    """

    def __init__(
        self,
        network: nn.Module,
        device: Device,
        *,
        loss: str,
        learning_rate: float,
        weight_decay: float,
        ema_decay: float,
        gradient_norm: float,
        start_share: float = 0.0,
        world: World | None = None,
    ) -> None:
        self._device, self._gradient_norm, self._world = device, gradient_norm, world or World()
        self._network = network.to(device.name, memory_format=torch.channels_last)
        self.averaged = AveragedModel(self._network, avg_fn=_moving_average(ema_decay), use_buffers=True)
        self._start_share = start_share
        self._start, self._mixture = (copy.deepcopy(self._network) for _ in range(2)) if start_share else (None, None)
        self._optimizer = torch.optim.AdamW(self._network.parameters(), lr=learning_rate, weight_decay=weight_decay)
        self._scaler = torch.amp.GradScaler(device.kind, enabled=device.dtype == "float16")
        self._loss = LOSSES[loss](sigmoid=True, batch=True)
        self._parts = 1

    def step(self, image: torch.Tensor, mask: torch.Tensor, rate: float) -> Agreement:
        """Learn from a batch. When a GPU's memory is too small the batch is processed in halves, which is logged.

        Of several processes each gives the whole batch, whose size is a multiple of their number.

        Args:
            image: normalised, float32 (batch, channels, rows, columns).
            mask: share of liver (batch, 1, rows, columns).
            rate: the learning rate.

        Raises:
            NotFiniteError: nothing was changed.
        """
        self._network.train()
        while True:
            self._optimizer.zero_grad()
            try:
                return self._learn(image, mask, rate)
            except torch.OutOfMemoryError:
                if self._device.kind == "cpu" or self._world.size > 1 or len(image) <= self._parts:
                    raise
                self._parts *= 2
                size = math.ceil(len(image) / self._parts)
                logger.warning(
                    "The memory of %s is too small; going on with %d slices at once.", self._device.name, size
                )

    def validate(self, case: CachedCase, spec: PreprocessingSpec, *, multiple: int) -> tuple[Agreement, np.ndarray]:
        """The averaged weights on a whole case, in 3D on the model grid, as `pipeline.segment` predicts it.

        Args:
            multiple: of rows and columns that the network takes.

        Returns:
            The agreement with the mask, and the probability of liver, float32 (slices, rows, columns).
        """
        image = spec.normalise(case.image.astype(np.float32))
        mask = torch.from_numpy(case.mask.astype(np.float32) / 255)
        network = TorchNetwork(self.averaged.module, self._device)
        steps = predict_volume(network, image, case.slice_mm, spec, multiple=multiple, threshold=THRESHOLD)
        probability = torch.from_numpy(finish(steps))
        loss = self._loss(torch.logit(probability, 1e-6)[:, None], mask[:, None]).item()
        return _agreement(loss, probability > THRESHOLD, mask > HALF), probability.numpy()

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes from step to step."""
        return {name: part.state_dict() for name, part in self._stateful().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` gave."""
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])

    def _learn(self, image: torch.Tensor, mask: torch.Tensor, rate: float) -> Agreement:
        total, logits = 0.0, []
        for images, masks in zip(image.chunk(self._parts), mask.chunk(self._parts), strict=True):
            share = self._world.share(images).contiguous(memory_format=torch.channels_last)
            with self._device.autocast():
                found = self._world.gather(self._network(share).float())
            loss = self._loss(found, masks) * (len(images) / len(image))
            if not math.isfinite(loss.item()):
                raise NotFiniteError
            self._scaler.scale(loss).backward()
            total += loss.item()
            logits.append(found.detach())
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._world.sum_gradients(self._network)
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._gradient_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.averaged.update_parameters(self._mixed())
        return _agreement(total, torch.cat(logits) > 0, mask > HALF)

    def _mixed(self) -> nn.Module:
        """The network with a share of its weights those of the beginning; the statistics of its norms are its own."""
        if self._mixture is None:
            return self._network
        self._mixture.load_state_dict(self._network.state_dict())
        with torch.no_grad():
            for weight, start in zip(self._mixture.parameters(), self._start.parameters(), strict=True):
                weight.lerp_(start, self._start_share)
        return self._mixture

    def _stateful(self) -> dict[str, Any]:
        return {
            "network": self._network,
            "averaged": self.averaged,
            "optimizer": self._optimizer,
            "scaler": self._scaler,
        }


def _moving_average(decay: float) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """An exponential moving average whose decay rises to `decay`, so that the first steps are soon forgotten."""

    def average(averaged: torch.Tensor, current: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        reached = min(decay, (1 + int(updates)) / (10 + int(updates)))
        return averaged + (current - averaged) * (1 - reached)

    return average


def _agreement(loss: float, found: torch.Tensor, reference: torch.Tensor) -> Agreement:
    """Dice is 1 if both are empty."""
    total = int(found.sum()) + int(reference.sum())
    dice = 2 * int((found & reference).sum()) / total if total else 1.0
    return Agreement(loss, dice, float((found == reference).float().mean()))
