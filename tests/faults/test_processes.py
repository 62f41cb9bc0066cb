"""Processes that die, stop or starve: no torque outlives its command, and all goes on by itself."""

import os
import signal
from pathlib import Path

import pytest

pytestmark = [pytest.mark.faults, pytest.mark.real_time]

DRIVING = ("vjepa_planner", "vjepa_perception")
"""The nodes without which no command comes."""


def stop_and_go_on(stack, node: str):
    """Stop a node's process as a debugger would, and return a function that lets it go on."""
    pid = stack.supervisor.pids()[node]
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


@pytest.mark.slow
def test_a_node_that_hangs_for_seconds_stops_the_arm_and_nothing_else(driven_arm, wait_said, tmp_path):
    arm = driven_arm(record=True, bag_dir=str(tmp_path))
    stack = arm.stack
    stack.wait_for(lambda: stack.monitor.is_active(1.0), "the whole stack to be active")
    for node in ("vjepa_planner", "vjepa_perception", "episode_recorder", "sim_bridge"):
        go_on = stop_and_go_on(stack, node)
        if node in DRIVING:
            arm.wait_still(f"zero torque while {node} hangs")
            wait_said(stack, "sim_bridge", "torque is zero")
        wait_said(stack, "stack_manager", f"not active: {node} (unknown)")  # It was stopped for two seconds by then.
        assert arm.is_driven or node != "episode_recorder"
        go_on()
        arm.wait_driven(f"{node} went on")
        stack.wait_for(lambda: stack.message_of("stack_manager") == "active", "all to be active", 5.0)
    go_on = stop_and_go_on(stack, "stack_manager")
    stack.wait_for_steps(100)
    assert arm.is_driven, "the manager is not in the loop"
    go_on()
    stack.wait_for(lambda: stack.monitor.is_active(1.0), "the manager to answer", 5.0)
    assert stack.supervisor.restarts() == {}
    arm.assert_never_held_too_long()


def test_a_killed_node_stops_the_arm_until_it_is_back(driven_arm, full_size):
    arm = driven_arm()
    stack = arm.stack
    others = ("vjepa_perception", "sim_bridge") if full_size else ()  # `test_survival` kills them in lockstep.
    for node in ("vjepa_planner", "stack_manager", *others):
        old = stack.kill(node)
        if node in DRIVING:
            arm.wait_still(f"zero torque without {node}")
        stack.wait_for(lambda node=node, old=old: stack.supervisor.pids().get(node, old) != old, "a new process")
        arm.wait_driven(f"{node} was killed", restarted=True)
        stack.wait_for(lambda: stack.monitor.is_active(1.0), "the whole stack to be active again", 30.0)
    assert set(stack.supervisor.restarts().values()) == {1}
    arm.assert_never_held_too_long()


@pytest.mark.slow
def test_a_starved_stack_stops_the_arm_rather_than_acting_late(driven_arm, hogs):
    arm = driven_arm()
    stack = arm.stack
    core = max(os.sched_getaffinity(0))
    tasks = [int(task.name) for pid in stack.supervisor.pids().values() for task in Path(f"/proc/{pid}/task").iterdir()]
    allowed = os.sched_getaffinity(tasks[0])
    late = stack.monitor.value("sim_bridge", "stale_steps", 0.0)
    for task in tasks:
        os.sched_setaffinity(task, {core})
    starving = hogs(10, core)
    stack.wait_for_value("sim_bridge", "stale_steps", lambda count: count > late + 5)
    for process in starving:
        process.kill()
        process.wait()
    for task in tasks:
        os.sched_setaffinity(task, allowed)
    arm.wait_driven("the hogs were gone")
    stack.wait_running()
    assert stack.supervisor.restarts() == {}
    arm.assert_never_held_too_long()
