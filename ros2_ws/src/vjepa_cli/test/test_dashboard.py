"""The lines that a terminal shows during a run: what is known, in words, and nothing that is not."""

from types import SimpleNamespace

import numpy as np
import pytest

from sim_bridge.score import RunScores, ScoreKeeper, ScoreMessage
from sim_bridge.tasks import task_named
from vjepa_bringup.graph import NodeSpec
from vjepa_cli.dashboard import Dashboard, curve, wrapped
from vjepa_cli.start_up import StartUp
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.managed_node import ERROR, OK, WARN
from vjepa_interfaces.messages import FIRST, LAST, MID
from vjepa_training.fields import Field, bar, fitted


def scores_of(*steps: tuple[int, float, float], task: str = "reacher-easy") -> RunScores:
    """Scores that read a message after each step: type, reward, and the fingertip's distance to the target, m."""
    joints = task_named(task).joint_names
    scores, keeper, number = RunScores(), ScoreKeeper(task, EffortLimits(joints, 0.05)), -1
    for step_type, reward, distance_m in steps:
        number += step_type == FIRST
        at = {"target": np.zeros(3), "fingertip": np.array([distance_m, 0.0, 0.01])}
        keeper.add(SimpleNamespace(step_type=step_type, reward=reward, joint_effort=np.zeros(len(joints)), **at))
        scores.read(ScoreMessage(1, number, keeper.distance_m, keeper.episode).text())
    return scores


NODES = [
    NodeSpec("vjepa_perception", "vjepa_perception", "vjepa_perception", {"encoder": "/share/models/encoder-small"}),
    NodeSpec("vjepa_planner", "vjepa_planner", "vjepa_planner", {"planner": "bc", "planners": ["bc", "cem"]}),
    NodeSpec("sim_bridge", "sim_bridge", "sim_bridge", {"task": "reacher-easy"}),
    NodeSpec("vjepa_bringup", "stack_manager", "stack_manager", lifecycle=False),
]


def dashboard(wanted: int, episode_steps: int) -> Dashboard:
    return Dashboard(wanted, episode_steps, StartUp(NODES))


def managed(**states: str) -> dict:
    return {"stack_manager": (WARN, "not active: all of them", states)}


def test_before_the_first_step_there_are_stages_with_times_and_what_else_is_wrong():
    shown, scores = dashboard(5, 200), RunScores()
    assert shown.lines(scores, "", {}, 1.2) == [
        "loading encoder-small … 1.2 s",
        "loading planner bc and 1 more … 1.2 s",
        "starting simulation reacher-easy … 1.2 s",
    ]
    states = {"vjepa_perception": "unknown", "vjepa_planner": "unconfigured", "sim_bridge": "inactive"}
    nodes = managed(**states) | {"camera": (WARN, "no frame for 3 s", {})}
    assert shown.ended(scores, nodes, 2.14) == ["starting simulation reacher-easy … 2.1 s, ready"]
    assert shown.ended(scores, nodes, 2.3) == []
    assert shown.lines(scores, "", nodes, 3.0)[1:] == [
        "loading planner bc and 1 more … 3.0 s",
        "starting simulation reacher-easy … 2.1 s, ready",
        "  camera: no frame for 3 s",
    ]


def test_episodes_of_a_run_without_an_end_have_numbers_alone():
    shown, scores = dashboard(0, 200), scores_of((FIRST, 0.0, 0.1), (LAST, 1.0, 0.1), (FIRST, 0.0, 0.1))
    assert shown.ended(scores, {}, 2.0)[-1] == "episode 1: return 1.0, after 2.0 s"
    assert shown.lines(scores, "bc", {}, 2.0)[0].startswith("episode 2   ")


def test_when_all_is_ready_the_first_step_is_waited_for():
    shown, scores = dashboard(5, 200), RunScores()
    nodes = managed(vjepa_perception="active", vjepa_planner="inactive", sim_bridge="inactive")
    assert len(shown.ended(scores, nodes, 4.0)) == 3
    assert shown.lines(scores, "", nodes, 4.5)[-1] == "waiting for the first frame … 0.5 s"


def test_a_node_that_refused_to_start_is_shown():
    nodes = {"stack_manager": (ERROR, "vjepa_planner refused to configure", {})}
    assert "refused" in dashboard(5, 200).lines(RunScores(), "", nodes, 4.5)[-1]


SIM = {"achieved_rate_hz": "49.96", "latency_p50_ms": "16.2", "latency_p99_ms": "28.7", "stale_steps": "3"}
REASON = "planner 'cem' took 31.0 ms, with 20.0 ms to plan in: 'bc' drives"
FALLING_BACK = {
    "sim_bridge": (OK, "running", SIM),
    "vjepa_perception": (OK, "encoding", {"encode_p50_ms": "12.34"}),
    "vjepa_planner": (WARN, REASON, {"plan_p50_ms": "0.65", "planner": "cem"}),
}


