import math
import random

import numpy as np
import pytest

from vjepa_interfaces.effort import CommandRefusedError
from vjepa_interfaces.effort_guard import COUNTED, TIMEOUT_ACTIONS, EffortGuard, GuardParameters
from vjepa_interfaces.errors import VjepaError

JOINTS = ("shoulder", "wrist")
PERIOD_S = 0.01
SETTINGS = {
    "effort_limits": (1.0, 2.0),
    "slew_rates": (10.0, 20.0),
    "damping": (0.5, 0.5),
    "rate_hz": 1 / PERIOD_S,
    "dry_run": False,
}


class Bench:
    """A guard on a clock of the test's own; `run` enables, commands and ticks as long as is asked."""

    def __init__(self, **settings):
        self.now = 100.0
        self.guard = EffortGuard(GuardParameters(**{**SETTINGS, **settings}), lambda: self.now)

    def tick(self, seconds=PERIOD_S):
        self.now += seconds
        return self.guard.tick().tolist()

    def run(self, seconds, enable=True, effort=None, velocity=None):
        """Return the outputs of every tick."""
        outputs = []
        for _ in range(round(seconds / PERIOD_S)):
            if enable is not None:
                self.guard.take_enable(enable)
            if effort is not None:
                self.guard.take_command(JOINTS, effort)
            if velocity is not None:
                self.guard.take_joint_state(JOINTS, velocity)
            outputs.append(self.tick())
        return outputs


def test_a_command_is_reached_at_the_slew_rate_of_each_joint():
    outputs = Bench().run(0.2, effort=[1.0, -1.0])
    assert outputs[0] == pytest.approx([0.1, -0.2])
    assert outputs[4] == pytest.approx([0.5, -1.0])
    assert outputs[-1] == [1.0, -1.0]


def test_a_reversal_is_slewed_as_well():
    bench = Bench()
    bench.run(0.2, effort=[1.0, 1.0])
    assert bench.run(0.01, effort=[-1.0, -1.0]) == [pytest.approx([0.9, 0.8])]


def test_ticks_that_the_slew_rate_cut_short_are_counted():
    bench = Bench()
    bench.run(0.2, effort=[0.95, 0.1])
    assert bench.guard.counts["slew_limited_ticks"] == 9


def test_an_effort_beyond_the_limit_of_its_joint_is_clamped_and_counted():
    bench = Bench()
    assert bench.run(0.3, effort=[1.5, -1e308])[-1] == [1.0, -2.0]
    assert bench.guard.counts["clamped_commands"] == 30
    bench.run(0.1, effort=[1.0, -2.0])
    assert bench.guard.counts["clamped_commands"] == 30


def test_joints_may_come_in_any_order():
    bench = Bench()
    bench.guard.take_enable(True)
    bench.guard.take_command(("wrist", "shoulder"), [0.02, 0.01])
    assert bench.tick() == [0.01, 0.02]


@pytest.mark.parametrize(
    ("names", "effort"),
    [
        (JOINTS, [math.nan, 0.0]),
        (JOINTS, [math.inf, 0.0]),
        (JOINTS, [0.1]),
        (JOINTS, [0.1, 0.1, 0.1]),
        (JOINTS, []),
        (("shoulder", "elbow"), [0.1, 0.1]),
        (("shoulder", "shoulder"), [0.1, 0.1]),
        ((), [0.1, 0.1]),
    ],
)
def test_a_senseless_command_is_refused_and_counted_and_does_not_feed_the_watchdog(names, effort):
    bench = Bench()
    bench.run(0.2, effort=[0.5, 0.5])
    for _ in range(21):
        bench.guard.take_enable(True)
        with pytest.raises(CommandRefusedError):
            bench.guard.take_command(names, effort)
        output = bench.tick()
    assert output == [0.0, 0.0]
    assert (bench.guard.counts["refused_commands"], bench.guard.counts["timeouts"]) == (21, 1)


# The dead-man's switch.


def test_nothing_goes_out_before_somebody_enables():
    bench = Bench()
    assert bench.run(0.5, enable=None, effort=[1.0, 1.0]) == [[0.0, 0.0]] * 50
    assert "not enabled" in bench.guard.not_enabled


