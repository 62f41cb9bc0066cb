"""The encoder's forward pass beside transformers' own module, and beside the rate of matrix products here."""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.encoder_threads import by_threads
from benchmarks.figures import Figure, command_of, record
from benchmarks.int8 import to_int8
from benchmarks.timing import finish, in_turns, product_rate, ratio
from sim_bridge.env import SimConfig, SimEnv
from vjepa_interfaces.bundle import write_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_perception.checkpoint import find_checkpoint
from vjepa_perception.encoder import EncoderConfig, empty_module, load_encoder
from vjepa_perception.engine import Engine
from vjepa_perception.weights import place_weights

CLIP_FRAMES = 8
SMALL = "models/encoder-small"
VIT_L = {
    "crop_size": 256,
    "patch_size": 16,
    "tubelet_size": 2,
    "frames_per_clip": 64,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "mlp_ratio": 4.0,
}
"""The shape of facebook/vjepa2-vitl-fpc64-256; its time does not depend on the values of its weights."""

NARROW = torch.bfloat16
OWN, SLIDING = "this engine", "this engine, window sliding by a frame"
INT8 = "int8"
"""A type of products alone: the values between them are float32."""
COSINE_AIM, RELATIVE_AIM = 0.999, 1e-4
SPEED_UP_AIM = 2.0
SHARE_AIM, LATENCY_AIM_MS = 0.55, 3.0


@dataclass(frozen=True)
class Setting:
    """The settings of a measurement.

    Attributes:
        folder: bundle of the encoder.
        device: `cpu` or `cuda`.
        batches: numbers of clips in a call.
        dtypes: types of the weights.
        compile: whether transformers' module is measured compiled too.
    """

    folder: str
    device: str
    batches: tuple[int, ...]
    dtypes: tuple[torch.dtype, ...]
    compile: bool


def measure(rounds: int, seed: int, compiled: bool = True) -> dict[str, Any]:
    """Measure the small encoder on the processor and return the record.

    Args:
        rounds: number of rounds in which contenders take turns.
        seed: seed of the frames.
        compiled: measure transformers' module compiled too; otherwise use smaller batches, as a trial.
    """
    setting = Setting(SMALL, "cpu", (1, 32) if compiled else (1, 4), (torch.float32, NARROW), compiled)
    runs, rates, accuracy = _measured(setting, rounds, seed)
    return record(
        "encoder",
        [*speed_ups(runs), *equalities(accuracy)],
        command_of("encoder", turns=rounds, seed=seed),
        [seed],
        runs=runs,
        product_gflops=rates,
        int8=int8_beside(runs, accuracy),
        threads=_by_threads(setting, rounds, seed),
    )


@contextmanager
def random_encoder(shape: dict[str, Any], seed: int) -> Iterator[str]:
    """Yield the folder of a bundle of `shape` with random weights, which lasts as long as the context."""
    with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
        content = {"kind": "encoder", "architecture": "vjepa2", "model": shape, "init_seed": seed}
        side = shape["crop_size"]
        content |= {"preprocessing": {"resize": side, "crop": side}, "clip_frames": CLIP_FRAMES}
        write_bundle(Path(folder), content, "Random weights, for a benchmark.")
        yield folder


