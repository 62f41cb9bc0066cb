"""`vjepa probe` as a user runs it: the table, the JSON, the page and the picture, of a few short episodes."""

import json

import pytest

from vjepa_cli.cli import main
from vjepa_interfaces.bundle import write_bundle

TINY = {
    "kind": "encoder",
    "architecture": "vjepa2",
    "clip_frames": 4,
    "init_seed": 5,
    "model": {
        "crop_size": 32,
        "patch_size": 8,
        "tubelet_size": 2,
        "frames_per_clip": 4,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    },
    "preprocessing": {"crop": 32, "resize": 32},
}
SIZES = ["--episodes", "6", "--episode-steps", "10", "--seed", "20", "--workers", "1", "--device", "cpu"]


@pytest.fixture
def vjepa(monkeypatch, capsys):
    """Return a function that runs a command line and returns its status, what it printed and what it complained of."""
    monkeypatch.setattr("vjepa_training.probes.probe_suite.PIXELS", 8)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["vjepa", *arguments])
        with pytest.raises(SystemExit) as exit_info:
            main(list(arguments))
        return exit_info.value.code, *capsys.readouterr()

    return run


def test_a_probe_ends_in_a_table_json_a_page_and_a_picture(vjepa, tmp_path):
    files = {name: tmp_path / "results" / f"probe.{name}" for name in ("json", "md", "png")}
    options = ["--json", str(files["json"]), "--markdown", str(files["md"]), "--picture", str(files["png"])]
    encoder = str(write_bundle(tmp_path / "tiny", TINY, "").path)
    status, printed, said = vjepa("probe", "--encoder", encoder, *SIZES, "--no-attentive", *options)
    assert status == 0, said
    assert "simulating 6 episodes, seeds 20 to 25" in said
    result = json.loads(files["json"].read_text())
    assert result["encoder"] == "tiny"
    assert result["data"]["seed"] == 20
    assert result["versions"]["torch"]
    assert result["command"].startswith("vjepa probe --encoder ")
    fingertip = next(score for score in result["scores"] if score["target"] == "fingertip")
    assert {"value", "interval_95", "rmse", "rmse_interval_95", "distance_rms", "test_episodes"} <= fingertip.keys()
    header, _, first, *_ = printed.splitlines()
    assert [cell.strip() for cell in header.split("|")[3:-1]] == [
        "encoder, grid",
        "untrained, grid",
        "encoder, mean",
        "untrained, mean",
        "pixels, two frames",
    ]
    assert first.split("|")[1].strip() == "fingertip"
    assert f"{fingertip['value']:.4f}" in first
    assert "left out: target size: it is the same in every row" in printed
    low, high = fingertip["interval_95"]
    assert f"{fingertip['value']:.4f} ({low:.4f} to {high:.4f})" in files["md"].read_text()
    assert files["png"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "no dataset at 'nowhere'"),
        (["--data", "nowhere", "--episodes", "3"], "--data has episodes of its own; leave out --task, --episodes"),
        (["--encoder", "nope"], "no encoder at 'nope'"),
        (["--json", "/"], "cannot write /: it is a folder"),
        (
            [*SIZES, "--episodes", "2", "--no-attentive"],
            "2 episodes cannot be split into training, validation and test",
        ),
    ],
)
def test_what_cannot_be_probed_is_refused_in_a_line(vjepa, arguments, message):
    status, printed, said = vjepa("probe", *arguments)
    assert (status, printed) == (1, "")
    assert message in said.splitlines()[-1]
