"""The stack as launch_ros actions: `ros2 launch vjepa_bringup stack.launch.py planner:=expert lockstep:=true`."""

import contextlib
import os
import re
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

from launch.actions import DeclareLaunchArgument, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnShutdown
from launch_ros.actions import LifecycleNode, Node

from launch import LaunchDescription
from vjepa_bringup.graph import (
    STATE_PUBLISHER,
    NodeSpec,
    StackOptions,
    build_graph,
    enclave,
    environment,
    merged_parameters,
    option_names,
    refuse_unknown_names,
)
from vjepa_bringup.measured_rate import with_measured_rate
from vjepa_bringup.one_stack import only_stack, shell_domain
from vjepa_bringup.options import option_default, option_help, parse_option
from vjepa_bringup.supervisor import MAX_RESTARTS, RESTART_DELAY_S
from vjepa_interfaces.deprecated import LAUNCH_ARGUMENT, RENAMED, current_names
from vjepa_interfaces.errors import VjepaError, unknown_name

PARAMETERS_REFUSED = 2
END_WITH_LAUNCH = "setpriv --pdeathsig TERM --"
"""A prefix that ends nodes with their parent: `ros2 launch` leaves them running unless Ctrl-C ends it."""
KEEP_INTERRUPTS = "env --block-signal=INT"
"""A prefix that delays Ctrl-C until a node's imports are done: during imports it would end in a traceback."""
INTERRUPT_PATIENCE_S = 6
"""Seconds from a signal to the next stronger one; nodes end before (`managed_node.END_S` and `FREE_S`)."""
END_CHECKS, END_CHECK_S = 10, 0.2
"""The number of checks in a row without a child process that end a launch during shutdown, and their distance in s."""
_held = contextlib.ExitStack()
"""Holds the names of the stacks that this process has started."""


def generate_launch_description():
    """Return the launch description: one argument for each field of `StackOptions`."""
    arguments = [
        DeclareLaunchArgument(name, default_value=option_default(name), description=option_help(name))
        for name in option_names()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_start_nodes)])


def _start_nodes(context):
    _refuse_unknown_arguments(context.argv)
    names = (*option_names(), *RENAMED[LAUNCH_ARGUMENT])
    texts = {name: text for name, text in context.launch_configurations.items() if text and name in names}
    given = current_names(LAUNCH_ARGUMENT, texts)
    options = with_measured_rate(StackOptions(**{name: parse_option(name, text) for name, text in given.items()}))
    refuse_unknown_names(merged_parameters(options))
    _refuse_second_stack(options, context)
    nodes = [_action(node, options, context.launch_configurations) for node in build_graph(options)]
    return [RegisterEventHandler(OnShutdown(on_shutdown=_watch_the_end)), *nodes]


def _watch_the_end(event, context):
    """Ensure that this process ends: after Ctrl-C, launch may wait without end for a node that never started."""
    threading.Thread(target=_end_without_children, args=(context,), daemon=True).start()


def _end_without_children(context):
    childless = 0
    while childless < END_CHECKS:
        time.sleep(END_CHECK_S)
        if context.asyncio_loop is None:  # The launch has ended, and its caller continues.
            return
        childless = 0 if _has_children() else childless + 1
    os._exit(1)


def _has_children():
    return any(file.read_text() for file in Path("/proc/self/task").glob("*/children"))


def _refuse_second_stack(options, context):
    """Raise VjepaError if a stack of this name runs, else hold the name until this process ends."""
    about = " ".join(("ros2 launch", *context.argv))
    _held.enter_context(only_stack(shell_domain(), options.namespace, environment(options), about))


def _refuse_unknown_arguments(arguments):
    """Raise VjepaError for an argument that does not exist: launch itself would ignore it.

    If another launch file includes this one, the arguments are that file's own and are not checked.
    """
    file = Path(__file__).absolute()
    named = [(package, Path(word).name) for package, word in pairwise(sys.argv)]
    if ("vjepa_bringup", file.name) not in named and file not in [Path(word).absolute() for word in sys.argv]:
        return
    for argument in arguments:
        name, assigned, _ = argument.partition(":=")
        if assigned and name not in (*option_names(), *RENAMED[LAUNCH_ARGUMENT]):
            raise unknown_name("launch argument", name, option_names())


def _action(node: NodeSpec, options: StackOptions, configurations: dict[str, str]):
    prefix = "" if node.package == STATE_PUBLISHER else KEEP_INTERRUPTS  # ROS's own node never unblocks the signal.
    if "launch-prefix" in configurations and re.match(configurations.get("launch-prefix-filter", ""), node.executable):
        prefix = configurations["launch-prefix"]
    return (LifecycleNode if node.lifecycle else Node)(
        package=node.package,
        executable=node.executable,
        exec_name=node.executable,
        name=node.name,
        namespace=options.namespace,
        parameters=[node.parameters],
        remappings=list(node.remappings.items()),
        ros_arguments=["--log-level", options.log_level, "--enclave", enclave(node.name, options.namespace)],
        additional_env=environment(options) | node.environment,
        prefix=f"{END_WITH_LAUNCH} {prefix}",
        output="screen",
        respawn=True,
        respawn_delay=RESTART_DELAY_S,
        respawn_max_retries=MAX_RESTARTS,
        sigterm_timeout=str(INTERRUPT_PATIENCE_S),
        on_exit=_Exits(node.name),
    )


class _Exits:
    """Counts the ends of a node, and takes the stack down if a restart cannot help."""

    def __init__(self, name: str):
        self._name = name
        self._count = 0

    def __call__(self, event, context):
        """Raise VjepaError if the node is given up: launch logs it, ends every process and exits with status 1."""
        if context.is_shutdown:
            return
        self._count += 1
        if event.returncode == PARAMETERS_REFUSED:
            raise VjepaError(f"{self._name} refused its parameters; its last line names the parameter and valid values")
        if self._count > MAX_RESTARTS:
            raise VjepaError(f"{self._name} ended {self._count} times, last with status {event.returncode}")
