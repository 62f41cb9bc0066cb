"""`vjepa bag repair`: a whole bag of one that was cut short."""

import argparse
from pathlib import Path

from vjepa_cli.commands import COMMANDS


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `bag`."""
    bag = commands.add_parser("bag", help=COMMANDS["bag"][1])
    actions = bag.add_subparsers(required=True, metavar="ACTION")
    repair = actions.add_parser("repair", help="copy what can be read of a damaged bag into a whole one")
    repair.add_argument("bag", type=Path, help="a rosbag2 folder of MCAP files, or one such file; it is only read")
    repair.add_argument("--out", type=Path, metavar="FOLDER", help="the new bag (default: BAG_repaired beside it)")
    repair.set_defaults(function=repair_command)


def repair_command(arguments: argparse.Namespace) -> int:
    """`vjepa bag repair`: exit status 0 when the new bag was read back whole."""
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
