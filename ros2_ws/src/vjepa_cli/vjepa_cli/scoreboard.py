"""The two forms of a result: a scoreboard for people, and JSON for programs."""

import math
import shlex
from collections.abc import Sequence
from typing import Any, NotRequired, cast

from vjepa_cli.actions import Command, CommandRecord, command_of
from vjepa_interfaces.encoder_info import EncoderInfo
from vjepa_interfaces.tables import text_table
from vjepa_training.evaluation.appearance import in_words
from vjepa_training.evaluation.score import Summary

PERIOD_TOLERANCE = 0.01
MANY_DROPPED = 0.02
"""Share of dropped frames; the cost of fewer cannot be seen in the score."""
OTHER_WORLDS = ("task", "encoder", "params_file", "camera")
"""Options with which the shipped planners may not work."""
OF_BOTH = ("bc_bundle", "encoder", "device", "dtype", "task", "params_file")
"""Options of `eval` that state what is evaluated, and that `run` has too."""


class Evaluation(Summary, CommandRecord):
    """The result of `vjepa run` or `vjepa eval`; docs/interface.md describes its fields."""

    planner: str
    encoder: str
    encoder_fingerprint: str
    encoder_untrained: bool
    through: str
    seed: int
    latency_ms: dict[str, float]
    versions: dict[str, str]
    task: str
    look: NotRequired[str]
    render: NotRequired[str]
    backgrounds: NotRequired[str]
    lockstep: NotRequired[bool]
    batch_size: NotRequired[int]
    control_period_s: NotRequired[float]
    trained_periods_s: NotRequired[list[float]]
    by_planner: NotRequired[dict[str, dict[str, float]]]
    interrupted: NotRequired[bool]
    asked: NotRequired[int]
    planners: NotRequired[list[str]]
    restarts: NotRequired[dict[str, int]]
    bag: NotRequired[str]
    options_changed: NotRequired[list[str]]
    options: NotRequired[dict[str, Any]]
    bundles: NotRequired[dict[str, str]]
    policy: NotRequired[str]
    policy_sha256: NotRequired[str]
    goal: NotRequired[str]
    loop: NotRequired[dict[str, float]]
    wall_s: float


def result_json(
    planner: str,
    encoder: EncoderInfo,
    through: str,
    seed: int,
    summary: Summary,
    latency_ms: dict[str, float],
    versions: dict[str, str],
    command: Command,
    **more: Any,
) -> Evaluation:
    """Return a result; `more` are its further fields."""
    result = {
        "planner": planner,
        "encoder": encoder.get("model", ""),
        "encoder_fingerprint": encoder.get("fingerprint", ""),
        "encoder_untrained": bool(encoder.get("untrained", False)),
        "encoder_dtype": encoder.get("dtype", ""),
        "through": through,
        "seed": seed,
        **summary,
        "latency_ms": latency_ms,
        "versions": versions,
        **command.record,
        **more,
    }
    return cast(Evaluation, result)


def scoreboard(result: Evaluation) -> str:
    """Return the scoreboard of a result as text."""
    count, seed = result["episodes"], result["seed"]
    low, high = result["interval_95"]
    encoder = result["encoder"] + (
        " (UNTRAINED stand-in: seeded random weights)" if result["encoder_untrained"] else ""
    )
    seeds = f"seed {seed}" if count == 1 else f"seeds {seed} to {seed + count - 1}"
    unfinished = f", INTERRUPTED before all {result['asked']} had ended" if result.get("interrupted") else ""
    interval = f" (95 % interval {low:.1f} to {high:.1f})" if count > 1 else ""
    rows = [
        ("planner", " then ".join(_with_bundles(name, result) for name in result.get("planners", [result["planner"]]))),
        ("encoder", encoder),
        *([("look", look)] if (look := in_words(result)) else []),
        ("episodes", f"{count} of {result['episode_steps']} steps, {seeds}{unfinished}"),
        ("success", f"{_count(result['success'])} ({_success_meaning(result)})"),
        ("in target at end", _count(result["in_target_at_end"])),
        ("started in target", _count(result["started_in_target"])),
        ("mean return", f"{result['mean_return']:.1f}{interval}"),
    ]
    if (change := result.get("action_change_at_rest")) is not None:
        rows.append(("action change at rest", f"{change:.3f} a step in the target (0 steady, 2 end to end)"))
    if math.isfinite(share := _novel_share(result)):
        rows.append(("novel latents", f"{100 * share:.1f} % unlike nearly all that the planner was trained on"))
    if len(shares := result.get("by_planner", {})) > 1:
        parts = [
            f"{name} {share['steps']} steps, {share['reward_a_step']:.3f} a step" for name, share in shares.items()
        ]
        rows.append(("by planner", "; ".join(parts)))
    if "closer" in result:
        rows.append((f"goal: {result['goal']} target", f"{100 * result['closer']:.1f} % closer at the end"))
    latency = result["latency_ms"]
    name = "frame to torque" if result["through"] == "ros" else "encode and plan"
    rows.append((name, f"p50 {_number(latency['p50'])} ms, p99 {_number(latency['p99'])} ms"))
    loop = result.get("loop")
    if loop:
        rows.append(("achieved rate", f"{_number(loop['achieved_rate_hz'])} Hz"))
        rows.append(("dropped frames", _dropped(loop["dropped_frames"], loop["frames"])))
        if loop.get("fallback_commands", 0) > 0:
            times, commands, frames = (loop[name] for name in ("fallbacks", "fallback_commands", "answered_frames"))
            rows.append(("FALLBACKS", f"{times:.0f}: {commands:.0f} of {frames:.0f} commands not the chosen planner's"))
    period_s, trained_s = result.get("control_period_s", math.nan), result.get("trained_periods_s", ())
    if trained_s and not any(math.isclose(period_s, each_s, rel_tol=PERIOD_TOLERANCE) for each_s in trained_s):
        rates = " or ".join(f"{1 / each_s:g}" for each_s in trained_s)
        rows.append(("OTHER RATE", f"trained at {rates} Hz, driven at {1 / period_s:g}: train it at this rate"))
    if result.get("restarts"):
        restarts = ", ".join(f"{node} {times}" for node, times in result["restarts"].items())
        rows.append(("RESTARTED NODES", f"{restarts}: not what an undisturbed run would give"))
    if result.get("bag"):
        rows.append(("bag", result["bag"]))
    rows.append(("next", next_command(result)))
    return table(rows)


