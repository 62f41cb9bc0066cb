"""`vjepa reproduce` as people run it: from nothing to results, killed on the way, and again when all is there."""

import json
import signal
from pathlib import Path

import pytest
import yaml

TINY = {
    "kind": "encoder",
    "architecture": "vjepa2",
    "clip_frames": 8,
    "init_seed": 5,
    "preprocessing": {"resize": 64, "crop": 64},
    "model": {
        "crop_size": 64,
        "patch_size": 16,
        "frames_per_clip": 8,
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
LIMIT_S = 240.0
EXPERIMENTS = Path(__file__).resolve().parents[1] / "ros2_ws/src/training/experiments"
SMALL = {
    "explore": {"episodes": 12, "episode_steps": 30},
    "dynamics-mlp": {"epochs": 2},
    "baseline-reward": {"epochs": 2},
}
"""Experiments of the project, and options that make their stages quick."""


@pytest.fixture
def start(tmp_path, commands):
    """Return a function that starts `vjepa reproduce` of the project's experiments on less, for a tiny encoder."""
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "experiments").mkdir()
    for name, less in SMALL.items():
        experiment = yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text())
        for stage in experiment["stages"]:
            stage["config"] |= less
        (tmp_path / "experiments" / f"{name}.yaml").write_text(yaml.safe_dump(experiment))
    settings = ["--encoder", "tiny", "--device", "cpu", "--experiments", "experiments"]
    return lambda name: commands.start("reproduce", name, *settings)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_experiment_goes_from_nothing_to_its_result_even_where_it_is_killed(start, tmp_path, commands):
    dataset = tmp_path / "reproductions/tiny/datasets/explore"
    killed = start("baseline-reward")
    commands.wait_for(lambda: list(dataset.glob("parts/*")) or killed.poll() is not None, "the first episode")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    commands.wait_for(lambda: not commands.running(), "the end of what it had started")
    assert not (dataset / "info.json").exists()

    commands.finish(start("baseline-reward"))
    model = json.loads((tmp_path / "results/tiny/dynamics-mlp.json").read_text())
    heads = json.loads((tmp_path / "results/tiny/baseline-reward.json").read_text())
    assert model["training"]["preset"] == "dynamics-mlp"
    assert heads["training"]["distance"] is False
    assert (heads["kind"], heads["config"]["data"]) == ("train reward", "reproductions/tiny/datasets/explore")
    assert "--data reproductions/tiny/datasets/explore" in heads["command"]
    assert (tmp_path / "reproductions/tiny/models/baseline-reward/config.json").is_file()

    weights = tmp_path / "reproductions/tiny/models/baseline-reward/model.safetensors"
    before = weights.stat().st_mtime_ns
    assert "baseline-reward is done" not in commands.said
    commands.finish(start("baseline-reward"))
    assert "baseline-reward is done" in commands.said
    assert weights.stat().st_mtime_ns == before


@pytest.mark.timeout(300)
def test_interrupted_it_takes_its_command_with_it(start, commands):
    process = start("explore")
    commands.wait_for(lambda: len(commands.running()) > 1 or process.poll() is not None, "its command")
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == 130, commands.said
    commands.wait_for(lambda: not commands.running(), "the end of its command")
    assert "Traceback" not in commands.said
