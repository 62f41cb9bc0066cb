"""The clip buffer, frame by frame."""

import pytest

from vjepa_interfaces.errors import VjepaError
from vjepa_perception.clip import ClipBuffer

STEP_NS = 20_000_000


def test_a_clip_begins_with_the_first_frame_repeated_and_then_slides():
    buffer = ClipBuffer(3)
    clips = [buffer.push(10**9 + i * STEP_NS, frame) for i, frame in enumerate("abcd")]
    assert ["".join(clip) for clip in clips] == ["aaa", "aab", "abc", "bcd"]


def test_a_repeated_stamp_changes_nothing_even_with_another_frame():
    buffer = ClipBuffer(3)
    buffer.push(10**9, "a")
    clip = buffer.push(10**9 + STEP_NS, "b")
    assert buffer.push(10**9 + STEP_NS, "other") == clip == buffer.frames
    assert buffer.push(10**9 + 2 * STEP_NS, "c") == ("a", "b", "c")


@pytest.mark.parametrize("stamp_ns", [10**9, 10**9 + STEP_NS + 500_000_001], ids=["backward", "gap"])
def test_an_episode_sees_no_frame_of_the_one_before(stamp_ns):
    buffer = ClipBuffer(3)
    buffer.push(10**9, "a")
    buffer.push(10**9 + STEP_NS, "b")
    assert buffer.push(stamp_ns, "c") == ("c", "c", "c")


def test_a_gap_of_half_a_second_is_the_same_episode():
    buffer = ClipBuffer(2)
    buffer.push(10**9, "a")
    assert buffer.push(10**9 + 500_000_000, "b") == ("a", "b")


def test_a_clip_handed_out_does_not_slide_on():
    buffer = ClipBuffer(2)
    clip = buffer.push(10**9, "a")
    buffer.push(10**9 + STEP_NS, "b")
    assert clip == ("a", "a")


def test_there_are_no_frames_before_the_first():
    assert ClipBuffer(8).frames == ()


@pytest.mark.parametrize("length", [0, -8])
def test_a_clip_without_frames_is_refused(length):
    with pytest.raises(VjepaError, match="expected at least 1"):
        ClipBuffer(length)