def with_interval(value: float, interval: Sequence[float], sign: str = "") -> str:
    """Return a value and its interval as text; each number has its sign if `sign` is +."""
    low, high = interval
    return f"{value:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Return rows of a name and a text as a table with aligned texts."""
    return f"\n{text_table(rows, indent='  ')}\n"


def _with_bundles(planner: str, result: Evaluation) -> str:
    """Return the name of a planner and, for the chosen planner, the names of its bundles."""
    bundles = result.get("bundles", {}).values() if planner == result["planner"] else ()
    since = " (loaded during the run)" if result.get("options_changed") else ""
    return f"{planner} with {', '.join(bundles)}{since}" if bundles else planner


def next_command(result: Evaluation) -> str:
    """Return a command to try after a result, with its purpose as a comment."""
    kind, config, loop = result["kind"], result["config"], result.get("loop", {})
    hurried = loop.get("fallback_commands", 0) > 0 or loop.get("dropped_frames", 0) > MANY_DROPPED * loop.get(
        "frames", 0
    )
    if result["through"] == "process":
        return f"{_as_run(result)}  # in real time"
    if hurried and not result.get("lockstep"):
        return f"./{command_of(kind, config | {'lockstep': True}).line}  # waits for every plan"
    if result.get("bag"):
        return f"./vjepa view {shlex.quote(result['bag'])} --png run.png  # a picture"
    if kind == "eval":
        return f"{_as_run(result)}  # in real time"
    if result["planner"] == "bc" and not any(name in config for name in OTHER_WORLDS):
        return "./vjepa run --planner cem --episodes 1  # by search"
    return f"./{command_of(kind, config | {'record': 'bags'}).line}  # keeps all topics"


def _as_run(result: Evaluation) -> str:
    """Return the command that runs one episode of an evaluation, without the options of the measurement."""
    kept = {name: value for name, value in result["config"].items() if name in OF_BOTH}
    return f"./{command_of('run', {**kept, 'planner': result['planner'], 'episodes': 1}).line}"


def _number(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "unknown"


def _dropped(dropped: float, frames: float) -> str:
    """Return the number of frames without a command, and the effect if there are many."""
    counts = f"{_number(dropped, 0)} of {_number(frames, 0)}"
    if not dropped > MANY_DROPPED * frames:  # NaN if unknown.
        return counts
    return f"{counts}: torque held on meanwhile; --lockstep avoids it"


def _novel_share(result: Evaluation) -> float:
    """Return the share of latents beyond the limit of the planner's training; NaN if unknown."""
    loop = result.get("loop", {})
    novel, frames = loop.get("novel_latents", math.nan), loop.get("answered_frames", math.nan)
    return float(result.get("novel_share", novel / frames if frames else math.nan))


def _count(flags: list[bool | None]) -> str:
    return "not defined for this task" if None in flags else f"{sum(map(bool, flags))} of {len(flags)}"


def _success_meaning(result: Evaluation) -> str:
    return "return above 150" if result["protocol"] == "short" else "in the target at the end"
