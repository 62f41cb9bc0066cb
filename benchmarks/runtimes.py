"""The encoder and the world model in other runtimes beside this stack's own code, with the same weights.

`./vjepa --with runtimes --setup-only` installs ONNX Runtime and OpenVINO beside the environment.
"""

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import encoder, planning
from benchmarks.apart import imported
from benchmarks.figures import Figure, command_of, record
from benchmarks.timing import LEAST_CALLS, in_turns, ratio

GROUP = "runtimes"
OWN = "this stack"
MODULES, COMPILED, ONNX, OPENVINO = "the modules in torch", "torch.compile", "ONNX Runtime", "OpenVINO"
DISTRIBUTIONS = {ONNX: "onnxruntime", OPENVINO: "openvino"}
OPSET = 17
"""The first version of ONNX's operators with layer normalisation."""
FASTER_AIM, ERROR_AIM = 1.0, 1e-4
VIT_B = encoder.VIT_L | {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12}
SHAPES = {"ViT-B, 256 x 256": VIT_B, "ViT-L, 256 x 256": encoder.VIT_L}
"""The encoders of random weights, beside the small one: time does not depend on values."""

Call = Callable[[], Tensor]
Runtime = Callable[[nn.Module, tuple[Tensor, ...]], Call]


@dataclass(frozen=True)
class Model:
    """A model to measure: its modules with their inputs, and the call of this stack that gives the same output.

    One whose calls take seconds has fewer calls in a round.
    """

    name: str
    modules: nn.Module
    inputs: tuple[Tensor, ...]
    own: Call
    least_calls: int = LEAST_CALLS


def measure(rounds: int, seed: int, whole: bool = True) -> dict[str, Any]:
    """Measure each model in each runtime on one thread, in float32, and return the record.

    Args:
        rounds: number of rounds in which runtimes take turns.
        seed: seed of inputs and random weights.
        whole: measure torch.compile, and encoders of the sizes of ViT-B and ViT-L, which takes minutes; else a trial.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    runs: list[dict[str, Any]] = []
    try:
        with torch.no_grad():
            for model in models(seed, whole):
                runs += _measured(model, rounds, whole)
                torch.compiler.reset()
    finally:
        torch.set_num_threads(threads)
    content = record("runtimes", figures(runs), command_of("runtimes", turns=rounds, seed=seed), [seed], runs=runs)
    measured = {run["runtime"] for run in runs if run["rounds_ms"]}
    content["versions"] |= {name: metadata.version(name) for of, name in DISTRIBUTIONS.items() if of in measured}
    return content


def figures(runs: list[dict[str, Any]]) -> list[Figure]:
    """Return for each model the time of the fastest other runtime over that of this stack, and the largest error."""
    found = []
    for name in dict.fromkeys(run["model"] for run in runs):
        timed = {run["runtime"]: run["rounds_ms"] for run in runs if run["model"] == name and run["rounds_ms"]}
        own = timed.pop(OWN)
        fastest = min(timed, key=lambda runtime: float(np.median(timed[runtime])))
        value, interval = ratio(timed[fastest], own)
        found.append(
            Figure(
                f"{name}: the fastest other runtime over this stack's code, float32, one thread",
                value,
                "times",
                f"{fastest}, {len(own)} rounds in turns",
                FASTER_AIM,
                at_least=True,
                interval_95=interval,
                interval_of="bootstrap over rounds",
            )
        )
    errors = [run["relative_error"] for run in runs if run["relative_error"] is not None]
    what = "largest relative error of a runtime's outputs, to those of the modules in torch"
    return [*found, Figure(what, max(errors), "", "one input of each model", ERROR_AIM)]


def models(seed: int, large: bool) -> Iterator[Model]:
    """Yield the models one after the other, so that only one is in memory."""
    yield _encoder("encoder-small", encoder.SMALL, seed)
    yield _world(seed)
    for name, shape in SHAPES.items() if large else ():
        with encoder.random_encoder(shape, seed) as folder:
            yield replace(_encoder(name, folder, seed), least_calls=1)


class _Tokens(nn.Module):
    """transformers' encoder with its tokens as the only output."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, video: Tensor) -> Tensor:
        """Return the tokens (1, N, D) of a clip (1, frames, 3, side, side)."""
        return self.module(video).last_hidden_state


