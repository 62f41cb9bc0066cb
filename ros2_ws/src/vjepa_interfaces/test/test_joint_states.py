"""Joint states of an arm: other joints are left aside, parts are merged, and nothing comes from the future."""

from types import SimpleNamespace

import numpy as np
import pytest

from vjepa_interfaces.joint_states import Added, JointStateRefusedError, JointStates

MS = 1_000_000
T0 = 1_000 * MS


def state(names, position, velocity=(), effort=()):
    return SimpleNamespace(name=list(names), position=list(position), velocity=list(velocity), effort=list(effort))


def test_a_state_of_other_joints_is_left_aside_whatever_its_stamp():
    joints = JointStates(("a", "b"))
    assert joints.add(T0, state("ab", [1, 2], [3, 4], [5, 6])) == Added.WHOLE
    for stamp in (T0 + MS, T0 - 7 * MS, 0, T0 - 5_000 * MS):
        assert joints.add(stamp, state(["finger"], [9])) == Added.OTHER_JOINTS
    reading = joints.at_or_before(T0, 0)
    assert [reading.position.tolist(), reading.velocity.tolist(), reading.effort.tolist()] == [[1, 2], [3, 4], [5, 6]]


def test_joints_are_put_into_the_arm_s_order_and_further_ones_dropped():
    joints = JointStates(("a", "b"))
    joints.add(T0, state(["finger", "b", "a"], [9, 2, 1], [9, 4, 3], [9, 6, 5]))
    reading = joints.at(T0)
    assert [reading.position.tolist(), reading.velocity.tolist(), reading.effort.tolist()] == [[1, 2], [3, 4], [5, 6]]


def test_joints_of_several_messages_are_merged_from_the_newest_of_each_before_the_frame():
    joints = JointStates(("a", "b"))
    joints.add(T0, state("a", [1]))
    assert joints.at_or_before(T0, 100 * MS) is None, "b is not known"
    joints.add(T0 + 3 * MS, state("b", [10]))
    joints.add(T0 + 10 * MS, state("a", [2]))
    joints.add(T0 + 13 * MS, state("b", [11]))
    found = {ms: joints.at_or_before(T0 + ms * MS, 100 * MS) for ms in (2, 3, 9, 10, 12, 13)}
    assert found[2] is None
    positions = {ms: reading.position.tolist() for ms, reading in found.items() if reading}
    assert positions == {3: [1, 10], 9: [1, 10], 10: [2, 10], 12: [2, 10], 13: [2, 11]}
    assert joints.at_or_before(T0 + 111 * MS, 100 * MS) is None, "a is too old"
    assert np.isnan(found[3].velocity).all()


def test_parts_of_one_stamp_are_one_reading_of_that_stamp():
    joints = JointStates(("a", "b"), exact=True)
    for stamp in (T0, T0 + MS):
        joints.add(stamp, state("a", [1]))
        joints.add(stamp, state("b", [2]))
    assert joints.at(T0).position.tolist() == [1, 2]
    joints.add(T0 + 2 * MS, state("a", [1]))
    assert joints.at(T0 + 2 * MS) is None


def test_a_joint_without_a_finite_position_is_taken_from_the_message_before():
    joints = JointStates(("a", "b"))
    joints.add(T0, state("ab", [1, 2]))
    assert joints.add(T0 + MS, state("ab", [3, np.nan])) == Added.PARTLY
    assert joints.at_or_before(T0 + MS, MS).position.tolist() == [3, 2]


def test_messages_a_little_out_of_order_are_put_where_they_belong_and_a_new_time_line_begins_anew():
    joints = JointStates(("a",))
    for stamp, value in ((0, 0), (10, 1), (30, 3), (20, 2), (40, 4)):
        joints.add(T0 + stamp * MS, state("a", [value]))
    assert [joints.at_or_before(T0 + ms * MS, 5 * MS).position[0] for ms in (1, 12, 22, 33, 44)] == [0, 1, 2, 3, 4]
    joints.add(T0 - 600 * MS, state("a", [9]))
    assert joints.at_or_before(T0 + 40 * MS, 10_000 * MS).position[0] == 9
    exact = JointStates(("a",), exact=True)
    exact.add(T0, state("a", [1]))
    exact.add(T0 - MS, state("a", [2]))
    assert exact.at(T0) is None


