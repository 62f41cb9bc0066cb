"""`vjepa looks`: draw a picture of the looks."""

from dataclasses import dataclass
from typing import Annotated

from vjepa_cli.arguments import MAX_SEED
from vjepa_cli.command_line import Action, option
from vjepa_cli.result_files import require_writable
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.parameters import Range


@dataclass(frozen=True, kw_only=True)
class LooksCommand:
    """Draw the frames of the simulation's camera under each look.

    Attributes:
        png: file of the picture: looks by level.
        tasks: dm_control tasks.
        render: rendering under the looks: dm_control, exact or plain.
        backgrounds: folder of pictures and videos for other backgrounds.
        seed: seed of the episode in the picture.
        size: pixels along a frame's side.
    """

    png: Annotated[str, option(metavar="FILE.png")]
    tasks: Annotated[tuple[str, ...], option(metavar="TASK [TASK ...]")] = ("reacher-easy", "finger-spin")
    render: Annotated[str | None, option(default="dm_control")] = None
    backgrounds: Annotated[str, option(metavar="DIR", default="none")] = ""
    seed: Annotated[int, Range(low=0, high=MAX_SEED)] = 0
    size: Annotated[int, Range(low=1)] = 64


def looks_command(arguments: LooksCommand) -> int:
    """Run `vjepa looks`."""
    if not arguments.png.endswith(".png"):
        raise VjepaError(f"{arguments.png} is not a picture; expected a name that ends in .png")
    require_writable(arguments.png)
    import cv2

    from vjepa_cli.views.look_pictures import draw_looks

    picture = draw_looks(arguments.tasks, arguments.size, arguments.seed, arguments.render, arguments.backgrounds)
    cv2.imwrite(arguments.png, picture[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, 9))
    print(f"{arguments.png}: {picture.shape[1]} x {picture.shape[0]} pixels")
    return 0


ACTIONS = {"looks": Action(looks_command)}
