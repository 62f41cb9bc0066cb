"""Lockstep goes on by itself after a lost frame, a refused latent, or a node that was killed."""

import re
from pathlib import Path

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import Image, JointState

from vjepa_interfaces import topics
from vjepa_interfaces.messages import fill_latent

pytestmark = pytest.mark.faults


def test_a_dropped_frame_is_sent_again(lockstep_stack):
    stack = lockstep_stack(planner="expert", episode_steps=1000)
    stack.wait_for_steps(10)
    assert stack.transition("vjepa_perception", Transition.TRANSITION_DEACTIVATE)  # It drops the frame it gets now.
    stack.wait_for_value("sim_bridge", "resent_frames", lambda count: count >= 1)
    assert stack.transition("vjepa_perception", Transition.TRANSITION_ACTIVATE)
    stack.wait_for_steps(50)


@pytest.mark.parametrize("node", ["vjepa_perception", "vjepa_planner", "sim_bridge"])
def test_a_killed_node_is_restarted_and_the_run_goes_on(lockstep_stack, node):
    stack = lockstep_stack(planner="expert", episode_steps=1000)
    timesteps = stack.tap(topics.TIMESTEP)
    stack.wait_for_steps(10)
    old = stack.kill(node)
    stack.wait_for(lambda: stack.supervisor.pids().get(node, old) != old, "a new process")
    seen = len(timesteps.messages)
    stack.wait_for(lambda: len(timesteps.messages) > seen + 50, "50 more steps after the restart")
    stack.wait_for(lambda: stack.monitor.is_active(1.0), "the whole stack to be active again")


def test_several_nodes_killed_at_once_come_back(lockstep_stack):
    stack = lockstep_stack(planner="expert", episode_steps=1000)
    timesteps = stack.tap(topics.TIMESTEP)
    stack.wait_for_steps(10)
    old = {node: stack.kill(node) for node in ("sim_bridge", "vjepa_planner")}
    stack.wait_for(lambda: all(stack.supervisor.pids().get(n, p) != p for n, p in old.items()), "new processes")
    seen = len(timesteps.messages)
    stack.wait_for(lambda: len(timesteps.messages) > seen + 50, "50 more steps after the restart", timeout_s=25.0)


def test_a_refused_latent_is_answered_with_zero_torque_and_its_stamp(lockstep_stack):
    """A stamp no frame ever has, so that the real latent of no frame is in its way; the fallback refuses it as well."""
    stack = lockstep_stack(planner="random", light=False, episode_steps=1000)
    latents, joints = stack.publisher(topics.LATENT), stack.publisher(topics.JOINT_STATES)
    commands = stack.tap(topics.JOINT_COMMAND)
    stack.wait_for_steps(10)
    bad = Image()
    fill_latent(bad, np.full((17, 8), np.nan, np.float32))
    stamp = 999_999_999_999
    state = JointState(name=["shoulder", "wrist"], position=[0.0, 0.0], velocity=[0.0, 0.0])
    joints.publish(stack.stamped(state, stamp))
    latents.publish(stack.stamped(bad, stamp))
    stack.wait_for(lambda: stamp in commands.stamps, "an answer to the NaN latent")
    assert list(commands.by_stamp()[stamp].effort) == [0.0, 0.0]
    stack.wait_for_value("vjepa_planner", "refused_latents", lambda count: count >= 1)
    stack.wait_for_steps(50)
    assert stack.driver == "random"
    assert stack.monitor.value("vjepa_planner", "fallbacks") == 0


def test_a_node_that_keeps_dying_is_given_up_with_its_name(lockstep_stack):
    stack = lockstep_stack(planner="expert", episode_steps=1000)
    failures: list[str] = []
    for _ in range(4):
        stack.wait_for(lambda: "vjepa_planner" in stack.supervisor.pids(), "the planner's process")
        stack.kill("vjepa_planner")
    stack.wait_for(lambda: failures.extend(stack.supervisor.poll()) or failures, "the stack to give up")
    assert "vjepa_planner" in failures[0]


def test_nodes_that_end_leave_no_shared_memory_for_others_to_wait_for(start_stack):
    stack = start_stack(planner="random")
    stack.wait_for_steps(5)
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in stack.supervisor.pids().values()]
    segments = set(re.findall(r"/dev/shm/fast(?:rtps|dds)_[0-9a-f]{16}\b", "".join(maps)))
    assert len(segments) == len(maps) + 1, "one of each node, and the listener's"
    stack.supervisor.stop()
    assert len([segment for segment in segments if Path(segment).exists()]) == 1, "the listener's"
