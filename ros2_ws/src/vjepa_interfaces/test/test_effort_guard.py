import math
import random

import numpy as np
import pytest

from vjepa_interfaces.effort import CommandRefusedError
from vjepa_interfaces.effort_guard import COUNTED, EffortGuard, Publishers
from vjepa_interfaces.guard_parameters import REARMS, TIMEOUT_ACTIONS, GuardParameters

JOINTS = ("shoulder", "wrist")
PERIOD_S = 0.01
HOUR_NS = 3600 * 10**9
STILL = [0.0, 0.0]
SETTINGS = {
    "effort_limits": (1.0, 2.0),
    "slew_rates": (10.0, 20.0),
    "damping": (0.5, 0.5),
    "rate_hz": 1 / PERIOD_S,
    "dry_run": False,
}


class Bench:
    """A guard on clocks of the test's own, whose hand has shown that it can let go; `run` holds, commands and ticks."""

    def __init__(self, **settings):
        self.now = 100.0
        self.offset_ns = 10**18
        """Between the steady clock and the one of stamps."""
        self.guard = EffortGuard(GuardParameters(**{**SETTINGS, **settings}), lambda: self.now, lambda: self.stamp)
        self.hold(False)

    @property
    def stamp(self) -> int:
        return round(self.now * 1e9) + self.offset_ns

    def hold(self, held=True):
        return self.guard.take_enable(held, self.stamp)

    def command(self, effort, names=JOINTS, age_s=0.0):
        self.guard.take_command(names, effort, self.stamp - round(age_s * 1e9))

    def joint_state(self, velocity, names=JOINTS, position=(0.0, 0.0), age_s=0.0):
        self.guard.take_joint_state(names, position, velocity, self.stamp - round(age_s * 1e9))

    def tick(self, seconds=PERIOD_S):
        self.now += seconds
        return self.guard.tick().tolist()

    def run(self, seconds, held=True, effort=None, velocity=None):
        """Return the outputs of every tick."""
        outputs = []
        for _ in range(round(seconds / PERIOD_S)):
            if held is not None:
                self.hold(held)
            if effort is not None:
                self.command(effort)
            if velocity is not None:
                self.joint_state(velocity)
            outputs.append(self.tick())
        return outputs

    def press(self):
        self.hold(False)
        self.hold(True)


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
    bench.hold()
    bench.command([0.02, 0.01], ("wrist", "shoulder"))
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
        bench.hold()
        with pytest.raises(CommandRefusedError):
            bench.command(effort, names)
        output = bench.tick()
    assert output == STILL
    assert (bench.guard.counts["refused_commands"], bench.guard.counts["timeouts"]) == (21, 1)


# Stamps of commands.


@pytest.mark.parametrize("age_s", [0.31, 3600.0, 1e9, -0.31, -3600.0])
def test_a_command_of_another_time_is_refused_with_its_age_and_moves_nothing(age_s):
    bench = Bench()
    for _ in range(50):
        bench.hold()
        with pytest.raises(CommandRefusedError, match="s old; expected at most 0.3" if age_s > 0 else "in the future"):
            bench.command([1.0, 1.0], age_s=age_s)
        assert bench.tick() == STILL


@pytest.mark.parametrize("action", TIMEOUT_ACTIONS)
def test_a_command_without_a_stamp_is_refused_but_for_zeros_which_stop_at_once_and_feed_no_watchdog(action):
    bench = Bench(on_timeout=action, slew_rates=(0.1, 0.1), hold_s=2.0)
    bench.run(5.0, effort=[0.4, 0.4])
    with pytest.raises(CommandRefusedError, match="no stamp"):
        bench.guard.take_command(JOINTS, [0.5, 0.5], 0)
    outputs = []
    for _ in range(40):
        bench.hold()
        bench.guard.take_command(JOINTS, STILL, 0)
        outputs.append(bench.tick())
    assert outputs == [STILL] * 40, "however slow the slew, and whatever is held"
    assert "no command within" in bench.guard.not_commanded


def test_the_same_stamp_again_and_again_drives_only_until_the_timeout():
    bench = Bench()
    bench.run(0.2, effort=[0.5, 0.5])
    stamp = bench.stamp
    bench.guard.take_command(JOINTS, [0.5, 0.5], stamp)
    for _ in range(25):
        bench.hold()
        with pytest.raises(CommandRefusedError, match="does not rise"):
            bench.guard.take_command(JOINTS, [0.5, 0.5], stamp)
        output = bench.tick()
    assert output == STILL