def measure_gpu(rounds: int, seed: int) -> dict[str, Any]:
    """Measure a ViT-L with random weights on the GPU and return the record.

    Raises:
        VjepaError: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise VjepaError(f"torch {torch.__version__} finds no GPU; expected one for the benchmark encoder-gpu")
    with random_encoder(VIT_L, seed) as folder:
        runs, rates, accuracy = _measured(Setting(folder, "cuda", (1, 32), (NARROW,), True), rounds, seed)
    card = torch.cuda.get_device_name()
    return record(
        "encoder-gpu",
        [*gpu_figures(runs, card), *equalities(accuracy)],
        command_of("encoder-gpu", turns=rounds, seed=seed),
        [seed],
        runs=runs,
        product_gflops=rates,
        card=card,
    )


def speed_ups(runs: list[dict[str, Any]]) -> list[Figure]:
    """Return the ratio of transformers' time in float32 to this engine's, by type and batch."""
    figures = []
    for batch in sorted({run["batch"] for run in runs}):
        timed = {(run["what"], run["dtype"]): run["rounds_ms"] for run in runs if run["batch"] == batch}
        theirs = timed["transformers, SDPA", "float32"]
        for dtype in ("bfloat16", "float32"):
            value, interval = ratio(theirs, timed[OWN, dtype])
            figures.append(
                Figure(
                    f"transformers' encoder (float32, SDPA) over this engine in {dtype}, batch {batch}",
                    value,
                    "times",
                    f"{len(theirs)} rounds in turns, clips of new frames",
                    SPEED_UP_AIM,
                    at_least=True,
                    interval_95=interval,
                    interval_of="bootstrap over rounds",
                )
            )
    return figures


def int8_beside(runs: list[dict[str, Any]], accuracy: dict[str, float]) -> dict[str, Any]:
    """Return the ratio of the time of 8-bit products to bfloat16 for one clip, and the least cosine of a token."""
    timed = {run["dtype"]: run["rounds_ms"] for run in runs if (run["what"], run["batch"]) == (OWN, 1)}
    value, interval = ratio(timed[INT8], timed["bfloat16"])
    return {"over_bfloat16": value, "interval_95": interval, "cosine": accuracy["int8_cosine"]}


def gpu_figures(runs: list[dict[str, Any]], card: str) -> list[Figure]:
    """Return latency of one clip, and share of the rate of matrix products in the largest batch."""
    own = {run["batch"]: run for run in runs if run["what"] == OWN}
    large = own[max(own)]
    return [
        Figure(f"ViT-L in bfloat16, one clip ({card})", own[1]["median_ms"], "ms", "median", LATENCY_AIM_MS),
        Figure(
            f"ViT-L in bfloat16, batch {large['batch']}: share of the rate of matrix products ({card})",
            large["share"],
            "%",
            "median",
            SHARE_AIM,
            at_least=True,
        ),
    ]


def equalities(accuracy: dict[str, float]) -> list[Figure]:
    """Return the differences of this engine's tokens from transformers' in float32, on frames of the simulator."""
    sample = "tokens of clips of the simulated arm"
    figures = [Figure("least cosine of a token in bfloat16", accuracy["cosine"], "", sample, COSINE_AIM, at_least=True)]
    if "relative" in accuracy:
        figures.append(
            Figure("relative error of the tokens in float32", accuracy["relative"], "", sample, RELATIVE_AIM)
        )
    return figures


def clip_flop(model: Any) -> float:
    """Return the floating-point operations of a clip's matrix products; `model` is a configuration of transformers."""
    width, hidden = model.hidden_size, model.hidden_size * model.mlp_ratio
    tokens = CLIP_FRAMES // model.tubelet_size * (model.crop_size // model.patch_size) ** 2
    values = 3 * model.tubelet_size * model.patch_size**2
    layer = 2 * tokens * (4 * width**2 + 2 * width * hidden) + 4 * tokens**2 * width
    return 2 * tokens * values * width + model.num_hidden_layers * layer


@torch.inference_mode()
def _by_threads(setting: Setting, rounds: int, seed: int) -> list[dict[str, Any]]:
    """Return the time of a clip of a window that slides by a frame, as in the loop, with one thread and with all."""
    frames = simulated_frames(setting, CLIP_FRAMES + 16, seed)

    def sliding(dtype: torch.dtype) -> Callable[[], object]:
        engine, windows = engine_of(setting, dtype), _windows(frames, 1)
        return lambda: engine(next(windows))

    calls = {str(dtype).removeprefix("torch."): sliding(dtype) for dtype in setting.dtypes}
    return by_threads(calls, tuple(sorted({1, torch.get_num_threads()})), rounds)


@torch.inference_mode()
def _measured(setting: Setting, rounds: int, seed: int) -> tuple[list[dict[str, Any]], dict[str, float], dict]:
    runs, rates = [], {}
    frames = simulated_frames(setting, CLIP_FRAMES + max(setting.batches) + 16, seed)
    names = {dtype: str(dtype).removeprefix("torch.") for dtype in setting.dtypes}
    flop = clip_flop(plain_module(setting, setting.dtypes[0]).config)
    for dtype, name in names.items():
        rates[name] = product_rate(dtype, setting.device) / 1e9
    for batch in setting.batches:
        calls = {
            (what, name): call
            for dtype, name in names.items()
            for what, call in _contenders(setting, dtype, batch, frames).items()
        }
        if setting.device == "cpu":
            calls[OWN, INT8] = fresh_clips(to_int8(engine_of(setting, torch.float32)), frames, batch)
        for (what, name), times in in_turns(calls, rounds).items():
            median = float(np.median(times))
            runs.append(
                {
                    "what": what,
                    "dtype": name,
                    "batch": batch,
                    "median_ms": 1e3 * median,
                    "clip_ms": 1e3 * median / batch,
                    "share": batch * flop / median / 1e9 / rates[name] if name in rates else None,
                    "rounds_ms": [1e3 * time for time in times],
                }
            )
    return runs, rates, _accuracy(setting, frames)


