"""The publishers of the simulation's scores."""

import time
from typing import TYPE_CHECKING

from std_msgs.msg import String

from sim_bridge.score import ScoreKeeper, ScoreMessage
from vjepa_interfaces import topics
from vjepa_interfaces.managed_node import ManagedNode
from vjepa_interfaces.messages import FIRST, LAST

if TYPE_CHECKING:  # The choice of an OpenGL backend must come before the import of the physics.
    from sim_bridge.env import SimEnv, SimStep

PROGRESS_S = 0.1
"""Seconds from one message about the running episode to the next."""


class ScorePublisher:
    """Publishes the score of each episode that has ended, and the progress of the running one while anybody listens.

    Attributes:
        publishers: the publishers of both topics.
    """

    def __init__(self, node: ManagedNode, env: "SimEnv"):
        """Create the publishers of `node`."""
        self._keeper = ScoreKeeper(env.config.task, env.limits)
        self._run = time.time_ns()
        self._progress, self._score = node.publisher(topics.PROGRESS), node.publisher(topics.SCORE)
        self.publishers = (self._progress, self._score)
        self._step: SimStep | None = None

    def add(self, step: "SimStep") -> None:
        """Score a step, unless it was the last one already, and publish the beginning or the end of an episode."""
        if self._step is not None and step.stamp_ns == self._step.stamp_ns:
            return
        self._keeper.add(step)
        self._step = step
        if step.step_type == FIRST:
            self.publish_progress()
        elif step.step_type == LAST:
            self._score.publish(self._message(step))

    def publish_progress(self) -> None:
        """Publish the score so far if anybody listens. Call this each `PROGRESS_S`, after the node is active."""
        if self._step is not None and self._progress.get_subscription_count():
            self._progress.publish(self._message(self._step))

    def _message(self, step: "SimStep") -> String:
        parts = ScoreMessage(self._run, step.episode, self._keeper.distance_m, self._keeper.episode)
        return String(data=parts.text())