def test_no_torque_outlives_the_age_of_its_frame_though_its_command_came_in_time():
    driven_s = 0.0
    bench = Bench(command_timeout_s=0.2, command_max_age_s=0.3)
    bench.hold()
    bench.command([0.5, 0.5], age_s=0.25)
    while any(bench.tick()):
        bench.hold()
        driven_s += PERIOD_S
    assert driven_s == pytest.approx(0.045, abs=PERIOD_S)
    assert "older than 0.3 s" in bench.guard.not_commanded


def test_a_clock_that_is_set_back_stops_the_arm_and_commands_of_the_new_time_drive_it_again():
    bench = Bench(rearm="auto")
    bench.run(0.2, effort=[0.5, 0.5])
    bench.offset_ns -= HOUR_NS
    with pytest.raises(CommandRefusedError, match="in the future"):
        bench.guard.take_command(JOINTS, [0.5, 0.5], bench.stamp + HOUR_NS)
    assert bench.run(0.2, effort=[0.5, 0.5])[-1] == [0.5, 0.5]


def test_nothing_counts_before_simulated_time_has_begun():
    bench = Bench()
    bench.offset_ns = -round(bench.now * 1e9)
    with pytest.raises(CommandRefusedError, match="no message on /clock"):
        bench.guard.take_command(JOINTS, [0.5, 0.5], 100)


def test_commands_that_come_faster_than_any_planner_sends_them_stop_the_arm_and_are_named():
    bench = Bench()
    bench.run(0.2, effort=[0.5, 0.5])
    for tick in range(40):
        bench.hold()
        for i in range(10):
            bench.guard.take_command(JOINTS, [0.5, 0.5], bench.stamp + 1 + i)
        output = bench.tick()
        if tick > 10:
            assert output == STILL
            assert "commands come faster than 500 a second" in bench.guard.not_commanded


# The dead-man's switch.


def test_nothing_goes_out_before_somebody_enables():
    bench = Bench()
    assert bench.run(0.5, held=None, effort=[1.0, 1.0]) == [STILL] * 50
    assert "not enabled" in bench.guard.not_enabled


def test_letting_go_is_zero_at_once_and_enabling_again_slews_from_zero():
    bench = Bench()
    bench.run(0.2, effort=[1.0, 1.0])
    assert bench.hold(False), "without waiting for a tick"
    assert bench.guard.output.tolist() == STILL
    assert bench.run(0.05, held=False, effort=[1.0, 1.0]) == [STILL] * 5
    assert bench.run(0.01, effort=[1.0, 1.0]) == [pytest.approx([0.1, 0.2])]


def test_letting_go_counts_even_if_a_press_follows_before_the_next_tick():
    bench = Bench()
    bench.run(0.2, effort=[1.0, 1.0])
    bench.hold(False)
    assert bench.run(0.01, effort=[1.0, 1.0]) == [pytest.approx([0.1, 0.2])], "slewed from zero"


def test_silence_of_the_switch_disables_until_it_is_released_and_pressed():
    bench = Bench()
    bench.run(0.2, effort=[1.0, 1.0])
    outputs = bench.run(0.35, held=None, effort=[1.0, 1.0])
    assert outputs[26] == [1.0, 1.0]
    assert outputs[31:] == [STILL] * 4
    assert bench.run(0.2, effort=[1.0, 1.0]) == [STILL] * 20, "nobody knows what the hand did meanwhile"
    bench.press()
    assert bench.run(0.01, effort=[1.0, 1.0]) == [pytest.approx([0.1, 0.2])]


def test_a_switch_whose_stamps_do_not_rise_is_no_hand():
    bench = Bench()
    bench.run(0.2, effort=[1.0, 1.0])
    stuck = bench.stamp
    bench.guard.take_enable(True, stuck)
    for _ in range(35):
        bench.guard.take_enable(True, stuck)
        bench.command([1.0, 1.0])
        output = bench.tick()
    assert output == STILL
    assert "a publisher that is stuck is not a hand" in bench.guard.not_enabled
    assert bench.guard.counts["refused_enables"] == 35


