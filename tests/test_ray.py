"""Two Ray nodes on this machine give the rows and scores that its own processes give.

Ray is what `make test-all` installs apart (see requirements/ray.in).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vjepa_training.data.dataset import Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.ray_nodes import FOLDER, environment, ray_nodes

TIMEOUT_S = 300.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.is_dir() and not os.environ.get("CI"), reason="no Ray; run `make test-all`"),
]


@pytest.fixture(scope="module")
def cluster():
    """Return the address of a cluster of two nodes with a CPU each."""
    assert FOLDER.is_dir(), "no ray in .vjepa; run `make test-all`, which installs it there"
    with ray_nodes(2) as address:
        yield address


def vjepa(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-P", "-m", "vjepa_cli.cli", *arguments]
    return subprocess.run(command, env=environment(), timeout=TIMEOUT_S, capture_output=True, text=True, check=False)


def done(*arguments: str) -> None:
    result = vjepa(*arguments)
    assert result.returncode == 0, result.stdout + result.stderr


def test_collect_writes_the_same_rows_on_two_nodes(cluster, tmp_path):
    command = ["collect", "--episodes", "5", "--episode-steps", "10", "--seed", "40", "--behaviour", "mix"]
    done(*command, "--out", str(tmp_path / "here"), "--workers", "1")
    done(*command, "--out", str(tmp_path / "there"), "--ray-address", cluster)
    here, there = Dataset(tmp_path / "here"), Dataset(tmp_path / "there")
    assert here.info.columns() == there.info.columns()
    for name in here.info.columns():
        np.testing.assert_array_equal(np.asarray(here[name]), np.asarray(there[name]), name)


def test_eval_gives_the_same_result_on_two_nodes(cluster, tmp_path):
    command = ["eval", "--through", "process", "--planner", "bc", "--protocol", "baseline", "--seed", "40"]
    command += ["--episodes", "3", "--batch-size", "2"]
    results = []
    for where in (["--workers", "1"], ["--ray-address", cluster]):
        done(*command, *where, "--json", str(tmp_path / "result.json"))
        results.append(json.loads((tmp_path / "result.json").read_text()))
    here, there = results
    assert there["config"]["ray_address"] == cluster
    other = {"workers", "config", "command", "wall_s", "latency_ms"}
    assert {name: here[name] for name in here.keys() - other} == {name: there[name] for name in there.keys() - other}
    assert here["episodes"] == 3


def test_what_a_node_refuses_is_refused_here_in_its_words(cluster):
    code = (
        "from functools import partial\n"
        "from vjepa_interfaces.errors import VjepaError\n"
        "from vjepa_perception.encoder import EncoderConfig, load_encoder\n"
        "from vjepa_training.ray_workers import run_on_ray\n"
        "try:\n"
        f"    run_on_ray(partial(load_encoder, EncoderConfig('./no_such_encoder')), [0], {cluster!r}, print)\n"
        "except VjepaError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-P", "-c", code]
    result = subprocess.run(command, env=environment(), timeout=TIMEOUT_S, capture_output=True, text=True, check=True)
    (said,) = result.stdout.splitlines()
    assert "no_such_encoder" in said


def test_an_address_without_a_cluster_is_named(tmp_path):
    result = vjepa("collect", "--out", str(tmp_path / "data"), "--ray-address", "127.0.0.1:1")
    assert result.returncode == 1
    assert "no Ray cluster at '127.0.0.1:1'" in result.stderr
    assert "Traceback" not in result.stderr
