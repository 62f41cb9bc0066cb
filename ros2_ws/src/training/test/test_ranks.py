"""Several processes train as one does, and a training that was killed continues in them."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from vjepa_interfaces.errors import VjepaError
from vjepa_training.trainers import ranks
from vjepa_training.trainers.configs import DynamicsTraining, Job
from vjepa_training.trainers.train_dynamics import train_dynamics
from vjepa_training.trainers.train_encoder import train_encoder

COMMAND = ["-m", "vjepa_cli.cli", "train"]
THREADS = {"OMP_NUM_THREADS": "1"}


def curve(work):
    """Return the learning curve in the checkpoint of a finished training: rows of steps and loss by part."""
    return json.loads(torch.load(work / "checkpoint.pt", weights_only=True)["beside"])


def assert_alike(one, other):
    """Check that two learning curves differ by rounding alone."""
    for part in ("train", "validation"):
        np.testing.assert_allclose(one[part], other[part], rtol=1e-3)


def words(options):
    return [str(word) for name, value in options.items() for word in (f"--{name}", value)]


@pytest.mark.slow
def test_two_processes_of_torchrun_train_an_encoder_as_one_does(small_data, tiny_encoder, training, tmp_path):
    train_encoder([small_data], training, Job(tmp_path / "alone", tmp_path / "alone.training", ""))
    options = {"data": small_data.folder, "encoder": tiny_encoder, "out": tmp_path / "both", "steps": 6}
    options |= {"batch-size": 8, "warmup-steps": 2, "grid": 2, "checkpoint-every": 3, "validation-share": 0.2}
    torchrun = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, *COMMAND, "encoder", *words(options)], env=os.environ | THREADS, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("encoder written to") == 1
    assert_alike(curve(tmp_path / "both.training"), curve(tmp_path / "alone.training"))
    assert json.loads((tmp_path / "both" / "config.json").read_text())["steps_done"] == 6


@pytest.mark.slow
def test_a_killed_training_of_dynamics_continues_on_two_hosts_without_a_common_folder(small_data, tmp_path):
    training = DynamicsTraining(
        members=2, action_repeat=2, horizon=2, components=12, epochs=2, batch_size=32, checkpoint_every=5
    )
    whole = train_dynamics(small_data, training, Job(tmp_path / "whole", tmp_path / "whole.training", ""))

    def kill(step, steps, figures):
        if step > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_dynamics(small_data, training, Job(tmp_path / "0", tmp_path / "0.training", "", kill))
    options = {"data": small_data.folder, "members": 2, "action-repeat": 2, "horizon": 2, "components": 12}
    options |= {"epochs": 2, "batch-size": 32, "checkpoint-every": 5}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    about = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **THREADS}
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", *COMMAND, "dynamics", *words(options | {"out": tmp_path / str(rank)})],
            env=os.environ | about | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    first, second = (process.communicate() for process in processes)
    assert [process.returncode for process in processes] == [0, 0], (first, second)
    assert "continuing from step 10 of" in first[0]
    assert "written to" not in second[0]
    assert "training" not in second[1], "no progress"
    assert_alike(curve(tmp_path / "0.training"), whole["curve"])
    assert (tmp_path / "0" / "config.json").exists()
    assert not (tmp_path / "1").exists()
    assert {path.suffix for path in (tmp_path / "1.training").iterdir()} == {".npy"}, "states, but no checkpoint"


def test_the_shares_of_a_batch_are_the_batch(monkeypatch):
    monkeypatch.setattr(ranks, "count", lambda: 3)
    batch = np.arange(12).reshape(2, 6)
    shares = []
    for number in range(3):
        monkeypatch.setattr(ranks, "rank", lambda number=number: number)
        shares.append(ranks.share(batch))
    assert {share.shape for share in shares} == {(2, 2)}
    np.testing.assert_array_equal(np.sort(np.concatenate(shares, axis=1)), batch)
    with pytest.raises(VjepaError, match="batch_size is 4; expected a multiple of 3, the number of processes"):
        ranks.share(np.arange(4))


def test_one_gpu_for_all_another_training_and_other_data_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(VjepaError, match="device is 'cuda:1' for all processes; expected cuda"), ranks.joined("cuda:1"):
        pass
    with pytest.raises(VjepaError, match="which only train encoder and train dynamics can share"):
        ranks.refuse_several()
    monkeypatch.delenv("RANK", raising=False)
    unknown = pytest.raises(VjepaError, match=r"not connected .*RANK expected.* start all of them by torchrun")
    with unknown, ranks.joined("cpu"):
        pass
    monkeypatch.setattr(ranks, "from_first", lambda value: "other")
    with pytest.raises(VjepaError, match="process 0 has other settings or data than process 0"):
        ranks.require_same("mine")