def test_a_switch_of_a_computer_with_another_clock_is_a_hand_but_not_one_that_falls_behind():
    bench = Bench()
    behind_ns = HOUR_NS
    for i in range(150):
        bench.guard.take_enable(True, bench.stamp - behind_ns)
        behind_ns += PERIOD_S * 0.9e9 if i >= 50 else 0
        bench.command([1.0, 1.0])
        output = bench.tick()
        if i == 50:
            assert output == [1.0, 1.0]
    assert output == STILL
    assert "late" in bench.guard.not_enabled


@pytest.mark.parametrize("action", TIMEOUT_ACTIONS)
def test_no_action_of_the_watchdog_moves_a_disabled_arm(action):
    bench = Bench(on_timeout=action)
    bench.run(0.2, effort=[1.0, 1.0])
    assert bench.run(1.0, held=False, velocity=[1.0, 1.0]) == [STILL] * 100
    bench.run(0.2, held=False)
    assert bench.run(0.2) == [STILL] * 20, "nor the last torque once it is enabled again"


def test_two_switches_enable_nothing_until_one_has_gone_and_is_released_and_pressed():
    bench = Bench()
    bench.run(0.2, effort=[1.0, 1.0])
    bench.guard.see_publishers(Publishers(enables=2))
    assert bench.run(0.1, effort=[1.0, 1.0]) == [STILL] * 10
    assert "2 publishers of enable" in bench.guard.stopped_by
    bench.guard.see_publishers(Publishers())
    assert bench.run(0.1, effort=[1.0, 1.0]) == [STILL] * 10
    bench.press()
    assert bench.run(0.01, effort=[1.0, 1.0]) != [STILL]


def test_a_switch_without_stamps_is_no_hand():
    bench = Bench()
    for _ in range(10):
        bench.guard.take_enable(True, 0)
        bench.command([1.0, 1.0])
        assert bench.tick() == STILL
    assert bench.guard.counts["refused_enables"] == 10


def test_a_network_that_plays_a_press_of_some_time_ago_moves_nothing_also_after_a_silence():
    bench = Bench()
    bench.run(0.2, effort=[1.0, 1.0])
    bench.run(0.5, held=None)
    for i in range(100):
        bench.guard.take_enable(i > 10, bench.stamp - 5 * 10**9)
        bench.command([1.0, 1.0])
        assert bench.tick() == STILL
    assert "messages of the switch come" in bench.guard.not_enabled


def test_a_switch_that_floods_is_no_hand():
    bench = Bench()
    for tick in range(40):
        for i in range(20):
            bench.guard.take_enable(True, bench.stamp + i)
        bench.command([1.0, 1.0])
        output = bench.tick()
        if tick > 10:
            assert output == STILL
            assert "faster than 500 a second" in bench.guard.stopped_by


# The latch.


def stopped_by(bench: Bench, fault: str) -> str:
    """Bring a fault about while the switch is held, end it, and return the reason that was given."""
    if fault == "silence":
        bench.run(0.25)
    elif fault == "rival":
        bench.guard.see_publishers(Publishers(commands=2))
        bench.run(0.05)
        bench.guard.see_publishers(Publishers())
    elif fault == "another guard":
        bench.guard.see_publishers(Publishers(outputs=2))
        bench.run(0.05, effort=[0.5, 0.5])
        bench.guard.see_publishers(Publishers())
    elif fault == "stall":
        bench.command([0.5, 0.5])
        bench.hold()
        bench.tick(1.0)
    elif fault == "begun anew":
        bench.guard.begin()
    elif fault == "dry run":
        bench.guard.set_dry_run(True)
        bench.run(0.05, effort=[0.5, 0.5])
        bench.guard.set_dry_run(False)
    return bench.guard.latched or bench.guard.not_enabled


@pytest.mark.parametrize("fault", ["silence", "rival", "another guard", "stall", "begun anew", "dry run"])
def test_after_any_fault_the_arm_goes_on_only_once_the_switch_is_released_and_pressed(fault):
    bench = Bench()
    bench.run(0.2, effort=[0.5, 0.5])
    assert stopped_by(bench, fault)
    assert bench.run(0.5, effort=[0.5, 0.5]) == [STILL] * 50, "held all the time"
    assert bench.guard.latched
    assert bench.guard.not_enabled == bench.guard.not_commanded == ""
    bench.press()
    assert bench.run(0.2, effort=[0.5, 0.5])[-1] == [0.5, 0.5]
    assert not bench.guard.latched


