"""`vjepa security policy`: the SROS 2 policy of a stack."""

import argparse

from vjepa_bringup.options import parse_options
from vjepa_bringup.security_policy import Outside, policy
from vjepa_cli import arguments as types
from vjepa_cli.commands import COMMANDS


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `security`."""
    security = commands.add_parser("security", help=COMMANDS["security"][1])
    actions = security.add_subparsers(required=True, metavar="ACTION")
    making = actions.add_parser("policy", help="print what each node of a stack may publish, hear, offer and ask for")
    making.add_argument("options", nargs="*", metavar="NAME:=VALUE", help="launch arguments, those of the stack")
    for name, what in (
        ("camera_driver", "of a camera driver of yours"),
        ("arm_controller", "of the arm's controller"),
        ("button", "of the dead-man's switch"),
    ):
        making.add_argument(
            f"--{name.replace('_', '-')}",
            nargs="+",
            type=types.node_name,
            metavar="NODE",
            default=getattr(Outside, name),
            help=f"names of the nodes {what} (default: {name})",
        )
    making.add_argument(
        "--rehearsal", action="store_true", help="with arm_stand_in in the place of the arm and of its camera"
    )
    making.set_defaults(function=print_policy)


def print_policy(arguments: argparse.Namespace) -> int:
    """`vjepa security policy`."""
    outside = Outside(
        camera_driver=tuple(arguments.camera_driver),
        arm_controller=tuple(arguments.arm_controller),
        button=tuple(arguments.button),
        rehearsal=arguments.rehearsal,
    )
    print(policy(parse_options(arguments.options), outside), end="")
    return 0
