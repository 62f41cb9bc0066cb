"""A subscription that adapts to the publishers' reliability, and names publishers whose messages cannot arrive."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from rclpy.exceptions import InvalidParameterTypeException
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

from vjepa_interfaces import topics
from vjepa_interfaces.errors import VjepaError

OVERRIDES = "qos_overrides"
POLICIES = ("reliability", "durability")
"""The policies in which a publisher and a subscription may be incompatible."""
OVERRIDING = QoSOverridingOptions(
    [QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY]
)
"""The policies that `qos_overrides.TOPIC.subscription.POLICY` and `.publisher.POLICY` may set, as rclpy reads them."""


def qos_profile(topic: topics.Topic, depth: int | None = None) -> QoSProfile:
    """Return the rclpy QoS profile of a `topic`, with another history `depth` if one is given."""
    durability = DurabilityPolicy.TRANSIENT_LOCAL if topic.latched else DurabilityPolicy.VOLATILE
    return QoSProfile(depth=depth or topic.depth, reliability=ReliabilityPolicy.RELIABLE, durability=durability)


@contextlib.contextmanager
def overrides_read(node: Node) -> Iterator[None]:
    """Create an endpoint that reads `qos_overrides`; raise VjepaError if these have values that no policy has."""
    try:
        yield
    except (RuntimeError, ValueError, AssertionError, InvalidQosOverridesError, InvalidParameterTypeException) as error:
        given = {n: p.value for n, p in node._parameter_overrides.items() if n.startswith(f"{OVERRIDES}.")}
        if not given:
            raise
        raise VjepaError(f"{given}: {error}; expected a value of that policy, such as best_effort") from error


class MatchedSubscription:
    """A subscription that is reliable if every publisher is, and best effort otherwise.

    Drivers of cameras and arms often offer best effort, and a reliable subscription receives nothing from them. So a
    topic that drivers publish (`Topic.sensor`) is subscribed to again, best effort, after such a publisher appears. A
    policy from `qos_overrides` stays unchanged.

    Attributes:
        subscription: rclpy's subscription; `match` may replace it.
        topic_name: the full name, after remappings.
    """

    def __init__(
        self,
        node: Node,
        topic: topics.Topic,
        callback: Callable[[Any], None],
        depth: int | None = None,
        **options: Any,
    ):
        """Subscribe; `callback` and `options` are those of `Node.create_subscription`.

        Raises:
            VjepaError: a parameter `qos_overrides...` of this subscription has a value that its policy cannot have.
        """
        self._node = node
        self._topic, self._options = topic, options

        @functools.wraps(callback)
        def deliver(*arguments: Any) -> None:
            if not self._is_destroyed:  # An executor may still hold a message.
                callback(*arguments)

        self._deliver = deliver
        self._profile = qos_profile(topic, depth)
        self.topic_name = node.resolve_topic_name(topic.name)
        with overrides_read(node):
            self.subscription = self._subscribed(qos_overriding_options=OVERRIDING)
        override = f"{OVERRIDES}.{self.topic_name}.subscription.reliability"
        self._follows = topic.sensor and override not in node._parameter_overrides

    def _subscribed(self, **more: Any) -> Subscription:
        self._is_destroyed = False
        return self._node.create_subscription(
            self._topic.message_class, self._topic.name, self._deliver, self._profile, **self._options, **more
        )

    def take(self) -> Any:
        """Return the next message that waits, or None; for a callback that looks for newer messages than its own.

        Only the thread that spins the node may call this.
        """
        with self.subscription.handle:
            taken: Any = self.subscription.handle.take_message(self.subscription.msg_type, False)
        return None if taken is None else taken[0]

    def match(self) -> list[str]:
        """Change to best effort if a publisher offers it; return a text for each incompatible publisher.

        This queries the graph, so call it once a second.
        """
        offers = self._node.get_publishers_info_by_topic(self.topic_name)
        best_effort = any(offer.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT for offer in offers)
        if best_effort and self._follows and self._profile.reliability == ReliabilityPolicy.RELIABLE:
            self._profile.reliability = ReliabilityPolicy.BEST_EFFORT
            self.destroy()
            self.subscription = self._subscribed()
        return [misfit for offer in offers if (misfit := self._misfit(offer))]

    def _misfit(self, offer: TopicEndpointInfo) -> str:
        """Return why a publisher's messages cannot arrive, or nothing if they can."""
        who = f"{offer.node_namespace.rstrip('/')}/{offer.node_name} publishes {self.topic_name}"
        if offer.topic_type != self._topic.type:
            return f"{who} as {offer.topic_type}; expected {self._topic.type}"
        compatibility, reason = qos_check_compatible(offer.qos_profile, self._profile)
        if compatibility != QoSCompatibility.ERROR:
            return ""
        pairs = {policy: (getattr(offer.qos_profile, policy), getattr(self._profile, policy)) for policy in POLICIES}
        unlike = [f"{name} {offered.name}, not {own.name}" for name, (offered, own) in pairs.items() if offered != own]
        return f"{who} with {' and '.join(unlike) or reason}: nothing of it arrives"

    def destroy(self) -> None:
        """Unsubscribe; no message is delivered after it."""
        self._is_destroyed = True
        self._node.destroy_subscription(self.subscription)