@pytest.mark.parametrize("fault", ["silence", "rival", "another guard", "stall", "begun anew", "dry run"])
def test_with_rearm_auto_it_goes_on_by_itself_by_slew(fault):
    bench = Bench(rearm="auto")
    bench.run(0.2, effort=[0.5, 0.5])
    stopped_by(bench, fault)
    outputs = bench.run(0.2, effort=[0.5, 0.5])
    assert outputs[-1] == [0.5, 0.5]
    assert STILL not in outputs[1:]
    assert np.abs(np.diff(outputs, axis=0)).max() <= 0.2 + 1e-12


def test_a_press_while_something_is_wrong_does_not_count():
    bench = Bench()
    bench.press()
    assert bench.run(0.1) == [STILL] * 10
    assert bench.run(0.2, effort=[0.5, 0.5]) == [STILL] * 20
    assert "no command within" in bench.guard.latched


def test_what_was_pressed_and_sent_before_a_stall_is_forgotten():
    bench = Bench()
    bench.run(0.2, effort=[0.5, 0.5])
    bench.now += 0.5
    bench.press()
    bench.command([0.5, 0.5])
    assert bench.guard.tick().tolist() == STILL
    assert bench.guard.counts["late_ticks"] == 1
    assert "the guard stood still for 0.5 s" in bench.guard.latched


def test_a_second_publisher_of_torques_to_the_arm_is_an_error_and_zero():
    bench = Bench(on_timeout="hold")
    bench.run(0.2, effort=[0.5, 0.5])
    bench.guard.see_publishers(Publishers(outputs=2))
    assert bench.run(0.2, effort=[0.5, 0.5]) == [STILL] * 20
    assert "2 publishers of torques to the arm; expected this guard alone" in bench.guard.stopped_by


# The watchdog.


def silent_after_one_newton_metre(**settings) -> Bench:
    bench = Bench(**settings)
    bench.run(0.2, effort=[1.0, 1.0])
    bench.run(0.18)
    return bench


def test_zero_is_zero_at_once_and_counted_once():
    bench = silent_after_one_newton_metre()
    assert bench.guard.output.tolist() == [1.0, 1.0]
    assert bench.run(0.1)[3:] == [STILL] * 7
    assert bench.guard.counts["timeouts"] == 1
    assert bench.guard.not_commanded == "no command within 0.2 s"


def test_where_commands_come_and_are_refused_it_says_why():
    bench = silent_after_one_newton_metre()
    for _ in range(10):
        with pytest.raises(CommandRefusedError):
            bench.guard.take_command(JOINTS, [float("nan"), 0.0], 1)
        bench.run(0.02)
    assert "no command within 0.2 s (refused: " in bench.guard.not_commanded
    assert "finite" in bench.guard.not_commanded
    bench.run(0.02, effort=[0.0, 0.0])
    assert bench.guard.refused_command == bench.guard.not_commanded == ""


def test_after_a_timeout_commands_take_over_again_by_slew_once_the_switch_is_pressed():
    bench = silent_after_one_newton_metre()
    bench.run(0.5)
    assert bench.run(0.1, effort=[1.0, 1.0]) == [STILL] * 10
    bench.press()
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
    assert outputs[first] == STILL, "the last command does not push on"
    assert outputs[first + 1] == pytest.approx([-0.1, 0.2])
    outputs = bench.run(0.2)
    assert outputs[6] == [-0.5, 2.0]
    assert outputs[11:] == [STILL] * 9


def test_damping_without_any_velocity_is_zero():
    bench = silent_after_one_newton_metre(on_timeout="damp")
    assert bench.run(0.3)[3:] == [STILL] * 27


def test_damping_ends_after_its_time_also_where_velocities_never_change():
    bench = silent_after_one_newton_metre(on_timeout="damp", damp_s=0.3)
    outputs = bench.run(1.0, velocity=[1.0, 1.0])
    pushed = sum(any(output) for output in outputs if output[0] < 0)
    assert pushed == pytest.approx(30, abs=2)
    assert outputs[40:] == [STILL] * 60


