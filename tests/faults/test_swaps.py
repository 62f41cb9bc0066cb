"""Planners swapped again and again on a machine that is busy: each one drives, and no frame waits for its answer."""

import itertools
import os
from pathlib import Path

import pytest

from vjepa_interfaces import topics

pytestmark = [pytest.mark.faults, pytest.mark.real_time]

SWAPS, SWAPS_IN_FULL = 30, 1000
GROWTH_BYTES = 64 * 2**20
"""Of the planner's memory over all swaps: one that kept a planner each time would take far more."""


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(900)
def test_swaps_under_load_leave_no_frame_unanswered(lockstep_stack, hogs, full_size):
    count = SWAPS_IN_FULL if full_size else SWAPS
    stack = lockstep_stack(planner="expert", light=False, episode_steps=1000)
    frames, commands = stack.tap(topics.IMAGE), stack.tap(topics.JOINT_COMMAND)
    stack.wait_for_steps(5)
    pid = stack.supervisor.pids()["vjepa_planner"]
    for core in os.sched_getaffinity(0):
        hogs(1, core)
    before = resident_bytes(pid)
    names = itertools.islice(itertools.cycle(("bc", "random", "expert-p", "expert", "cem", "dreamer")), count)
    for name in names:
        assert stack.set_planner(name).successful
        stack.wait_for(lambda name=name: stack.driver == name, f"{name} to drive", 5.0)
    stack.wait_for_value("vjepa_planner", "swaps", lambda swaps: swaps == count)
    asked = set(frames.stamps) - {max(frames.stamps)}
    stack.wait_for(lambda: asked <= set(commands.stamps), "an answer to every frame", 5.0)
    assert stack.monitor.value("vjepa_planner", "refused_latents") == 0
    assert stack.monitor.value("vjepa_planner", "fallbacks") == 0
    assert stack.supervisor.restarts() == {}
    assert resident_bytes(pid) - before < GROWTH_BYTES
