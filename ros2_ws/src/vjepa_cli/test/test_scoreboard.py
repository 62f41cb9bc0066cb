"""Results are JSON that every reader takes, written whole, and a scoreboard that says what is not known."""

import dataclasses
import json
import math
import os
import re
import shlex
import stat
import threading

import pytest

from sim_bridge.action_change import ActionChange
from sim_bridge.score import Episode
from vjepa_cli.actions import command_of
from vjepa_cli.cli import parse
from vjepa_cli.result_files import require_writable, write_result
from vjepa_cli.scoreboard import result_json, scoreboard
from vjepa_interfaces.errors import VjepaError
from vjepa_training.evaluation.score import PROTOCOLS, summarise

EPISODES = [Episode(172.0, 200, False, True, True), Episode(3.0, 200, True, False, True)]
NAN = float("nan")


def result(episodes=EPISODES, protocol="short", latency=(12.0, 30.0), **more):
    return result_json(
        planner="expert",
        encoder={"model": "small", "fingerprint": "abcd", "untrained": True},
        through="ros",
        seed=7,
        summary=summarise(episodes, PROTOCOLS[protocol]),
        latency_ms={"p50": latency[0], "p99": latency[1]},
        versions={"python": "3"},
        command=command_of("run", {"planner": "expert"}),
        **more,
    )