@pytest.mark.parametrize("age_s", [0.11, 3600.0, 1e9, -0.11])
def test_joint_states_of_another_time_damp_nothing_and_are_named(age_s):
    bench = silent_after_one_newton_metre(on_timeout="damp")
    for _ in range(20):
        bench.hold()
        bench.joint_state([1.0, 1.0], age_s=age_s)
        assert min(bench.tick()) >= 0
    assert bench.guard.output.tolist() == STILL
    assert "joint state is not used: its stamp is" in bench.guard.refused_joint_state


def test_joint_states_that_repeat_or_have_two_publishers_damp_nothing():
    for publishers in (1, 2):
        bench = silent_after_one_newton_metre(on_timeout="damp")
        bench.joint_state([0.0, 0.0])
        stamp = bench.stamp
        bench.guard.see_publishers(Publishers(joint_states=publishers))
        for _ in range(30):
            bench.hold()
            bench.guard.take_joint_state(JOINTS, STILL, [1.0, 1.0], stamp if publishers == 1 else bench.stamp)
            expected = "its stamp" if publishers == 1 else "2 publishers of joint states"
            assert expected in bench.guard.refused_joint_state
            assert min(bench.tick()) >= 0
        assert bench.guard.counts["refused_joint_states"] == 30


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
    bench.joint_state(velocity, names)
    assert bench.run(0.05)[3:] == [STILL] * 2
    assert bench.guard.counts["refused_joint_states"] == 1


def test_velocities_are_found_by_name_among_those_of_other_joints_and_messages_of_a_gripper_are_left_aside():
    bench = silent_after_one_newton_metre(on_timeout="damp")
    for _ in range(10):
        bench.joint_state([9.0, 0.02, 0.04], ("gripper", "wrist", "shoulder"), [0.0, 0.0, 0.0])
        bench.joint_state([9.0], ("finger",), [0.0])
        output = bench.run(0.01)[0]
    assert output == [-0.02, -0.01]
    assert bench.guard.counts["refused_joint_states"] == 0


def test_a_joint_state_that_names_a_joint_twice_is_not_used():
    bench = silent_after_one_newton_metre(on_timeout="damp")
    bench.joint_state([1.0, 1.0, 9.0], ("shoulder", "wrist", "shoulder"), [0.0, 0.0, 0.0])
    assert bench.run(0.05)[3:] == [STILL] * 2
    assert "names a joint twice" in bench.guard.refused_joint_state


def test_a_torque_that_is_no_number_never_goes_out():
    bench = Bench()
    bench.run(0.2, effort=[0.5, 0.5])
    bench.guard._commands.effort = np.array([math.nan, 0.5])
    bench.hold()
    assert bench.tick() == STILL
    assert "the torque computed is not finite" in bench.guard.stopped_by


def test_hold_holds_the_last_torque_for_a_while_and_then_lets_go():
    bench = silent_after_one_newton_metre(on_timeout="hold", hold_s=0.3)
    outputs = bench.run(0.4)
    assert outputs[28] == [1.0, 1.0]
    assert outputs[34:] == [STILL] * 6


def test_hold_holds_what_went_out_and_not_what_was_on_the_way():
    bench = Bench(on_timeout="hold", command_timeout_s=0.025)
    bench.run(0.01, effort=[1.0, 1.0])
    outputs = bench.run(0.1)
    assert outputs[-1] == outputs[-5] == pytest.approx([0.2, 0.4])


@pytest.mark.parametrize("rearm", REARMS)
def test_commands_that_come_and_go_do_not_hold_for_ever(rearm):
    bench = Bench(on_timeout="hold", hold_s=0.5, command_timeout_s=0.1, rearm=rearm)
    held = 0
    for _ in range(100):
        bench.hold(False)
        bench.run(0.02, effort=[1.0, 1.0])
        held += sum(any(output) for output in bench.run(0.18)[9:])
    assert held * PERIOD_S < 0.5 + 0.1 * 20.0