def _contenders(
    setting: Setting, dtype: torch.dtype, batch: int, frames: list[Tensor]
) -> dict[str, Callable[[], object]]:
    """Return the timed calls by name; each makes the tokens of `batch` clips."""
    video = torch.stack([torch.stack(clip) for clip in _clips(frames, batch)]).to(dtype)
    modules = {
        "transformers, eager": plain_module(setting, dtype, "eager"),
        "transformers, SDPA": plain_module(setting, dtype, "sdpa"),
    }
    if setting.compile:
        modules["transformers, SDPA, compiled"] = torch.compile(plain_module(setting, dtype, "sdpa"))
    calls: dict[str, Callable[[], object]] = {
        name: lambda module=module: finish(module(video).last_hidden_state) for name, module in modules.items()
    }
    engine, sliding = (engine_of(setting, dtype) for _ in range(2))
    windows = _windows(frames, batch)
    return {**calls, OWN: fresh_clips(engine, frames, batch), SLIDING: lambda: finish(sliding(next(windows)))}


def _clips(frames: list[Tensor], batch: int) -> list[list[Tensor]]:
    return [frames[start : start + CLIP_FRAMES] for start in range(batch)]


def fresh_clips(engine: Engine, frames: list[Tensor], batch: int) -> Callable[[], Tensor]:
    """Return a call that makes the tokens of `batch` clips with frames that are new to the engine."""
    clips = _clips(frames, batch)
    return lambda: finish(engine([[frame.view_as(frame) for frame in clip] for clip in clips]))


def _windows(frames: list[Tensor], batch: int) -> Iterator[list[list[Tensor]]]:
    """Yield the clips of `batch` windows without end; each window slides over its own film by a frame."""
    films = [[frame.view_as(frame) for frame in frames] for _ in range(batch)]
    for start in itertools.count():
        yield [[film[(start + i) % len(film)] for i in range(CLIP_FRAMES)] for film in films]


def plain_module(setting: Setting, dtype: torch.dtype, attention: str = "sdpa"):
    """Return transformers' module with the encoder's weights."""
    checkpoint = find_checkpoint(setting.folder)
    module = empty_module(checkpoint)
    place_weights(module, checkpoint, torch.device(setting.device), dtype)
    module.config._attn_implementation = attention
    return module.eval().requires_grad_(False)


def engine_of(setting: Setting, dtype: torch.dtype) -> Engine:
    """Return this stack's engine with the encoder's weights."""
    module = plain_module(setting, dtype)
    return Engine(module.config, module.state_dict(), CLIP_FRAMES)


def simulated_frames(setting: Setting, count: int, seed: int) -> list[Tensor]:
    """Return frames of a randomly moving arm, preprocessed for the encoder."""
    encoder = load_encoder(EncoderConfig(setting.folder, device=setting.device, clip_frames=CLIP_FRAMES))
    side = encoder.info()["image_size"]
    env = SimEnv(SimConfig(seed=seed, image_size=(side, side), episode_steps=count))
    rng = np.random.default_rng(seed)
    try:
        env.reset(0)
        frames = []
        for _ in range(count):
            frames.append(encoder.preprocess(env.render()))
            env.step(env.limits.effort_of(rng.uniform(-1, 1, 2)))
    finally:
        env.close()
    return frames


def _accuracy(setting: Setting, frames: list[Tensor]) -> dict[str, float]:
    """Return the differences of the engine's tokens from transformers' tokens in float32."""
    clips = [frames[start : start + CLIP_FRAMES] for start in range(0, len(frames) - CLIP_FRAMES, 4)]
    exact = plain_module(setting, torch.float32)
    expected = torch.cat([exact(torch.stack(clip)[None]).last_hidden_state for clip in clips])

    def least_cosine(engine: Engine) -> float:
        return torch.nn.functional.cosine_similarity(engine(clips).float(), expected, dim=-1).min().item()

    found = {"cosine": least_cosine(engine_of(setting, NARROW))}
    if setting.device == "cpu":
        found["int8_cosine"] = least_cosine(to_int8(engine_of(setting, torch.float32)))
    if torch.float32 in setting.dtypes:
        wide = engine_of(setting, torch.float32)(clips)
        found["relative"] = ((wide - expected).norm() / expected.norm()).item()
    return found
