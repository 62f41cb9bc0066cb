"""`vjepa eval` with several looks: measure each look in turn on the same seeds, and print all results in one table."""

import time
from collections.abc import Callable, Mapping, Sequence

from vjepa_cli.actions import Command
from vjepa_cli.result_files import write_result
from vjepa_cli.scoreboard import Evaluation, with_interval
from vjepa_interfaces.tables import text_table
from vjepa_training.evaluation.comparison import SAME, compare
from vjepa_training.evaluation.novelty import auroc


def measure_looks(
    names: Sequence[str], measures: Sequence[Callable[[], Evaluation]], file: str | None, command: Command
) -> int:
    """Measure each look, print the table, write all results as JSON, and return the exit status.

    Args:
        names: names of the looks.
        measures: a function for each look, which returns its result.
        file: path of the JSON; None for none.
        command: the command that measures the looks, for the JSON.

    Raises:
        KeyboardInterrupt: the command was interrupted; the results until then are printed and written.
    """
    started, results = time.monotonic(), dict[str, Evaluation]()
    interrupted = False
    for number, (name, measure) in enumerate(zip(names, measures, strict=True), 1):
        print(f"# {name}, {number} of {len(names)} looks", flush=True)
        try:
            results[name] = measure()
            interrupted = bool(results[name].get("interrupted"))
        except KeyboardInterrupt:
            interrupted = True
        if interrupted:
            break
    if results:
        print(looks_table(results), flush=True)
    if interrupted:
        print(f"INTERRUPTED: {len(results)} of {len(names)} looks, the last look may be incomplete", flush=True)
    if file and results:
        content = {
            "looks": results,
            **command.record,
            "wall_s": time.monotonic() - started,
            **({"interrupted": True, "asked": len(names)} if interrupted else {}),
        }
        write_result(file, content)
    if interrupted:
        raise KeyboardInterrupt
    return 0


def looks_table(results: Mapping[str, Evaluation]) -> str:
    """Return a table of one planner's results by look: mean return, its difference to the first look, success, novelty.

    Intervals are 95 % bootstrap intervals; those of the difference resample pairs of episodes with the same seed. If
    the planner measures the novelty of latents, there are two more columns. One is the share of latents beyond its
    limit. The other is the area under the ROC curve for telling these latents from the first look's by novelty.
    """
    first_name, first = next(iter(results.items()))
    lines: list[tuple[str, ...]] = [("look", "mean return (95 % interval)", f"less {first_name}, paired", "success")]
    if knows := "novel_share" in first:
        lines[0] += ("novel", f"AUROC to {first_name}")
    for name, result in results.items():
        difference = less(first, result) if result is not first else ""
        apart = told_apart(first, result) if result is not first else ""
        line = (name, with_interval(result["mean_return"], result["interval_95"]), difference, _success(result))
        lines.append((*line, *((f"{100 * result['novel_share']:.1f} %", apart) if knows else ())))
    count, seed = first["episodes"], first["seed"]
    head = (
        f"  planner {first['planner']}, encoder {first['encoder']}: {count} episodes of {first['episode_steps']} steps "
        f"each, seeds {seed} to {seed + count - 1}"
    )
    unfinished = (
        ["  INTERRUPTED before all looks were measured"] if list(results.values())[-1].get("interrupted") else []
    )
    return "\n".join(["", head, "", text_table(lines, indent="  "), *unfinished, ""])


def less(first: Evaluation, result: Evaluation) -> str:
    """Return the mean return minus that of `first`, with its interval; empty if the episodes differ."""
    if any(first.get(name) != result.get(name) for name in SAME):
        return ""
    comparison = compare(first, result)
    return with_interval(comparison.difference, comparison.interval_95, "+")


def told_apart(first: Evaluation, result: Evaluation) -> str:
    """Return the AUROC of telling latents from those of `first` by novelty; empty if novelty is unknown."""
    if "novelty_quantiles" not in first or "novelty_quantiles" not in result:
        return ""
    return f"{auroc(first['novelty_quantiles'], result['novelty_quantiles']):.3f}"


def _success(result: Evaluation) -> str:
    defined = [flag for flag in result["success"] if flag is not None]
    return f"{sum(defined)} of {len(defined)}" if defined else "not defined"
