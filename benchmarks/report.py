"""Write docs/performance.md and its pictures from results/benchmark-*.json.

To run it alone: `./vjepa --exec python -m benchmarks.report`.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.encoder import COSINE_AIM
from benchmarks.figures import named, other_machines, read_records
from benchmarks.memory import SMALL_ROWS
from benchmarks.pictures import draw_ratios, draw_sweeps
from benchmarks.stack import ROOT
from benchmarks.sweeps import FLAT, LINEAR, UNIT, Sweep
from vjepa_interfaces.files import write_atomically
from vjepa_interfaces.tables import markdown_table

BEGINS, ENDS = "<!-- of results/benchmark-{}.json -->", "<!-- end -->"
"""Marks around the figures of one benchmark in docs/reliability.md."""

HEAD = """\
# Performance

Generated from `results/benchmark-*.json` by `./vjepa --exec python -m benchmarks.report`; do not edit.
`make bench` measures everything anew and writes both. A value meets its aim or not by itself; the interval says how
far it may be off.
"""

RATIOS_PICTURE, SWEEPS_PICTURE = "performance-ratios.png", "performance-scale.png"
"""Names of the pictures beside the document."""

RATIOS = """\
![Every measured value over its aim](performance-ratios.png)

Every value over its aim, with its interval. The mark points to the better side; green meets the aim, red does not.
"""

SWEEPS = """\
![Costs by what they grow with](performance-scale.png)

How costs grow, in logarithms: a dot for each round, the fitted growth x^b as a line, the expected one dotted.
"""

RUN_COLUMNS = {
    "real-time": (
        ("steps", "steps", 0),
        ("stale steps", "stale_steps", 0),
        ("command age p50, periods", "command_age_p50_periods", 1),
        ("p99", "command_age_p99_periods", 1),
        ("frame to torque p50, ms", "latency_p50_ms", 1),
        ("p99", "latency_p99_ms", 1),
        ("encoder p50, ms", "encode_p50_ms", 1),
        ("p99", "encode_p99_ms", 1),
        ("rate, Hz", "achieved_rate_hz", 1),
    ),
    "transport": (
        ("image to command p50, ms", "response_p50_ms", 2),
        ("p99", "response_p99_ms", 2),
        ("encoder p50, ms", "encode_p50_ms", 2),
        ("planner p50, ms", "plan_p50_ms", 2),
        ("left for transport, ms", "transport_ms", 2),
    ),
    "encoder": (
        ("what", "what", None),
        ("type", "dtype", None),
        ("batch", "batch", 0),
        ("ms a clip", "clip_ms", 2),
        ("share of the rate of products", "share", 2),
    ),
    "planning": (("what", "what", None), ("ms a plan", "median_ms", 2)),
    "runtimes": (
        ("model", "model", None),
        ("runtime", "runtime", None),
        ("ms", "median_ms", 2),
        ("over this stack", "over_own", 2),
    ),
    "images": (
        ("width", "width", 0),
        ("height", "height", 0),
        ("profile", "profile", None),
        ("to the answer p50, ms", "p50_ms", 2),
        ("p99", "p99_ms", 2),
        ("unanswered", "unanswered", 0),
    ),
    "executors": (
        ("executor of all three nodes", "what", None),
        ("round trip p50, ms", "p50_ms", 2),
        ("p99", "p99_ms", 2),
        ("ms on processors a message", "cpu_ms", 2),
        ("unanswered", "unanswered", 0),
    ),
    "data": (("what", "what", None), ("ms", "stage_ms", 2), ("of its floor", "floor_ms", 2)),
    "busy": (("training", "what", None), ("waiting", "waiting", None), ("ms a step", "step_ms", 2)),
    "stages": (
        ("rate, Hz", "rate_hz", 0),
        ("stage", "what", None),
        ("p50, ms", "p50_ms", 2),
        ("p90", "p90_ms", 2),
        ("p99", "p99_ms", 2),
        ("messages", "count", 0),
        ("frames answered", "answered", 4),
    ),
    "start-up": (("help, s", "help_s", 2), ("first torque command, s", "first_torque_s", 2)),
    "budget": (
        ("process", "process", None),
        ("part", "what", None),
        ("ms on processors a step", "cpu_ms", 3),
    ),
    "large-encoder": (
        ("experiment: stage", "what", None),
        ("frames", "frames", 0),
        ("latents on disk, GB", "disk_gb", 1),
        ("hours here", "here_hours", 0),
        ("hours at 100 TFLOP/s", "gpu_hours", 2),
    ),
    "set-up": (
        ("downloads", "what", None),
        ("set-up, s", "set_up_s", 1),
        ("first start to the first torque command, s", "first_torque_s", 1),
    ),
    "memory": (
        ("transitions", "transitions", 0),
        ("memory at its peak, GiB", "peak_gib", 2),
        ("wall time, s", "wall_s", 0),
    ),
    "guard": (("fault", "what", None), ("until zero torque at the arm, ms", "zero_ms", 1)),
    "recovery": (("killed", "what", None), ("until torque was applied again, s", "still_s", 2)),
    "soak": (
        ("node", "what", None),
        ("own memory, MiB, once settled", "first_mib", 1),
        ("at the end", "last_mib", 1),
        ("most", "most_mib", 1),
        ("growth by least squares", "growth_mib", 2),
        ("open files, least", "least_files", 0),
        ("most", "most_files", 0),
        ("threads, least", "least_threads", 0),
        ("most", "most_threads", 0),
    ),
}
RUN_COLUMNS["encoder-gpu"] = RUN_COLUMNS["encoder"]
PING_COLUMNS = (
    ("round trips", "count", 0),
    ("p50, ms", "p50_ms", 2),
    ("p99", "p99_ms", 2),
    ("unanswered", "unanswered", 0),
)

LEAST_SHARE = 0.03
"""The least share of a clip's time with which an operation has a row of its own."""

