"""The parameters of the node `episode_recorder`, without ROS."""

from dataclasses import dataclass
from typing import Annotated

from vjepa_interfaces.parameters import Range


@dataclass(frozen=True)
class RecorderParameters:
    """Parameters of `episode_recorder`.

    Attributes:
        record: open a bag at once, before the first frame.
        bag_dir: folder for bags, seen from where the stack was started, made if need be; each bag is a folder in it
            named after date and time.
        bag_name: name of the bag, instead of date and time; refused where it exists.
        max_file_s: a bag goes on in another file after so many seconds; 0 for never.
        provenance: `KEY=VALUE` that go into the bag's metadata. The stack sets it.
    """

    record: bool = False
    bag_dir: str = "bags"
    bag_name: str = ""
    max_file_s: Annotated[float, Range(low=0.0)] = 3600.0
    provenance: tuple[str, ...] = ()