def test_letting_go_is_zero_at_once_and_enabling_again_slews_from_zero():
    bench = Bench()
    bench.run(0.2, effort=[1.0, 1.0])
    assert bench.run(0.05, enable=False, effort=[1.0, 1.0]) == [[0.0, 0.0]] * 5
    assert bench.run(0.01, effort=[1.0, 1.0]) == [pytest.approx([0.1, 0.2])]


def test_a_false_counts_even_if_a_true_follows_before_the_next_tick():
    bench = Bench()
    bench.run(0.2, effort=[1.0, 1.0])
    bench.guard.take_enable(False)
    assert bench.run(0.01, effort=[1.0, 1.0]) == [[0.0, 0.0]]
    assert bench.run(0.01, effort=[1.0, 1.0]) == [pytest.approx([0.1, 0.2])]


def test_silence_of_the_switch_disables():
    bench = Bench()
    bench.run(0.2, effort=[1.0, 1.0])
    outputs = bench.run(0.35, enable=None, effort=[1.0, 1.0])
    assert outputs[26] == [1.0, 1.0]
    assert outputs[30:] == [[0.0, 0.0]] * 5


@pytest.mark.parametrize("action", TIMEOUT_ACTIONS)
def test_no_action_of_the_watchdog_moves_a_disabled_arm(action):
    bench = Bench(on_timeout=action)
    bench.run(0.2, effort=[1.0, 1.0])
    assert bench.run(1.0, enable=False, velocity=[1.0, 1.0]) == [[0.0, 0.0]] * 100
    bench.run(0.2, enable=False)
    assert bench.run(0.2) == [[0.0, 0.0]] * 20, "nor the last torque once it is enabled again"


def test_two_switches_enable_nothing_until_one_has_gone_and_says_true_again():
    bench = Bench()
    bench.run(0.2, effort=[1.0, 1.0])
    bench.guard.see_publishers(1, 2)
    assert bench.run(0.1, effort=[1.0, 1.0]) == [[0.0, 0.0]] * 10
    assert "2 publishers of enable" in bench.guard.not_enabled
    bench.guard.see_publishers(1, 1)
    assert bench.run(0.1, enable=None, effort=[1.0, 1.0]) == [[0.0, 0.0]] * 10
    assert bench.run(0.01, effort=[1.0, 1.0]) != [[0.0, 0.0]]


# The watchdog.


def silent_after_one_newton_metre(**settings) -> Bench:
    bench = Bench(**settings)
    bench.run(0.2, effort=[1.0, 1.0])
    bench.run(0.18)
    return bench


def test_zero_is_zero_at_once_and_counted_once():
    bench = silent_after_one_newton_metre()
    assert bench.guard.output.tolist() == [1.0, 1.0]
    assert bench.run(0.1)[3:] == [[0.0, 0.0]] * 7
    assert bench.guard.counts["timeouts"] == 1
    assert "no command within 0.2 s" in bench.guard.not_commanded


def test_after_a_timeout_commands_take_over_again_by_slew():
    bench = silent_after_one_newton_metre()
    bench.run(0.5)
    outputs = bench.run(0.2, effort=[1.0, 1.0])
    assert outputs[0] == pytest.approx([0.1, 0.2])
    assert outputs[-1] == [1.0, 1.0]
    bench.run(0.5)
    assert bench.guard.counts["timeouts"] == 2


def test_damping_is_against_the_velocity_builds_up_from_zero_and_ends_with_the_velocities():
    bench = silent_after_one_newton_metre(on_timeout="damp")
    outputs = bench.run(0.2, velocity=[1.0, -1e308])
    assert min(output[0] for output in outputs) == outputs[-1][0] == -0.5
    assert outputs[-1][1] == 2.0, "within the limit"
    first = next(i for i, output in enumerate(outputs) if output != [1.0, 1.0])
    assert outputs[first] == [0.0, 0.0], "the last command does not push on"
    assert outputs[first + 1] == pytest.approx([-0.1, 0.2])
    outputs = bench.run(0.2)
    assert outputs[6] == [-0.5, 2.0]
    assert outputs[10:] == [[0.0, 0.0]] * 10


def test_damping_without_any_velocity_is_zero():
    bench = silent_after_one_newton_metre(on_timeout="damp")
    assert bench.run(0.3)[3:] == [[0.0, 0.0]] * 27


