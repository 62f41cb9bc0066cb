"""Commands that talk to a running stack: `vjepa planner`, `vjepa record`, `vjepa status`."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.parameter import Parameter, parameter_value_to_python
from std_srvs.srv import SetBool
from tyro.conf import Positional, create_mutex_group

from sim_bridge.score import RunScores
from vjepa_bringup.discovery import discovery_environment, discovery_of_shell
from vjepa_bringup.domains import RunningStack, running_stacks
from vjepa_bringup.graph import CONSUMERS, read_parameter_file
from vjepa_bringup.interrupts import interruptible
from vjepa_bringup.monitor import Monitor
from vjepa_cli import arguments as types
from vjepa_cli.command_line import Action, option, parsed_by
from vjepa_cli.result_files import require_writable, write_result
from vjepa_interfaces.bundle import find_bundle
from vjepa_interfaces.environment import environment_of
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.parameters import Range

DIAGNOSTICS_TIMEOUT_S = 5.0
LOADING_TIMEOUT_S = 120.0
PROGRESS_TIMEOUT_S = 0.5
STANDSTILL_S = 60.0
NO_ANSWER = "vjepa_planner does not answer; start a stack with ./vjepa run, or see ./vjepa status"


@dataclass(frozen=True, kw_only=True)
class OfStack:
    """The options that choose a running stack; see `joined_stack`.

    Attributes:
        domain: ROS domain of the stack.
        namespace: ROS namespace of the stack.
    """

    domain: Annotated[int | None, parsed_by(types.domain, "INT"), option(default="the one that runs here")] = None
    namespace: Annotated[str | None, parsed_by(types.namespace, "NAME"), option(default="its own")] = None


@dataclass(frozen=True, kw_only=True)
class ListCommand(OfStack):
    """List the ready planners of a running stack, or else the installed planners."""


@dataclass(frozen=True, kw_only=True)
class SetCommand(OfStack):
    """Swap the planner that drives.

    Attributes:
        name: name of the planner.
        params_file: YAML with options of the planner, which is loaded with them before the swap.
    """

    name: Annotated[Positional[str], option(metavar="NAME")]
    params_file: Annotated[str, option(default="none")] = ""


_LENGTH = create_mutex_group(required=False)


@dataclass(frozen=True, kw_only=True)
class RecordCommand(OfStack):
    """Record a running stack into a rosbag2 bag, until Ctrl-C or for a while.

    Attributes:
        seconds: stop after this many seconds.
        episodes: stop after this many whole episodes.
        json: write the path of the bag, and its number of whole episodes.
    """

    seconds: Annotated[float | None, parsed_by(types.seconds, "S"), option(default=""), _LENGTH] = None
    episodes: Annotated[int | None, Range(low=1), option(default=""), _LENGTH] = None
    json: Annotated[str | None, option(metavar="FILE", default="")] = None


@dataclass(frozen=True, kw_only=True)
class StatusCommand(OfStack):
    """Show the diagnostics of a running stack."""


def _find_stack(arguments: OfStack) -> RunningStack:
    """Return the stack in the given domain, or else the only running stack.

    In a domain without a stack of this user, discovery follows the user's shell, or else stays on this host.
    """
    stacks = running_stacks()
    if arguments.domain is not None:
        known = [stack for stack in stacks if stack.domain == arguments.domain]
        stack = known[0] if known else RunningStack(arguments.domain, os.getpid(), discovery=discovery_of_shell())
    elif len(stacks) == 1:
        stack = stacks[0]
    elif not stacks:
        raise VjepaError("no stack is running here; start one with: vjepa run (or name a ROS domain with --domain)")
    else:
        domains = ", ".join(str(stack.domain) for stack in stacks)
        raise VjepaError(f"{len(stacks)} stacks are running, in ROS domains {domains}; choose one with --domain")
    return stack if arguments.namespace is None else dataclasses.replace(stack, namespace=arguments.namespace)


@contextlib.contextmanager
def joined_stack(arguments: OfStack, scores: RunScores | None = None) -> Iterator[Monitor]:
    """Listen to the stack that the options name, or else to the only running stack, while the context lasts.

    Raises:
        VjepaError: the options name no domain, and no stack or several stacks run.
    """
    stack = _find_stack(arguments)
    with (
        interruptible() as interrupts,
        environment_of(discovery_environment(stack.discovery)),
        Monitor(stack.domain, stack.namespace, scores) as monitor,
        interrupts.let_in(),
    ):
        yield monitor


def planner_list(arguments: ListCommand) -> int:
    """Run `vjepa planner list`."""
    if arguments.domain is None and not running_stacks():
        from vjepa_planner.registry import available

        print("installed: " + ", ".join(available()))
        print("no stack is running here")
        return 0
    with joined_stack(arguments) as monitor:
        if not monitor.wait_until(lambda: "ready" in monitor.diagnostics.get("vjepa_planner", ("", "", {}))[2], 5.0):
            raise VjepaError("vjepa_planner does not answer; start a stack with ./vjepa run, or see ./vjepa status")
        values = monitor.diagnostics["vjepa_planner"][2]
        chosen, driving = values["planner"], values.get("driving", values["planner"])
        for name in values["ready"].split(", "):
            waits = f" (chosen; {driving} drives: {values.get('last_fallback', '')})" if driving != chosen else ""
            print(f"{'*' if name == driving else ' '} {name}{waits if name == chosen else ''}")
        for key, reason in values.items():
            if key.startswith("not ready: "):
                print(f"  {key.removeprefix('not ready: ')} (not ready: {reason})")
    return 0


def planner_set(arguments: SetCommand) -> int:
    """Run `vjepa planner set NAME`; return exit status 0 if the swap was accepted."""
    options = _options_of(arguments.name, arguments.params_file) if arguments.params_file else {}
    with joined_stack(arguments) as monitor:
        changed = _changed(monitor, options)
        if changed:
            set_parameters(monitor, changed)
            monitor.diagnostics.pop("vjepa_planner", None)  # Diagnostics from before do not describe these.
            print(f"loading {arguments.name} with {', '.join(changed)}", flush=True)
            monitor.wait_until(lambda: _has_loaded(monitor, arguments.name), LOADING_TIMEOUT_S)
        set_parameters(monitor, {"planner": arguments.name})
        print(f"planner: {arguments.name}")
    return 0


def _options_of(planner: str, params_file: str) -> dict[str, Any]:
    """Return the options of `planner` in a parameter file, by parameter; paths of bundles are absolute."""
    parameters = read_parameter_file(Path(params_file)).get("vjepa_planner", {})
    found = {name: value for name, value in parameters.items() if name.startswith(f"{planner}.")}
    if not found:
        raise VjepaError(
            f"{params_file} has no options of {planner}; expected vjepa_planner parameters {planner}.OPTION"
        )
    return {name: _anywhere(value) for name, value in found.items()}


def _anywhere(value: Any) -> Any:
    """Return the absolute path of a bundle, because a stack may run in another folder; or another `value` as it is."""
    if not isinstance(value, str):
        return value
    found = Path(find_bundle(value)).expanduser()
    return str(found.resolve()) if value and found.is_dir() else value


def _changed(monitor: Monitor, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that have other values in the planner of a running stack."""
    if not options:
        return {}
    request = GetParameters.Request(names=list(options))
    response = monitor.call(GetParameters, "vjepa_planner/get_parameters", request)
    if response is None:
        raise VjepaError(NO_ANSWER)
    present = [_anywhere(parameter_value_to_python(value)) for value in response.values]
    if len(present) != len(options):
        return options  # The stack lacks one of them; the error of setting it states this.
    return {name: new for (name, new), old in zip(options.items(), present, strict=True) if old != new}


