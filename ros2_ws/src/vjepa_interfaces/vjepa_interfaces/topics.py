"""Topic names, types and qualities of service, as data: no rclpy needed to read them.

Names are relative, so a namespace moves the whole stack, except `/clock` and `/diagnostics`, which ROS fixes.
`managed_node.qos_profile` turns a `Topic` into an rclpy profile.
"""

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Topic:
    """One topic.

    Attributes:
        name: relative to the namespace of the stack, or absolute.
        type: type of its messages, such as `sensor_msgs/msg/Image`.
        depth: number of last messages that are kept.
        latched: whether it is transient local; the others are volatile. All are published reliably.
        sensor: whether drivers publish it too, often best effort; subscriptions adapt to them.
    """

    name: str
    type: str
    depth: int = 10
    latched: bool = False
    sensor: bool = False

    @property
    def message_class(self) -> Any:
        """The class of its messages, of a package that is imported now."""
        package, _, name = self.type.split("/")
        return getattr(importlib.import_module(f"{package}.msg"), name)


IMAGE = Topic("camera/image_raw", "sensor_msgs/msg/Image", depth=50, sensor=True)
COMPRESSED_IMAGE = Topic(IMAGE.name + "/compressed", "sensor_msgs/msg/CompressedImage", depth=50, sensor=True)
CAMERA_INFO = Topic("camera/camera_info", "sensor_msgs/msg/CameraInfo", depth=50, sensor=True)
JOINT_STATES = Topic("joint_states", "sensor_msgs/msg/JointState", sensor=True)
CLOCK = Topic("/clock", "rosgraph_msgs/msg/Clock")
TIMESTEP = Topic("sim_bridge/timestep", "geometry_msgs/msg/Vector3Stamped", depth=50)
TARGET = Topic("sim_bridge/target", "geometry_msgs/msg/PointStamped", depth=50)
FINGERTIP = Topic("sim_bridge/fingertip", "geometry_msgs/msg/PointStamped", depth=50)
PROGRESS = Topic("sim_bridge/progress", "std_msgs/msg/String")
SCORE = Topic("sim_bridge/score", "std_msgs/msg/String", depth=1000, latched=True)
LATENT = Topic("vjepa_perception/latent", "sensor_msgs/msg/Image")
LATENT_INFO = Topic("vjepa_perception/latent_info", "std_msgs/msg/String", depth=1, latched=True)
GOAL = Topic("vjepa_planner/goal", "sensor_msgs/msg/Image", depth=1)
JOINT_COMMAND = Topic("joint_command", "sensor_msgs/msg/JointState")
EFFORT_ARRAY = Topic("effort_controller/commands", "std_msgs/msg/Float64MultiArray")
ENABLE = Topic("effort_guard/enable", "sensor_msgs/msg/Joy")
ACTIVE_PLANNER = Topic("vjepa_planner/active_planner", "std_msgs/msg/String", depth=1, latched=True)
PLAN = Topic("vjepa_planner/plan", "std_msgs/msg/String", depth=50)
TRACE = Topic("trace", "std_msgs/msg/String", depth=1000)
DIAGNOSTICS = Topic("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")

RECORDED = (
    IMAGE,
    CAMERA_INFO,
    JOINT_STATES,
    CLOCK,
    TIMESTEP,
    TARGET,
    FINGERTIP,
    LATENT,
    LATENT_INFO,
    JOINT_COMMAND,
    ACTIVE_PLANNER,
    PLAN,
    DIAGNOSTICS,
)
"""What `episode_recorder` writes into a bag."""

CAMERA_FRAME = "camera_optical_frame"
WORLD_FRAME = "world"
IMAGE_SUBSCRIPTION_DEPTH = 16
"""Depth of a consumer's frame queue: every frame enters the clip, so a short stall must not lose one."""