WORTH_RATIO = 0.9
"""A narrower type must take less than this share of the time in bfloat16."""

NOT_MEASURED = {
    "encoder-gpu": "ViT-L on a GPU (latency of a clip at most 3 ms, share of the rate of products at least 55 %): not "
    "measured, as no GPU was there. `./vjepa --exec python -m benchmarks.run --only encoder-gpu` measures it.",
}

EXPLANATIONS = {
    "encoder": """\
The engine beside transformers' module with the same weights, in turns in one process. The engine's clips are of new
frames; with a window that slides by a frame, as in the loop, all tubelets except the newest are known. Its share is of
the rate of a large matrix product in the same type, measured in the same run; what is left are attention's softmax,
norms, activations and small matrices. In float32 the products alone leave less than the factor asked for, see their
share.

The encoder's node computes with one thread. With more, torch spreads most operations of a layer over them: products,
attention, norms and the activation. Each of these operations ends with its slowest thread; sums and Python stay on one.
So more threads help where their cores are free. On cores that also run the simulation and the planner, a clip waits at
each of its operations until the other thread has its turn.""",
    "encoder-gpu": """\
The same with a ViT-L of random weights, whose values do not change how long it takes.""",
    "planning": """\
The default `cem`, policy-prior trajectories included, beside the same search with the modules as they were trained.
Both are batched over samples, so what is left to gain is what the search computes more than once: it is far less than
the arithmetic that both have in common.

Beside `mppi`, where `./vjepa --with mppi --setup-only` has installed it, is the published MPPI of pytorch_mppi: the
same network, heads, samples, horizon and iterations, in the same process. It calls the modules as they were trained.
With one network `mppi` imagines as many sequences; with its ensemble more than twice as many, as all its networks judge
the best.""",
    "runtimes": """\
The same weights in float32, on one thread, batch 1, with all inputs the same in each call: this stack's own code (the
encoder's engine; for the world model the code that `cem` searches with), the modules as they were trained, and these
modules in other runtimes. The engine's frames count as new. A world model's call is a round of the search: it imagines
its sequences and gives their costs. ViT-B and ViT-L have random weights and clips of 8 frames. ONNX Runtime and
OpenVINO are measured where `./vjepa --with runtimes --setup-only` has installed them.""",
    "data": """\
On one core, in turns: a frame of `vjepa collect` beside the same simulation with nothing kept, a frame of a bag in
`vjepa dataset build` beside the encoder's part of it, a step of `vjepa train dynamics`, its checkpoints, validation and
TensorBoard included, beside the same network on tensors in memory. ms are of a frame, or of a step.""",
    "busy": """\
A step of training dynamics with torch's default number of threads, in turns, in processes of their own. A thread that
waits for another one does so in a loop before it sleeps. libgomp's own loop is long, which is right on free cores: a
sleeping thread wakes up late. On cores that other processes use, it keeps off its core the very thread that it waits
for. `./vjepa` sets a shorter loop, `GOMP_SPINCOUNT`, unless the variables for it are set.""",
    "stages": """\
By the middleware's own times of each message, of an observer beside the stack: when it took a message from its
publisher, and when it gave it to the observer, which stands for the node that it is meant for. Rates rise until one
does not hold. What the simulation does before a frame is sent, physics and rendering, is not in it; see real-time.""",
    "set-up": """\
Fresh clones of this checkout, one after the other. The first one's uv and pip have nothing in their cache; the others
find there what the first one downloaded. Each is set up by `./vjepa --setup-only`, which also compiles what it
installs, and then started by `vjepa run`.""",
    "large-encoder": """\
What `vjepa reproduce all` encodes with the large V-JEPA 2 (ViT-L, 256 x 256, clips of 8 frames), step by step. One
clip of random weights was timed on all cores here, in float32; hours on a GPU are products over a rate of 100
TFLOP/s, which was not measured: where yours does half, they double. In bfloat16 the weights take 0.6 GB of its
memory. What trainers do with the latents, which are conditioned to the same widths, is the same work as with the
small encoder; their times are in the JSON files of `results/`. An experiment uses the datasets of those above it.""",
    "start-up": """\
From the start of the process `vjepa run` to the first torque command that another process hears, environment and caches
warm: six processes start side by side, and those of encoder and planner import torch.""",
    "budget": """\
Time on processors of each process while the stack runs in real time and records, a control step, from the system's
counts of its threads: its main thread, in which the executor runs, those of Fast DDS and the others. The parts named
*bare* are the same functions in a loop in one process, timed in the same run; their sum is the floor of a process. The
rest is what neither they nor the threads of Fast DDS take: rclpy, executor, diagnostics and Python between them.""",
    "images": """\
The bare ping of three rclpy nodes with images of several sizes, with the shared memory of the stack's Fast DDS profiles
(`config/fastdds*.xml`) and with Fast DDS's own, in which a frame of 640 x 480 has no room.""",
    "executors": """\
The bare ping of three rclpy nodes, each of which spins in the executor named. The stack's nodes spin in the one of
events, from `rclpy.experimental`. Time on processors is a process's, a message that it gets, sending another included;
it is of all its threads, Fast DDS's among them.""",
    "transport": """\
Bare ping and stack take turns: ping, stack, ping, ..., ping. The bare ping is three plain rclpy nodes in three
processes that relay messages of the same types and sizes (64 x 64 rgb8 image, 17 x 128 32FC1 image, joint state) at
50 Hz; the time is from image to joint state on the sender's steady clock. The stack's time runs from the publication
of the image to the arrival of its command, also on one steady clock; the encoder's and the planner's own medians are
taken off it. A median of sums is not the sum of medians, so the rest is an estimate. Each stack run is set against
the mean of the two pings around it.""",
    "real-time": """\
Short episodes in real time at 50 Hz with the small encoder and the scripted expert. A step is stale when it applies no
newer command than the step before. Frame to torque begins before the simulation step and so includes physics and
rendering.""",
    "memory": """\
A dataset of random latents in the small encoder's shape, written for the purpose. What counts is memory of the
process's own, which the system cannot drop; pages of the dataset, mapped from disk, it can.""",
    "recovery": """\
Killed in real time while the arm is driven, at rest on its target or not; a tenth of a second passes before the process
is started again. It imports, loads and warms up, is found by the others, and drives.""",
    "guard": """\
The guard alone in a process, beside it a commander at 50 Hz, a switch at 20 Hz and the arm's side, each in one too; it
drives when a fault begins. What counts is the time from the fault's beginning, or from what its line states, to the
first zero at the arm's side after which nothing else came for half a second, the switch held all the while. Timeouts
are the defaults: 0.2 s for commands and 0.3 s for the switch.""",
    "soak": """\
The full loop in real time at 50 Hz with its defaults, every message recorded to a bag. Memory of each process's own,
its open files and threads are read every ten seconds; the first fifth of the time, in which caches and buffers fill,
does not count.""",
    "scale": """\
Encoders like the small one, of other image sizes or widths, and `cem` in worlds of other widths, samples or horizons,
in turns; all of random weights. The exponent b is that of the fit a x^b. It is to be at most 0.1 above the expected
one: that of the arithmetic in an encoder, whose attention goes with the square of the tokens, and 1 elsewhere. One
far below 1 is of sizes at which what does not grow costs most. Memory is what torch has allocated at a call's peak.""",
    "scale-data": """\
Whole commands, and the memory of all their processes, that is of their own. From each time that of a run with one
episode a worker is taken off. With 16 workers on fewer cores, what is measured is what so many processes cost. The two
Ray nodes have a core each, and `./vjepa --with ray --setup-only` brings Ray.""",
    "scale-trainer": """\
Dynamics for some steps on synthetic latents of the small encoder's shape, which are first conditioned and written
anew: that is preparing. The expected exponent of a step and of memory is 0. See `memory` for whole epochs.""",
    "scale-loop": """\
Every node's own memory while the stack runs in lockstep and records, read behind an eighth, a quarter, a half and
nearly all of the steps. The expected exponent is 0.""",
    "calm": """\
The scripted expert and the simulation alone, without camera, encoder and ROS. In real time a command lands a step or
two after its frame, and a controller that is too stiff for that shakes. The change is the mean over joints and over
consecutive steps in the target; 2 would flip every joint from end to end at every step.""",
    "expert": """\
The scripted expert sees target and joints, so it shows what the loop itself costs: nothing may be lost between planner
and arm.""",
}


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return the figures of all records in `folder`, each with the `command` that measures it again."""
    records = read_records(folder).values()
    return [{**figure, "command": content["command"]} for content in records for figure in content["figures"]]


def table(figures: Sequence[dict[str, Any]], others: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """Return the figures as a Markdown table of aims and measured values.

    Args:
        figures: the figures of one machine.
        others: values of other machines as text, by the machine's name and the figure's `what`; a column for each.
    """
    others = others or {}
    lines: list[Sequence[str]] = [("what", "aim", "measured", *others, "95 % interval", "met", "command")]
    for figure in figures:
        sign = "at least" if figure["at_least"] else "at most"
        aim = f"{sign} {_text(figure['aim'], figure['unit'])}"
        value, met = _text(figure["value"], figure["unit"]), "yes" if figure["met"] else "**no**"
        elsewhere = [values.get(figure["what"], "") for values in others.values()]
        lines.append((figure["what"], aim, value, *elsewhere, _interval(figure), met, f"`{figure['command']}`"))
    return markdown_table(lines) if figures else "Nothing has been measured yet."


def values_elsewhere(folder: Path) -> dict[str, dict[str, str]]:
    """Return the values of the other machines in `folder` as text, by the machine's name and the figure's `what`."""
    found: dict[str, dict[str, str]] = {}
    for content in (content for records in other_machines(folder) for content in records.values()):
        values = found.setdefault(f"on {named(content['machine'])}", {})
        values |= {figure["what"]: _text(figure["value"], figure["unit"]) for figure in content["figures"]}
    return found


def render(folder: Path) -> str:
    """Return the document from the records in `folder`; its subfolders contain the records of other machines."""
    parts = [HEAD, table(rows(folder), values_elsewhere(folder)) + "\n"]
    records = read_records(folder)
    parts += [RATIOS] if records else []
    parts += [SWEEPS] if _sweeps(records) else []
    parts += [f"{said}\n" for name, said in NOT_MEASURED.items() if records and name not in records]
    parts += [_section(content) for content in records.values()]
    if "data" in records:
        parts.append(_billion(records["data"]))
    return "\n".join(parts)


def write(folder: Path, document: Path) -> None:
    """Write the document from the records in `folder`, and its pictures beside it."""
    write_atomically(document, render(folder))
    figures, sweeps = rows(folder), _sweeps(read_records(folder))
    if figures:
        draw_ratios(document.parent / RATIOS_PICTURE, figures)
    if sweeps:
        draw_sweeps(document.parent / SWEEPS_PICTURE, sweeps)


def _sweeps(records: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the sweeps of all records and, if there are any, those of whole epochs in the record `memory`."""
    found = [sweep for content in records.values() for sweep in content.get("sweeps", [])]
    if found and "memory" in records:
        runs, x = records["memory"]["runs"], "transitions"
        time_s = {float(run[x]): [run["wall_s"]] for run in runs}
        peak = {float(run[x]): [1024 * run["peak_gib"]] for run in runs}
        epoch = "`vjepa train dynamics`, an epoch"
        found.append(Sweep(f"{epoch}, time", "trainer: an epoch", x, "s", LINEAR, time_s).content())
        found.append(Sweep(f"{epoch}, memory", "trainer: memory", x, "MiB of its own", FLAT, peak).content())
    return found


