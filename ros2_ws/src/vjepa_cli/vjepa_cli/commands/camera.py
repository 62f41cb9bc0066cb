"""`vjepa camera check`: show the size and the rate of a camera, and the encoder's view of its frames."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional

from vjepa_cli.command_line import Action, option
from vjepa_interfaces.parameters import Range


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """The crop, the rotation and the mirroring of a camera's picture.

    Attributes:
        crop: part of the camera's picture that is used, in pixels.
        rotate: turn the picture clockwise: 0, 90, 180 or 270.
        flip: mirror the picture: horizontal, vertical or both.
    """

    crop: Annotated[tuple[int, int, int, int] | None, option(metavar="X Y WIDTH HEIGHT", default="")] = None
    rotate: Annotated[int | None, option(metavar="DEGREES", default="")] = None
    flip: Annotated[str | None, option(metavar="HOW", default="")] = None


@dataclass(frozen=True, kw_only=True)
class CheckCommand(ViewOptions):
    """Grab frames for a second; show size, rate and what the encoder sees.

    Attributes:
        source: a device such as /dev/video0, a video file, an rtsp:// address, env:NAME or @PATH.
        encoder: bundle, checkpoint folder or hub id.
        fps: requested frames a second; 0 for the source's own rate.
        out: write a picture: the raw frame, and what the encoder sees.
    """

    source: Annotated[Positional[str], option(metavar="SOURCE")]
    encoder: Annotated[str | None, option(default="the stack's")] = None
    fps: Annotated[float, Range(low=0)] = 0.0
    out: Annotated[str | None, option(metavar="FILE", default="")] = None


def camera_check(arguments: CheckCommand) -> int:
    """Run `vjepa camera check`."""
    from vjepa_bringup.graph import default_parameters
    from vjepa_interfaces.bundle import find_bundle
    from vjepa_perception.camera_check import View, check_camera, preview

    view = View(arguments.crop or (), arguments.rotate or 0, arguments.flip or "")
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


ACTIONS = {"camera check": Action(camera_check)}
