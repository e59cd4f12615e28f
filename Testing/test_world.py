"""Two processes over gloo learn what one learns."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers import NETWORK, SETTINGS
from LiverUNetLib.errors import TrainingError
from LiverUNetLib.network import NetworkSpec, build_network
from LiverUNetTrainLib.run_folder import RunFolder
from LiverUNetTrainLib.world import World

SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from helpers import NETWORK, SETTINGS
from LiverUNetLib.environment import Device
from LiverUNetTrainLib.augmentation import AugmentationSettings
from LiverUNetTrainLib.cache import open_cache
from LiverUNetTrainLib.dataset import split_by_patient
from LiverUNetTrainLib.training import Trainer
from LiverUNetTrainLib.world import World

torch.set_num_threads(1)
cache, run, norm = open_cache(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
split = split_by_patient([case.name for case in cache.cases], held_out=["patient3"], validation=0.3)
# Gentle augmentation: a network that swings between two epochs says nothing of the processes.
gentle = AugmentationSettings(p_lesion=0, p_fluid=0, p_streaks=0, p_liver_shift=0, p_low_resolution=0, noise=0.05)
settings = replace(SETTINGS, epochs=int(sys.argv[4]), learning_rate=float(sys.argv[5]), ema_decay=0.98)
settings = replace(settings, augmentation=gentle, batch_size=8, empty_slices=1.0)
with World.joined() as world:
    trainer = Trainer(
        cache, split, run, network=replace(NETWORK, norm=norm), settings=settings, device=Device("cpu"), world=world
    )
    for _ in trainer.epochs():
        pass
world.end()
"""


@pytest.fixture
def train(a_cache, tmp_path):
    """Train in so many processes; returns the run folder."""
    script = tmp_path / "train.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{SCRIPT}")

    def run(processes: int, norm: str, *, epochs: int, rate: float) -> Path:
        folder = tmp_path / f"{norm}{processes}"
        launcher = (
            ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
        )
        arguments = [script, a_cache.folder, folder, norm, str(epochs), str(rate)]
        done = subprocess.run([sys.executable, *launcher, *arguments], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return folder

    return run


def test_with_instance_norm_two_processes_end_with_the_function_of_one(train):
    """What the networks compute is equal; biases before a normalisation change nothing, and drift by rounding."""
    probabilities, losses = [], []
    for processes in (1, 2):
        run = RunFolder(train(processes, "instance", epochs=1, rate=3e-4))
        network = build_network(replace(NETWORK, norm="instance")).eval()
        network.load_state_dict(run.weights("last"))
        with torch.inference_mode():
            probabilities.append(
                network(torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))).sigmoid()
            )
        losses.append(run.history()[-1].training_loss)
    assert (probabilities[0] - probabilities[1]).abs().max() < 1e-5
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_with_batch_norm_two_processes_learn_as_well_as_one(train):
    """Each normalises its own half of a batch, so that the weights part by more than rounding; one reaches 0.93."""
    last = RunFolder(train(2, "batch", epochs=45, rate=5e-3)).history()[-1]
    assert last.mean_validation_dice > 0.9


def test_a_batch_that_cannot_be_shared_equally_is_refused(a_trainer, a_cache, tmp_path, cpu):
    from LiverUNetTrainLib.dataset import split_by_patient
    from LiverUNetTrainLib.training import Trainer

    split = split_by_patient([case.name for case in a_cache.cases])
    with pytest.raises(TrainingError, match="3 processes cannot share batches of 4"):
        Trainer(
            a_cache,
            split,
            tmp_path / "run",
            network=NetworkSpec(in_channels=3, channels=(4, 8), strides=(2,)),
            settings=replace(SETTINGS, batch_size=4),
            device=cpu,
            world=World(0, 3),
        )


def test_one_process_alone_keeps_what_it_has():
    batch = torch.arange(6.0).view(3, 2)
    with World.joined() as world:
        assert (world.rank, world.size, world.speaks) == (0, 1, True)
        assert torch.equal(world.gather(world.share(batch)), batch)
        assert world.agree("x") == "x"
