"""The publisher of a node's times on `trace`."""

import math
import time

from std_msgs.msg import String

from vjepa_interfaces import topics
from vjepa_interfaces.frame_trace import trace_text
from vjepa_interfaces.managed_node import ManagedNode


class TracePublisher:
    """Publishes the times of frames in one node if its parameter `trace` is set, and otherwise takes none.

    Attributes:
        is_on: whether times are published.
    """

    def __init__(self, node: ManagedNode):
        """Create the publisher of a configured `node`, whose parameters include `trace`."""
        self.is_on: bool = node.parameters.trace
        self._name, self._publisher = node.get_name(), node.publisher(topics.TRACE)

    def now(self) -> float:
        """Return the steady time in seconds; NaN without a trace."""
        return time.monotonic() if self.is_on else math.nan

    def publish(self, stamp_ns: int, times: dict[str, float]) -> None:
        """Publish the steady times, seconds by mark, at which a frame passed the marks of this node."""
        if self.is_on:
            self._publisher.publish(String(data=trace_text(self._name, stamp_ns, times)))
