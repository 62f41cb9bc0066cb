"""The perception node with a fake encoder: how it is loaded, which frames enter the clip, and what is encoded."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from vjepa_bringup.domains import hold_domain
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.stamps import set_stamp
from vjepa_perception import encoder, perception_node
from vjepa_perception.perception_node import PerceptionNode

PERIOD_NS = 20_000_000
TIMEOUT_S = 20.0


class FakeEncoder:
    """An encoder of the numbers of frames. It notes the clips that it encodes."""

    name, fingerprint, device, untrained = "fake", "0" * 16, "cpu", True
    dtype_reason = "a layer takes 2.00 ms in float32 and 1.00 ms in bfloat16"

    def __init__(self) -> None:
        self.is_live = self.is_broken = False
        self.clips: list[tuple[int, ...]] = []
        self.has_encoded = threading.Event()

    def preprocess(self, picture: np.ndarray) -> int:
        if picture[0, 0, 0] == 255:
            raise VjepaError("a white frame")
        return int(picture[0, 0, 0])

    def encode(self, clips):
        if self.is_broken:
            raise RuntimeError("broken")
        self.clips += clips
        self.has_encoded.set()
        return np.zeros((1, 1, 1), np.float32)

    def info(self):
        return {"fingerprint": self.fingerprint, "shape": [1, 1], "dtype": "bfloat16"}

    def warm_up(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def unconfigured(monkeypatch):
    """A node that is not configured yet."""

    def load(config, live: bool) -> FakeEncoder:
        fake = FakeEncoder()
        fake.is_live = live
        return fake

    monkeypatch.setattr(encoder, "load_encoder", load)
    with hold_domain(None, {"planner": "(frames)"}) as domain:
        rclpy.init(domain_id=domain)
        node = PerceptionNode()
        yield node
        node.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture
def node(unconfigured, monkeypatch):
    """An active node, whose subscription holds the messages of `node.waiting`; it takes them however slow a machine."""
    monkeypatch.setattr(perception_node, "CATCH_UP_S", TIMEOUT_S)
    assert unconfigured.trigger_configure().name == "SUCCESS", unconfigured.last_error
    assert unconfigured.trigger_activate().name == "SUCCESS", unconfigured.last_error
    unconfigured.waiting = []
    waiting = unconfigured.waiting
    monkeypatch.setattr(unconfigured._frames, "take", lambda: waiting.pop(0) if waiting else None)
    return unconfigured


def frame(number: int, shade: int | None = None) -> Image:
    message = Image(height=1, width=1, encoding="rgb8", step=3, data=[number if shade is None else shade] * 3)
    set_stamp(message.header.stamp, 1_000_000_000 + number * PERIOD_NS)
    return message


def arrive(node: PerceptionNode, *messages: Image) -> None:
    """Give messages to the node at once: the first as the executor does, while the others wait."""
    node.waiting += messages[1:]
    node._frames._deliver(messages[0])


def clips_encoded(node: PerceptionNode) -> list[tuple[int, ...]]:
    """End the node's work and return the last two frames of each clip that was encoded."""
    assert node._encoder.has_encoded.wait(TIMEOUT_S)
    assert node.trigger_deactivate().name == "SUCCESS", node.last_error
    return [clip[-2:] for clip in node._encoder.clips]


@pytest.mark.parametrize("lockstep", [False, True])
def test_the_type_is_measured_in_real_time_alone_and_is_in_log_and_diagnostics(unconfigured, lockstep, capfd):
    unconfigured.set_parameters([Parameter("lockstep", value=lockstep)])
    assert unconfigured.trigger_configure().name == "SUCCESS", unconfigured.last_error
    assert unconfigured._encoder.is_live == (not lockstep)
    assert unconfigured.diagnose()[2]["dtype"] == "bfloat16"
    assert f"fake computes in bfloat16: {FakeEncoder.dtype_reason}" in capfd.readouterr().err


def test_of_frames_that_wait_all_enter_the_clip_and_only_the_newest_is_encoded(node):
    arrive(node, frame(1), frame(2), frame(3))
    counts = SimpleNamespace(**node._counts)
    assert clips_encoded(node) == [(2, 3)]
    assert (counts.frames, counts.skipped_encodes) == (3, 2)


def test_a_refused_or_repeated_frame_behind_the_newest_one_does_not_keep_it_from_being_encoded(node):
    arrive(node, frame(1), frame(2), frame(2), frame(3, shade=255))
    counts = SimpleNamespace(**node._counts)
    assert clips_encoded(node) == [(1, 2)]
    assert (counts.frames, counts.repeated_frames, counts.refused_frames, counts.skipped_encodes) == (2, 1, 1, 1)


def test_a_frame_whose_encoding_failed_is_encoded_when_it_is_repeated(node):
    node._encoder.is_broken = True
    arrive(node, frame(1))
    deadline = time.monotonic() + TIMEOUT_S
    while "encode failed: RuntimeError: broken" not in node.diagnose()[1]:
        assert time.monotonic() < deadline
    node._encoder.is_broken = False
    arrive(node, frame(1))
    assert clips_encoded(node) == [(1, 1)]


def test_a_camera_faster_than_preprocessing_does_not_keep_the_encoder_waiting(node, monkeypatch):
    monkeypatch.setattr(perception_node, "CATCH_UP_S", 0.0)
    arrive(node, frame(1), frame(2))
    assert clips_encoded(node) == [(1, 1)]
    assert len(node.waiting) == 1