class _Costs(nn.Module):
    """A world by its modules: the costs of imagined sequences, as `cem` asks for them in a round."""

    def __init__(self, world: planning.PlainWorld, distance_weight: float):
        super().__init__()
        self.dynamics, self.heads, self._world, self._weight = world.dynamics, world.heads, world, distance_weight

    def forward(self, history: Tensor, actions: Tensor) -> Tensor:
        """Return the costs (members, B) of actions (members, B, horizon, n) from states (history, S)."""
        return self._world.costs(self._world.imagine(history, actions), actions, self._weight)


def _encoder(name: str, folder: str, seed: int) -> Model:
    setting = encoder.Setting(folder, "cpu", (1,), (torch.float32,), False)
    frames = encoder.simulated_frames(setting, encoder.CLIP_FRAMES, seed)
    module = _Tokens(encoder.plain_module(setting, torch.float32))
    return Model(
        name,
        module,
        (torch.stack(frames)[None],),
        encoder.fresh_clips(encoder.engine_of(setting, torch.float32), frames, 1),
    )


def _world(seed: int) -> Model:
    own, plain = planning.planner(), planning.planner(plain=True)._world
    assert isinstance(plain, planning.PlainWorld)
    world, config = own._world, own.config
    members, joints = world.dynamics.config.members, world.dynamics.conditioning.config.joints
    generator = torch.Generator().manual_seed(seed)
    shape = (members, -(-config.samples // members), config.horizon, joints)
    actions = 2 * torch.rand(shape, generator=generator) - 1
    size = (world.dynamics.config.history, world.dynamics.conditioning.config.state_size)
    history = torch.randn(size, generator=generator)

    def costs() -> Tensor:
        return world.costs(world.imagine(history, actions), actions, config.distance_weight)

    name = f"world model: {members} x {shape[1]} sequences of {config.horizon}"
    return Model(name, _Costs(plain, config.distance_weight).eval(), (history, actions), costs)


def _measured(model: Model, rounds: int, compiled: bool) -> list[dict[str, Any]]:
    expected = model.modules(*model.inputs)
    with warnings.catch_warnings(), ExitStack() as exits:
        warnings.simplefilter("ignore")  # An export warns of each Python value that it takes for a constant.
        calls: dict[str, Call] = {OWN: model.own, MODULES: lambda: model.modules(*model.inputs)}
        for name, runtime in available(exits, compiled).items():
            calls[name] = runtime(model.modules, model.inputs)
        errors = {name: ((call() - expected).norm() / expected.norm()).item() for name, call in calls.items()}
        times = in_turns(calls, rounds, model.least_calls)
    return [
        {
            "model": model.name,
            "runtime": name,
            "median_ms": 1e3 * float(np.median(times[name])) if name in times else None,
            "over_own": float(np.median(times[name]) / np.median(times[OWN])) if name in times else None,
            "relative_error": errors.get(name),
            "rounds_ms": [1e3 * time for time in times.get(name, ())],
        }
        for name in (OWN, MODULES, COMPILED, ONNX, OPENVINO)
    ]


def available(exits: ExitStack, compiled: bool) -> dict[str, Runtime]:
    """Return the other runtimes that are installed, by name, torch.compile among them if it is asked for.

    Files that they need last as long as `exits`.
    """
    folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="vjepa-bench-")))
    found: dict[str, Runtime] = {COMPILED: _compiled} if compiled else {}
    onnxruntime, onnx, openvino = (imported(GROUP, name) for name in ("onnxruntime", "onnx", "openvino"))
    if onnxruntime is not None and onnx is not None:
        found[ONNX] = lambda module, inputs: _onnx(onnxruntime, module, inputs, folder / "model.onnx")
    if openvino is not None:
        found[OPENVINO] = lambda module, inputs: _openvino(openvino, module, inputs)
    return found


def _compiled(module: nn.Module, inputs: tuple[Tensor, ...]) -> Call:
    compiled = torch.compile(module)
    return lambda: compiled(*inputs)


def _onnx(package: Any, module: nn.Module, inputs: tuple[Tensor, ...], file: Path) -> Call:
    names = [f"input{i}" for i in range(len(inputs))]
    torch.onnx.export(module, inputs, file, dynamo=False, opset_version=OPSET, input_names=names)
    options = package.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = package.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    given = dict(zip(names, (tensor.numpy() for tensor in inputs), strict=True))
    return lambda: torch.from_numpy(session.run(None, given)[0])


def _openvino(package: Any, module: nn.Module, inputs: tuple[Tensor, ...]) -> Call:
    # In its own default a processor that has products of narrow types computes in them.
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = package.compile_model(package.convert_model(module, example_input=inputs), "CPU", options)
    given = [tensor.numpy() for tensor in inputs]
    return lambda: torch.from_numpy(compiled(given)[0])
