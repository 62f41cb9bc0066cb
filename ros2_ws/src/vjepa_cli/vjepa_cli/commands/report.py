"""`vjepa report`: the page of all results, and its pictures, from the JSON files of the experiments."""

import argparse
from pathlib import Path

from vjepa_cli.commands import COMMANDS
from vjepa_cli.experiments.experiments import RESULTS, read_rows
from vjepa_cli.experiments.results_page import NOT_MEASURED, read_results, render
from vjepa_cli.experiments.results_picture import draw_imagined, draw_open_loop, draw_returns
from vjepa_cli.result_files import require_writable

PAGE = Path("docs/results.md")


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `report`."""
    report = commands.add_parser("report", help=COMMANDS["report"][1])
    report.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="default %(default)s")
    report.add_argument("--out", type=Path, default=PAGE, metavar="FILE.md", help="default %(default)s")
    report.set_defaults(function=report_command)


def report_command(arguments: argparse.Namespace) -> int:
    """`vjepa report`."""
    page: Path = arguments.out
    require_writable(str(page))
    rows = read_rows()
    results = read_results(rows, arguments.results)
    pictures = {}
    for what, draw in (("returns", draw_returns), ("imagined", draw_imagined), ("open-loop", draw_open_loop)):
        picture = page.with_name(f"{page.stem}-{what}.png")
        if draw(picture, results):
            pictures[what] = picture.name
    page.write_text(render(rows, results, page, pictures), encoding="utf-8")
    missing = [result.path.name for result in results if result.content is None]
    print(f"{page}: {len(results) - len(missing)} results of {len(rows)} experiments, {len(missing)} {NOT_MEASURED}")
    return 0
