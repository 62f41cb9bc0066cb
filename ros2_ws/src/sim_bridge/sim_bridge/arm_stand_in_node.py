"""A node with the topics of a real arm, to rehearse docs/real-arm.md without an arm.

As with a real arm, nothing is synchronous. Joint states and frames have rates and stamps of their own, by the wall
clock, and efforts arrive at any time. The node is not part of the stack, so no stack manager starts it.
"""

import sys

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray

from sim_bridge.arm_stand_in import ArmStandIn, ArmStandInParameters
from vjepa_interfaces import topics
from vjepa_interfaces.effort import CommandRefusedError
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.image_codec import fill_image
from vjepa_interfaces.managed_node import STEADY, qos_profile
from vjepa_interfaces.ros_parameters import AllOrNone, declare_read_only, unknown_parameters


class ArmStandInNode(Node):
    """The node `arm_stand_in`: an `ArmStandIn` with an effort controller's topic, joint states and a camera."""

    def __init__(self) -> None:
        super().__init__("arm_stand_in", start_parameter_services=False)
        parameters = declare_read_only(self, ArmStandInParameters)
        unknown, valid = unknown_parameters(self, ArmStandInParameters)
        if unknown:
            raise VjepaError(f"there is no parameter {unknown}; valid are: {valid}")
        self._parameter_service = AllOrNone(self)
        self._arm = ArmStandIn(parameters)
        self._arm.render()
        self._joint_states = self.create_publisher(
            JointState, topics.JOINT_STATES.name, qos_profile(topics.JOINT_STATES)
        )
        self._images = self.create_publisher(Image, topics.IMAGE.name, qos_profile(topics.IMAGE))
        self.create_subscription(
            Float64MultiArray, topics.EFFORT_ARRAY.name, self._on_efforts, qos_profile(topics.EFFORT_ARRAY)
        )
        self.create_timer(1.0 / parameters.rate_hz, self._move, clock=STEADY)
        self.create_timer(1.0 / parameters.camera_rate_hz, self._look, clock=STEADY)

    def _move(self) -> None:
        reading = self._arm.advance()
        message = JointState(name=list(self._arm.limits.joint_names))
        message.header.stamp = self.get_clock().now().to_msg()
        message.position, message.velocity = reading.position.tolist(), reading.velocity.tolist()
        message.effort = reading.effort.tolist()
        self._joint_states.publish(message)

    def _look(self) -> None:
        image = Image()
        image.header.frame_id = topics.CAMERA_FRAME
        image.header.stamp = self.get_clock().now().to_msg()
        fill_image(image, self._arm.render())
        self._images.publish(image)

    def _on_efforts(self, message: Float64MultiArray) -> None:
        try:
            self._arm.command(message.data)
        except CommandRefusedError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=1.0)


def main() -> None:
    """Run `arm_stand_in` until a signal stops it."""
    rclpy.init()
    try:
        rclpy.spin(ArmStandInNode())
    except VjepaError as error:
        sys.exit(f"arm_stand_in: {error}")
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except rclpy_implementation.RCLError:
        if rclpy.ok():  # Otherwise a signal stopped the node during a callback, which can no longer publish.
            raise