def lines_at(width: int) -> list[str]:
    scores = scores_of((FIRST, 0, 0.3), (MID, 1, 0.2), (LAST, 1, 0.1), (FIRST, 0, 0.25), (MID, 1, 0.034))
    return dashboard(5, 4).lines(scores, "bc", FALLING_BACK, 7.0, width)


def test_a_wide_terminal_shows_how_far_the_run_is_who_drives_and_how_the_loop_does():
    episode, distance, loop, trouble = lines_at(140)
    assert episode == f"episode 2 of 5   {bar(0.25)}   step 1 of 4   return 1   mean 2.0   7 s"
    assert distance == "fingertip   3.4 cm from the target   █"
    assert loop == (
        "bc drives for cem   50.0 Hz   frame to torque p50 16.2, p99 28.7 ms   steps without a newer command 3   "
        "encoder 12.3 ms   plan 0.7 ms"
    )
    assert trouble == f"  vjepa_planner: {REASON}"


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_fields_are_left_out_whole_where_a_line_is_too_long(width):
    wide, narrow = lines_at(1000), lines_at(width)
    assert all(len(line) <= width for line in narrow)
    for line in (0, 2):
        assert set(narrow[line].split("   ")) <= set(wide[line].split("   "))
    assert narrow[0].startswith("episode 2 of 5")
    assert narrow[2].startswith("bc drives for cem")
    assert " ".join(" ".join(narrow[3:]).split()) == f"vjepa_planner: {REASON}"


def test_a_field_of_low_rank_stays_where_one_of_high_rank_would_not_fit():
    fields = [Field("first"), Field("x" * 30, rank=2), Field("second", rank=1), Field("third", rank=3)]
    assert fitted(fields, 100) == f"first   {'x' * 30}   second   third"
    assert fitted(fields, 30) == "first   second   third"
    assert fitted(fields, 15) == "first   second"
    assert fitted(fields, 2) == "first"


def test_a_message_goes_on_in_the_line_below_between_words():
    assert wrapped("  sim: one two three four five", 20) == ["  sim: one two three", "    four five"]


def test_each_episode_that_has_ended_gets_one_line():
    shown, steps = dashboard(5, 1), ((FIRST, 0, 0.3), (LAST, 1.25, 0.1), (FIRST, 0, 0.25))
    assert shown.ended(scores_of(*steps), {}, 3.0) == ["episode 1 of 5: return 1.2, after 3.0 s"]
    assert shown.ended(scores_of(*steps), {}, 4.0) == []
    assert shown.ended(scores_of(*steps, (LAST, 2.0, 0.0)), {}, 5.0) == ["episode 2 of 5: return 2.0, after 5.0 s"]


def test_a_rate_that_is_not_held_gets_one_line_and_is_shown_as_long_as_it_lasts():
    shown, scores = dashboard(5, 200), scores_of((FIRST, 0, 0.3), (MID, 0, 0.3))
    message = "50 Hz cannot be held; 25.4 Hz can"
    slow = {"sim_bridge": (WARN, message, SIM | {"attainable_rate_hz": "25.4"})}
    assert shown.ended(scores, {"sim_bridge": (WARN, "no command for 0.4 s: torque is zero", SIM)}, 1.0) == []
    assert [shown.ended(scores, slow, at_s) for at_s in (2.0, 2.1)] == [[f"sim_bridge: {message}"], []]
    assert shown.lines(scores, "bc", slow, 2.1)[-1] == f"  sim_bridge: {message}"


def test_the_curve_is_of_this_episode_alone_and_a_task_without_a_target_has_none():
    shown = dashboard(2, 4)
    steps = ((FIRST, 0, 0.4), (MID, 0, 0.2), (LAST, 0, 0.1), (FIRST, 0, 0.3))
    for count, expected in enumerate(("█", "█▅", "█▅▃", "█"), 1):
        line = shown.lines(scores_of(*steps[:count]), "bc", {}, 1.0)[1]
        assert line.rpartition(" ")[2] == expected
    spinning = scores_of((FIRST, 0, 0.3), (MID, 1, 0.2), task="finger-spin")
    assert not any("fingertip" in line for line in dashboard(1, 4).lines(spinning, "bc", {}, 1.0))


def test_bars_and_curves_take_any_numbers():
    assert [bar(share).count("█") for share in (-1.0, 0.0, 0.5, 1.0, 2.0)] == [0, 0, 12, 24, 24]
    assert (curve([]), curve([0.0, 0.0]), curve([0.0, 1.0])) == ("", "▁▁", "▁█")
