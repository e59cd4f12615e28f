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

from LiverUNetLib.models.network import build_network
from LiverUNetLib.models.spec import NetworkSpec
from LiverUNetLib.system.environment import Device

from ..run.settings import TrainingSettings

__all__ = ["LOSSES", "BatchScores", "Learner", "NotFiniteError", "scores_of"]

logger = logging.getLogger(__name__)

# A voxel of a mask counts as liver if more than half of it is.
HALF = 0.5
# By their names in the settings; the first one is the default.
LOSSES = {"dice+cross-entropy": DiceCELoss, "dice": DiceLoss, "dice+focal": DiceFocalLoss}


# As torch's averaging hands them on.
Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


class NotFiniteError(Exception):
    """The loss is infinite or not a number; the weights have not been changed by it."""


@dataclass(frozen=True)
class BatchScores:
    """How an output agrees with its mask: loss, hard Dice, share of equal voxels."""

    loss: float
    dice: float
    accuracy: float


class Learner:
    """A network with all that learning needs.

    Args:
        network: on the CPU.
        tuned: it was trained before. `settings.parent_share` of its weights then stays in the averaged ones, to keep
            what it has learned (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022).
    """

    def __init__(self, network: nn.Module, device: Device, settings: TrainingSettings, *, tuned: bool = False) -> None:
        self.device, self._gradient_norm = device, settings.gradient_norm
        self._network = network.to(device.name)
        if all(weight.ndim < 5 for weight in network.parameters()):
            self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # not in torch's stubs
        self.averaged = AveragedModel(self._network, multi_avg_fn=_moving_average(settings.ema_decay), use_buffers=True)
        self._keep_share_of_start(settings.parent_share if tuned else 0.0)
        self._weight_decay = settings.weight_decay
        self._optimizer = self._new_optimizer()
        self._scaler = torch.amp.GradScaler(device.kind, enabled=device.dtype == "float16")
        self.loss = LOSSES[settings.loss](sigmoid=True, batch=True)
        self._parts = 1

    @classmethod
    def start(
        cls,
        spec: NetworkSpec,
        device: Device,
        settings: TrainingSettings,
        weights: dict[str, torch.Tensor] | None = None,
    ) -> Learner:
        """A learner of a network with these weights, or with fresh ones, which depend on `settings.seed` alone."""
        with torch.random.fork_rng():  # leaves the caller's generator as it was
            torch.manual_seed(settings.seed)
            network = build_network(spec)
        if weights:
            network.load_state_dict(weights)
        return cls(network, device, settings, tuned=weights is not None)

    def step(self, image: torch.Tensor, mask: torch.Tensor, rate: float) -> BatchScores:
        """Learn from a batch. When a GPU's memory is too small the batch is processed in halves, which is logged.

        Args:
            image: what the network takes, float32 (batch, channels, *sides).
            mask: share of liver (batch, 1, *sides).
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
                if self.device.kind == "cpu" or len(image) <= self._parts:
                    raise
                self._parts *= 2
                size = math.ceil(len(image) / self._parts)
                logger.warning(
                    "The memory of %s is too small; continuing with %d slices at once.", self.device.name, size
                )

    def restart(self, share: float) -> None:
        """Start again from the averaged weights, and keep a share of them in the new average."""
        self._network.load_state_dict(self.averaged.module.state_dict())
        self.averaged.n_averaged.zero_()
        self._optimizer = self._new_optimizer()
        self._keep_share_of_start(share, with_statistics=True)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes from step to step."""
        terms = {"share": self._start_share, "with_statistics": self._start_statistics}
        return {name: part.state_dict() for name, part in self._stateful().items()} | {"start_terms": terms}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._keep_share_of_start(**state["start_terms"])
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self._network.parameters(), weight_decay=self._weight_decay)

    def _learn(self, image: torch.Tensor, mask: torch.Tensor, rate: float) -> BatchScores:
        total, logits = 0.0, []
        for images, masks in zip(image.chunk(self._parts), mask.chunk(self._parts), strict=True):
            order = torch.channels_last if images.ndim == 4 else torch.contiguous_format
            with self.device.autocast():
                found = self._network(images.contiguous(memory_format=order))
            loss = self.loss(found.float(), masks) * (len(images) / len(image))
            if not math.isfinite(loss.item()):
                raise NotFiniteError
            self._scaler.scale(loss).backward()
            total += loss.item()
            logits.append(found.detach())
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._gradient_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.averaged.update_parameters(self._mixed())
        return _scores(total, torch.cat(logits) > 0, mask > HALF)

    def _mixed(self) -> nn.Module:
        """The network with a share of the weights of the start mixed in, see `_keep_share_of_start`."""
        if self._mixture is None or self._start is None:
            return self._network
        self._mixture.load_state_dict(self._network.state_dict())
        mixed, start = self._mixture.state_dict(), self._start.state_dict()
        names = mixed if self._start_statistics else dict(self._mixture.named_parameters())
        for name in names:
            if mixed[name].is_floating_point():
                mixed[name].lerp_(start[name], self._start_share)
        return self._mixture

    def _keep_share_of_start(self, share: float, *, with_statistics: bool = False) -> None:
        """Keep a share of the present weights in the average.

        Args:
            with_statistics: also of the statistics of its norms; not in fine-tuning, where the data have others.
        """
        self._start_share, self._start_statistics = share, with_statistics
        self._start = copy.deepcopy(self._network) if share else None
        self._mixture = copy.deepcopy(self._network) if share else None

    def _stateful(self) -> dict[str, Any]:
        stateful = {
            "network": self._network,
            "averaged": self.averaged,
            "optimizer": self._optimizer,
            "scaler": self._scaler,
        }
        return stateful | ({"start": self._start} if self._start_share else {})


def scores_of(loss: nn.Module, probability: np.ndarray, mask: np.ndarray, threshold: float) -> BatchScores:
    """Compare the probabilities of a whole case with its mask; Dice and accuracy count its voxels together, in 3D.

    Args:
        probability: float32 (slices, rows, columns).
        mask: share of liver, uint8, 255 is all.
        threshold: where the probability exceeds it there is liver.
    """
    found, share = torch.from_numpy(probability), torch.from_numpy(mask.astype(np.float32) / 255)
    value = loss(torch.logit(found, 1e-6)[:, None], share[:, None]).item()
    return _scores(value, found > threshold, share > HALF)


def _moving_average(decay: float) -> Callable[[Tensors, Tensors, torch.Tensor | int], None]:
    """An exponential moving average whose decay rises to `decay`, so that the first steps are soon forgotten."""

    def average(averaged: Tensors, current: Tensors, updates: torch.Tensor | int) -> None:
        reached = min(decay, (1 + int(updates)) / (10 + int(updates)))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - reached)
        else:
            torch._foreach_copy_(averaged, current)

    return average


def _scores(loss: float, found: torch.Tensor, reference: torch.Tensor) -> BatchScores:
    """Dice is 1 if both are empty."""
    total = int(found.sum()) + int(reference.sum())
    dice = 2 * int((found & reference).sum()) / total if total else 1.0
    return BatchScores(loss, dice, float((found == reference).float().mean()))
