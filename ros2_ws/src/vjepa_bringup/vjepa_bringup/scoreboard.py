"""Results as people and programs read them: the scoreboard and the JSON."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any


def result_json(
    planner: str,
    encoder: dict[str, Any],
    through: str,
    seed: int,
    summary: dict[str, Any],
    latency_ms: dict[str, float],
    versions: dict[str, str],
    **more: Any,
) -> dict[str, Any]:
    """Return a result in the form every `--json` file has."""
    return {
        "planner": planner,
        "encoder": encoder.get("model", ""),
        "encoder_fingerprint": encoder.get("fingerprint", ""),
        "encoder_untrained": bool(encoder.get("untrained", False)),
        "through": through,
        "seed": seed,
        **summary,
        "latency_ms": latency_ms,
        "versions": versions,
        "command": shlex.join(["vjepa", *sys.argv[1:]]),
        **more,
    }


def write_json(path: str, result: dict[str, Any]) -> None:
    """Write a result whole or not at all."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    temporary.replace(target)


def scoreboard(result: dict[str, Any]) -> str:
    """Return the scoreboard of a result as text."""
    count = result["episodes"]
    low, high = result["interval_95"]
    encoder = result["encoder"] + (
        " (UNTRAINED stand-in: seeded random weights)" if result["encoder_untrained"] else ""
    )
    rows = [
        ("planner", result["planner"]),
        ("encoder", encoder),
        (
            "episodes",
            f"{count} of {result['episode_steps']} steps, seeds {result['seed']} to {result['seed'] + count - 1}",
        ),
        ("success", f"{sum(result['success'])} of {count} ({_success_meaning(result)})"),
        ("in target at end", _count(result["in_target_at_end"])),
        ("started in target", _count(result["started_in_target"])),
        ("mean return", f"{result['mean_return']:.1f} (95 % interval {low:.1f} to {high:.1f})"),
    ]
    latency = result["latency_ms"]
    name = "frame to torque" if result["through"] == "ros" else "encode and plan"
    rows.append((name, f"p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms"))
    loop = result.get("loop")
    if loop:
        rows.append(("achieved rate", f"{loop['achieved_rate_hz']:.1f} Hz"))
        rows.append(("dropped frames", f"{loop['dropped_frames']:.0f} of {loop['frames']:.0f}"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(["", *(f"  {name:<{width}}  {text}" for name, text in rows), ""])


def _count(flags: list[bool | None]) -> str:
    return "not defined for this task" if None in flags else f"{sum(map(bool, flags))} of {len(flags)}"


def _success_meaning(result: dict[str, Any]) -> str:
    return "return above 150" if result["protocol"] == "short" else "in the target at the end"
