"""The parameters of the node `episode_recorder`, without ROS."""

from dataclasses import dataclass
from typing import Annotated

from vjepa_interfaces.parameters import Range


@dataclass(frozen=True)
class RecorderParameters:
    """Parameters of `episode_recorder`.

    Attributes:
        record: open a bag at once, before the first frame.
        bag_dir: folder for bags, relative to where the stack was started; created if missing. Each bag is a folder in
            it, named by date and time.
        bag_name: name of the bag, instead of date and time; refused where it exists.
        max_file_s: seconds after which a bag continues in another file; 0 for never.
        provenance: `KEY=VALUE` entries of the bag's metadata; set by the stack.
    """

    record: bool = False
    bag_dir: str = "bags"
    bag_name: str = ""
    max_file_s: Annotated[float, Range(low=0.0)] = 3600.0
    provenance: tuple[str, ...] = ()
