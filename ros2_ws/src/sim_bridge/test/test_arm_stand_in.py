"""The stand-in for a real arm: motors obey the last command, and are off when it is too old or there is none."""

import numpy as np
import pytest

from sim_bridge.arm_stand_in import ArmStandIn, ArmStandInParameters
from sim_bridge.env import SimConfig, SimEnv
from vjepa_interfaces.effort import CommandRefusedError
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.parameters import read_parameters

OFF = [0.0, 0.0]


class Clock:
    now = 5.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def arm(clock):
    with ArmStandIn(ArmStandInParameters(), clock) as arm:
        yield arm


def test_a_command_is_obeyed_until_it_is_too_old(arm, clock):
    assert arm.advance().effort.tolist() == OFF
    arm.command([0.02, -0.01])
    clock.now += 0.1
    assert arm.advance().effort.tolist() == [0.02, -0.01]
    clock.now += 0.01
    assert arm.advance().effort.tolist() == OFF


def test_what_is_no_command_is_refused_and_a_large_one_clamped(arm):
    arm.command([0.02, -0.01])
    for senseless in ([np.nan, 0.0], [0.01], [0.01] * 3):
        with pytest.raises(CommandRefusedError):
            arm.command(senseless)
    assert arm.advance().effort.tolist() == [0.02, -0.01]
    arm.command([1.0, -1.0])
    assert arm.advance().effort.tolist() == [0.05, -0.05]


def test_it_moves_as_the_simulated_arm_but_in_steps_of_its_own(clock):
    with ArmStandIn(ArmStandInParameters(rate_hz=500.0), clock) as arm, SimEnv(SimConfig()) as env:
        begin = env.reset(0).joint_position
        arm.command([0.01, 0.01])
        for _ in range(5):
            for _ in range(10):
                reading = arm.advance()
            step = env.step(np.array([0.01, 0.01]))
        moved = np.abs(step.joint_position - begin).max()
        assert np.abs(reading.position - step.joint_position).max() < 0.25 * moved
        assert arm.render().shape == (64, 64, 3)


@pytest.mark.parametrize("name", ["rate_hz", "camera_rate_hz", "command_timeout_s"])
def test_a_rate_or_timeout_that_is_none_is_refused(name):
    with pytest.raises(VjepaError, match=f"'{name}' is 0.0; expected more than 0, and finite"):
        read_parameters(ArmStandInParameters, {name: 0.0})
