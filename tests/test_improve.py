"""`vjepa improve` as people run it: real rounds of a tiny world, killed on the way."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sim_bridge.env import SimConfig
from vjepa_perception.encoder import EncoderConfig
from vjepa_training.data.collect import CollectConfig, collect
from vjepa_training.trainers.configs import Job
from vjepa_training.trainers.train_dynamics import DynamicsTraining, train_dynamics
from vjepa_training.trainers.train_reward import RewardTraining, train_reward

TINY = {
    "kind": "encoder",
    "architecture": "vjepa2",
    "clip_frames": 4,
    "init_seed": 5,
    "preprocessing": {"resize": 32, "crop": 32},
    "model": {
        "crop_size": 32,
        "patch_size": 8,
        "tubelet_size": 2,
        "frames_per_clip": 4,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "mlp_ratio": 2.0,
        "pred_hidden_size": 32,
        "pred_num_hidden_layers": 1,
        "pred_num_attention_heads": 2,
        "pred_num_mask_tokens": 2,
    },
}
NODES = {
    "sim_bridge": {"image_size": [32, 32]},
    "vjepa_perception": {"encoder": "tiny", "clip_frames": 4, "grid": 2},
    "vjepa_planner": {
        "cem.dynamics": "dynamics",
        "cem.reward": "reward",
        "cem.policy": "",
        "cem.samples": 8,
        "cem.elites": 2,
        "cem.iterations": 1,
        "cem.horizon": 2,
        "cem.prior_samples": 0,
    },
}
ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 240.0
pytestmark = pytest.mark.slow
FEW = ["--episodes", "2", "--eval-episodes", "1", "--protocol", "baseline", "--epochs", "1"]


@pytest.fixture
def world(made, tmp_path) -> Path:
    """A folder with a tiny encoder, data, dynamics and heads, and a parameter file by which `cem` searches in them."""
    return shutil.copytree(made, tmp_path, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The same, of which every test has its copy."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "tiny").mkdir()
    (folder / "tiny/config.json").write_text(json.dumps(TINY))
    sim = SimConfig(episode_steps=15, image_size=(32, 32), seed=500)
    encoder = EncoderConfig(str(folder / "tiny"), clip_frames=4, grid=2)
    data = collect(folder / "data", CollectConfig(sim=sim, behaviour="random"), encoder, 10, 1, {"made": "by a test"})
    dynamics, reward = folder / "dynamics", folder / "reward"
    training = DynamicsTraining(members=2, action_repeat=2, horizon=2, components=8, state_projection="pca", epochs=1)
    train_dynamics(data, training, Job(dynamics, folder / "work.dynamics", "x"))
    train_reward(data, dynamics, RewardTraining(hidden=16, epochs=1), Job(reward, folder / "work.reward", "x"))
    parameters = yaml.safe_dump({node: {"ros__parameters": NODES[node]} for node in NODES})
    (folder / "cem.yaml").write_text(parameters)
    return folder


@pytest.fixture
def start(world, commands):
    """Return a function that starts `vjepa improve` there."""
    settings = ["--data", "data", "--params-file", "cem.yaml", "--out", "out", *FEW]
    return lambda *arguments: commands.start("improve", "--planner", "cem", *arguments, *settings)


@pytest.mark.timeout(900)
def test_a_round_is_taken_even_where_it_is_killed_and_ends_in_a_planner_that_drives(start, world, commands):
    out = world / "out"
    killed = start("--rounds", "1", "--episode-steps", "15")
    parts = out / "round-1/recorded/parts"
    commands.wait_for(lambda: parts.exists() or killed.poll() is not None, "the first round")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    commands.wait_for(lambda: not commands.running(), "the end of what it had started")
    assert not (out / "round-1/recorded/info.json").exists(), commands.said
    evaluated = (out / "start.json").stat().st_mtime_ns

    commands.finish(start("--rounds", "1", "--episode-steps", "15", "--json", "results/rounds.json"))
    assert (out / "start.json").stat().st_mtime_ns == evaluated
    (entry,) = json.loads((out / "rounds.json").read_text())["rounds"]
    written = json.loads((world / "results/rounds.json").read_text())
    assert written["rounds"] == [entry]
    assert (written["kind"], written["config"]["planner"]) == ("improve", "cem")
    assert written["command"].startswith("vjepa improve --data data")
    before, after = (json.loads((out / name).read_text()) for name in ("start.json", "round-1/candidate.json"))
    assert before["options"]["dynamics"] == "dynamics"
    assert after["options"]["dynamics"] == "out/round-1/dynamics"
    assert entry["difference"] == after["mean_return"] - before["mean_return"]
    section = (ROOT / "docs/interface.md").read_text().partition("## The JSON of rounds\n")[2]
    assert set(entry) == set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE))))
    assert entry["recorded"]["episodes"] == 2
    assert entry["data"]["episodes"] == 12
    current = yaml.safe_load((out / "current.yaml").read_text())["vjepa_planner"]["ros__parameters"]
    assert current["cem.dynamics"] == ("out/round-1/dynamics" if entry["accepted"] else "dynamics")
    trained = json.loads((out / "round-1/dynamics/config.json").read_text())["training"]
    assert (trained["components"], trained["members"], trained["epochs"]) == (8, 2, 1)


@pytest.mark.timeout(900)
def test_through_ros_a_round_is_recorded_built_and_evaluated_in_the_graph(start, world, commands):
    commands.finish(start("--rounds", "1", "--through", "ros"), 2 * LIMIT_S)
    (entry,) = json.loads((world / "out/rounds.json").read_text())["rounds"]
    assert [entry[name]["episodes"] for name in ("recorded", "data")] == [2, 12]
    results = [json.loads((world / "out" / name).read_text()) for name in ("start.json", "round-1/candidate.json")]
    assert [(result["through"], result["lockstep"]) for result in results] == [("ros", True)] * 2
    assert list((world / "out/round-1/bags").iterdir())


def run_beside(stack, world: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run a command of `vjepa` while the stack is listened to."""
    command = [sys.executable, "-P", "-m", "vjepa_cli.cli", *arguments, "--domain", str(stack.domain)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=world, **pipes) as process:
        stack.wait_for(lambda: process.poll() is not None, arguments[0], LIMIT_S)
        said, complained = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, said, complained)


