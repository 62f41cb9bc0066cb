"""A trace shows where the milliseconds between a frame and its torque go, and costs nothing while it is off."""

import json
from statistics import median

import pytest

from tests.conftest import lightened
from vjepa_bringup.graph import StackOptions
from vjepa_bringup.run_graph import run_graph
from vjepa_interfaces import topics
from vjepa_interfaces.frame_trace import SPANS, FrameTrace

EPISODES, STEPS = 2, 40


@pytest.mark.parametrize("lockstep", [True, pytest.param(False, marks=pytest.mark.real_time)])
def test_the_spans_of_each_frame_are_in_order_and_add_up_to_the_latency(forking, tmp_path, lockstep):
    options = {"planner": "expert", "lockstep": lockstep, "episodes": EPISODES, "trace": True}
    options = StackOptions(task="reacher-easy", log_level="warn", **lightened(options, tmp_path / "light.yaml"))
    trace = FrameTrace()
    result = run_graph(options, STEPS, trace=trace)
    frames = trace.complete_frames()
    assert len(frames) == pytest.approx(result.loop["answered_frames"], abs=2)
    totals_ms = []
    for spans in frames.values():
        assert all(span.end_s >= span.begin_s for span in spans), [(SPANS[i][0], end - a) for i, a, end in spans]
        totals_ms.append(1e3 * sum(span.end_s - span.begin_s for span in spans))
    assert median(totals_ms) == pytest.approx(result.loop["latency_p50_ms"], rel=0.05)
    trace.write(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(event["ph"] == "X" for event in events) >= len(frames) * len(SPANS)


def test_no_times_are_published_without_a_trace(lockstep_stack):
    stack = lockstep_stack(planner="expert", episodes=1, episode_steps=20)
    times = stack.tap(topics.TRACE)
    stack.wait_finished()
    assert times.messages == []
