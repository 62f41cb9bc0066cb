"""Frames in, latents out: the V-JEPA 2 encoder as a ROS node.

The subscription thread pushes every frame into the clip, and a worker encodes only the newest clip. So a slow encoder
skips clips, which are counted, and never works on a queue of old ones.
"""

import json
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import String

from vjepa_interfaces import topics
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.image_codec import compressed_to_rgb, image_to_rgb
from vjepa_interfaces.managed_node import ERROR, OK, WARN, ManagedNode, run
from vjepa_interfaces.messages import fill_latent
from vjepa_interfaces.ros_subscriptions import MatchedSubscription
from vjepa_interfaces.ros_trace import TracePublisher
from vjepa_interfaces.stamps import set_stamp, to_nanoseconds
from vjepa_interfaces.statistics import Counts, Durations, Failure, RateMeter
from vjepa_perception.clip import ClipBuffer
from vjepa_perception.newest import NewestWorker
from vjepa_perception.perception_parameters import PerceptionParameters

FRAME_SILENCE_S = 2.0
"""After this time without a frame, diagnostics report it."""

CATCH_UP_S = 0.01
"""The longest time for frames that wait in the subscription, before the newest one so far is encoded."""


class Clip(NamedTuple):
    """A clip to encode, and the steady times in seconds at which its newest frame passed this node's parts."""

    stamp_ns: int
    frames: tuple[Any, ...]
    arrived_s: float
    preprocessed_s: float


