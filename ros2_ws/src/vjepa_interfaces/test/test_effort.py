"""A command is clamped where it is too large and refused where it makes no sense."""

import numpy as np
import pytest

from vjepa_interfaces.effort import CommandRefusedError, EffortLimits
from vjepa_interfaces.errors import VjepaError

ARM = EffortLimits.of(("shoulder", "wrist"), 0.05)
STRONG_AND_WEAK = EffortLimits.of(("shoulder", "wrist"), (2.0, 0.5))


def test_an_effort_within_limits_passes_unchanged():
    effort, clamped = ARM.checked(["shoulder", "wrist"], [0.01, -0.05])
    assert effort.tolist() == [0.01, -0.05]
    assert not clamped


def test_an_effort_beyond_the_limit_is_clamped_and_said_to_be():
    effort, clamped = ARM.checked(["shoulder", "wrist"], [1.0, -0.2])
    assert effort.tolist() == [0.05, -0.05]
    assert clamped


def test_joints_in_another_order_are_put_in_order():
    effort, _ = ARM.checked(["wrist", "shoulder"], [0.01, 0.02])
    assert effort.tolist() == [0.02, 0.01]


@pytest.mark.parametrize(
    ("names", "effort", "message"),
    [
        (["shoulder", "wrist"], [0.1], "1 efforts, expected 2"),
        (["shoulder", "wrist"], [0.1, 0.1, 0.1], "3 efforts, expected 2"),
        (["shoulder", "elbow"], [0.1, 0.1], "elbow"),
        (["shoulder", "shoulder"], [0.1, 0.1], "expected shoulder, wrist"),
        (["shoulder"], [0.1, 0.1], "expected shoulder, wrist"),
        ([], [0.1, 0.1], "none"),
        (["shoulder", "wrist"], [float("nan"), 0.0], "not finite"),
        (["shoulder", "wrist"], [float("inf"), 0.0], "not finite"),
        (None, [0.1], "expected 2"),
    ],
)
def test_a_senseless_command_is_refused_with_what_was_expected(names, effort, message):
    with pytest.raises(CommandRefusedError, match=message):
        ARM.checked(names, effort)


def test_an_array_without_names_is_taken_in_joint_order():
    assert ARM.checked(None, [0.01, 0.02])[0].tolist() == [0.01, 0.02]


def test_an_action_becomes_an_effort_within_the_limit():
    assert ARM.effort_of(np.array([0.5, -2.0])).tolist() == [0.025, -0.05]


@pytest.mark.parametrize(
    ("action", "message"), [([np.nan, 0.0], "not finite"), ([0.1, 0.1, 0.1], "3 efforts, expected 2")]
)
def test_an_action_that_no_arm_should_be_moved_by_is_refused(action, message):
    with pytest.raises(CommandRefusedError, match=message):
        ARM.effort_of(np.array(action))


def test_actions_come_back_from_efforts():
    action = np.array([0.3, -1.0])
    np.testing.assert_allclose(ARM.to_action(ARM.effort_of(action)), action, rtol=1e-15)


def test_each_joint_has_its_own_limit():
    effort, clamped = STRONG_AND_WEAK.checked(["wrist", "shoulder"], [1.0, 1.0])
    assert (effort.tolist(), clamped) == ([1.0, 0.5], True)
    action = np.array([[0.5, -1.0], [-0.25, 0.3]])
    efforts = np.stack([STRONG_AND_WEAK.effort_of(row) for row in action])
    assert efforts.tolist() == [[1.0, -0.5], [-0.5, 0.15]]
    np.testing.assert_allclose(STRONG_AND_WEAK.to_action(efforts), action, rtol=1e-15)
    assert (ARM.limits_text, STRONG_AND_WEAK.limits_text) == ("0.05", "2, 0.5")


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ((1.0,), "effort_limit has 1 values; expected one number, or one for each of shoulder, wrist"),
        ((), "effort_limit has 0 values"),
        ((1.0, 0.0), r"effort_limit is \(1.0, 0.0\); expected finite N·m above 0"),
        (-1.0, "effort_limit is -1.0"),
        (float("nan"), "effort_limit is nan"),
        (float("inf"), "effort_limit is inf"),
    ],
)
def test_limits_that_no_arm_has_are_refused(limit, message):
    with pytest.raises(VjepaError, match=message):
        EffortLimits.of(("shoulder", "wrist"), limit)
