"""The topics and services of each node, as data: one row for each node, readable without rclpy.

`vjepa_bringup.security_policy` makes the SROS 2 policy of a stack from these rows. A test compares them with the nodes
of running stacks. A row contains only the node's own topics and services; `EVERY_NODE` and `MANAGED_NODE` have others.
"""

from dataclasses import dataclass

from vjepa_interfaces import topics
from vjepa_interfaces.topics import Topic

PARAMETER_EVENTS = Topic("/parameter_events", "rcl_interfaces/msg/ParameterEvent", depth=1000)
ROSOUT = Topic("/rosout", "rcl_interfaces/msg/Log", depth=1000, latched=True)
TF = Topic("/tf", "tf2_msgs/msg/TFMessage", depth=100)
TF_STATIC = Topic("/tf_static", "tf2_msgs/msg/TFMessage", depth=1, latched=True)
ROBOT_DESCRIPTION = Topic("robot_description", "std_msgs/msg/String", depth=1, latched=True)

PARAMETER_SERVICES = (
    "describe_parameters",
    "get_parameter_types",
    "get_parameters",
    "list_parameters",
    "set_parameters",
    "set_parameters_atomically",
)
LIFECYCLE_SERVICES = (
    "change_state",
    "get_available_states",
    "get_available_transitions",
    "get_state",
    "get_transition_graph",
)
TRANSITION_EVENT = "transition_event"
"""The topic under a managed node's own name on which it publishes its transitions, for the stack manager."""
MANAGER_SERVICES = ("is_active", "startup", "pause", "resume", "reset", "shutdown")


@dataclass(frozen=True)
class Access:
    """The topics and services of one node.

    Attributes:
        publishes: topics that it publishes.
        subscribes: topics that it subscribes to.
        offers: services under its own name, by the last part of their names.
        asks: services that it calls on every node of the stack that offers them, by the last part of their names.
        managed: whether it is a lifecycle node.
    """

    publishes: tuple[Topic, ...] = ()
    subscribes: tuple[Topic, ...] = ()
    offers: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    managed: bool = False

    def all_published(self) -> tuple[Topic, ...]:
        """Return the published topics of the row, of a managed node and of every node, except those under its name."""
        return (*self.publishes, *(MANAGED_NODE.publishes if self.managed else ()), *EVERY_NODE.publishes)

    def all_subscribed(self) -> tuple[Topic, ...]:
        """Return the subscribed topics of the row and of every node."""
        return (*self.subscribes, *EVERY_NODE.subscribes)

    def all_offered(self) -> tuple[str, ...]:
        """Return the services of the row, of a managed node and of every node."""
        return (*self.offers, *(MANAGED_NODE.offers if self.managed else ()), *EVERY_NODE.offers)


EVERY_NODE = Access(
    publishes=(PARAMETER_EVENTS, ROSOUT),
    subscribes=(topics.CLOCK, PARAMETER_EVENTS),
    offers=(*PARAMETER_SERVICES, "get_type_description"),
)
LOGGER_SERVICES = ("get_logger_levels", "set_logger_levels")

MANAGED_NODE = Access(publishes=(topics.DIAGNOSTICS,), offers=(*LIFECYCLE_SERVICES, *LOGGER_SERVICES))
"""A managed node also publishes `TRANSITION_EVENT` under its own name."""

NODES = {
    "vjepa_perception": Access(
        publishes=(topics.LATENT, topics.LATENT_INFO, topics.TRACE),
        subscribes=(topics.IMAGE, topics.COMPRESSED_IMAGE),
        managed=True,
    ),
    "vjepa_planner": Access(
        publishes=(topics.JOINT_COMMAND, topics.ACTIVE_PLANNER, topics.PLAN, topics.TRACE),
        subscribes=(topics.LATENT, topics.LATENT_INFO, topics.JOINT_STATES, topics.TARGET, topics.GOAL),
        managed=True,
    ),
    "episode_recorder": Access(subscribes=topics.RECORDED, offers=("record",), managed=True),
    "camera": Access(publishes=(topics.IMAGE, topics.CAMERA_INFO), managed=True),
    "sim_bridge": Access(
        publishes=(
            topics.IMAGE,
            topics.CAMERA_INFO,
            topics.JOINT_STATES,
            topics.CLOCK,
            topics.TIMESTEP,
            topics.TARGET,
            topics.FINGERTIP,
            topics.PROGRESS,
            topics.SCORE,
            topics.TRACE,
        ),
        subscribes=(topics.JOINT_COMMAND, topics.EFFORT_ARRAY),
        offers=("reset", "set_paused"),
        managed=True,
    ),
    "effort_guard": Access(
        publishes=(topics.EFFORT_ARRAY,),
        subscribes=(topics.JOINT_COMMAND, topics.ENABLE, topics.JOINT_STATES),
        managed=True,
    ),
    "stack_manager": Access(
        publishes=(topics.DIAGNOSTICS,),
        offers=(*MANAGER_SERVICES, *LOGGER_SERVICES),
        asks=("change_state", "get_state"),
    ),
    "robot_state_publisher": Access(publishes=(TF, TF_STATIC, ROBOT_DESCRIPTION), subscribes=(topics.JOINT_STATES,)),
}
"""The nodes that a stack may consist of."""

ARM_STAND_IN = Access(publishes=(topics.JOINT_STATES, topics.IMAGE), subscribes=(topics.EFFORT_ARRAY,))
"""The stand-in for an arm and its camera, which is no part of a stack."""

CAMERA_DRIVER = Access(publishes=(topics.IMAGE, topics.COMPRESSED_IMAGE, topics.CAMERA_INFO))
"""A camera driver that is not of this project."""

ARM_CONTROLLER = Access(publishes=(topics.JOINT_STATES,), subscribes=(topics.EFFORT_ARRAY,))
"""The controller of a real arm: only `effort_guard` sends torques to it."""

BUTTON = Access(publishes=(topics.ENABLE,))
"""The dead-man's switch: it only publishes its state, and calls no service."""

OPERATOR = Access(
    publishes=(topics.GOAL,),
    subscribes=(*(topic for topic in vars(topics).values() if isinstance(topic, Topic)), ROSOUT),
    asks=(*PARAMETER_SERVICES, *LIFECYCLE_SERVICES, *LOGGER_SERVICES, "record", "set_paused", *MANAGER_SERVICES),
)
"""The commands of `vjepa`: they may read and set everything, but neither command a torque nor hold the switch."""
