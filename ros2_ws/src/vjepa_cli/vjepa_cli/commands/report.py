"""`vjepa report`: the page of all results, and its pictures, from the JSON files of the experiments."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from vjepa_cli.command_line import Action, option
from vjepa_cli.experiments.experiments import RESULTS, read_experiments
from vjepa_cli.experiments.results_page import NOT_MEASURED, read_results, render
from vjepa_cli.experiments.results_picture import draw_imagined, draw_open_loop, draw_returns
from vjepa_cli.result_files import require_writable
from vjepa_interfaces.files import write_atomically


@dataclass(frozen=True)
class ReportCommand:
    """Write the page of all results from the JSON files of experiments.

    Attributes:
        results: folder of the JSON files.
        out: file of the page.
    """

    results: Annotated[Path, option(metavar="DIR")] = RESULTS
    out: Annotated[Path, option(metavar="FILE.md")] = Path("docs/results.md")


def report_command(arguments: ReportCommand) -> int:
    """Run `vjepa report`."""
    page = arguments.out
    require_writable(str(page))
    experiments = read_experiments()
    results = read_results(experiments, arguments.results)
    pictures = {}
    for what, draw in (("returns", draw_returns), ("imagined", draw_imagined), ("open-loop", draw_open_loop)):
        picture = page.with_name(f"{page.stem}-{what}.png")
        if draw(picture, results):
            pictures[what] = picture.name
    write_atomically(page, render(experiments, results, page, pictures))
    missing = [result.path.name for result in results if result.content is None]
    measured = len(results) - len(missing)
    print(f"{page}: {measured} results of {len(experiments)} experiments, {len(missing)} {NOT_MEASURED}")
    return 0


ACTIONS = {"report": Action(report_command)}
