"""Commands step the simulation under either clock, and no command moves it twice or too late."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

from sim_bridge.sim_parameters import SimParameters
from sim_bridge.step_loop import LockstepLoop, RealTimeLoop
from vjepa_interfaces.effort import CommandRefusedError, EffortLimits
from vjepa_interfaces.messages import FIRST, LAST, MID

PERIOD_NS, PERIOD_S = 20_000_000, 0.02
EPISODE_STEPS = 3
TIMEOUT_S = 0.2


class Env:
    """An environment whose steps are those of its counter."""

    limits = EffortLimits.of(("shoulder", "wrist"), 0.05)
    control_period_s = PERIOD_S

    def __init__(self):
        self.stamp_ns, self.episode = 1_000_000_000, -1
        self.applied: list[list[float]] = []

    def reset(self):
        self.stamp_ns += 1_000_000_000
        self.episode += 1
        self.left = EPISODE_STEPS
        return self.step_of(FIRST)

    def step(self, effort):
        self.applied.append(effort.tolist())
        self.stamp_ns += PERIOD_NS
        self.left -= 1
        return self.step_of(MID if self.left else LAST)

    def step_of(self, kind):
        return SimpleNamespace(stamp_ns=self.stamp_ns, step_type=kind, episode=self.episode)

    def render(self):
        return np.zeros((2, 2, 3), np.uint8)


class Rig:
    """A loop on that environment, a clock that is set by hand, and what was published."""

    def __init__(self, loop, on_answer=None, **parameters):
        self.env, self.now_s = Env(), 10.0
        self.sent: list[int] = []
        self.ends = 0
        settings = SimParameters(lockstep=loop is LockstepLoop, command_timeout_s=TIMEOUT_S, **parameters)
        self.loop = loop(self.env, settings, self.publish, self.end, lambda: self.now_s, on_answer)
        self.loop.begin()

    def publish(self, step, frame):
        self.sent.append(step.stamp_ns)
        return self.now_s

    def end(self):
        self.ends += 1

    def answer(self, torque=0.01):
        self.loop.command(["shoulder", "wrist"], [torque, torque], self.loop.step.stamp_ns)


@pytest.fixture
def lockstep():
    return Rig(LockstepLoop)


@pytest.fixture
def real_time():
    rig = Rig(RealTimeLoop)
    rig.loop.tick()
    return rig


def test_in_lockstep_each_answer_makes_one_step_and_the_answer_to_the_last_frame_the_next_episode(lockstep):
    for _ in range(EPISODE_STEPS):
        lockstep.answer()
    assert lockstep.env.applied == [[0.01, 0.01]] * EPISODE_STEPS
    assert lockstep.loop.step.step_type == LAST
    assert lockstep.ends == 1
    lockstep.answer()
    assert (lockstep.env.episode, lockstep.loop.step.step_type) == (1, FIRST)
    assert len(lockstep.env.applied) == EPISODE_STEPS


def test_in_lockstep_an_old_or_repeated_answer_makes_none(lockstep):
    first_ns = lockstep.loop.step.stamp_ns
    lockstep.answer()
    lockstep.loop.command(None, [0.0, 0.0], first_ns)
    lockstep.loop.command(None, [0.0, 0.0], 0)
    assert len(lockstep.env.applied) == 1
    assert lockstep.loop.counts["old_commands"] == 2


def test_in_lockstep_an_unanswered_frame_is_sent_again(lockstep):
    lockstep.now_s += 0.9
    lockstep.loop.tick()
    assert len(lockstep.sent) == 1
    lockstep.now_s += 0.2
    assert lockstep.loop.trouble().startswith("no answer to the latest frame for 1.1 s")
    lockstep.loop.tick()
    lockstep.loop.tick()
    assert lockstep.sent == [lockstep.sent[0]] * 2
    lockstep.answer()
    assert lockstep.loop.trouble() == ""


def test_in_lockstep_an_answer_that_comes_in_a_pause_steps_after_it(lockstep):
    lockstep.loop.set_paused(True)
    lockstep.answer()
    lockstep.now_s += 60.0
    lockstep.loop.tick()
    assert lockstep.env.applied == []
    assert len(lockstep.sent) == 1
    lockstep.loop.set_paused(False)
    assert len(lockstep.env.applied) == 1


def test_a_restart_forgets_an_answer_that_the_pause_held_back(lockstep):
    lockstep.loop.set_paused(True)
    lockstep.answer()
    lockstep.loop.restart()
    lockstep.loop.set_paused(False)
    assert lockstep.env.applied == []
    assert lockstep.env.episode == 1


def test_in_real_time_the_newest_command_holds_until_it_is_too_old(real_time):
    real_time.answer(0.02)
    real_time.loop.tick()
    real_time.now_s += TIMEOUT_S - 0.01
    real_time.loop.tick()
    real_time.now_s += 0.02
    assert real_time.loop.trouble().startswith("no command for 0.2 s: torque is zero")
    real_time.loop.tick()
    assert real_time.env.applied == [[0.02, 0.02], [0.02, 0.02], [0.0, 0.0]]
    assert (real_time.loop.counts["stale_steps"], real_time.loop.counts["timeout_steps"]) == (2, 1)


def test_the_times_of_an_answered_frame_are_given_once_to_whoever_wants_them():
    answers = []
    rig = Rig(RealTimeLoop, lambda stamp_ns, times: answers.append((stamp_ns, times)))

    def render():
        rig.now_s += 0.004
        return np.zeros((2, 2, 3), np.uint8)

    rig.env.render = render
    rig.loop.tick()
    rig.now_s += 0.01
    rig.answer()
    rig.answer()
    times = {"begun": 10.0, "rendered": 10.004, "sent": 10.004, "answered": 10.014}
    assert answers == [(rig.loop.step.stamp_ns, pytest.approx(times))]


def test_in_real_time_an_episode_begins_without_the_torque_of_the_one_before(real_time):
    real_time.answer(0.02)
    before_ns = real_time.loop.step.stamp_ns
    for _ in range(EPISODE_STEPS + 1):
        real_time.loop.tick()
    real_time.loop.command(None, [0.02, 0.02], before_ns)
    assert real_time.loop.counts["old_commands"] == 1
    real_time.loop.tick()
    assert real_time.env.applied[-1] == [0.0, 0.0]


def test_in_real_time_it_stands_still_in_a_pause(real_time):
    real_time.loop.set_paused(True)
    real_time.loop.tick()
    assert len(real_time.sent) == 1
    real_time.loop.set_paused(False)
    real_time.loop.tick()
    assert len(real_time.sent) == 2


def drive(rig: Rig, seconds: float, encode_s: float, rest_s: float = 0.004) -> None:
    """Step in real time while the newest frame is encoded for `encode_s`, and its command arrives `rest_s` later."""
    rig.env.left = math.inf
    now, end_s, tick_s, free_s = rig.now_s, rig.now_s + seconds, rig.now_s + PERIOD_S, rig.now_s
    frame_ns, answered_ns, commands = rig.loop.step.stamp_ns, 0, []
    while now < end_s:
        if free_s <= now and frame_ns > answered_ns:
            free_s, answered_ns = now + encode_s, frame_ns
            commands.append((free_s + rest_s, frame_ns))
        waiting = [tick_s, *(at for at, _ in commands), *([free_s] if free_s > now else [])]
        now = rig.now_s = min(waiting)
        while commands and commands[0][0] <= now:
            rig.loop.command(None, [0.01, 0.01], commands.pop(0)[1])
        if tick_s <= now:
            rig.loop.tick()
            frame_ns, tick_s = rig.loop.step.stamp_ns, tick_s + PERIOD_S


@pytest.mark.parametrize(("encode_s", "least_hz", "most_hz"), [(0.03, 20, 27), (0.045, 14, 18), (0.35, 2, 2.5)])
def test_a_rate_that_is_too_high_is_reported_within_a_second_with_one_that_can_be_had(encode_s, least_hz, most_hz):
    rig = Rig(RealTimeLoop)
    rig.loop.tick()
    drive(rig, 0.9 + 2 * encode_s, encode_s)
    assert re.search(
        r"50 Hz cannot be held: \d+ of 40 steps had no newer command, and a frame takes [\d.]+ ms to its command; "
        r"[\d.]+ Hz can$",
        rig.loop.trouble(),
    )
    assert least_hz < rig.loop.values()["attainable_rate_hz"] < most_hz


@pytest.mark.parametrize("loop", [LockstepLoop, RealTimeLoop])
def test_a_loop_that_has_not_begun_has_values_and_no_trouble(loop):
    idle = loop(Env(), SimParameters(), lambda step, frame: 0.0, lambda: None)
    assert idle.values()["frames"] == 0
    assert "attainable_rate_hz" not in idle.values()
    assert idle.trouble() == ""


@pytest.mark.parametrize("encode_s", [0.01, 0.0205])
def test_a_rate_that_is_held_is_not_reported_though_commands_come_one_step_late(encode_s):
    rig = Rig(RealTimeLoop)
    rig.loop.tick()
    drive(rig, 3.0, encode_s)
    assert rig.loop.trouble() == ""
    assert "attainable_rate_hz" not in rig.loop.values()


def test_a_planner_that_has_ended_is_reported_as_silence_and_not_as_a_rate():
    rig = Rig(RealTimeLoop)
    rig.loop.tick()
    drive(rig, 1.0, 0.01)
    drive(rig, 1.0, math.inf)
    assert re.fullmatch(r"no command for [\d.]+ s: torque is zero", rig.loop.trouble())


@pytest.mark.parametrize("loop", [LockstepLoop, RealTimeLoop])
def test_after_the_episodes_asked_for_it_stands_still_until_it_is_restarted(loop):
    rig = Rig(loop, episodes=1)
    for _ in range(EPISODE_STEPS + 3):
        rig.loop.tick()
        if not rig.loop.is_finished:
            rig.answer()
    assert rig.loop.is_finished
    assert (len(rig.env.applied), rig.env.episode, rig.ends) == (EPISODE_STEPS, 0, 2)
    rig.loop.restart()
    assert (rig.loop.is_finished, rig.env.episode) == (False, 1)


@pytest.mark.parametrize(
    ("names", "efforts", "stamp_ns", "message"),
    [
        (["shoulder"], [0.0], 1, "1 efforts, expected 2"),
        (None, [np.nan, 0.0], 1, "not finite"),
        (None, [0.01, 0.0], 0, "has torque and stamp 0"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused_and_shown_for_a_while(lockstep, names, efforts, stamp_ns, message):
    with pytest.raises(CommandRefusedError, match=message):
        lockstep.loop.command(names, efforts, stamp_ns)
    assert lockstep.env.applied == []
    assert message in lockstep.loop.trouble()
    lockstep.now_s += 0.5
    lockstep.answer(0.5)
    assert lockstep.env.applied == [[0.05, 0.05]], "clamped"
    lockstep.now_s += 1.5
    lockstep.answer()
    assert lockstep.loop.trouble() == ""
    values = lockstep.loop.values()
    assert (values["refused_commands"], values["clamped_commands"], values["commands"]) == (1, 1, 3)
    assert values["response_p50_ms"] == pytest.approx(1000.0)
