"""`vjepa security policy`: the SROS 2 policy of a stack."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional

from vjepa_bringup.options import parse_options
from vjepa_bringup.security_policy import Outside, policy
from vjepa_cli import arguments as types
from vjepa_cli.command_line import Action, option, parsed_by
from vjepa_interfaces.parameters import as_base

Nodes = Annotated[tuple[str, ...], parsed_by(types.node_name, "NODE [NODE ...]", many=True)]


@dataclass(frozen=True, kw_only=True)
class PolicyCommand(Outside):
    """Print what each node of a stack may publish, subscribe to, serve and call.

    Attributes:
        options: launch arguments of the stack.
        camera_driver: names of the nodes of your camera driver.
        arm_controller: names of the nodes of the arm's controller.
        button: names of the nodes of the dead-man's switch.
        rehearsal: arm_stand_in replaces the arm and its camera.
    """

    options: Annotated[Positional[tuple[str, ...]], option(metavar="[NAME:=VALUE ...]", default="")] = ()
    camera_driver: Nodes = Outside.camera_driver
    arm_controller: Nodes = Outside.arm_controller
    button: Nodes = Outside.button


def print_policy(arguments: PolicyCommand) -> int:
    """Run `vjepa security policy`."""
    print(policy(parse_options(arguments.options), as_base(Outside, arguments)), end="")
    return 0


ACTIONS = {"security policy": Action(print_policy)}
