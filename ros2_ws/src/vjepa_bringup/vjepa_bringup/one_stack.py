"""A single stack in a ROS domain and namespace: a second one would drive the nodes of the first and take them down.

Each stack of a user holds a locked file on its machine. Stacks of others are visible on the ROS graph.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from vjepa_bringup.domains import in_use, lock
from vjepa_bringup.private_folder import own_folder
from vjepa_interfaces.environment import environment_of
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.json_text import parse_json

MANAGER = "stack_manager"
DISCOVERY_S = 1.5
"""Seconds of waiting for nodes on the graph: nodes answer a new participant within a few tenths of a second."""
SPIN_S = 0.05
_MAX_TEXT = 200


def shell_domain() -> int:
    """Return the ROS domain of this shell.

    Raises:
        VjepaError: ROS_DOMAIN_ID is not a number.
    """
    text = os.environ.get("ROS_DOMAIN_ID", "") or "0"
    if not text.isdecimal():
        raise VjepaError(f"ROS_DOMAIN_ID is '{text}'; expected a number from 0 to 232")
    return int(text)


@contextlib.contextmanager
def only_stack(domain: int, namespace: str, variables: dict[str, str], about: str = "") -> Iterator[None]:
    """Hold the name of a stack during the context.

    Args:
        domain: ROS domain of the stack.
        namespace: ROS namespace of the stack.
        variables: environment variables with which the stack's nodes find each other.
        about: description of the stack, for the error of a second one.

    Raises:
        VjepaError: a stack of this name runs already; the message describes it.
    """
    name = namespace.strip("/")
    with own_folder() as folder, folder.open(f"stack-{domain}-{name.replace('/', '.')}.json", create=True) as file:
        if not lock(file, 0.0):
            found = _described(file.read(_MAX_TEXT))
            raise VjepaError(_refusal(domain, name, found))
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "about": about[: _MAX_TEXT // 2]}))
        file.flush()
        if in_use(domain) or variables.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "SUBNET":
            with environment_of(variables):
                if manager := _manager_on_graph(domain, name):
                    raise VjepaError(_refusal(domain, name, f"node {manager}, which is of no stack of yours"))
        try:
            yield
        finally:
            file.truncate(0)


def _refusal(domain: int, name: str, found: str) -> str:
    where = f"namespace '{name}'" if name else "no namespace"
    return (
        f"a stack runs already in ROS domain {domain} with {where}: {found}; end that one, or give this one another "
        "namespace or another ROS_DOMAIN_ID"
    )


def _described(text: str) -> str:
    """Return a phrase about the stack that wrote the `text` of a file."""
    try:
        content = parse_json(text)
        about = "".join(filter(str.isprintable, str(content["about"])))
        return f"{about or 'started'} as process {int(content['pid'])}"
    except (ValueError, TypeError, KeyError):
        return "it holds the file of that name"


def _manager_on_graph(domain: int, namespace: str) -> str:
    """Return the name of the stack manager in a namespace; empty for none."""
    context = Context()
    rclpy.init(context=context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
    with contextlib.ExitStack() as exits:
        exits.callback(context.try_shutdown)
        node = Node(f"_one_stack_{os.getpid()}", context=context, enable_rosout=False, start_parameter_services=False)
        exits.callback(node.destroy_node)
        executor = SingleThreadedExecutor(context=context)
        exits.callback(executor.shutdown)
        executor.add_node(node)
        deadline = time.monotonic() + DISCOVERY_S
        while time.monotonic() < deadline:
            executor.spin_once(SPIN_S)
            for name, found in node.get_node_names_and_namespaces():
                if (name, found.strip("/")) == (MANAGER, namespace):
                    return f"{found.rstrip('/')}/{name}"
        return ""