def with_figures(text: str, records: dict[str, dict[str, Any]]) -> str:
    """Return `text`, the page docs/reliability.md, with the figures from `records` between their marks."""
    for name, figures_of in (("soak", _soak), ("guard", _guard)):
        begins = BEGINS.format(name)
        before, _, rest = text.partition(begins)
        _, _, after = rest.partition(ENDS)
        between = figures_of(records[name]) if name in records else "Not measured yet."
        text = f"{before}{begins}\n\n{between}\n\n{ENDS}{after}"
    return text


def _guard(guard: dict[str, Any]) -> str:
    times: dict[str, list[float]] = {}
    for run in guard["runs"]:
        times.setdefault(run["what"], []).append(run["zero_ms"])
    bounds = {figure["what"].removeprefix("guard: "): figure["aim"] for figure in guard["figures"]}
    lines: list[Sequence[str]] = [("fault", "longest, ms", "median, ms", "bound, ms")]
    for what, found in times.items():
        lines.append((what, f"{max(found):.1f}", f"{statistics.median(found):.1f}", f"{bounds[what]:.0f}"))
    runs, machine = max(map(len, times.values())), guard["machine"]
    sample = f"{machine['cpu']}, {machine['cores_used']} cores, {runs} times each"
    measured = f"`{guard['command']}`, {guard['date'][:10]}, {sample}:\n"
    return f"{measured}\n{markdown_table(lines)}"


