"""What several commands of liver-unet-train share."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from LiverUNetLib.system.environment import Device

    from ..data.cache import Grids
    from ..run.folder import EpochLog

__all__ = ["DATA_HELP", "DEVICE_HELP", "device_for", "epoch_line", "prepare_cases"]

DATA_HELP = "folders: pairs *_orig.nii.gz / *_liver.nii.gz, 3D-IRCADb-01 as downloaded, nnU-Net or Decathlon"
DEVICE_HELP = "auto, cpu, cuda, cuda:N or mps (%(default)s)"


def device_for(name: str, engine: str = "auto") -> Device:
    """The device of that name; a note on the choice goes to stderr."""
    from LiverUNetLib.system.environment import choose_device

    device = choose_device(name, engine)
    if device.note:
        print(device.note, file=sys.stderr)
    return device


def prepare_cases(
    folders: Sequence[Path],
    cache: Path,
    grids: Grids,
    *,
    strict: bool = False,
    only: Collection[str] | None = None,
) -> None:
    """Find and prepare all cases, or `only` those with these names; prints a line for each."""
    from ..data.cache import prepare
    from ..data.layouts import find_data_sets
    from ..training.cost import check_disk

    data_sets = find_data_sets(folders)
    for data in data_sets:
        print(f"{data.folder}: {data.layout}, {len(data.cases)} cases")
    cases = [case for data in data_sets for case in data.cases if only is None or case.name in only]
    check_disk(cases, cache)
    for finding in prepare(cases, cache, grids, strict=strict):
        print(finding, flush=True)


def epoch_line(log: EpochLog) -> str:
    """A line about an epoch."""
    look = f"{log.stage}, " if log.stage else ""
    line = f"{look}epoch {log.epoch}: loss {log.training_loss:.4f}, Dice {log.training_dice:.4f}, {log.seconds:.0f} s"
    if log.validation_dice is None:
        return line
    worst, dice = min(log.validation_dice.items(), key=lambda item: item[1])
    return (
        f"{line}; validation loss {log.validation_loss:.4f}, 3D Dice {log.mean_validation_dice:.4f} "
        f"(worst {worst} {dice:.4f})"
    )
