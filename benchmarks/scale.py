"""The growth of encoder and planner in time and memory: with tokens, widths, samples, horizon.

Networks have random weights, because the time does not depend on their values.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.encoder import CLIP_FRAMES, SMALL, Setting, clip_flop, engine_of, plain_module, random_encoder
from benchmarks.figures import command_of, record
from benchmarks.planning import PERIOD_S, observations
from benchmarks.sweeps import LINEAR, Sweep, exponent, peak_tensors_mib
from benchmarks.timing import in_turns
from vjepa_perception.checkpoint import find_checkpoint
from vjepa_perception.encoder import empty_module
from vjepa_planner.contract import PlannerContext
from vjepa_planner.models.conditioning import ConditioningConfig
from vjepa_planner.models.dynamics import Dynamics, preset, save_dynamics
from vjepa_planner.models.reward import RewardConfig, RewardModel, save_reward
from vjepa_planner.planners.cem import CemConfig, CemPlanner

SIDES = (48, 64, 96, 128, 192)
"""Sides of frames, pixels, in patches of 8."""

ENCODER_WIDTHS = (64, 128, 256, 512)
HEAD_WIDTH = 64
LATENT_WIDTHS = (64, 128, 256, 512, 1024)
USUAL = CemConfig(samples=64, horizon=4, prior_samples=0)
SAMPLES = (64, 128, 256, 512, 1024)
HORIZONS = (4, 8, 16, 32)
DTYPE = torch.float32
"""The type of `auto` on a processor."""


def measure(rounds: int, seed: int) -> dict[str, Any]:
    """Measure every sweep of encoder and planner in turns, plans on one core and others on all; return the record."""
    least = rounds == 1
    sides, widths = (SIDES[:2], ENCODER_WIDTHS[:2]) if least else (SIDES, ENCODER_WIDTHS)
    sweeps = [*encoder_sweeps(rounds, seed, sides, widths)]
    sizes = (LATENT_WIDTHS[:2], SAMPLES[:2], HORIZONS[:2]) if least else (LATENT_WIDTHS, SAMPLES, HORIZONS)
    sweeps += planner_sweeps(rounds, seed, *sizes)
    command = command_of("scale", turns=rounds, seed=seed)
    return record("scale", [one.figure() for one in sweeps], command, [seed], sweeps=[one.content() for one in sweeps])


@torch.inference_mode()
def encoder_sweeps(rounds: int, seed: int, sides: tuple[int, ...], widths: tuple[int, ...]) -> list[Sweep]:
    """Return the time and the memory of a clip of new frames, by tokens and by the encoder's width."""
    small = find_checkpoint(SMALL)
    usual = empty_module(small).config
    side, width = usual.crop_size, usual.hidden_size
    sizes = list(dict.fromkeys([*((side, width) for side in sides), *((side, width) for width in widths)]))
    calls: dict[tuple[int, int], Callable[[], object]] = {}
    flop = {}
    for size in sizes:
        with _encoder_bundle(*size, seed) as setting:
            flop[size] = clip_flop(plain_module(setting, DTYPE).config)
            engine = engine_of(setting, DTYPE)
        frames = [torch.randn(3, size[0], size[0]) for _ in range(CLIP_FRAMES)]
        calls[size] = lambda engine=engine, frames=frames: engine([[frame.view_as(frame) for frame in frames]])
    times = in_turns(calls, rounds)
    memory = {size: [peak_tensors_mib(call)] * rounds for size, call in calls.items()}

    def tokens(side: int) -> int:
        return CLIP_FRAMES // usual.tubelet_size * (side // usual.patch_size) ** 2

    by_tokens = {float(tokens(s)): (s, width) for s in sides}
    by_width = {float(w): (side, w) for w in widths}
    sample = f"clips of {CLIP_FRAMES} new frames, float32"
    found = []
    for what, x, points in (
        ("tokens", "tokens of a clip", by_tokens),
        ("width", "width of the encoder", by_width),
    ):
        arithmetic = exponent(list(points), [flop[size] for size in points.values()])
        found += [
            Sweep(
                f"an encoder's time with its {what}",
                f"encoder, {what}: time",
                x,
                "ms a clip",
                arithmetic,
                {number: [1e3 * time for time in times[size]] for number, size in points.items()},
                sample=f"{sample}; its arithmetic grows with exponent {arithmetic:.2f}",
            ),
            Sweep(
                f"an encoder's memory with its {what}",
                f"encoder, {what}: memory",
                x,
                "MiB of tensors at the peak",
                LINEAR,
                {number: memory[size] for number, size in points.items()},
                sample=sample,
            ),
        ]
    return found