def _has_loaded(monitor: Monitor, planner: str) -> bool:
    """Return whether new options of `planner` were tried or never will be; setting the planner reports their result."""
    values = monitor.diagnostics.get("vjepa_planner", ("", "", {}))[2]
    if "ready" in values and planner not in values["ready"].split(", "):
        return True
    return values.get(f"new options: {planner}", "loading") != "loading"


def set_parameters(monitor: Monitor, values: dict[str, Any]) -> None:
    """Set parameters of a running stack's planner, all or none.

    Raises:
        VjepaError: the planner does not answer, or refuses them with this reason.
    """
    parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
    request = SetParametersAtomically.Request(parameters=parameters)
    response = monitor.call(SetParametersAtomically, "vjepa_planner/set_parameters_atomically", request)
    if response is None:
        raise VjepaError(NO_ANSWER)
    if not response.result.successful:
        raise VjepaError(response.result.reason)


def record_command(arguments: RecordCommand) -> int:
    """Run `vjepa record`: start the stack's recorder, and stop it at the end or after any error."""
    if arguments.json:
        require_writable(arguments.json)
    scores = RunScores()
    with joined_stack(arguments, scores) as monitor:
        interrupted = False
        answer = _record(monitor, True)
        first = 0
        try:
            print(f"{answer}; Ctrl-C stops", flush=True)
            monitor.wait_until(lambda: scores.begun, PROGRESS_TIMEOUT_S)  # Nothing arrives before the first episode.
            first = scores.begun
            if arguments.episodes:
                _spin_until_finished(monitor, scores, first, arguments.episodes)
            else:
                monitor.spin(arguments.seconds or math.inf)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            print(_record(monitor, False))
        if interrupted and arguments.episodes:
            raise KeyboardInterrupt
        if arguments.json:
            bag = Path(answer.removeprefix("recording into "))
            if not bag.is_dir():
                raise VjepaError(f"{bag} does not exist here; record from the folder in which the stack was started")
            episodes = len(scores.finished_from(first))
            write_result(arguments.json, {"bag": str(bag), "episodes": episodes, "namespace": monitor.namespace})
    return 0