class PerceptionNode(ManagedNode):
    """`vjepa_perception`: one encoder, one clip, one worker thread."""

    Parameters = PerceptionParameters

    def __init__(self) -> None:
        super().__init__("vjepa_perception")
        self._encoder: Any = None
        self._worker: NewestWorker[Clip] | None = None
        self._publishing = threading.Lock()

    def preload(self) -> None:
        """Import torch and the encoder."""
        import vjepa_perception.encoder  # noqa: F401

    def setup(self) -> None:
        """Load the encoder and warm it up."""
        from vjepa_perception.encoder import load_encoder

        self._encoder = load_encoder(self.parameters, live=not self.parameters.lockstep)
        if reason := self._encoder.dtype_reason:
            self.get_logger().info(f"{self._encoder.name} computes in {self._encoder.info()['dtype']}: {reason}")
        self._encoder.warm_up()
        self._latents = self.publisher(topics.LATENT)
        self._info = self.publisher(topics.LATENT_INFO)
        self._trace = TracePublisher(self)
        self._frames = self._subscribe_frames()

    def _subscribe_frames(self) -> MatchedSubscription:
        depth = topics.IMAGE_SUBSCRIPTION_DEPTH
        if self.parameters.input_transport == "raw":
            return self.subscribe(topics.IMAGE, lambda m: self._on_frame(m, image_to_rgb), depth)
        return self.subscribe(topics.COMPRESSED_IMAGE, lambda m: self._on_frame(m, compressed_to_rgb), depth)

    def start(self) -> None:
        """Announce the encoder and start the worker."""
        self._counts = Counts()
        self._encode_time = Durations()
        self._rate = RateMeter()
        self._clip = ClipBuffer(self.parameters.clip_frames)
        self._encoded: tuple[int, np.ndarray] | None = None
        self._stamp_ns = self._failed_ns = 0
        self._arrived_s = 0.0
        self._failure = Failure()
        self._rivals = ""
        self._announce()
        self._worker = NewestWorker(self._encode, "encode")

    def _announce(self) -> None:
        """Publish the latent info of this encoder on the latched topic."""
        self._info.publish(String(data=json.dumps(self._encoder.info())))

    def _announced_elsewhere(self) -> str:
        """Return a text about other publishers of latent info, and publish ours again: theirs may differ."""
        before, self._rivals = self._rivals, self.rivals_on(self._info.topic_name)
        if self._rivals or before:
            self._announce()
        return self._rivals

    def stop(self) -> None:
        """Wait until the worker has finished its clip and ended."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def teardown(self) -> None:
        """Free the encoder, and the memory of its device."""
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None

    def _on_frame(self, message: Any, decode: Callable[[Any], np.ndarray]) -> None:
        """Push a frame and those that wait behind it into the clip, and offer the newest clip to the worker."""
        began_s = time.monotonic()
        newest: Clip | None = None
        while message is not None and self.active:
            clip = self._pushed(message, decode)
            self._counts["skipped_encodes"] += clip is not None and newest is not None
            newest = clip or newest
            message = self._frames.take() if time.monotonic() - began_s < CATCH_UP_S else None
        if newest is not None and self._worker is not None:
            self._counts["skipped_encodes"] += self._worker.offer(newest)

    def _pushed(self, message: Any, decode: Callable[[Any], np.ndarray]) -> Clip | None:
        """Push a frame into the clip and return the clip, or None if there is nothing new to encode."""
        stamp_ns = to_nanoseconds(message.header.stamp)
        now = time.monotonic()
        if stamp_ns == self._stamp_ns:
            return self._repeated(stamp_ns, now)
        try:
            frame = self._encoder.preprocess(decode(message))
        except VjepaError as error:
            self._counts["refused_frames"] += 1
            self._failure.begin(str(error))
            self.get_logger().error(f"frame refused: {error}", throttle_duration_sec=1.0)
            return None
        self._failure.end()
        self._stamp_ns, self._arrived_s = stamp_ns, now
        self._counts["frames"] += 1
        return Clip(stamp_ns, self._clip.push(stamp_ns, frame), now, self._trace.now())

    def _repeated(self, stamp_ns: int, now: float) -> Clip | None:
        """Answer a repeated frame with its cached latent, or return the clip if encoding it failed before."""
        self._counts["repeated_frames"] += 1
        encoded = self._encoded
        if encoded is not None and encoded[0] == stamp_ns:
            self._publish(*encoded)
        elif self._failed_ns == stamp_ns:
            return Clip(stamp_ns, self._clip.frames, now, self._trace.now())
        return None

    def _encode(self, clip: Clip) -> None:
        """Encode a clip and publish its latent."""
        taken_s = time.monotonic()
        try:
            latent = self._encoder.encode([clip.frames])[0]
        except Exception as error:
            self._counts["failed_encodes"] += 1
            self._failed_ns = clip.stamp_ns
            reason = f"encode failed: {type(error).__name__}: {error}"
            self._failure.begin(reason)
            self.get_logger().error(f"{reason}\n{traceback.format_exc()}", throttle_duration_sec=1.0)
            return
        encoded_s = time.monotonic()
        self._encode_time.add(encoded_s - taken_s)
        self._encoded = (clip.stamp_ns, latent)
        sent_s = self._publish(clip.stamp_ns, latent)
        times = {"arrived": clip.arrived_s, "preprocessed": clip.preprocessed_s, "taken": taken_s}
        self._trace.publish(clip.stamp_ns, times | {"encoded": encoded_s, "sent": sent_s})

    def _publish(self, stamp_ns: int, latent: np.ndarray) -> float:
        """Publish a latent (rows, dimension) float32, and return the steady time in seconds at which it was sent."""
        message = Image()
        message.header.frame_id = topics.CAMERA_FRAME
        set_stamp(message.header.stamp, stamp_ns)
        fill_latent(message, latent)
        sent_s = time.monotonic()
        self._latents.publish(message)
        with self._publishing:  # The worker publishes, and the subscription a repeated frame's latent.
            self._counts["latents"] += 1
            self._rate.tick(sent_s)
        return sent_s

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        """Return the encoder, its speed, and the counts of refused and skipped frames."""
        values = {"encoder": self._encoder.name, "fingerprint": self._encoder.fingerprint}
        values |= {"device": str(self._encoder.device), "dtype": self._encoder.info()["dtype"]}
        values |= {"untrained": self._encoder.untrained}
        if not self.active:
            return OK, "configured", values
        p50, p99 = self._encode_time.percentiles(50, 99)
        now = time.monotonic()
        values |= {"rate_hz": self._rate.rate(now), "encode_p50_ms": p50, "encode_p99_ms": p99}
        if self._arrived_s:
            values["frame_age_s"] = now - self._arrived_s
        names = ("frames", "latents", "repeated_frames", "skipped_encodes", "refused_frames", "failed_encodes")
        values |= {name: self._counts[name] for name in names}
        elsewhere = self._announced_elsewhere()
        if failure := self._failure.report():
            return ERROR, failure, values
        if elsewhere:
            return WARN, elsewhere, values
        if not self._arrived_s:
            return WARN, f"no frame yet on {self._frames.topic_name}", values
        if now - self._arrived_s > FRAME_SILENCE_S:
            return WARN, f"no frame for {now - self._arrived_s:.1f} s on {self._frames.topic_name}", values
        return OK, "encoding", values


def main() -> None:
    """Run `vjepa_perception` until it is told to stop."""
    run(PerceptionNode)
