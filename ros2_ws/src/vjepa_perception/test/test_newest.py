"""The worker that encodes: an idle one starts at once, and a busy one takes the newest item next."""

import statistics
import threading
import time

import pytest

from vjepa_perception.newest import NewestWorker

ENCODE_S, FRAME_S = 0.013, 0.020
TIMEOUT_S = 20.0


class Encoder:
    """A fake encoder. It notes each item that it begins, and waits for `go` before it ends one."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.go = threading.Event()
        self._changed = threading.Condition()

    def __call__(self, item: int) -> None:
        with self._changed:
            self.begun.append(item)
            self._changed.notify()
        assert self.go.wait(TIMEOUT_S)

    def wait_for(self, begun: list[int]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.begun == begun, TIMEOUT_S), self.begun


@pytest.fixture
def encoder():
    encoder = Encoder()
    yield encoder
    encoder.go.set()


@pytest.mark.real_time
def test_an_idle_worker_begins_when_a_frame_arrives():
    waits_s = []

    def encode(arrived_s: float) -> None:
        waits_s.append(time.monotonic() - arrived_s)
        time.sleep(ENCODE_S)

    worker = NewestWorker(encode, "encode")
    began_s = time.monotonic()
    for frame in range(50):
        time.sleep(max(0.0, began_s + frame * FRAME_S - time.monotonic()))
        worker.offer(time.monotonic())
    worker.close()
    assert statistics.median(waits_s) < 0.001


def test_a_busy_worker_takes_the_newest_of_the_frames_that_wait(encoder):
    worker = NewestWorker(encoder, "encode")
    assert not worker.offer(1)
    encoder.wait_for([1])
    assert [worker.offer(item) for item in (2, 3, 4)] == [False, True, True]
    encoder.go.set()
    encoder.wait_for([1, 4])
    worker.close()
    assert encoder.begun == [1, 4]


def test_a_closed_worker_ends_its_item_and_drops_the_one_that_waits(encoder):
    worker = NewestWorker(encoder, "encode")
    worker.offer(1)
    encoder.wait_for([1])
    worker.offer(2)
    closing = threading.Thread(target=worker.close)
    closing.start()
    encoder.go.set()
    closing.join(TIMEOUT_S)
    assert not closing.is_alive()
    assert encoder.begun == [1]