@pytest.mark.parametrize("action", TIMEOUT_ACTIONS)
def test_with_two_publishers_of_commands_the_timeout_action_is_done_and_neither_is_followed(action):
    bench = Bench(on_timeout=action)
    bench.run(0.2, effort=[0.5, 0.5])
    bench.guard.see_publishers(Publishers(commands=2))
    for _ in range(20):
        with pytest.raises(CommandRefusedError, match="2 publishers"):
            bench.command([1.0, 1.0])
        (output,) = bench.run(0.01, velocity=[1.0, 1.0])
    assert output == {"zero": STILL, "damp": [-0.5, -0.5], "hold": [0.5, 0.5]}[action]
    assert "2 publishers of commands" in bench.guard.not_commanded
    bench.guard.see_publishers(Publishers())
    bench.run(0.6)
    assert bench.guard.output.tolist() == STILL, "a new command is waited for"
    bench.run(0.02, effort=[0.5, 0.5])
    bench.press()
    assert bench.run(0.01, effort=[0.5, 0.5]) == [pytest.approx([0.1, 0.2])]


# Time and dry run.


@pytest.mark.parametrize("gap_s", [0.1, 0.15])
def test_a_late_tick_makes_no_larger_step(gap_s):
    bench = Bench()
    bench.run(0.01, effort=[0.0, 0.0])
    bench.command([1.0, 1.0])
    assert bench.tick(gap_s) == pytest.approx([0.1, 0.2])


def test_two_ticks_at_the_same_time_are_one_step():
    bench = Bench()
    (output,) = bench.run(0.01, effort=[1.0, 1.0])
    assert bench.tick(0.0) == output


def test_a_dry_run_computes_everything_and_sends_zero():
    bench = Bench(dry_run=True)
    assert bench.run(0.2, effort=[1.0, 1.0]) == [STILL] * 20
    assert bench.guard.torque.tolist() == [1.0, 1.0]


def test_a_press_just_before_the_dry_run_ends_does_not_count():
    bench = Bench(dry_run=True)
    bench.run(0.1, held=False, effort=[0.5, 0.5])
    bench.press()
    bench.guard.set_dry_run(False)
    assert bench.run(0.1, effort=[0.5, 0.5]) == [STILL] * 10


def test_after_a_dry_run_torque_begins_at_zero():
    bench = Bench(dry_run=True)
    bench.run(0.2, effort=[1.0, 1.0])
    bench.guard.set_dry_run(False)
    assert bench.run(0.1, effort=[1.0, 1.0]) == [STILL] * 10
    bench.press()
    assert bench.run(0.01, effort=[1.0, 1.0]) == [pytest.approx([0.1, 0.2])]
    bench.guard.set_dry_run(True)
    assert bench.guard.output.tolist() == STILL, "at once"
    assert bench.run(0.01, effort=[1.0, 1.0]) == [STILL]


def test_a_guard_that_begins_anew_remembers_nothing():
    bench = Bench(on_timeout="hold")
    bench.run(0.2, effort=[1.0, 1.0])
    bench.guard.begin()
    assert bench.run(0.05) == [STILL] * 5
    assert bench.guard.command_age_s == math.inf
    assert [bench.guard.counts[name] for name in COUNTED] == [0] * len(COUNTED)


# Limits of position and velocity.

LIMITED = {"position_lower": (-1.0, -1.0), "position_upper": (1.0, 1.0), "velocity_limits": (2.0, 2.0)}


class Joint:
    """One rotating mass, kg·m², moved by the first torque of a guard whose second joint stands still."""

    def __init__(self, inertia=0.05, **settings):
        self.bench = Bench(**{**LIMITED, "slew_rates": (20.0, 20.0), **settings})
        self.inertia, self.position, self.velocity = inertia, 0.0, 0.0

    def push(self, effort, seconds) -> np.ndarray:
        """Return positions and velocities (ticks, 2) under a command."""
        seen = []
        for _ in range(round(seconds / PERIOD_S)):
            self.bench.joint_state([self.velocity, 0.0], position=[self.position, 0.0])
            (torque, _) = self.bench.run(PERIOD_S, effort=[effort, 0.0])[0]
            self.velocity += torque / self.inertia * PERIOD_S
            self.position += self.velocity * PERIOD_S
            seen.append((self.position, self.velocity))
        return np.array(seen)


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_a_joint_that_is_pushed_towards_its_end_brakes_before_it_and_stays(direction):
    joint = Joint()
    seen = joint.push(direction, 5.0) * direction
    assert seen[:, 0].max() < 1.0
    assert seen[-1, 0] > 0.9, "it comes close"
    assert abs(seen[-1, 1]) < 0.05
    assert joint.bench.guard.counts["braked_ticks"] > 10
    assert (joint.push(-direction, 1.0) * direction)[-1, 0] < 0.7, "and may leave"


