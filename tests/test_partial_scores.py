"""Ctrl-C keeps the scores of the episodes that have ended, through ROS and in one process."""

import json

import pytest

from tests.conftest import lightened
from vjepa_bringup.graph import StackOptions
from vjepa_bringup.run_graph import run_graph
from vjepa_cli.cli import main
from vjepa_cli.commands.graph import set_parameters
from vjepa_training.progress import Progress

ENDED = 2


def test_a_run_that_is_interrupted_gives_the_episodes_that_have_ended(forking, tmp_path):
    def interrupt(scores, monitor):
        if len(scores.finished) >= ENDED:
            raise KeyboardInterrupt

    options = {"planner": "random", "lockstep": True, "episodes": 50}
    options = StackOptions(task="reacher-easy", log_level="warn", **lightened(options, tmp_path / "light.yaml"))
    result = run_graph(options, 20, None, interrupt)
    assert result.interrupted
    assert len(result.episodes) >= ENDED
    assert result.planners == ["random"]
    assert result.by_planner["random"]["steps"] >= ENDED * 20 - 1


def test_a_result_has_the_options_that_the_planner_had_at_the_end(forking, tmp_path):
    def change(scores, monitor):
        if scores.episodes and not changed:
            changed.append(set_parameters(monitor, {"expert.time_constant_s": 0.1}))

    changed = []
    (tmp_path / "own.yaml").write_text("vjepa_planner: {ros__parameters: {expert.time_constant_s: 0.08}}\n")
    options = {"planner": "expert", "lockstep": True, "episodes": 3, "params_file": str(tmp_path / "own.yaml")}
    options = StackOptions(task="reacher-easy", log_level="warn", **lightened(options, tmp_path / "light.yaml"))
    result = run_graph(options, 40, None, change)
    assert changed
    assert result.options == {"expert.time_constant_s": 0.1}


def test_before_the_first_episode_has_ended_there_is_nothing_to_keep(forking, tmp_path):
    def interrupt(scores, monitor):
        if scores.episodes:
            raise KeyboardInterrupt

    options = {"planner": "random", "lockstep": True, "episodes": 50}
    options = StackOptions(task="reacher-easy", log_level="warn", **lightened(options, tmp_path / "light.yaml"))
    with pytest.raises(KeyboardInterrupt):
        run_graph(options, 100_000, None, interrupt)


def test_an_evaluation_that_is_interrupted_shows_and_writes_what_there_is(monkeypatch, tmp_path, capsys):
    def move_to(bar: Progress, done: int, total: int | None = None, figures: str = "") -> None:
        if done == ENDED:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "move_to", move_to)
    words = ["eval", "--through", "process", "--planner", "expert", "--episodes", "5", "--seed", "3", "--workers", "1"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--json", str(tmp_path / "result.json")])
    assert ended.value.code == 130
    shown = capsys.readouterr()
    assert "2 of 200 steps, seeds 3 to 4, INTERRUPTED before all 5 had ended" in shown.out
    assert shown.err.splitlines()[-1] == "vjepa: interrupted"
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["interrupted"], result["asked"], result["episodes"]) == (True, 5, 2)