@pytest.mark.parametrize(
    ("names", "velocity"),
    [
        (JOINTS, [math.nan, 1.0]),
        (JOINTS, [math.inf, 1.0]),
        (JOINTS, [1.0]),
        (JOINTS, []),
        (("elbow", "wrist"), [1.0, 1.0]),
    ],
)
def test_velocities_that_cannot_be_used_are_counted_and_damp_nothing(names, velocity):
    bench = silent_after_one_newton_metre(on_timeout="damp")
    bench.guard.take_joint_state(names, velocity)
    assert bench.run(0.05)[3:] == [[0.0, 0.0]] * 2
    assert bench.guard.counts["refused_joint_states"] == 1


def test_velocities_are_found_by_name_among_those_of_other_joints():
    bench = silent_after_one_newton_metre(on_timeout="damp")
    for _ in range(10):
        bench.guard.take_joint_state(("gripper", "wrist", "shoulder"), [9.0, 0.02, 0.04])
        output = bench.run(0.01)[0]
    assert output == [-0.02, -0.01]


def test_hold_holds_the_last_torque_for_a_while_and_then_lets_go():
    bench = silent_after_one_newton_metre(on_timeout="hold", hold_s=0.3)
    outputs = bench.run(0.4)
    assert outputs[28] == [1.0, 1.0]
    assert outputs[34:] == [[0.0, 0.0]] * 6


def test_hold_holds_what_went_out_and_not_what_was_on_the_way():
    bench = Bench(on_timeout="hold", command_timeout_s=0.025)
    bench.run(0.01, effort=[1.0, 1.0])
    outputs = bench.run(0.1)
    assert outputs[-1] == outputs[-5] == pytest.approx([0.2, 0.4])


@pytest.mark.parametrize("action", TIMEOUT_ACTIONS)
def test_with_two_publishers_of_commands_the_timeout_action_is_done_and_neither_is_followed(action):
    bench = Bench(on_timeout=action)
    bench.run(0.2, effort=[0.5, 0.5])
    bench.guard.see_publishers(2, 1)
    for _ in range(20):
        with pytest.raises(CommandRefusedError, match="2 publishers"):
            bench.guard.take_command(JOINTS, [1.0, 1.0])
        (output,) = bench.run(0.01, velocity=[1.0, 1.0])
    assert output == {"zero": [0.0, 0.0], "damp": [-0.5, -0.5], "hold": [0.5, 0.5]}[action]
    assert "2 publishers of commands" in bench.guard.not_commanded
    bench.guard.see_publishers(1, 1)
    bench.run(0.6)
    assert bench.guard.output.tolist() == [0.0, 0.0], "a new command is waited for"
    assert bench.run(0.01, effort=[0.5, 0.5]) == [pytest.approx([0.1, 0.2])]
    assert bench.guard.counts["timeouts"] == 0


# Time and dry run.


@pytest.mark.parametrize("gap_s", [0.1, 0.15])
def test_a_late_tick_makes_no_larger_step(gap_s):
    bench = Bench()
    bench.run(0.01, effort=[0.0, 0.0])
    bench.guard.take_command(JOINTS, [1.0, 1.0])
    assert bench.tick(gap_s) == pytest.approx([0.1, 0.2])


def test_two_ticks_at_the_same_time_are_one_step():
    bench = Bench()
    (output,) = bench.run(0.01, effort=[1.0, 1.0])
    assert bench.tick(0.0) == output


def test_a_dry_run_computes_everything_and_sends_zero():
    bench = Bench(dry_run=True)
    assert bench.run(0.2, effort=[1.0, 1.0]) == [[0.0, 0.0]] * 20
    assert bench.guard.torque.tolist() == [1.0, 1.0]


def test_after_a_dry_run_torque_begins_at_zero():
    bench = Bench(dry_run=True)
    bench.run(0.2, effort=[1.0, 1.0])
    bench.guard.set_dry_run(False)
    assert bench.run(0.01, effort=[1.0, 1.0]) == [pytest.approx([0.1, 0.2])]
    bench.guard.set_dry_run(True)
    assert bench.run(0.01, effort=[1.0, 1.0]) == [[0.0, 0.0]]