def strictly(text: str):
    """Read JSON as readers do that know no NaN."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_result_has_what_was_promised():
    read = result()
    promised = (
        "planner encoder encoder_fingerprint protocol through seed returns in_target_at_end started_in_target "
        "mean_return interval_95 latency_ms versions kind config command"
    )
    assert set(promised.split()) <= set(read)
    assert (read["kind"], read["config"], read["command"]) == (
        "run",
        {"planner": "expert"},
        "vjepa run --planner expert",
    )
    assert read["returns"] == [172.0, 3.0]
    assert read["in_target_at_end"] == [True, False]
    assert read["started_in_target"] == [False, True]
    assert read["mean_return"] == 87.5
    assert read["latency_ms"] == {"p50": 12.0, "p99": 30.0}


def test_the_scoreboard_shows_how_much_the_action_changes_at_rest():
    calm = [dataclasses.replace(EPISODES[0], change=ActionChange(0.125, 1))]
    assert re.search(r"action change at rest +0\.125 a step in the target", scoreboard(result(calm)))
    assert "action change" not in scoreboard(result()), "no two steps in the target, of which the action is known"


def test_a_result_is_read_as_it_was_written(tmp_path):
    written = result(loop={"frames": 402.0})
    write_result(str(tmp_path / "result.json"), written)
    assert strictly((tmp_path / "result.json").read_text()) == written
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_what_is_not_a_number_is_written_as_null(tmp_path):
    written = result(episodes=[], latency=(NAN, math.inf), loop={"rates": [NAN, 1.0], "age": (-math.inf,)})
    write_result(str(tmp_path / "result.json"), written)
    read = strictly((tmp_path / "result.json").read_text())
    assert read["latency_ms"] == {"p50": None, "p99": None}
    assert read["loop"] == {"rates": [None, 1.0], "age": [None]}
    assert read["mean_return"] is None
    assert read["interval_95"] == [None, None]


def test_a_result_that_cannot_be_written_leaves_the_one_before_it(tmp_path):
    file = tmp_path / "result.json"
    write_result(str(file), result())
    before = file.read_text()
    with pytest.raises(TypeError):
        write_result(str(file), {"planner": object()})
    assert file.read_text() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_result(str(pipe), result())
    reader.join(10)
    assert strictly(read[0])["planner"] == "expert"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_link_stays_one(tmp_path):
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    for planner in ("expert", "random"):
        write_result(str(tmp_path / "link.json"), {"planner": planner})
        assert (tmp_path / "link.json").is_symlink()
        assert strictly((tmp_path / "real.json").read_text()) == {"planner": planner}


def test_a_place_that_cannot_be_written_is_refused_beforehand(tmp_path):
    require_writable(str(tmp_path / "new" / "folders" / "result.json"))
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "result.json"):
        with pytest.raises(VjepaError, match="choose another file"):
            require_writable(str(path))


def test_the_scoreboard_says_what_was_measured():
    lines = scoreboard(result(loop={"achieved_rate_hz": 49.96, "dropped_frames": 1.0, "frames": 402.0}))
    for expected in (
        "small (UNTRAINED stand-in: seeded random weights)",
        "2 of 200 steps, seeds 7 to 8",
        "success            1 of 2 (return above 150)",
        "in target at end   1 of 2",
        "started in target  1 of 2",
        "mean return        87.5 (95 % interval 3.0 to 172.0)",
        "frame to torque    p50 12.0 ms, p99 30.0 ms",
        "achieved rate      50.0 Hz",
        "dropped frames     1 of 402",
    ):
        assert expected in lines
    assert "RESTARTED" not in lines


def test_one_episode_has_no_interval():
    lines = scoreboard(result(EPISODES[:1]))
    assert "mean return        172.0\n" in lines
    assert "interval" not in lines


def test_the_planner_comes_with_its_bundles():
    assert "planner            expert with mine\n" in scoreboard(result(bundles={"bundle": "mine"}))
    changed = scoreboard(result(bundles={"bundle": "mine"}, options_changed=["bc.bundle"]))
    assert "planner            expert with mine (loaded during the run)\n" in changed
    several = scoreboard(result(bundles={"dynamics": "d", "reward": "r"}, planners=["expert", "bc"]))
    assert "planner            expert with d, r then bc\n" in several


def test_a_recorded_bag_is_named():
    assert "bag                bags/2026" in scoreboard(result(bag="bags/2026"))
    assert "bag  " not in scoreboard(result())


HURRIED = {"achieved_rate_hz": 49.0, "dropped_frames": 300.0, "frames": 1000.0}
FALLING_BACK = {**HURRIED, "dropped_frames": 0.0, "fallbacks": 1.0, "fallback_commands": 9.0, "answered_frames": 1000.0}


@pytest.mark.parametrize(
    ("command", "more", "expected"),
    [
        ("vjepa run", {"planner": "bc"}, "./vjepa run --planner cem --episodes 1"),
        ("vjepa run --task finger-spin", {"planner": "bc"}, "./vjepa run --task finger-spin --record bags"),
        ("vjepa run --planner cem", {"loop": HURRIED}, "./vjepa run --planner cem --lockstep"),
        ("vjepa run", {"loop": FALLING_BACK}, "./vjepa run --lockstep"),
        ("vjepa run --lockstep", {"loop": HURRIED, "lockstep": True}, "./vjepa run --lockstep --record bags"),
        ("vjepa run --record b", {"bag": "b/1 2"}, "./vjepa view 'b/1 2' --png run.png"),
        ("vjepa eval", {"through": "process"}, "./vjepa run --planner expert --episodes 1"),
        (
            "vjepa eval --through process --bc-bundle mine/p --episodes 9 --params-file=a.yaml --json r.json --seed 3",
            {"through": "process"},
            "./vjepa run --planner expert --bc-bundle mine/p --params-file a.yaml --episodes 1",
        ),
        ("vjepa eval", {"loop": HURRIED, "lockstep": True}, "./vjepa run --planner expert --episodes 1"),
    ],
)
def test_the_last_line_is_a_command_to_try_next(command, more, expected):
    record = parse(shlex.split(command)[1:]).record
    line = scoreboard({**result(), **record, **more}).splitlines()[-1]
    name, shown, comment = re.fullmatch(r"  (\S+) +(.*)  # (.*)", line).groups()
    assert (name, shown) == ("next", expected)
    parse(shlex.split(shown)[1:])
    assert comment


def test_many_dropped_frames_come_with_what_they_mean_and_what_to_do():
    loop = {"achieved_rate_hz": 49.2, "dropped_frames": 442.0, "frames": 1005.0}
    lines = scoreboard(result(loop=loop))
    assert "442 of 1005: torque held on meanwhile; --lockstep avoids it" in lines


def test_a_policy_that_drives_at_another_rate_than_it_was_trained_at_says_so():
    for trained_s, rates in (([0.02], "50"), ([0.02, 0.01], "50 or 100")):
        lines = scoreboard(result(control_period_s=0.04, trained_periods_s=trained_s))
        assert "OTHER RATE" in lines
        assert f"trained at {rates} Hz, driven at 25: train it at this rate" in lines
    for same in ([0.02], [0.04, 0.02], []):
        assert "OTHER RATE" not in scoreboard(result(control_period_s=0.02, trained_periods_s=same))
    assert "OTHER RATE" not in scoreboard(result())


def test_each_planner_of_a_swapped_run_has_its_own_figure():
    shares = {"bc": {"steps": 320, "reward_a_step": 0.95}, "cem": {"steps": 80, "reward_a_step": 0.5}}
    lines = scoreboard(result(planners=["bc", "cem"], by_planner=shares))
    assert "by planner         bc 320 steps, 0.950 a step; cem 80 steps, 0.500 a step" in lines
    assert "by planner" not in scoreboard(result(by_planner={"bc": shares["bc"]}))


def test_an_interrupted_run_says_how_many_episodes_were_asked_for():
    assert "seeds 7 to 8, INTERRUPTED before all 20 had ended" in scoreboard(result(interrupted=True, asked=20))


def test_the_scoreboard_says_what_is_not_known():
    loop = {"achieved_rate_hz": NAN, "dropped_frames": NAN, "frames": NAN}
    lines = scoreboard(result(latency=(NAN, NAN), loop=loop))
    assert "p50 unknown ms" in lines
    assert "unknown of unknown" in lines
    assert "nan" not in lines


def test_the_scoreboard_of_a_task_without_target_claims_no_success():
    episodes = [Episode(3.0, 1000, None, None, True)]
    lines = scoreboard(result(episodes, protocol="full"))
    assert "success            not defined for this task" in lines
    assert "in target at end   not defined for this task" in lines


def test_commands_of_a_fallback_are_not_hidden():
    loop = {"achieved_rate_hz": 50.0, "dropped_frames": 0.0, "frames": 402.0, "answered_frames": 402.0}
    lines = scoreboard(result(loop={**loop, "fallbacks": 3.0, "fallback_commands": 75.0}, planners=["cem", "bc"]))
    assert "cem then bc" in lines
    assert "3: 75 of 402 commands not the chosen planner's" in lines
    for none in ({"fallbacks": 0.0, "fallback_commands": 0.0}, {"fallbacks": NAN, "fallback_commands": NAN}, {}):
        assert "FALLBACKS" not in scoreboard(result(loop={**loop, **none}))


def test_restarts_and_swaps_are_not_hidden():
    lines = scoreboard(result(restarts={"vjepa_planner": 2}, planners=["expert", "random"]))
    assert "vjepa_planner 2" in lines
    assert "expert then random" in lines
