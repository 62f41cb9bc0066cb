"""The times of a frame become spans that are in order and add up, and a file that Chrome's trace viewers read."""

import json
from itertools import pairwise

import pytest

from vjepa_interfaces.frame_trace import PERCEPTION, PLANNER, SIM, SPANS, FrameTrace, trace_text

STAMP_NS = 1_020_000_000


def traced(begin_s: float = 10.0, stamp_ns: int = STAMP_NS) -> dict[str, str]:
    """The message of each node about a frame whose spans last 1, 2, 3 ... ms."""
    times: dict[str, dict[str, float]] = {SIM: {"begun": begin_s}, PERCEPTION: {}, PLANNER: {}}
    now_s = begin_s
    for number, (_, node, mark) in enumerate(SPANS, 1):
        now_s += number * 1e-3
        times[node][mark] = now_s
    return {node: trace_text(node, stamp_ns, marks) for node, marks in times.items()}


def read(*texts: str) -> FrameTrace:
    trace = FrameTrace()
    for text in texts:
        trace.read(text)
    return trace


def test_the_spans_of_a_frame_are_in_order_and_add_up_whatever_node_came_first():
    messages = traced()
    (spans,) = read(messages[PLANNER], messages[SIM], messages[PERCEPTION]).complete_frames().values()
    assert [span.number for span in spans] == list(range(len(SPANS)))
    assert all(before.end_s == after.begin_s for before, after in pairwise(spans))
    assert [span.end_s - span.begin_s for span in spans] == pytest.approx([1e-3 * (i + 1) for i in range(len(SPANS))])


def test_a_frame_without_an_answer_has_the_spans_that_are_known():
    trace = read(traced()[PERCEPTION])
    assert [SPANS[span.number][0] for span in trace.frames()[STAMP_NS]] == [
        "preprocess",
        "wait for encoder",
        "encode",
        "publish latent",
    ]
    assert trace.complete_frames() == {}


def test_a_frame_that_is_sent_again_keeps_its_first_times():
    assert read(*traced().values(), *traced(20.0).values()).frames() == read(*traced().values()).frames()


def test_the_file_has_a_named_row_for_each_span_and_times_in_microseconds(tmp_path):
    read(*traced().values(), *traced(11.0, 2 * STAMP_NS).values()).write(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    rows = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert list(rows.values()) == [name for name, _, _ in SPANS]
    spans = [event for event in events if event["ph"] == "X"]
    assert len(spans) == 2 * len(SPANS)
    assert all(rows[span["pid"], span["tid"]] == span["name"] for span in spans)
    assert (spans[0]["ts"], spans[0]["dur"]) == pytest.approx((10e6, 1e3))
    assert {span["args"]["stamp"] for span in spans} == {STAMP_NS, 2 * STAMP_NS}
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert sorted(processes.values()) == [SIM, PERCEPTION, PLANNER]


@pytest.mark.parametrize(
    "text", ["{}", '{"node": "sim_bridge", "stamp": [], "times": {}}', '{"node": "a", "stamp": 1, "times": 2}']
)
def test_what_is_no_trace_is_refused(text):
    with pytest.raises(ValueError, match="it is no trace of a frame"):
        read(text)
