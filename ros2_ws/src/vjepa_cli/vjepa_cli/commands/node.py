"""`vjepa node`: replace this process by one node of the stack, for containers, which run one process each."""

import os
import signal
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional

from vjepa_bringup.graph import STAND_IN, arm_stand_in, build_graph, environment
from vjepa_bringup.options import parse_options
from vjepa_bringup.supervisor import command_of, parameters_as_yaml
from vjepa_cli.command_line import Action, option
from vjepa_interfaces.errors import unknown_name


@dataclass(frozen=True, kw_only=True)
class NodeCommand:
    """Become one node of the stack, for a container that runs it alone.

    Attributes:
        node: name of a node, such as sim_bridge or stack_manager; arm_stand_in rehearses without a real arm.
        options: launch arguments, the same for each node of one stack.
    """

    node: Annotated[Positional[str], option(metavar="NODE")]
    options: Annotated[Positional[tuple[str, ...]], option(metavar="[NAME:=VALUE ...]", default="")] = ()


def become_node(arguments: NodeCommand) -> int:
    """Run `vjepa node`; it does not return, because the node takes over this process and its signals.

    Raises:
        VjepaError: the node or a launch argument is unknown, or the node is not installed.
    """
    options = parse_options(arguments.options)
    stand_in = arm_stand_in(options)
    # The stand-in needs no planner, which `build_graph` requires beside a camera.
    nodes = {node.name: node for node in ([] if arguments.node == STAND_IN else build_graph(options))}
    nodes[STAND_IN] = stand_in
    if arguments.node not in nodes:
        raise unknown_name("node", arguments.node, nodes)
    node = nodes[arguments.node]
    file = os.memfd_create(node.name, 0)  # Ends with the node's program and leaves no file behind.
    os.write(file, parameters_as_yaml(node).encode())
    command = command_of(node, f"/dev/fd/{file}", options.namespace, options.log_level)
    # A Ctrl-C stays pending for the node, which unblocks it once it can end.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        os.execve(command[0], command, {**os.environ, **environment(options), **node.environment})
    finally:  # The node did not start.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


ACTIONS = {"node": Action(become_node)}
