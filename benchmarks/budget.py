"""The time on processors that a control step costs each process of a running stack, beside the same work bare."""

import contextlib
import itertools
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image, JointState

from benchmarks.figures import Figure, command_of, record
from benchmarks.memory import PERIOD_NS, family
from benchmarks.planning import LATENT_SHAPE, observations
from benchmarks.stack import ROOT, free_domain
from benchmarks.start_up import JOIN_S
from sim_bridge.env import SimEnv
from sim_bridge.sim_parameters import sim_config
from vjepa_bringup.graph import StackOptions, environment, merged_parameters
from vjepa_bringup.monitor import Monitor
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.environment import environment_of
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.image_codec import fill_image, image_to_rgb
from vjepa_interfaces.messages import fill_latent, latent_of
from vjepa_perception.clip import ClipBuffer
from vjepa_perception.encoder import load_encoder, pooled
from vjepa_perception.perception_parameters import encoder_config
from vjepa_planner.contract import PlannerContext
from vjepa_planner.registry import load_planner, options_of

COMMAND_LINE = "command line"
ALL = "all"
THREADS = {"main thread": "main ", "DDS threads": "dds."}
"""Groups of threads by the beginning of their names. The main thread runs the executor, which calls what a message or a
timer triggers; Fast DDS names its own threads."""

FLOOR_AIM = 1.5
STEP_AIM_MS = 20.0
"""One core at 50 Hz."""
LEAST_ANSWERED = 0.99

TIMEOUT_S = 120.0
EPISODE_STEPS = 200
LAST_STEPS = 60
"""Steps at the end of a run that do not count: the diagnostics of the last second may be missing."""

ROUND_S = 0.2
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

Spent = Mapping[str, Mapping[str, float]]
"""Time on processors, s, by process and by name of its threads."""

Bare = Mapping[tuple[str, str], float]
"""Time on processors of a bare function, ms a step, by process and part."""


@dataclass(frozen=True)
class Sample:
    """The counts of a run, and what its processes have spent, since its start or between two samples.

    Attributes:
        steps: control steps.
        answered: frames that a command has answered.
        spent: time on processors.
    """

    steps: int
    answered: int
    spent: Spent


def measure(turns: int, episodes: int, seed: int) -> dict[str, Any]:
    """Run the stack in real time for short episodes of the default planner, time its parts bare, and return the record.

    Args:
        turns: rounds in which the bare parts take turns.
        episodes: short episodes.
        seed: seed of the first episode.
    """
    with tempfile.TemporaryDirectory(prefix="vjepa-bench-") as folder:
        ran = moving(episodes, seed, Path(folder) / "bags")
    runs = rows(ran, bare_parts(turns, seed))
    sample = f"{ran.steps} steps of {episodes} short episodes in real time, recorded; {turns} rounds of the bare parts"
    answered = Figure("frames that were answered", ran.answered / ran.steps, "%", sample, LEAST_ANSWERED, True)
    command = command_of("budget", turns=turns, run_episodes=episodes, seed=seed)
    found = [*figures(runs, sample), answered]
    return record("budget", found, command, range(seed, seed + episodes), runs=runs)