def test_a_joint_is_no_faster_than_its_limit_by_more_than_one_tick_of_torque():
    joint = Joint(position_lower=(-math.inf,) * 2, position_upper=(math.inf,) * 2)
    seen = joint.push(1.0, 3.0)
    assert seen[:, 1].max() < 2.0 + 1.0 / 0.05 * PERIOD_S
    assert seen[-1, 1] > 1.5


def test_a_joint_that_is_pushed_out_of_its_travel_is_led_back():
    joint = Joint()
    joint.position = 1.3
    seen = joint.push(1.0, 3.0)
    assert seen[-1, 0] < 1.0 + 1e-3


@pytest.mark.parametrize(("position", "age_s"), [((0.0, 0.0), 0.2), ((math.nan, 0.0), 0.0), ((0.0, 0.0), None)])
def test_without_a_recent_position_a_limited_arm_gets_no_torque(position, age_s):
    bench = Bench(**LIMITED)
    for _ in range(30):
        if age_s is not None:
            bench.joint_state([0.0, 0.0], position=position, age_s=age_s)
        bench.hold()
        bench.command([1.0, 1.0])
        assert bench.tick() == STILL
    assert bench.guard.stopped_by


# Whatever arrives, and whenever.

NUMBERS = (0.0, -0.0, 0.1, -0.7, 1.0, -2.0, 5.0, 1e-320, 1e308, -1e308, math.inf, -math.inf, math.nan)
STAMPS = (0, 1, -1, 10**15, -(10**15))
"""Added to a stamp now and then, nanoseconds."""


def anything_happens(bench: Bench, draw: random.Random) -> None:
    guard = bench.guard
    event = draw.randrange(9)
    bench.offset_ns += 1
    stamp = bench.stamp + (draw.choice(STAMPS) if draw.random() < 0.05 else 0)
    if event <= 2:
        names = draw.choice([JOINTS, JOINTS, JOINTS, JOINTS[::-1], ("shoulder",), ("a", "b"), ()])
        size = draw.choice([2, 2, 2, 2, 0, 1, 3])
        effort = [draw.choice(NUMBERS) if draw.random() < 0.3 else draw.uniform(-3, 3) for _ in range(size)]
        try:
            guard.take_command(names, effort, stamp)
        except CommandRefusedError:
            return
    elif event <= 4:
        if draw.random() < 0.1:
            guard.take_enable(False, stamp)
        guard.take_enable(True, min(stamp, bench.stamp))  # One of the future would make all others late.
    elif event <= 6:
        kind = draw.choice([NUMBERS, (0.1, -0.2), (0.3, 0.0)])
        values = [[draw.choice(kind) for _ in "ab"] for _ in range(2)]
        guard.take_joint_state(draw.choice([JOINTS, JOINTS, JOINTS[::-1], ("a", "b")]), *values, stamp)
    elif event == 7 and draw.random() < 0.1:
        rivals = [draw.choice([0, 1, 1, 1, 1, 2]) for _ in range(4)]
        guard.see_publishers(Publishers(*rivals) if draw.random() < 0.5 else Publishers())
    elif event == 8 and draw.random() < 0.1:
        guard.set_dry_run(draw.random() < 0.3)


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("rearm", REARMS)
@pytest.mark.parametrize("action", TIMEOUT_ACTIONS)
@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_torque_stays_within_limit_and_slew_and_zero_when_disabled(action, rearm, limited, seed):
    draw = random.Random(f"{action} {rearm} {limited} {seed}")
    bench = Bench(on_timeout=action, rearm=rearm, **(LIMITED if limited else {}))
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
        assert not (guard.not_enabled or guard.stopped_by or guard.dry_run) or not output.any()
        towards_zero = (np.abs(output) <= np.abs(before)) & (output * before >= 0)
        # Braking may pass through zero at once and go on from there by slew.
        reach = np.where(output * before < 0, np.abs(output), np.abs(output - before))
        assert np.all(towards_zero | (reach <= slew_rates * seconds + 1e-12))
        if guard.not_commanded and action == "zero":
            assert not output.any()
        before, moved = output, moved + bool(output.any())
    assert moved > (20 if limited else 50), "the sequence does test something"