@contextmanager
def _encoder_bundle(side: int, width: int, seed: int) -> Iterator[Setting]:
    """Yield the small encoder with another image size or width and random weights."""
    model = empty_module(find_checkpoint(SMALL)).config.to_dict()
    names = ("patch_size", "tubelet_size", "num_hidden_layers", "mlp_ratio", "frames_per_clip")
    shape = {name: model[name] for name in names}
    shape |= {"crop_size": side, "hidden_size": width, "num_attention_heads": width // HEAD_WIDTH}
    with random_encoder(shape, seed) as folder:
        yield Setting(folder, "cpu", (1,), (DTYPE,), False)


def planner_sweeps(
    rounds: int, seed: int, widths: tuple[int, ...], samples: tuple[int, ...], horizons: tuple[int, ...]
) -> list[Sweep]:
    """Return the time of a plan of `cem` on one core, by width of an unchanged latent, by samples, by horizon."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # As in the planner's node.
    try:
        calls: dict[tuple[str, int], Callable[[], object]] = {}
        for width in widths:
            calls["width", width] = planning(USUAL, width, seed)
        for number in samples:
            calls["samples", number] = planning(replace(USUAL, samples=number), LATENT_WIDTHS[1], seed)
        for number in horizons:
            calls["horizon", number] = planning(replace(USUAL, horizon=number), LATENT_WIDTHS[1], seed)
        times = in_turns(calls, rounds)
        memory = {key: [peak_tensors_mib(call)] * rounds for key, call in calls.items()}
    finally:
        torch.set_num_threads(threads)
    sample = f"one core, {USUAL.iterations} iterations, ensemble of 5; {USUAL.samples} samples and horizon "
    sample += f"{USUAL.horizon} where not said otherwise"
    found = []
    for what, x, panel in (
        ("width", "width of a latent", "plan, width of the latent"),
        ("samples", "sequences imagined a round, times horizon", "plan, samples x horizon"),
        ("horizon", "sequences imagined a round, times horizon", "plan, samples x horizon"),
    ):
        scale = {"width": 1, "samples": USUAL.horizon, "horizon": USUAL.samples}[what]
        numbers = [number for kind, number in calls if kind == what]
        by_what = f"the {what} of its latent" if what == "width" else f"its {what}"
        for cost, y, values, factor in (("time", "ms a plan", times, 1e3), ("memory", "MiB of tensors", memory, 1.0)):
            points = {float(scale * n): [factor * value for value in values[what, n]] for n in numbers}
            name = f"the {cost} of a plan of `cem` with {by_what}"
            found.append(Sweep(name, f"{panel}: {cost}", x, y, LINEAR, points, sample=sample))
    return found


def planning(config: CemConfig, width: int, seed: int) -> Callable[[], object]:
    """Return a function that plans with `cem`, in a random world whose states are latents of `width` values."""
    torch.manual_seed(seed)
    conditioning = ConditioningConfig(latent_dim=width, latent_rows=(0,), joint_state=True)
    with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
        bundles = _world(Path(folder), conditioning)
        context = PlannerContext(action_size=2, control_period_s=PERIOD_S)
        planner = CemPlanner(replace(config, **bundles), context)
    planner.reset(seed)
    seen = observations((1, width), seed)
    turn = 0

    def plan() -> None:
        nonlocal turn
        planner.plan(seen[turn % len(seen)], None)
        turn += 1

    return plan


def _world(folder: Path, conditioning: ConditioningConfig) -> Mapping[str, str]:
    """Write dynamics and heads of the usual sizes, and return the options of `cem` for them."""
    dynamics = Dynamics(preset("dynamics-ensemble"), conditioning)
    facts = {"encoder_fingerprint": "0" * 16}
    bundle = save_dynamics(folder / "dynamics", dynamics, facts["encoder_fingerprint"], "# Random\n")
    actions = conditioning.joints * dynamics.config.action_repeat
    heads = RewardModel(RewardConfig(conditioning.state_size, actions, distance=True))
    facts["dynamics_sha256"] = bundle.weights_sha256
    save_reward(folder / "reward", heads, conditioning, facts, "# Random\n")
    return {"dynamics": str(folder / "dynamics"), "reward": str(folder / "reward")}
