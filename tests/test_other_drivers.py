"""Drivers as others write them, in front of the whole stack: best effort, YUV pictures, joint states at a kilohertz."""

import threading
import time

import numpy as np
import pytest
import rclpy
import yaml
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image, JointState

from vjepa_interfaces import topics
from vjepa_interfaces.stamps import set_stamp

BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
CAMERA_HZ, ARM_HZ = 30.0, 1000.0
PARAMETERS = {
    "vjepa_planner": {
        "planners": ["bc"],
        "fallbacks": [],
        "joint_names": ["shoulder", "wrist"],
        "effort_limit": 0.05,
        "control_period_s": 1 / CAMERA_HZ,
    }
}


class Drivers:
    """A camera of YUV 4:2:2 and an arm with a gripper, in a thread and a participant of their own."""

    def __init__(self, domain: int):
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        self._node = Node("drivers", context=self._context)
        self._images = self._node.create_publisher(Image, topics.IMAGE.name, BEST_EFFORT)
        self._states = self._node.create_publisher(JointState, topics.JOINT_STATES.name, BEST_EFFORT)
        self._picture = np.full((64, 64, 2), 128, np.uint8).tobytes()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        due, frames, started = time.monotonic(), 0, time.monotonic()
        while not self._ending.is_set():
            state = JointState(name=["gripper", "wrist", "shoulder"], position=[0.0, 0.2, 0.1], velocity=[0.0] * 3)
            set_stamp(state.header.stamp, time.time_ns())
            self._states.publish(state)
            if (time.monotonic() - started) * CAMERA_HZ > frames:
                frames += 1
                image = Image(height=64, width=64, encoding="yuv422_yuy2", step=128)
                image.data = self._picture
                set_stamp(image.header.stamp, time.time_ns())
                self._images.publish(image)
            due += 1 / ARM_HZ
            time.sleep(max(0.0, due - time.monotonic()))

    def end(self) -> None:
        self._ending.set()
        self._thread.join()
        self._node.destroy_node()
        self._context.try_shutdown()


@pytest.mark.real_time
@pytest.mark.timeout(120)
def test_best_effort_pictures_in_yuv_and_joint_states_at_a_kilohertz_drive_the_arm(start_stack, tmp_path):
    file = tmp_path / "arm.yaml"
    file.write_text(yaml.safe_dump({node: {"ros__parameters": values} for node, values in PARAMETERS.items()}))
    stack = start_stack(source="camera", planner="bc", bc_bundle="bc-small", params_file=str(file), light=False)
    drivers = Drivers(stack.domain)
    try:
        stack.wait_for_value("vjepa_planner", "commands", lambda count: count > 50)
        before = {name: stack.monitor.value("vjepa_planner", name) for name in ("commands", "refused_latents")}
        stack.wait_for_value("vjepa_planner", "commands", lambda count: count > before["commands"] + 100)
        assert stack.monitor.value("vjepa_planner", "refused_latents") == before["refused_latents"]
        assert stack.monitor.value("vjepa_perception", "refused_frames") == 0
        for node in ("vjepa_perception", "vjepa_planner"):
            assert "incompatible_publishers" not in stack.monitor.diagnostics[node][2]
    finally:
        drivers.end()
