"""Commands that talk to a running stack: `vjepa planner`, `vjepa record`, `vjepa status`."""

import argparse
import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any

from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParametersAtomically
from std_srvs.srv import SetBool

from vjepa_bringup import arguments as types
from vjepa_bringup.domains import running_stacks
from vjepa_bringup.graph import LIFECYCLE_ORDER, StackOptions, environment
from vjepa_bringup.interrupts import interruptible
from vjepa_bringup.monitor import Monitor
from vjepa_bringup.run_graph import environment_of
from vjepa_interfaces.errors import VjepaError

DIAGNOSTICS_TIMEOUT_S = 5.0


def add_parsers(commands) -> None:
    """Add `planner`, `record` and `status`."""
    planner = commands.add_parser("planner", help="list the planners of a running stack, or swap the one that drives")
    actions = planner.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="the planners installed, and in a running stack those that are ready")
    listing.set_defaults(function=planner_list)
    setting = actions.add_parser("set", help="swap the planner that drives")
    setting.add_argument("name")
    setting.set_defaults(function=planner_set)
    record = commands.add_parser(
        "record", help="record a running stack into a rosbag2 bag, until Ctrl-C or for a while"
    )
    record.add_argument("--seconds", type=types.seconds, help="stop after so many seconds")
    record.set_defaults(function=record_command)
    status = commands.add_parser("status", help="what a running stack says of itself")
    status.set_defaults(function=status_command)
    for parser in (listing, setting, record, status):
        parser.add_argument(
            "--domain", type=types.domain, help="ROS domain of the stack (default: the one that runs here)"
        )
        parser.add_argument("--namespace", type=types.namespace, help="ROS namespace of the stack")


def _find_stack(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what is known of the stack meant, the one given, else the only one running.

    Its domain, its namespace, and the environment it was started with: who may discover it.
    """
    stacks = running_stacks()
    if arguments.domain is not None:
        known = [stack for stack in stacks if stack["domain"] == arguments.domain]
        stack = known[0] if known else {"domain": arguments.domain, "namespace": "", "environment": _own_environment()}
    elif len(stacks) == 1:
        stack = stacks[0]
    elif not stacks:
        raise VjepaError("no stack is running here; start one with: vjepa run (or name a ROS domain with --domain)")
    else:
        domains = ", ".join(str(stack["domain"]) for stack in stacks)
        raise VjepaError(f"{len(stacks)} stacks are running, in ROS domains {domains}; choose one with --domain")
    return {**stack, "namespace": arguments.namespace if arguments.namespace is not None else stack["namespace"]}


@contextlib.contextmanager
def _stack(arguments: argparse.Namespace) -> Iterator[Monitor]:
    stack = _find_stack(arguments)
    with (
        interruptible() as interrupts,
        environment_of(stack["environment"]),
        Monitor(stack["domain"], stack["namespace"]) as monitor,
        interrupts.let_in(),
    ):
        yield monitor


def _own_environment() -> dict[str, str]:
    """Return how to meet a stack that was not started here: as the user's shell says, or on this host alone."""
    return {name: os.environ.get(name, value) for name, value in environment(StackOptions()).items()}


def planner_list(arguments: argparse.Namespace) -> int:
    """`vjepa planner list`."""
    if arguments.domain is None and not running_stacks():
        from vjepa_training.catalogue import installed_planners

        print("installed: " + ", ".join(installed_planners()))
        print("no stack is running here")
        return 0
    with _stack(arguments) as monitor:
        if not monitor.wait_until(lambda: "ready" in monitor.diagnostics.get("vjepa_planner", ("", "", {}))[2], 5.0):
            raise VjepaError("vjepa_planner says nothing; is the stack up? see: vjepa status")
        values = monitor.diagnostics["vjepa_planner"][2]
        for name in values["ready"].split(", "):
            print(f"{'*' if name == values['planner'] else ' '} {name}")
        for key, reason in values.items():
            if key.startswith("not ready: "):
                print(f"  {key.removeprefix('not ready: ')} (not ready: {reason})")
    return 0


def planner_set(arguments: argparse.Namespace) -> int:
    """`vjepa planner set NAME`: the exit status says whether the swap was accepted."""
    value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=arguments.name)
    request = SetParametersAtomically.Request(parameters=[Parameter(name="planner", value=value)])
    with _stack(arguments) as monitor:
        response = monitor.call(SetParametersAtomically, "vjepa_planner/set_parameters_atomically", request)
        if response is None:
            raise VjepaError("vjepa_planner does not answer; is the stack up? see: vjepa status")
        if not response.result.successful:
            raise VjepaError(response.result.reason)
        print(f"planner: {arguments.name}")
    return 0


def record_command(arguments: argparse.Namespace) -> int:
    """`vjepa record`: start the stack's recorder, and stop it at the end, whatever ends it."""
    with _stack(arguments) as monitor:
        try:
            print(f"{_record(monitor, True)}; Ctrl-C stops", flush=True)
            monitor.spin(arguments.seconds or math.inf)
        except KeyboardInterrupt:
            pass
        print(_record(monitor, False))
    return 0


def _record(monitor: Monitor, on: bool) -> str:
    response = monitor.call(SetBool, "episode_recorder/record", SetBool.Request(data=on), 10.0)
    if response is None:
        raise VjepaError("episode_recorder does not answer; is the stack up? see: vjepa status")
    if not response.success:
        raise VjepaError(response.message)
    return response.message


def status_command(arguments: argparse.Namespace) -> int:
    """`vjepa status`: exit status 0 when every node is active and none reports an error."""
    with _stack(arguments) as monitor:
        monitor.wait_until(lambda: len(monitor.diagnostics) > len(LIFECYCLE_ORDER), DIAGNOSTICS_TIMEOUT_S)
        if not monitor.diagnostics:
            raise VjepaError("no node of a stack says anything in this domain")
        active = monitor.is_active()
        for name, (_, message, values) in sorted(monitor.diagnostics.items()):
            print(f"{name}: {message}")
            for key, value in values.items():
                print(f"    {key}: {value}")
        print("active" if active else "not active")
        return 0 if active and not monitor.errors() else 1