def test_a_new_time_line_of_one_group_ends_the_others_too():
    joints = JointStates(("a", "b"))
    joints.add(T0, state("a", [1]))
    joints.add(T0, state("b", [1]))
    joints.add(T0 - 900 * MS, state("a", [2]))
    assert joints.at_or_before(T0, 10_000 * MS) is None, "b is of the time line before"


def test_half_a_minute_of_a_fast_arm_is_held():
    joints = JointStates(("a",))
    for k in range(40_000):
        joints.add(T0 + k * MS, state("a", [k]))
    assert joints.at(T0 + 10_000 * MS).position[0] == 10_000


def test_why_there_is_no_reading_is_said_in_figures():
    joints = JointStates(("a", "b"))
    assert joints.why_none(T0, 100 * MS) == "no joint state of a, b has arrived"
    for k in range(101):
        joints.add(T0 + k * 10 * MS, state("a", [k]))
    joints.add(T0 + 900 * MS, state("b", [1]))
    early, late = joints.why_none(T0 - 30 * MS, 100 * MS), joints.why_none(T0 + 1_200 * MS, 100 * MS)
    assert "joint states of a at 100 Hz, the oldest is 30 ms later than the frame; the limit is 100 ms" in early
    assert "joint states of b (1 held), the oldest is 930 ms later" in early
    assert "joint states of a at 100 Hz, the newest before the frame is 200 ms older; the limit is 100 ms" in late
    assert "b (1 held), the newest before the frame is 300 ms older" in late


def test_velocities_are_derived_from_the_two_last_positions_and_their_stamps():
    joints = JointStates(("a", "b"), derive_velocity=True)
    joints.add(T0, state("ab", [0, 0], [99, 99], [1, 2]))
    assert joints.at(T0) is None, "one position gives no velocity"
    joints.add(T0 + 10 * MS, state("ab", [0.02, -0.01], [99, 99], [1, 2]))
    reading = joints.at(T0 + 10 * MS)
    np.testing.assert_allclose(reading.velocity, [2, -1])
    assert reading.effort.tolist() == [1, 2]
    joints.add(T0 + 10 * MS, state("ab", [7, 7]))
    np.testing.assert_allclose(joints.at(T0 + 10 * MS).velocity, [2, -1])
    joints.add(T0 + 20 * MS, state("b", [0.01]))
    np.testing.assert_allclose(joints.at_or_before(T0 + 20 * MS, 100 * MS).velocity, [2, 2])
    joints.add(T0 + 600 * MS, state("ab", [5, 5]))
    assert joints.at(T0 + 600 * MS) is None, "not across a gap"


def test_a_derived_velocity_does_not_leap_where_a_position_wraps():
    joints = JointStates(("a",), derive_velocity=True)
    joints.add(T0, state("a", [np.pi - 0.01]))
    joints.add(T0 + 10 * MS, state("a", [-np.pi + 0.01]))
    np.testing.assert_allclose(joints.at(T0 + 10 * MS).velocity, [2])


@pytest.mark.parametrize(
    ("stamp", "message", "text"),
    [
        (T0, state("aba", [1, 2, 3]), "names a, b, a; expected each joint once"),
        (T0, state("ab", [1]), "with 1 positions; expected one for each"),
        (T0, state("ab", []), "with 0 positions"),
        (0, state("ab", [1, 2]), "without a stamp"),
    ],
)
def test_what_is_no_joint_state_is_refused(stamp, message, text):
    joints = JointStates(("a", "b"))
    with pytest.raises(JointStateRefusedError, match=text):
        joints.add(stamp, message)
    assert joints.at_or_before(T0, 10**12) is None


def test_velocities_are_asked_for_where_they_are_needed():
    joints = JointStates(("a", "b"))
    for velocity in ((), (1, np.nan), (1,)):
        with pytest.raises(JointStateRefusedError, match="has no velocity of each joint; expected one, or derive_vel"):
            joints.add(T0, state("ab", [1, 2], velocity), needs_velocity=True)
    assert joints.add(T0, state(["a", "b", "finger"], [1, 2, 3], [1, 2, np.nan]), needs_velocity=True) == Added.WHOLE