def _soak(soak: dict[str, Any]) -> str:
    counts, figures = soak["counts"], [{**figure, "command": soak["command"]} for figure in soak["figures"]]
    said = (
        f"`make soak`, {soak['date'][:10]}, {soak['machine']['cpu']}, {soak['machine']['cores_used']} cores: "
        f"{counts['steps']:,.0f} control steps, {counts['stale_steps']:,.0f} without a newer command, "
        f"{counts['frames'] - counts['answered_frames']:,.0f} of {counts['frames']:,.0f} frames without an answer.\n"
    )
    return "\n".join((said, table(figures), "", _runs(RUN_COLUMNS["soak"], soak["runs"])))


def _section(content: dict[str, Any]) -> str:
    name, machine, seeds = content["benchmark"], content["machine"], content["seeds"]
    lines = [f"## {name}", "", EXPLANATIONS[name], ""]
    if "int8" in content:
        lines += [_int8(content["int8"]), ""]
    lines += [f"- {figure['what']}: {figure['sample']}{_interval_of(figure)}" for figure in content["figures"]]
    lines += [
        f"- seeds {seeds[0]} to {seeds[-1]}; {content['date']}",
        f"- {named(machine)}, {machine['cores_used']} of {machine['cores']} cores used, {machine['memory_gib']} GiB; "
        f"load average at the start {content['load_average_at_start']:.2f}",
        "- " + ", ".join(f"{package} {version}" for package, version in content["versions"].items()),
        "",
    ]
    if name in RUN_COLUMNS:
        lines += ["Every run:", "", _runs(RUN_COLUMNS[name], content["runs"]), ""]
    if "threads" in content:
        lines += ["One clip by threads, ms, and its operations under torch's profiler:", "", _by_threads(content), ""]
    if "sweeps" in content:
        lines += ["Every sweep, medians of the rounds:", "", _points(content["sweeps"]), ""]
    if "pings" in content:
        lines += ["Every ping:", "", _runs(PING_COLUMNS, content["pings"]), ""]
    return "\n".join(lines)


