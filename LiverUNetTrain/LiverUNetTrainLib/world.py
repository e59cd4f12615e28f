"""Several processes that train one network: what `torchrun` starts, or one process alone.

Every process draws the same batch and takes its share of it; logits are gathered, so that the
loss, whose Dice is that of the whole batch, is the same as in one process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed

__all__ = ["World"]

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """All processes, and which one this is; process 0 speaks and writes."""

    rank: int = 0
    size: int = 1

    @classmethod
    @contextmanager
    def joined(cls) -> Iterator[World]:
        """For a while, the processes that `torchrun` started: over NCCL if each has a GPU, else over gloo."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            yield cls()
            return
        gpus = torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
        distributed.init_process_group("nccl" if gpus else "gloo")
        try:
            yield cls(distributed.get_rank(), size)
            distributed.barrier()  # nobody leaves while another still talks
        finally:
            distributed.destroy_process_group()

    def end(self) -> None:
        """End this process at once if it is one of several and all its work is done.

        torch 2.13 aborts about one in twenty processes that have left a gloo group while Python winds
        down ("terminate called without an active exception"), and torchrun takes that for a failure.
        """
        if self.size > 1:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    @property
    def speaks(self) -> bool:
        """Whether this process is the one that writes files and tells people."""
        return self.rank == 0

    def device_name(self, name: str) -> str:
        """The device of this process: a GPU of its own where GPUs were asked for."""
        if self.size > 1 and name in ("auto", "cuda") and distributed.get_backend() == "nccl":
            return f"cuda:{os.environ['LOCAL_RANK']}"
        return name

    def share(self, batch: torch.Tensor) -> torch.Tensor:
        """This process's part of a batch."""
        return batch.chunk(self.size)[self.rank]

    def gather(self, mine: torch.Tensor) -> torch.Tensor:
        """The parts of all processes in their order; gradients flow through `mine` alone."""
        if self.size == 1:
            return mine
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(parts, mine.detach().contiguous())
        parts[self.rank] = mine
        return torch.cat(parts)

    def sum_gradients(self, network: torch.nn.Module) -> None:
        """Add up the gradients of all processes."""
        if self.size > 1:
            for parameter in network.parameters():
                distributed.all_reduce(parameter.grad)

    def agree(self, value: T) -> T:
        """What process 0 has."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]
