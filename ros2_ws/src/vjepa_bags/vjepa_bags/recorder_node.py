"""Record every topic of the loop as a ROS node, in the bytes that crossed the wire, into a rosbag2 MCAP bag."""

import contextlib
from datetime import datetime
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import deserialize_message
from std_msgs.msg import String
from std_srvs.srv import SetBool

from vjepa_bags.bag_writer import BagWriter
from vjepa_bags.recorder_parameters import RecorderParameters
from vjepa_interfaces import access, topics
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.json_text import parse_json
from vjepa_interfaces.managed_node import ERROR, OK, STEADY, ManagedNode, Polled, run
from vjepa_interfaces.ros_subscriptions import MatchedSubscription

SUBSCRIPTION_DEPTH = 1000
"""Number of messages held between two polls and while the disk stalls; the audit reports messages that are lost."""
POLL_S = 0.1


class RecorderNode(ManagedNode):
    """`episode_recorder`: ten times a second, it writes the messages of raw subscriptions into one bag at a time.

    Without a bag it subscribes to nothing, so that no message wakes it.
    """

    Parameters = RecorderParameters

    def __init__(self) -> None:
        super().__init__("episode_recorder")
        self._writer: BagWriter | None = None
        self._taps: list[tuple[topics.Topic, str, MatchedSubscription]] = []
        self._polled = Polled()
        self._service: Any = None
        self._timer: Any = None
        self._failure = ""
        self._last_audit = ""

    def setup(self) -> None:
        """Offer the service, and open the bag if `record` is set.

        Raises:
            VjepaError: an entry of `provenance` is not `KEY=VALUE`, or the bag cannot be created.
        """
        pairs = [entry.partition("=") for entry in self.parameters.provenance]
        if wrong := [key for key, found, _ in pairs if not (key and found)]:
            raise VjepaError(f"provenance has '{wrong[0]}'; expected KEY=VALUE")
        self._provenance = {key: value for key, _, value in pairs}
        self._service = self.create_service(SetBool, "~/record", self._on_record)
        self._owns_clock = True
        if self.parameters.record:
            self._open()

    def stop(self) -> None:
        """Close the bag; its publishers have stopped already."""
        self._close()

    def teardown(self) -> None:
        """Close the bag and remove the service."""
        self._close()
        if self._service is not None:
            self.destroy_service(self._service)
            self._service = None

    def _open(self) -> Path:
        name = self.parameters.bag_name or datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")
        path = Path(self.parameters.bag_dir).expanduser() / name
        self._writer = BagWriter(path, self._provenance, max_file_s=self.parameters.max_file_s)
        self._failure = ""
        for topic in topics.RECORDED:
            full_name = self.resolve_topic_name(topic.name)
            self._writer.add_topic(full_name, topic.type, topic.depth, topic.latched)
            options = {"raw": True, "callback_group": self._polled}
            tap = self.subscribe(topic, lambda _: None, SUBSCRIPTION_DEPTH, **options)
            self._taps.append((topic, full_name, tap))
        self._timer = self.create_timer(POLL_S, self._poll, clock=STEADY)
        self.get_logger().info(f"recording into {path}")
        return path

    def _poll(self) -> None:
        """Write the messages that have arrived, in the order of arrival, and flush if due."""
        if self._writer is None:
            return
        arrived = []
        for topic, full_name, tap in self._taps:
            subscription: Any = tap.subscription
            with subscription.handle:
                while (taken := subscription.handle.take_message(subscription.msg_type, True)) is not None:
                    arrived.append((topic, full_name, *taken))
        if any(topic == topics.CLOCK for topic, *_ in arrived) and not self._is_own_clock():
            arrived = [each for each in arrived if each[0] != topics.CLOCK]
        arrived = [
            each for each in arrived if each[0] != topics.DIAGNOSTICS or not self._is_others_diagnostics(each[2])
        ]
        arrived.sort(key=lambda each: each[3]["received_timestamp"])
        try:
            for topic, full_name, data, info in arrived:
                self._write(self._writer, topic, full_name, data, info)
            self._writer.flush_if_due()
        except VjepaError as error:
            self._fail(error)

    def _is_own_clock(self) -> bool:
        """Return whether `/clock`, which all namespaces share, is from this namespace, now and at the last query."""
        publishers = self.get_publishers_info_by_topic(topics.CLOCK.name)
        owners = {info.node_namespace.rstrip("/") for info in publishers}
        before = self._owns_clock
        if owners:  # A message after the last publisher has left is still from it.
            self._owns_clock = self.get_namespace().rstrip("/") in owners
        return before and self._owns_clock

    def _is_others_diagnostics(self, data: bytes) -> bool:
        """Return whether a message on `/diagnostics`, which all namespaces share, is from another namespace."""
        own = self.get_namespace().rstrip("/")
        with contextlib.suppress(RuntimeError):
            names = [status.name for status in deserialize_message(data, DiagnosticArray).status]
            found = [name.rpartition("/") for name in names]
            return bool(found) and all(name in access.NODES and namespace != own for namespace, _, name in found)
        return False

    def _write(self, writer: BagWriter, topic: topics.Topic, full_name: str, data: bytes, info: dict[str, Any]) -> None:
        writer.write(
            full_name, data, info["received_timestamp"], info["source_timestamp"], info["publication_sequence_number"]
        )
        if topic == topics.LATENT_INFO:
            self._note(writer, "encoder_info", data)
        elif topic == topics.ACTIVE_PLANNER:
            self._note(writer, "planners", data)

    def _note(self, writer: BagWriter, key: str, data: bytes) -> None:
        """Keep the messages of latched topics about the encoder and the planners in the metadata."""
        try:
            text = deserialize_message(data, String).data
            info = parse_json(text) if key == "encoder_info" else {}
            fingerprint = str(info.get("fingerprint", ""))
        except (RuntimeError, ValueError) as error:  # Any node may publish there.
            self.get_logger().warning(f"{key} is left out of the bag's metadata: {error}", throttle_duration_sec=1.0)
            return
        known = self._provenance.get(key, "")
        if key == "planners" and known:
            text = known if text in known.split(", ") else f"{known}, {text}"
        self._provenance[key] = text
        if key == "encoder_info":
            self._provenance["encoder_fingerprint"] = fingerprint
        writer.annotate(self._provenance)

    def _fail(self, error: VjepaError) -> None:
        self._failure = str(error)
        self.get_logger().error(self._failure)
        self._end()

    def _close(self) -> str:
        """Close the bag with all arrived messages, if one is open, and return its audit as a line."""
        self._poll()
        return self._end()

    def _end(self) -> str:
        for _, _, tap in self._taps:
            self.unsubscribe(tap)
        self._taps = []
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        if self._writer is None:
            return ""
        writer, self._writer = self._writer, None
        audit = writer.close()
        if audit.error and not self._failure:  # The remedy was logged already.
            self._failure = f"{writer.path}: {audit.error}"
        self._last_audit = str(audit)
        self.get_logger().info(f"closed {writer.path}: {audit}")
        return self._last_audit

    def _on_record(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Open a bag, or close the open one."""
        if request.data == (self._writer is not None):
            response.success = False
            response.message = f"already recording into {self._writer.path}" if self._writer else "not recording"
            return response
        try:
            response.message = f"recording into {self._open()}" if request.data else self._close()
            response.success = not self._failure
        except VjepaError as error:
            response.success, response.message = False, str(error)
        return response

    def diagnose(self) -> tuple[bytes, str, dict[str, Any]]:
        """Report whether and where a bag is being written."""
        if self._failure:
            return ERROR, self._failure, {}
        if self._writer is None:
            return OK, "not recording", {"last_audit": self._last_audit} if self._last_audit else {}
        audit = self._writer.audit()
        counts = {"recorded": sum(topic.recorded for topic in audit.topics), "lost": audit.lost}
        return OK, "recording", {"bag": self._writer.path, **counts}


def main() -> None:
    """Run `episode_recorder` until it is told to stop."""
    run(RecorderNode, SingleThreadedExecutor)  # The events executor would take the messages that `_poll` takes.