def _int8(found: dict[str, Any]) -> str:
    """Return the text about products of 8-bit integers in the record `encoder`."""
    low, high = found["interval_95"]
    worth = high < WORTH_RATIO and found["cosine"] >= COSINE_AIM
    return (
        "With its layers' products in 8-bit integers, scaled anew in each call, and float32 between them, a clip takes "
        f"{found['over_bfloat16']:.2f} times as long as in bfloat16 ({low:.2f} to {high:.2f}; batch 1), and the least "
        f"cosine of a token is {found['cosine']:.4f}: {'worth having' if worth else 'no part of the stack'}."
    )


def _by_threads(encoder: dict[str, Any]) -> str:
    """Return the table of the time of a clip by type and threads, from the record `encoder`."""
    runs = encoder["threads"]
    slow = {name for run in runs for name, ms in run["operations_ms"].items() if ms > LEAST_SHARE * run["median_ms"]}
    lines = [("", *(f"{run['dtype']}, {run['threads']}" for run in runs))]
    lines.append(("one clip, without the profiler", *(f"{run['median_ms']:.2f}" for run in runs)))
    for name in sorted(slow):
        lines.append((f"`{name}`", *(f"{run['operations_ms'].get(name, 0.0):.2f}" for run in runs)))
    rest = [sum(ms for name, ms in run["operations_ms"].items() if name not in slow) for run in runs]
    lines.append(("other operations", *(f"{ms:.2f}" for ms in rest)))
    return markdown_table(lines)


