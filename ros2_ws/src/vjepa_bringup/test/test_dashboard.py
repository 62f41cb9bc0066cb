"""The lines that a terminal shows during a run: what is known, in words, and nothing that is not."""

import io
import os
from types import SimpleNamespace

import numpy as np
import pytest

from vjepa_bringup import dashboard as module
from vjepa_bringup.dashboard import Dashboard, Screen, bar, curve
from vjepa_interfaces.managed_node import OK, WARN
from vjepa_interfaces.messages import FIRST, LAST, MID
from vjepa_training.score import ScoreKeeper


def keeper_of(*steps: tuple[int, float, float], task: str = "reacher-easy") -> ScoreKeeper:
    """A keeper that was given steps: type, reward, and the fingertip's distance to the target, m."""
    keeper = ScoreKeeper(task)
    for number, (step_type, reward, distance_m) in enumerate(steps, 1):
        keeper.add(number, reward, step_type, np.zeros(3), np.array([distance_m, 0.0, 0.01]))
    return keeper


def test_before_the_first_step_it_says_that_it_starts_and_what_is_wrong():
    nodes = {"sim_bridge": (OK, "running", {}), "vjepa_perception": (WARN, "no frame for 3 s", {})}
    lines = Dashboard(5, 200).lines(ScoreKeeper("reacher-easy"), "", nodes, 2.4)
    assert lines == ["starting  2 s", "  vjepa_perception: no frame for 3 s"]


def test_it_says_how_far_the_run_is_who_drives_and_how_the_loop_does():
    keeper = keeper_of((FIRST, 0, 0.3), (MID, 1, 0.2), (LAST, 1, 0.1), (FIRST, 0, 0.25), (MID, 1, 0.034))
    sim = {"achieved_rate_hz": "49.96", "latency_p50_ms": "16.2", "latency_p99_ms": "28.7", "stale_steps": "3"}
    nodes = {"sim_bridge": (OK, "running", sim), "vjepa_planner": (OK, "driving", {"plan_p50_ms": "0.65"})}
    episode, distance, loop = Dashboard(5, 4).lines(keeper, "bc", nodes, 7.0)
    assert episode == f"episode 2 of 5  {bar(0.25)}  step 1 of 4   return 1   mean 2.0   7 s"
    assert distance == "fingertip   3.4 cm from the target  █"
    assert loop.startswith("bc drives   50.0 Hz   frame to torque p50 16.2, p99 28.7 ms   encoder ?   plan 0.7 ms")
    assert loop.endswith("steps without a newer command 3")


def test_the_curve_is_of_this_episode_alone_and_a_task_without_a_target_has_none():
    shown = Dashboard(2, 4)
    keeper = ScoreKeeper("reacher-easy")
    for number, (step_type, distance_m) in enumerate(((FIRST, 0.4), (MID, 0.2), (LAST, 0.1), (FIRST, 0.3)), 1):
        keeper.add(number, 0.0, step_type, np.zeros(3), np.array([distance_m, 0.0, 0.0]))
        line = shown.lines(keeper, "bc", {}, 1.0)[1]
        assert line.rpartition(" ")[2] == {0.4: "█", 0.2: "█▅", 0.1: "█▅▃", 0.3: "█"}[distance_m]
    spinning = keeper_of((FIRST, 0, 0.3), (MID, 1, 0.2), task="finger-spin")
    assert not any("fingertip" in line for line in Dashboard(1, 4).lines(spinning, "bc", {}, 1.0))


def test_bars_and_curves_take_any_numbers():
    assert [bar(share).count("█") for share in (-1.0, 0.0, 0.5, 1.0, 2.0)] == [0, 0, 12, 24, 24]
    assert (curve([]), curve([0.0, 0.0]), curve([0.0, 1.0])) == ("", "▁▁", "▁█")


@pytest.fixture
def terminal(monkeypatch):
    """Something that takes itself for a terminal, 20 columns wide, and keeps what is written to it."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(module, "sys", SimpleNamespace(stdout=terminal))
    monkeypatch.setattr(module.shutil, "get_terminal_size", lambda: os.terminal_size((20, 5)))
    return terminal


def test_a_screen_draws_over_what_it_drew_cuts_what_is_too_wide_and_leaves_nothing(terminal):
    screen = Screen()
    screen.show("one", "two")
    screen.show("x" * 30)
    screen.show()
    first, second, third = terminal.getvalue().split("\x1b[J")[:3]
    assert first == "\rone\x1b[K\ntwo\x1b[K\n"
    assert second == f"\x1b[2F{'x' * 19}\x1b[K\n"
    assert third == "\x1b[1F"


def test_elsewhere_than_on_a_terminal_nothing_is_drawn(capsys):
    Screen().show("one")
    assert capsys.readouterr().out == ""
