"""The cost of the experiments with the large V-JEPA 2, by stage: frames, disk and hours of the encoder's work.

The cost is computed from one measured rate: a clip of the encoder's shape with random weights on this machine, and its
products. Trainers do the same work with its latents as with those of the small encoder.
"""

import tempfile
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.encoder import (
    CLIP_FRAMES,
    VIT_L,
    Setting,
    clip_flop,
    engine_of,
    fresh_clips,
    plain_module,
    random_encoder,
    simulated_frames,
)
from benchmarks.figures import Figure, command_of, record
from benchmarks.timing import in_turns
from vjepa_cli.actions import Command
from vjepa_cli.commands.run import DEFAULT_PROTOCOL
from vjepa_cli.experiments.experiments import read_experiments, to_do, workspace_of
from vjepa_perception.encoder import EncoderConfig
from vjepa_training.evaluation.score import protocol_named
from vjepa_training.probes.probe_suite import ProbeConfig

ENCODER = "facebook/vjepa2-vitl-fpc64-256"
GPU_TFLOPS = 100.0
"""Products a second in the computed hours on a GPU. The rate is not measured: another GPU needs its own rate."""
AIM_HOURS = 24.0
"""The aim for all experiments on such a GPU."""
FLOAT16_BYTES = 2


def measure(rounds: int, seed: int) -> dict[str, Any]:
    """Time a clip on all cores and return the record with a row for each stage of each experiment in `all`."""
    with random_encoder(VIT_L, seed) as folder:
        setting = Setting(folder, "cpu", (1,), (torch.float32,), False)
        model = plain_module(setting, torch.float32).config
        engine = engine_of(setting, torch.float32)
        call = fresh_clips(engine, simulated_frames(setting, CLIP_FRAMES, seed), 1)
        clip_s = min(in_turns({"clip": call}, rounds)["clip"])
    tflop = clip_flop(model) / 1e12
    rows = [{**row, **hours(row["frames"], tflop, clip_s)} for row in stages(VIT_L["hidden_size"])]
    total = sum(row["gpu_hours"] for row in rows)
    figure = Figure(
        "the large encoder's work for all experiments, on a GPU that does 100 TFLOP/s",
        total,
        "h",
        f"{sum(row['frames'] for row in rows)} clips of {tflop:.2f} TFLOP; computed, not measured on a GPU",
        AIM_HOURS,
    )
    command = command_of("large-encoder", turns=rounds, seed=seed)
    return record("large-encoder", [figure], command, [seed], runs=rows, clip_s=clip_s, clip_tflop=tflop)


def hours(frames: int, tflop: float, clip_s: float) -> dict[str, float]:
    """Return the hours of `frames` clips on this machine and on the GPU."""
    return {"here_hours": frames * clip_s / 3600, "gpu_hours": frames * tflop / GPU_TFLOPS / 3600}


def stages(width: int) -> Iterator[dict[str, Any]]:
    """Yield each stage that needs the encoder, of each experiment: its description, encoded frames, and GB on disk.

    Args:
        width: width of the encoder's tokens; latents have the rows of the stack's default grid.
    """
    experiments = read_experiments()
    wanted = [name for name, experiment in experiments.items() if not experiment.only_by_name]
    workspace = workspace_of(ENCODER, "cuda", tempfile.gettempdir() + "/nothing-is-there")
    latent_rows = 1 + EncoderConfig(ENCODER).grid ** 2
    found: dict[str, int] = {}
    for experiment, stage in to_do(experiments, wanted, workspace):
        frames = encoded(workspace.command(experiment, stage))
        if frames:
            what = f"{experiment.name}: {stage.kind}"
            found[what] = found.get(what, 0) + frames
    for what, frames in found.items():
        kept = frames if what.endswith(": collect") else 0
        yield {"what": what, "frames": frames, "disk_gb": kept * latent_rows * width * FLOAT16_BYTES / 1e9}


def encoded(command: Command) -> int:
    """Return the number of frames that a command encodes; 0 for a command that reads latents of a dataset."""
    kind, given = command.kind, command.arguments
    if kind == "eval":
        frames = given.episodes * (protocol_named(given.protocol or DEFAULT_PROTOCOL).episode_steps + 1)
        return int(frames) * max(1, len(given.looks))
    if kind == "probe":
        frames = (given.episodes or ProbeConfig.episodes) * (1 + (given.episode_steps or ProbeConfig.episode_steps))
        return 2 * int(frames)  # Encoded by the encoder, and by an untrained one of its shape.
    if kind == "collect":
        return int(given.episodes) * (given.episode_steps + 1)
    if getattr(given, "dagger", None):
        return int(given.dagger * given.dagger_episodes * (given.dagger_steps + 1))
    if kind == "train sac":
        return int(given.steps)
    return 0