def _spin_until_finished(monitor: Monitor, scores: RunScores, first: int, count: int) -> None:
    """Listen until `count` episodes have begun and ended, from the number `first` on.

    Raises:
        VjepaError: no step of an episode comes for `STANDSTILL_S`.
    """
    while len(scores.finished_from(first)) < count:
        monitor.spin(0.1)
        if scores.silence_s > STANDSTILL_S:
            raise VjepaError(f"no step of an episode for {STANDSTILL_S:.0f} s; check that the stack runs: vjepa status")


def _record(monitor: Monitor, on: bool) -> str:
    response = monitor.call(SetBool, "episode_recorder/record", SetBool.Request(data=on), 10.0)
    if response is None:
        raise VjepaError("episode_recorder does not answer; start a stack with ./vjepa run, or see ./vjepa status")
    if not response.success:
        raise VjepaError(response.message)
    return response.message


def status_command(arguments: StatusCommand) -> int:
    """Run `vjepa status`; return exit status 0 if every node is active and none reports an error."""
    expected = len(CONSUMERS) + 2  # Plus the source of frames and the stack manager.
    with joined_stack(arguments) as monitor:
        monitor.wait_until(lambda: len(monitor.diagnostics) >= expected, DIAGNOSTICS_TIMEOUT_S)
        if not monitor.diagnostics:
            raise VjepaError("no node of a stack publishes diagnostics in this domain")
        active = monitor.is_active()
        for name, (_, message, values) in sorted(monitor.diagnostics.items()):
            print(f"{name}: {message}")
            for key, value in values.items():
                print(f"    {key}: {value}")
        print("active" if active else "not active")
        return 0 if active and not monitor.errors() else 1


ACTIONS = {
    "planner list": Action(planner_list),
    "planner set": Action(planner_set),
    "record": Action(record_command),
    "status": Action(status_command),
}
