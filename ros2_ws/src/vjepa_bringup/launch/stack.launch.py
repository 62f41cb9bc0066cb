"""The stack as launch_ros actions: `ros2 launch vjepa_bringup stack.launch.py planner:=expert lockstep:=true`."""

from dataclasses import fields

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from launch import LaunchDescription
from vjepa_bringup.graph import StackOptions, build_graph, environment
from vjepa_bringup.options import option_help, parse_option

RESTART_DELAY_S = 1.0
MAX_RESTARTS = 3


def _actions(context):
    texts = {option.name: LaunchConfiguration(option.name).perform(context) for option in fields(StackOptions)}
    options = StackOptions(**{name: parse_option(name, text) for name, text in texts.items() if text})
    actions = [SetEnvironmentVariable(name, value) for name, value in environment(options).items()]
    for node in build_graph(options):
        action = LifecycleNode if node.lifecycle else Node
        actions.append(
            action(
                package=node.package,
                executable=node.executable,
                name=node.name,
                namespace=options.namespace,
                parameters=[node.parameters],
                remappings=list(node.remappings.items()),
                arguments=["--ros-args", "--log-level", options.log_level],
                output="screen",
                respawn=True,
                respawn_delay=RESTART_DELAY_S,
                respawn_max_retries=MAX_RESTARTS,
            )
        )
    return actions


def generate_launch_description():
    """Return the launch description: one argument for each field of `StackOptions`."""
    arguments = [
        DeclareLaunchArgument(option.name, default_value="", description=option_help(option.name))
        for option in fields(StackOptions)
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_actions)])
