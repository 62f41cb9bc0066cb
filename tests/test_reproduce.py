"""`vjepa reproduce` as people run it: from nothing to results, killed on the way, and again when all is there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


@pytest.fixture
def start(tmp_path):
    """Return a function that starts `vjepa reproduce` for a tiny encoder, on a dozen episodes and epochs."""
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(TINY))
    started = []

    def command(*arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-P", "-m", "vjepa_bringup.cli", "reproduce", "--encoder", "tiny", *arguments]
        environment = {**os.environ, "VJEPA_TEST_DIVISOR": "1000"}
        with (tmp_path / "said").open("w") as said:
            started.append(
                subprocess.Popen([*command, "--device", "cpu"], cwd=tmp_path, env=environment, stdout=said, stderr=said)
            )
        return started[-1]

    yield command
    for process in started:
        process.kill()
        process.wait()


def processes_in(folder: Path) -> list[int]:
    """The processes whose working folder this is."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve() == folder and (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {LIMIT_S} s"
        time.sleep(0.02)


@pytest.mark.timeout(900)
def test_a_row_goes_from_nothing_to_its_result_even_where_it_is_killed(start, tmp_path):
    dataset = tmp_path / "reproductions/tiny/datasets/explore"
    killed = start("reward-old")
    wait_for(lambda: list(dataset.glob("parts/*")) or killed.poll() is not None, "the first episode")
    killed.send_signal(signal.SIGKILL)
    wait_for(lambda: not processes_in(tmp_path), "the end of what it had started")
    assert not (dataset / "info.json").exists()

    assert start("reward-old").wait(LIMIT_S) == 0, (tmp_path / "said").read_text()
    model = json.loads((tmp_path / "results/tiny/dynamics-mlp.json").read_text())
    heads = json.loads((tmp_path / "results/tiny/reward-old.json").read_text())
    assert model["training"]["preset"] == "dynamics-mlp"
    assert heads["training"]["distance"] is False
    assert "--data reproductions/tiny/datasets/explore" in heads["command"]
    assert (tmp_path / "reproductions/tiny/models/reward-old/config.json").is_file()

    weights = tmp_path / "reproductions/tiny/models/reward-old/model.safetensors"
    before = weights.stat().st_mtime_ns
    assert start("reward-old").wait(LIMIT_S) == 0
    assert "reward-old is done" in (tmp_path / "said").read_text()
    assert weights.stat().st_mtime_ns == before


@pytest.mark.timeout(300)
def test_interrupted_it_takes_its_command_with_it(start, tmp_path):
    process = start("explore")
    wait_for(lambda: len(processes_in(tmp_path)) > 1 or process.poll() is not None, "its command")
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == 130, (tmp_path / "said").read_text()
    wait_for(lambda: not processes_in(tmp_path), "the end of its command")
    assert "Traceback" not in (tmp_path / "said").read_text()