@pytest.mark.timeout(900)
def test_a_running_stack_is_recorded_and_given_what_is_new_while_it_runs(world, start_stack):
    planner = NODES["vjepa_planner"] | {"cem.dynamics": str(world / "dynamics"), "cem.reward": str(world / "reward")}
    perception = NODES["vjepa_perception"] | {"encoder": str(world / "tiny")}
    nodes = NODES | {"vjepa_planner": planner, "vjepa_perception": perception}
    file = world / "stack.yaml"
    file.write_text(yaml.safe_dump({node: {"ros__parameters": nodes[node]} for node in nodes}))
    options = {"lockstep": True, "episode_steps": 20, "episodes": 0, "bag_dir": str(world / "bags")}
    stack = start_stack(planner="cem", params_file=str(file), **options)
    stack.wait_for_steps(1)

    given = ["--planner", "cem", "--params-file", "cem.yaml", "--data", "data", "--out", "out", *FEW]
    done = run_beside(stack, world, "improve", "--rounds", "1", "--through", "stack", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    (entry,) = json.loads((world / "out/rounds.json").read_text())["rounds"]
    assert entry["recorded"]["episodes"] >= 2
    assert entry["data"]["episodes"] == 10 + entry["recorded"]["episodes"]

    swapped = run_beside(stack, world, "planner", "set", "cem", "--params-file", "out/round-1/candidate.yaml")
    assert swapped.returncode == 0, swapped.stderr
    stack.wait_for_value("vjepa_planner", "swaps", lambda count: count == 1)
    (world / "gone.yaml").write_text("vjepa_planner: {ros__parameters: {cem.dynamics: /nowhere}}\n")
    refused = run_beside(stack, world, "planner", "set", "cem", "--params-file", "gone.yaml")
    assert refused.returncode == 1
    assert "no bundle at '/nowhere'" in refused.stderr
    stack.wait_for_steps(5)
    assert stack.driver == "cem"
    assert stack.monitor.value("vjepa_planner", "refused_latents") == 0