def test_a_guard_that_begins_anew_remembers_nothing():
    bench = Bench(on_timeout="hold")
    bench.run(0.2, effort=[1.0, 1.0])
    bench.guard.begin()
    assert bench.run(0.05) == [[0.0, 0.0]] * 5
    assert bench.guard.command_age_s == math.inf
    assert [bench.guard.counts[name] for name in COUNTED] == [0] * len(COUNTED)


def test_the_defaults_are_a_dry_run_that_ends_in_zero():
    assert GuardParameters().dry_run
    assert GuardParameters().on_timeout == "zero"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"on_timeout": "stop"}, "unknown on_timeout 'stop'; valid are: damp, hold, zero"),
        ({"joint_names": ()}, "joint_names is"),
        ({"joint_names": ("a", "a")}, "joint_names is"),
        ({"effort_limits": (1.0,)}, "effort_limits has 1 values; expected one for each of shoulder, wrist"),
        ({"effort_limits": (1.0, 0.0)}, "effort_limits is"),
        ({"effort_limits": (1.0, math.inf)}, "effort_limits is"),
        ({"slew_rates": (1.0, -1.0)}, "slew_rates is"),
        ({"slew_rates": (1.0, math.nan)}, "slew_rates is"),
        ({"on_timeout": "damp", "damping": (0.0, 1.0)}, "damping is"),
        ({"damping": (-1.0, 1.0)}, "damping is"),
        ({"rate_hz": 0.0}, "rate_hz is 0.0; expected a finite value of more than 0"),
        ({"command_timeout_s": math.inf}, "command_timeout_s is"),
        ({"enable_timeout_s": math.nan}, "enable_timeout_s is"),
        ({"joint_state_max_age_s": -1.0}, "joint_state_max_age_s is"),
        ({"hold_s": 0.0}, "hold_s is"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(VjepaError, match=message):
        Bench(**settings)


# Whatever arrives, and whenever.

NUMBERS = (0.0, -0.0, 0.1, -0.7, 1.0, -2.0, 5.0, 1e-320, 1e308, -1e308, math.inf, -math.inf, math.nan)


def anything_happens(bench: Bench, draw: random.Random) -> None:
    guard = bench.guard
    event = draw.randrange(9)
    if event <= 2:
        names = draw.choice([JOINTS, JOINTS, JOINTS, JOINTS[::-1], ("shoulder",), ("a", "b"), ()])
        size = draw.choice([2, 2, 2, 2, 0, 1, 3])
        effort = [draw.choice(NUMBERS) if draw.random() < 0.3 else draw.uniform(-3, 3) for _ in range(size)]
        try:
            guard.take_command(names, effort)
        except CommandRefusedError:
            return
    elif event <= 4:
        guard.take_enable(draw.random() < 0.9)
    elif event <= 6:
        guard.take_joint_state(draw.choice([JOINTS, JOINTS[::-1], ("a", "b")]), [draw.choice(NUMBERS) for _ in "ab"])
    elif event == 7 and draw.random() < 0.1:
        guard.see_publishers(draw.choice([0, 1, 1, 2]), draw.choice([0, 1, 1, 2]))
    elif event == 8 and draw.random() < 0.1:
        guard.set_dry_run(draw.random() < 0.3)


@pytest.mark.parametrize("action", TIMEOUT_ACTIONS)
@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_torque_stays_within_limit_and_slew_and_zero_when_disabled(action, seed):
    draw = random.Random(f"{action} {seed}")
    bench = Bench(on_timeout=action)
    limits, slew_rates = np.array(SETTINGS["effort_limits"]), np.array(SETTINGS["slew_rates"])
    before, moved = np.zeros(2), 0
    for _ in range(1500):
        for _ in range(draw.randrange(6)):
            anything_happens(bench, draw)
        seconds = draw.choice([PERIOD_S, PERIOD_S, PERIOD_S, 0.0, 0.003, 0.03, draw.expovariate(20.0)])
        output = np.array(bench.tick(seconds))
        guard = bench.guard
        assert np.all(np.isfinite(output))
        assert np.all(np.abs(output) <= limits)
        assert not (guard.not_enabled or guard.dry_run) or not output.any()
        assert not output.any() or np.all(np.abs(output - before) <= slew_rates * seconds + 1e-12)
        if guard.not_commanded and action == "zero":
            assert not output.any()
        before, moved = output, moved + bool(output.any())
    assert moved > 50, "the sequence does test something"