def _billion(data: dict[str, Any]) -> str:
    """Return the estimated cost of 10^9 frames on a Ray cluster, from the record `data`."""

    def usual(what: str) -> float:
        return statistics.median(run["stage_ms"] for run in data["runs"] if run["what"] == what)

    frames, workers, batch, mean_size = 10**9, 1024, 256, 38
    collected_ms, step_ms = usual("collection, latents"), usual("training dynamics")
    row = sum(kind.itemsize * math.prod(shape) for kind, shape in SMALL_ROWS.columns().values())
    core_hours = frames * collected_ms / 3.6e6
    wall_hours = core_hours / workers
    total_tb = frames * row / 1e12
    rate = total_tb * 1e6 / (wall_hours * 3600)
    steps = frames / batch
    return f"""\
## 10^9 frames, on paper

Nobody has run this. It is arithmetic on the figures of `data` above, with the small encoder, for a Ray cluster of
{workers} cores like this one's.

- **Collect**: `vjepa collect --ray-address ADDRESS`. A frame takes {collected_ms:.1f} ms of a core, so 10^9
  take {core_hours:,.0f} core-hours: {wall_hours:.1f} hours on all cores. An actor of the cluster simulates the
  episodes of its own seeds, and one that dies costs its open episode.
- **Write**: a row has {row:,} bytes, all of them {total_tb:.1f} TB. They come back to one machine, which writes
  them: at {rate:.0f} MB/s, which takes a network of {rate * 8 / 1000:.0f} Gbit/s and a disk as fast. With less,
  collect into several datasets with seeds far apart, from as many machines.
- **Condition**: states of {mean_size} numbers are {frames * mean_size * 4 / 1e9:.0f} GB as float32, mapped from
  disk; a trainer's own memory stays what `memory` says, as it holds batches alone.
- **Train**: an epoch of `vjepa train dynamics` is {steps / 1e6:.1f} million steps of {batch} transitions for each
  member, {steps * step_ms / 3.6e6:,.0f} core-hours at {step_ms:.0f} ms a step. Its rows are read at random, so
  states belong on a disk of the machine that trains.
"""