def moving(episodes: int, seed: int, bags: Path) -> Sample:
    """Run the stack, and return what its processes spent while the arm moved.

    Raises:
        VjepaError: no steps were made, or the run failed.
    """
    domain = free_domain()
    command = [str(ROOT / "vjepa"), "run", "--protocol", "short", "--episodes", str(episodes), "--seed", str(seed)]
    command += ["--domain", str(domain), "--record", str(bags)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    samples: list[Sample] = []
    try:
        time.sleep(JOIN_S)
        with environment_of(environment(StackOptions())), Monitor(domain) as monitor:

            def sample() -> bool:
                """Note what was spent whenever the simulation reports further steps; return whether the run ended."""
                steps, answered = (monitor.value("sim_bridge", name, 0.0) for name in ("steps", "answered_frames"))
                if steps > (samples[-1].steps if samples else 0):
                    samples.append(Sample(int(steps), int(answered), spent_by(processes(process.pid))))
                return process.poll() is not None

            monitor.wait_until(sample, TIMEOUT_S + 10 * episodes)
    finally:
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate()
    if process.returncode:
        raise VjepaError(f"{' '.join(command)} ended with {process.returncode}: {said[-2000:]}")
    return difference(samples, episodes)


def difference(samples: Sequence[Sample], episodes: int) -> Sample:
    """Return the difference between the first sample and the last complete one.

    Args:
        samples: samples of a run since its start, in order.
        episodes: short episodes of the run.

    Raises:
        VjepaError: there are fewer than two samples before the end of the run.
    """
    last_steps = EPISODE_STEPS * episodes - LAST_STEPS
    whole = [each for each in samples if each.steps <= last_steps and each.spent.keys() >= samples[0].spent.keys()]
    if len(whole) < 2:
        raise VjepaError(f"{len(samples)} samples of a run of {episodes} short episodes; expected 2: use more episodes")
    first, last = whole[0], whole[-1]
    spent = {
        process: {thread: time_s - before.get(thread, 0.0) for thread, time_s in last.spent[process].items()}
        for process, before in first.spent.items()
    }
    return Sample(last.steps - first.steps, last.answered - first.answered, spent)


def processes(pid: int) -> dict[str, int]:
    """Return the processes of a running `vjepa run`: itself as `COMMAND_LINE`, and its nodes by their names."""
    found = {COMMAND_LINE: pid}
    for each in family(pid)[1:]:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{each}/cmdline").read_bytes().decode(errors="replace").split("\0")
            found |= {word.removeprefix("__node:="): each for word in words if word.startswith("__node:=")}
    return found


def spent_by(pids: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Return the time on processors of running processes by thread, s; a process that has ended is left out."""
    found = {}
    for name, pid in pids.items():
        with contextlib.suppress(OSError):
            found[name] = thread_times(pid)
    return found


def thread_times(pid: int) -> dict[str, float]:
    """Return the time on processors of a process' threads, s, by name and id, such as `dds.ev.0 17` or `main 12`.

    Raises:
        OSError: the process has ended.
    """
    times = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # The thread has ended.
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            user, system = rest.split()[11:13]
            label = "main" if folder.name == str(pid) else name
            times[f"{label} {folder.name}"] = (int(user) + int(system)) / TICKS_PER_S
    return times


def bare_parts(rounds: int, seed: int) -> Bare:
    """Return the time on processors of each part of a step in a loop of its own, the median of `rounds` in turns."""
    parameters = merged_parameters(StackOptions(seed=seed))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # As in the nodes.
    try:
        with SimEnv(sim_config(parameters["sim_bridge"])) as env:
            parts = {**simulation_parts(env), **perception_parts(parameters["vjepa_perception"], env.render())}
            parts |= planner_parts(parameters["vjepa_planner"], seed)
            times: dict[tuple[str, str], list[float]] = {key: [] for key in parts}
            for _ in range(rounds + 1):
                for key, call in parts.items():
                    times[key].append(_processor_ms(call))
    finally:
        torch.set_num_threads(threads)
    return {key: statistics.median(values[1:]) for key, values in times.items()}  # The first round warms up.


def simulation_parts(env: SimEnv) -> dict[tuple[str, str], Callable[[], object]]:
    """Return the simulation's work of a step."""
    env.reset()
    effort = np.zeros(len(env.limits.joint_names))

    def physics() -> None:
        try:
            env.step(effort)
        except VjepaError:  # The episode is over.
            env.reset()

    frame, image = env.render(), Image()
    fill_image(image, frame)
    return {
        ("sim_bridge", "physics"): physics,
        ("sim_bridge", "render"): env.render,
        ("sim_bridge", "convert"): lambda: fill_image(Image(), frame),
        ("sim_bridge", "publish"): lambda: serialize_message(image),
    }


def perception_parts(parameters: Mapping[str, Any], frame: np.ndarray) -> dict[tuple[str, str], Callable[[], object]]:
    """Return the work of the encoder's node for a frame, (height, width, 3) uint8, in a window that slides."""
    encoder = load_encoder(encoder_config(parameters))
    encoder.warm_up()
    clip, stamps = ClipBuffer(encoder.clip_frames), itertools.count(1, PERIOD_NS)
    preprocessed, engine = encoder.preprocess(frame), encoder._engine
    assert engine is not None

    @torch.inference_mode()
    def encode() -> torch.Tensor:
        return engine([clip.push(next(stamps), preprocessed.clone())])

    tokens = encode().to(torch.float32)
    found = pooled(tokens, encoder._side, encoder.grid).cpu().numpy()[0]
    image, latent = Image(), Image()
    fill_image(image, frame)
    data = serialize_message(image)
    return {
        ("vjepa_perception", "receive"): lambda: deserialize_message(data, Image),
        ("vjepa_perception", "convert"): lambda: image_to_rgb(image),
        ("vjepa_perception", "preprocess"): lambda: encoder.preprocess(frame),
        ("vjepa_perception", "encode"): encode,
        ("vjepa_perception", "pool"): lambda: pooled(tokens, encoder._side, encoder.grid).cpu().numpy(),
        ("vjepa_perception", "publish"): lambda: (fill_latent(latent, found), serialize_message(latent)),
    }


def planner_parts(parameters: Mapping[str, Any], seed: int) -> dict[tuple[str, str], Callable[[], object]]:
    """Return the work of the planner's node for a latent of noise."""
    limits = EffortLimits.of(parameters["joint_names"], parameters["effort_limit"])
    context = PlannerContext.of(limits, parameters["control_period_s"], "cpu")
    planner = load_planner(parameters["planner"], options_of(parameters["planner"], parameters), context)
    planner.reset(seed)
    (observation, *_) = observations(LATENT_SHAPE, seed)
    message = Image()
    fill_latent(message, observation.latent)
    data = serialize_message(message)
    command = JointState(name=list(limits.joint_names), effort=[0.0] * len(limits.joint_names))
    return {
        ("vjepa_planner", "receive"): lambda: deserialize_message(data, Image),
        ("vjepa_planner", "convert"): lambda: latent_of(message),
        ("vjepa_planner", "plan"): lambda: planner.plan(observation, None),
        ("vjepa_planner", "publish"): lambda: serialize_message(command),
    }


def _processor_ms(call: Callable[[], object]) -> float:
    """Return the time on processors of a call, ms, the mean over `ROUND_S`."""
    calls, began = 0, time.process_time()
    while (spent := time.process_time() - began) < ROUND_S:
        call()
        calls += 1
    return 1e3 * spent / calls


def rows(ran: Sample, bare: Bare) -> list[dict[str, Any]]:
    """Return the time on processors of a step, ms, for each process: all of it, and its parts."""
    found = []
    for process, threads in ran.spent.items():
        ms = {thread: 1e3 * time_s / ran.steps for thread, time_s in threads.items()}
        whole = sum(ms.values())
        groups = {
            group: sum(spent for thread, spent in ms.items() if thread.startswith(beginning))
            for group, beginning in THREADS.items()
        }
        groups["other threads"] = whole - sum(groups.values())
        parts = {f"{part}, bare": spent for (owner, part), spent in bare.items() if owner == process}
        rest = whole - groups["DDS threads"] - sum(parts.values())
        for what, spent in {ALL: whole, **groups, **parts, "rest": rest}.items():
            found.append({"process": process, "what": what, "cpu_ms": spent})
    return found


def figures(runs: Sequence[Mapping[str, Any]], sample: str) -> list[Figure]:
    """Return the time of all processes, and that of each process over its floor, where it has one."""
    whole = {run["process"]: run["cpu_ms"] for run in runs if run["what"] == ALL}
    found = [Figure("time on processors of the whole stack a step", sum(whole.values()), "ms", sample, STEP_AIM_MS)]
    for process, ms in whole.items():
        floor = sum(run["cpu_ms"] for run in runs if run["process"] == process and run["what"].endswith(", bare"))
        if floor:
            what = f"time on processors of `{process}` a step over that of the same work bare"
            found.append(Figure(what, ms / floor, "times", sample, FLOOR_AIM))
    return found
