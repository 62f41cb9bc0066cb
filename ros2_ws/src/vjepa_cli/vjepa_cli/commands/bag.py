"""`vjepa bag repair`: make a whole bag from a bag that was cut short."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from vjepa_cli.command_line import Action, option


@dataclass(frozen=True, kw_only=True)
class RepairCommand:
    """Copy the readable messages of a damaged bag into a whole bag.

    Attributes:
        bag: a rosbag2 folder of MCAP files, or one such file; it is only read.
        out: the new bag.
    """

    bag: Annotated[Positional[Path], option(metavar="BAG")]
    out: Annotated[Path | None, option(metavar="FOLDER", default="BAG_repaired beside it")] = None


def repair_command(arguments: RepairCommand) -> int:
    """Run `vjepa bag repair`; return exit status 0 if the new bag was read back whole."""
    from vjepa_bags.bag_repair import repair_bag

    bag = arguments.bag.expanduser()
    out = arguments.out or bag.with_name(f"{bag.stem if bag.suffix == '.mcap' else bag.name}_repaired")
    repair = repair_bag(bag, out.expanduser())
    for topic, count in sorted(repair.counts.items()):
        print(f"{count:8} {topic}")
    print(f"{sum(repair.counts.values()):8} messages saved into {repair.path}, and read back from there")
    for what, count in sorted(repair.lost.items()):
        print(f"{count:8} lost: {what}")
    if repair.damaged_chunks or repair.cut_short:
        print(f"left out: {repair.damaged_chunks} damaged chunks, {repair.cut_short} torn ends of files")
    return 0


ACTIONS = {"bag repair": Action(repair_command)}
