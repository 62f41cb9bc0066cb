"""The publishers of the simulation's topics and of `/clock`."""

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import PointStamped, Vector3Stamped
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState

from sim_bridge.ros_score_publisher import ScorePublisher
from vjepa_interfaces import topics
from vjepa_interfaces.image_codec import fill_image
from vjepa_interfaces.managed_node import ManagedNode
from vjepa_interfaces.messages import Timestep, fill_timestep
from vjepa_interfaces.ros_subscriptions import qos_profile
from vjepa_interfaces.stamps import set_stamp

if TYPE_CHECKING:  # The choice of an OpenGL backend must come before the import of the physics.
    from sim_bridge.env import SimEnv, SimStep


class ClockPublisher:
    """The publisher of `/clock`. A ROS domain has one clock, so it publishes only if no other node does.

    Attributes:
        rival: name of the other node that publishes `/clock`; empty for none.
    """

    def __init__(self, node: ManagedNode):
        self._node = node
        self._publisher: Any = None
        self.rival = ""

    def take(self) -> None:
        """Begin to publish, unless another node does."""
        self.rival = self._other()
        if not self.rival:
            self._publisher = self._node.create_publisher(Clock, topics.CLOCK.name, qos_profile(topics.CLOCK))

    def leave(self) -> None:
        """Stop publishing."""
        self.rival = ""
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
            self._publisher = None

    def keep_one(self) -> None:
        """Begin to publish if the other node has ended.

        If two simulations began at the same time, the node whose name comes first keeps the clock.
        """
        if self._publisher is None:
            if self.rival:
                self.take()
                if not self.rival:
                    self._node.get_logger().warning(
                        "the other node that published /clock has stopped; this node continues with its own clock"
                    )
            return
        other = self._other()
        if other and other < self._node.get_fully_qualified_name():
            self.leave()
            self.rival = other

    def publish(self, stamp_ns: int) -> None:
        """Publish simulated time, nanoseconds, if this node has the clock."""
        if self._publisher is not None:
            clock = Clock()
            set_stamp(clock.clock, stamp_ns)
            self._publisher.publish(clock)

    def _other(self) -> str:
        """Return the name of another node that publishes `/clock`; empty for none."""
        infos = self._node.get_publishers_info_by_topic(topics.CLOCK.name)
        names = {f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in infos}
        return min(names - {self._node.get_fully_qualified_name()}, default="")


class StepPublisher:
    """Publishes the steps of an environment: camera, joints and ground truth, all with the step's stamp.

    Attributes:
        clock: the publisher of simulated time.
        scores: the publisher of scores.
    """

    def __init__(self, node: ManagedNode, env: "SimEnv"):
        """Create the publishers of `node`."""
        self._node, self._env = node, env
        self._image = node.publisher(topics.IMAGE)
        self._camera_info = node.publisher(topics.CAMERA_INFO)
        self._joint_states = node.publisher(topics.JOINT_STATES)
        self._timestep = node.publisher(topics.TIMESTEP)
        self._target = node.publisher(topics.TARGET)
        self._fingertip = node.publisher(topics.FINGERTIP)
        joints_and_camera = (self._image, self._camera_info, self._joint_states)
        self.scores = ScorePublisher(node, env)
        truth = (self._timestep, self._target, self._fingertip)
        self._publishers = (*joints_and_camera, *truth, *self.scores.publishers)
        self.clock = ClockPublisher(node)

    @property
    def has_camera_subscriber(self) -> bool:
        """Whether frames have a subscriber."""
        return self._image.get_subscription_count() >= 1

    @property
    def subscriptions(self) -> list[int]:
        """The number of subscriptions that the graph counts on each topic."""
        return [self._node.count_subscribers(publisher.topic_name) for publisher in self._publishers]

    @property
    def has_unmatched(self) -> bool:
        """Whether the graph counts a subscription that has not matched, which would miss a message."""
        matched = [publisher.get_subscription_count() for publisher in self._publishers]
        return any(some < known for some, known in zip(matched, self.subscriptions, strict=True))

    def publish(self, step: "SimStep", frame: np.ndarray) -> float:
        """Publish a step and its frame (height, width, 3) uint8, and return the steady time of the frame in seconds."""
        # A planner joins these to the latent, so they precede the image. The rest arrives during the encoding.
        self._joint_states.publish(self._joint_state(step))
        self._publish_point(self._target, step.target, step.stamp_ns)
        image = Image()
        image.header.frame_id = topics.CAMERA_FRAME
        set_stamp(image.header.stamp, step.stamp_ns)
        fill_image(image, frame)
        sent_s = time.monotonic()
        self._image.publish(image)
        self.clock.publish(step.stamp_ns)
        self._publish_point(self._fingertip, step.fingertip, step.stamp_ns)
        timestep = Vector3Stamped()
        set_stamp(timestep.header.stamp, step.stamp_ns)
        fill_timestep(timestep, Timestep(step.reward, step.discount, step.step_type))
        self._timestep.publish(timestep)
        self._camera_info.publish(self._camera_info_of(image))
        self.scores.add(step)
        return sent_s

    def _joint_state(self, step: "SimStep") -> JointState:
        joints = JointState(name=list(self._env.limits.joint_names))
        set_stamp(joints.header.stamp, step.stamp_ns)
        joints.position = step.joint_position.tolist()
        joints.velocity = step.joint_velocity.tolist()
        joints.effort = step.joint_effort.tolist()
        return joints

    @staticmethod
    def _publish_point(publisher: Any, position: np.ndarray, stamp_ns: int) -> None:
        point = PointStamped()
        point.header.frame_id = topics.WORLD_FRAME
        set_stamp(point.header.stamp, stamp_ns)
        point.point.x, point.point.y, point.point.z = map(float, position)
        publisher.publish(point)

    def _camera_info_of(self, image: Image) -> CameraInfo:
        info = CameraInfo(header=image.header, height=image.height, width=image.width)
        info.distortion_model = "plumb_bob"
        info.d = [0.0] * 5
        focal = self._env.focal_length_px
        cx, cy = image.width / 2, image.height / 2
        info.k = [focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        return info