def _runs(columns: Sequence[tuple[str, str, int | None]], runs: Sequence[dict[str, Any]]) -> str:
    lines = [("run", *(title for title, _, _ in columns))]
    for number, run in enumerate(runs, 1):
        lines.append((str(number), *(_cell(run.get(key), digits) for _, key, digits in columns)))
    return markdown_table(lines)


def _cell(value: Any, digits: int | None) -> str:
    if value is None:
        return "not measured"
    return str(value) if digits is None else f"{value:.{digits}f}"


def _points(sweeps: Sequence[dict[str, Any]]) -> str:
    lines: list[Sequence[str]] = [("what", "at", "measured", "expected exponent")]
    for sweep in sweeps:
        for point in sweep["points"]:
            median = statistics.median(point["values"])
            at = f"{point['x']:g} {sweep['x']}"
            lines.append((sweep["what"], at, f"{median:.4g} {sweep['y']}", f"{sweep['expected']:.3g}"))
    return markdown_table(lines)


def _text(value: float, unit: str) -> str:
    if math.isnan(value):
        return "not measured"
    if unit == "%":
        return f"{value * 100:.4g} %"
    if unit == UNIT:
        return f"exponent {value:.3g}"
    return f"{value:.4g} {unit}".strip()


def _interval(figure: dict[str, Any]) -> str:
    if figure["interval_95"] is None:
        return ""
    low, high = figure["interval_95"]
    if figure["unit"] == UNIT:
        return f"{low:.3g} to {high:.3g}"
    return f"{_text(low, '') if figure['unit'] != '%' else _text(low, '%')} to {_text(high, figure['unit'])}"


def _interval_of(figure: dict[str, Any]) -> str:
    return f"; interval: {figure['interval_of']}" if figure["interval_of"] else ""


def main() -> None:
    """Write docs/performance.md, and the figures of soak and guard into docs/reliability.md."""
    document = ROOT / "docs" / "performance.md"
    write(ROOT / "results", document)
    write_reliability()
    print(f"written: {document}")


def write_reliability() -> None:
    """Write the figures of the soak and of the guard into docs/reliability.md."""
    page = ROOT / "docs" / "reliability.md"
    write_atomically(page, with_figures(page.read_text(encoding="utf-8"), read_records(ROOT / "results")))


if __name__ == "__main__":
    main()
