"""`vjepa camera check`: what a camera gives, and what the encoder sees of it."""

import argparse

from vjepa_bringup.graph import default_parameters
from vjepa_cli.commands import COMMANDS
from vjepa_interfaces.bundle import find_bundle

SOURCE_HELP = "a device such as /dev/video0, a video file, an rtsp:// address, env:NAME or @PATH"


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `camera`."""
    camera = commands.add_parser("camera", help=COMMANDS["camera"][1])
    actions = camera.add_subparsers(required=True, metavar="ACTION")
    check = actions.add_parser("check", help="grab frames for a second; show size, rate and what the encoder sees")
    check.add_argument("source", help=SOURCE_HELP)
    check.add_argument("--encoder", help="bundle, checkpoint folder or hub id (default: the stack's)")
    add_view_arguments(check)
    check.add_argument("--fps", type=float, default=0.0, help="frames a second to ask for (default: the source's own)")
    check.add_argument("--out", metavar="FILE", help="write a picture: the raw frame, and what the encoder sees")
    check.set_defaults(function=camera_check)


def add_view_arguments(parser: "argparse._ActionsContainer") -> None:
    """Add the options for what is cut out of a camera's picture and how it is turned."""
    parser.add_argument("--crop", nargs=4, type=int, metavar=("X", "Y", "WIDTH", "HEIGHT"), help="pixels")
    parser.add_argument("--rotate", type=int, metavar="DEGREES", help="clockwise: 0, 90, 180 or 270")
    parser.add_argument("--flip", metavar="HOW", help="horizontal, vertical or both")


def camera_check(arguments: argparse.Namespace) -> int:
    """`vjepa camera check`."""
    from vjepa_perception.camera_check import View, check_camera, preview

    view = View(tuple(arguments.crop or ()), arguments.rotate or 0, arguments.flip or "")
    encoder = find_bundle(arguments.encoder or default_parameters()["vjepa_perception"]["encoder"])
    check = check_camera(arguments.source, view, encoder, arguments.fps)
    height, width = check.raw.shape[:2]
    print(f"size      {width} x {height} pixels")
    print(f"rate      {check.rate_hz:.1f} Hz, over {check.frames} frames")
    print("view      {} x {} pixels, after crop, rotation and flip".format(*check.view_size))
    print(f"encoder   {check.encoder} sees {check.seen.shape[1]} x {check.seen.shape[0]} pixels of it")
    if arguments.out:
        preview(check, arguments.out)
        print(f"picture   {arguments.out}: the raw frame, and right of it what the encoder sees")
    return 0
