"""`vjepa looks`: a picture of what the looks look like."""

import argparse

from vjepa_cli import arguments as types
from vjepa_cli.commands import COMMANDS
from vjepa_cli.result_files import require_writable
from vjepa_interfaces.errors import VjepaError

TASKS = ("reacher-easy", "finger-spin")
SIDE = 64


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `looks`."""
    looks = commands.add_parser("looks", help=COMMANDS["looks"][1])
    looks.add_argument("--png", required=True, metavar="FILE.png", help="the picture: looks by level")
    looks.add_argument("--tasks", nargs="+", default=TASKS, help=f"dm_control tasks (default {' '.join(TASKS)})")
    looks.add_argument("--render", help="what looks are drawn on: dm_control (default), exact or plain")
    looks.add_argument("--backgrounds", metavar="DIR", default="", help="pictures and videos for other backgrounds")
    looks.add_argument("--seed", type=types.seed, default=0, help="of the episode that is shown (default %(default)s)")
    looks.add_argument(
        "--size", type=types.positive, default=SIDE, help="pixels along a frame's side (default %(default)s)"
    )
    looks.set_defaults(function=looks_command)


def looks_command(arguments: argparse.Namespace) -> int:
    """`vjepa looks`."""
    if not arguments.png.endswith(".png"):
        raise VjepaError(f"{arguments.png} is no name of a picture; expected one that ends in .png")
    require_writable(arguments.png)
    import cv2

    from vjepa_cli.views.look_pictures import draw_looks

    picture = draw_looks(arguments.tasks, arguments.size, arguments.seed, arguments.render, arguments.backgrounds)
    cv2.imwrite(arguments.png, picture[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, 9))
    print(f"{arguments.png}: {picture.shape[1]} x {picture.shape[0]} pixels")
    return 0
