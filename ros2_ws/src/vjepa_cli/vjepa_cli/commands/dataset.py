"""`vjepa dataset` and `vjepa collect`: make datasets from bags or simulated episodes, and work with datasets."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, Suppress

from sim_bridge.sim_parameters import MAX_RATE_HZ, MIN_RATE_HZ
from vjepa_cli import arguments as types
from vjepa_cli.command_line import Action, option, parsed_by
from vjepa_interfaces.effort import EffortLimit
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.parameters import Range, as_base
from vjepa_interfaces.tables import text_table
from vjepa_training.data.configs import BuildConfig, CollectOptions, PushConfig

RANDOMIZED = ("camera", "appearance", "target_size")
Folder = Annotated[str, option(metavar="DS")]


@dataclass(frozen=True, kw_only=True)
class OfDataset:
    """The option of a command on one dataset.

    Attributes:
        dataset: folder of the dataset.
    """

    dataset: Positional[Folder]


@dataclass(frozen=True, kw_only=True)
class NewDataset:
    """The option of a command that makes a dataset.

    Attributes:
        out: folder of the new dataset.
    """

    out: Folder


@dataclass(frozen=True, kw_only=True)
class WithEncoder:
    """The options of a command that encodes frames.

    Attributes:
        encoder: bundle, checkpoint folder or hub id.
        device: auto, cpu or cuda.
        threads: threads of the encoder; 0 for torch's choice.
        params_file: YAML of ROS parameters that override the defaults.
    """

    encoder: str | None = None
    device: str | None = None
    threads: Annotated[int, Range(low=0)] = 0
    params_file: Annotated[str, option(default="none")] = ""


@dataclass(frozen=True, kw_only=True)
class BuildCommand(BuildConfig, WithEncoder, NewDataset):
    """Make a dataset from rosbag2 bags, MCAP or sqlite3, of any recorder.

    Attributes:
        bags: rosbag2 folders, or single .mcap or .db3 files.
        task: dm_control task.
        effort_limit: effort of an action of 1, N·m; or one for each joint, with commas between.
        control_period_s: seconds between two control steps.
        joint_names: joints of the arm.
        topics: YAML of topics with other names in the bags, as OURS: THEIRS.
        namespace: ROS namespace of the recorded stack.
        reward_topic: topic of a reward: std_msgs Float64 or Float32, or x of a geometry_msgs Vector3Stamped.
        latents: keep an encoder's latents; otherwise keep frames, to encode later.
    """

    bags: Annotated[Positional[tuple[str, ...]], option(metavar="BAG [BAG ...]", default="")] = ()
    names: Suppress[dict[str, str]] = field(default_factory=dict)
    task: Annotated[str, option(default="what the bags state")] = BuildConfig.task
    effort_limit: Annotated[
        EffortLimit | None, parsed_by(types.effort_limit, "NM[,NM]"), Range(above=0), option(default="the task's")
    ] = None
    control_period_s: Annotated[
        float | None,
        Range(low=1e-4, high=60),
        option(name="control-period", metavar="S", default="the bags', else the task's, else the frames' distance"),
    ] = None
    joint_state_max_age_s: Annotated[
        float, Range(above=0, high=60), option(name="joint-state-max-age", metavar="S")
    ] = BuildConfig.joint_state_max_age_s
    joint_names: Annotated[
        tuple[str, ...],
        parsed_by(types.names, "NAME,NAME"),
        option(name="joints", default="the task's, else those commanded, else the most that one joint state has"),
    ] = ()
    topics: Annotated[Path | None, option(metavar="FILE", default="none")] = None
    namespace: Annotated[str, parsed_by(types.namespace, "NAME"), option(default="none")] = ""
    reward_topic: Annotated[str, option(metavar="TOPIC", default="none")] = ""
    latents: bool = True


@dataclass(frozen=True, kw_only=True)
class InfoCommand(OfDataset):
    """Show the contents and the origin of a dataset.

    Attributes:
        json: print JSON.
    """

    json: bool = False


@dataclass(frozen=True, kw_only=True)
class VerifyCommand(OfDataset):
    """Check that the files of a dataset are unchanged since they were written."""


@dataclass(frozen=True, kw_only=True)
class MergeCommand(NewDataset):
    """Merge several datasets with the same kind of rows into one.

    Attributes:
        datasets: folders of the datasets.
    """

    datasets: Annotated[Positional[tuple[str, ...]], option(metavar="DS [DS ...]", default="")] = ()


@dataclass(frozen=True, kw_only=True)
class EncodeCommand(WithEncoder, NewDataset, OfDataset):
    """Encode the frames of a dataset again, with another encoder.

    Attributes:
        frames: keep the frames in the new dataset too.
    """

    frames: bool = False


@dataclass(frozen=True, kw_only=True)
class RewardCommand(WithEncoder, NewDataset, OfDataset):
    """Make a dataset whose reward measures how near each step leads to a goal picture.

    Attributes:
        goal: PNG or JPEG of the goal.
    """

    goal: Annotated[Path, option(metavar="PICTURE")]


@dataclass(frozen=True, kw_only=True)
class ExportCommand(OfDataset):
    """Write a dataset in the format of other tools.

    Attributes:
        format: LeRobot v3.0.
        out: new folder.
    """

    format: Literal["lerobot"] = "lerobot"
    out: Annotated[str, option(metavar="FOLDER")]


@dataclass(frozen=True, kw_only=True)
class PushCommand(PushConfig, OfDataset):
    """Upload a dataset to the Hugging Face Hub, with a card.

    Attributes:
        repo: OWNER/NAME, or OWNER/NAME@BRANCH for another branch than the main one.
        dry_run: write the files of the upload into this new folder instead.
    """

    repo: Annotated[Positional[str], option(metavar="OWNER/NAME")]
    license: Annotated[str, option(metavar="ID")] = PushConfig.license
    dry_run: Annotated[str | None, option(metavar="FOLDER", default="")] = None


@dataclass(frozen=True, kw_only=True)
class CollectCommand(CollectOptions, WithEncoder, NewDataset):
    """Make a dataset of simulated episodes, without ROS.

    Attributes:
        latents: keep an encoder's latents; otherwise keep frames, to encode later.
        episodes: number of episodes.
        episode_steps: control steps of an episode.
        workers: processes; the rows do not depend on it.
        ray_address: simulate on the Ray cluster at this address instead.
        task: dm_control task, such as reacher-easy.
        seed: episode i uses seed + i.
        randomize_camera: draw the camera anew for each episode.
        randomize_appearance: draw the appearance anew for each episode.
        randomize_target_size: draw the size of the target anew for each episode.
        rate_hz: control steps a second of simulated time.
        render: rendering: dm_control, exact or plain.
        look: look of the camera's frames, such as camera:hard.
    """

    episodes: Annotated[int, Range(low=1)] = 100
    episode_steps: Annotated[int, Range(low=1)] = 200
    workers: Annotated[int | None, Range(low=1), option(default="one a core, as memory allows")] = None
    ray_address: Annotated[str | None, option(metavar="ADDRESS", default="")] = None
    task: str | None = None
    seed: Annotated[int | None, Range(low=0, high=types.MAX_SEED), option(default="the parameters', else 0")] = None
    randomize_camera: bool = False
    randomize_appearance: bool = False
    randomize_target_size: bool = False
    rate_hz: Annotated[
        float | None, Range(low=MIN_RATE_HZ, high=MAX_RATE_HZ), option(default="the parameters', else the task's")
    ] = None
    render: str | None = None
    look: Annotated[str | None, option(metavar="NAME[:LEVEL[:moving]]", default="the parameters'")] = None


def build_command(arguments: BuildCommand) -> int:
    """Run `vjepa dataset build`; return exit status 0 if there is a dataset, even if parts were left out."""
    from vjepa_bags.bag_reader import Bag, topic_names
    from vjepa_training.data.build import build_dataset
    from vjepa_training.progress import Progress

    if not arguments.bags:
        raise VjepaError("no bag is named; give at least one rosbag2 folder, .mcap or .db3 file")
    names = topic_names(arguments.namespace, arguments.topics, arguments.reward_topic)
    frames = arguments.frames or not arguments.latents
    config = replace(as_base(BuildConfig, arguments), names=names, frames=frames)
    bags = [Bag(path, config.names) for path in arguments.bags]
    places = Counter(bag.path.resolve() for bag in bags)
    if twice := [str(path) for path, times in places.items() if times > 1]:
        raise VjepaError(f"{', '.join(twice)} is named twice; name each bag once")
    encoder = _load_encoder(arguments) if arguments.latents else None
    making: dict[str, Any] = {"bags": [str(bag.path.resolve()) for bag in bags], "topics": config.names}
    making |= {"joints": config.joint_names, "derive_velocity": config.derive_velocity}
    making |= {"effort_limit": config.effort_limit}
    making |= {"encoder": encoder and encoder.info()}
    with Progress("reading bags", "frames", sum(bag.frame_count for bag in bags)) as bar:
        dataset, reports, watch = build_dataset(
            arguments.out, bags, config, encoder, _source("dataset build"), bar.advance, making
        )
    print(_bag_table(reports))
    spent = ", ".join(
        f"{what} {100 * watch.share(what):.1f} %" for what in ("reading", "decoding", "encoding", "writing")
    )
    print(f"time: {sum(watch.seconds.values()):.1f} s, of it {spent}")
    if dataset is None:
        raise VjepaError("no frame of these bags gave a row; the table states what was missing")
    print(_line(dataset))
    return 0


def info_command(arguments: InfoCommand) -> int:
    """Run `vjepa dataset info`."""
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.data.usable_columns import unknown_rows, unusable_columns

    dataset = Dataset(arguments.dataset)
    unknown, unusable = unknown_rows(dataset), unusable_columns(dataset)
    info, lengths = dataset.info, (dataset.episodes[:, 1] - dataset.episodes[:, 0])
    facts: dict[str, Any] = {
        "rows": len(dataset),
        "episodes": len(dataset.episodes),
        "mean_length": float(lengths.mean()),
        "bytes": sum(file.stat().st_size for file in dataset.folder.rglob("*") if file.is_file()),
        "task": info.task,
        "joint_names": list(info.joint_names),
        "effort_limit": list(info.effort_limit),
        "control_period_s": info.control_period_s,
        "encoder": info.encoder,
        "columns": {name: [kind.name, *shape] for name, (kind, shape) in info.columns().items()},
        "unknown_rows": unknown,
        "unusable_columns": unusable,
        "sources": list(info.sources),
    }
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return 0
    print(_line(dataset))
    print(f"mean length {facts['mean_length']:.1f} rows of {facts['control_period_s'] * 1e3:g} ms")
    print(f"arm: {', '.join(info.joint_names)}; {info.arm.limits_text} N·m at most; task {info.task or 'not known'}")
    if info.encoder:
        print(f"encoder: {info.encoder.get('model')}, fingerprint {info.encoder['fingerprint']}")
    print("columns:")
    for name, (kind, shape) in info.columns().items():
        note = "not known" if name in unusable else f"not known in {unknown[name]} rows" if name in unknown else ""
        print(f"  {name:28} {kind.name:8} {' x '.join(map(str, shape)):12} {note}".rstrip())
    print("sources:")
    for source in info.sources:
        print("  " + ", ".join(f"{k}: {v}" for k, v in source.items() if k not in ("versions", "recorded_with")))
    return 0


def merge_command(arguments: MergeCommand) -> int:
    """Run `vjepa dataset merge`."""
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.data.dataset_tools import merge_datasets

    if not arguments.datasets:
        raise VjepaError("no dataset is named; give at least one")
    print(_line(merge_datasets([Dataset(folder) for folder in arguments.datasets], arguments.out)))
    return 0


def encode_command(arguments: EncodeCommand) -> int:
    """Run `vjepa dataset encode`."""
    from vjepa_training.data.dataset import Dataset, claim_parts
    from vjepa_training.data.dataset_tools import encode_dataset
    from vjepa_training.progress import Progress

    dataset = Dataset(arguments.dataset)
    encoder = _load_encoder(arguments)
    source = _source("dataset encode")
    claim_parts(arguments.out, {"dataset": str(dataset.folder.resolve()), "encoder": encoder.info()})
    with Progress("encoding", "frames", len(dataset)) as bar:
        encoded = encode_dataset(dataset, arguments.out, encoder, source, arguments.frames, bar.advance)
    print(_line(encoded))
    return 0


def reward_command(arguments: RewardCommand) -> int:
    """Run `vjepa dataset reward`."""
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.data.dataset_tools import reward_by_goal
    from vjepa_training.evaluation.goals import read_picture, still_latent

    dataset = Dataset(arguments.dataset)
    picture, encoder = read_picture(arguments.goal), _load_encoder(arguments)
    dataset.check_encoder(encoder.name, encoder.fingerprint)
    source = _source("dataset reward", goal=str(arguments.goal))
    print(_line(reward_by_goal(dataset, arguments.out, still_latent(picture, encoder), source)))
    return 0


def export_command(arguments: ExportCommand) -> int:
    """Run `vjepa dataset export`."""
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.data.lerobot_export import export_lerobot
    from vjepa_training.progress import Progress

    dataset = Dataset(arguments.dataset)
    with Progress("exporting", "rows", len(dataset)) as bar:
        print(export_lerobot(dataset, arguments.out, bar.advance))
    return 0


def verify_command(arguments: VerifyCommand) -> int:
    """Run `vjepa dataset verify`."""
    from vjepa_training.data.dataset import Dataset

    dataset = Dataset(arguments.dataset)
    dataset.verify()
    print(f"{dataset.folder}: all files are unchanged")
    return 0


def push_command(arguments: PushCommand) -> int:
    """Run `vjepa dataset push`."""
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.data.hub import push_dataset, write_hub_files

    dataset = Dataset(arguments.dataset)
    config = as_base(PushConfig, arguments)
    if arguments.dry_run:
        write_hub_files(dataset, arguments.dry_run, config)
        print(f"{arguments.dry_run}: what would be uploaded to {config.repo}; its card is README.md")
    else:
        print(push_dataset(dataset, config))
    return 0


def collect_command(arguments: CollectCommand) -> int:
    """Run `vjepa collect`."""
    from sim_bridge.sim_parameters import sim_config
    from vjepa_bringup.graph import StackOptions, merged_parameters
    from vjepa_planner.registry import options_of
    from vjepa_training.data.collect import CollectConfig, collect, collect_on_ray
    from vjepa_training.data.dataset import claim_parts
    from vjepa_training.progress import Progress
    from vjepa_training.ray_workers import refuse_workers_on_ray
    from vjepa_training.workers import default_workers

    refuse_workers_on_ray(arguments.workers, arguments.ray_address)
    options = StackOptions(task=arguments.task, seed=arguments.seed, params_file=arguments.params_file)
    given = {f"randomize_{what}": getattr(arguments, f"randomize_{what}") for what in RANDOMIZED}
    given |= {"rate_hz": arguments.rate_hz, "render": arguments.render, "look": arguments.look}
    given = {name: value for name, value in given.items() if value}
    parameters = merged_parameters(options)
    sim = sim_config(parameters["sim_bridge"], episode_steps=arguments.episode_steps, **given)
    kept = vars(as_base(CollectOptions, arguments)) | {"frames": arguments.frames or not arguments.latents}
    config = CollectConfig(sim=sim, options=options_of(arguments.behaviour, parameters["vjepa_planner"]), **kept)
    encoder = _encoder_config(arguments, threads=arguments.threads or 1) if arguments.latents else None
    workers = arguments.workers or default_workers(encoder)
    settings = {
        "policy": config.behaviour,
        "epsilon": config.epsilon,
        "hold": config.hold,
        "episodes": arguments.episodes,
    }
    settings |= {
        "plain_share": config.plain_share,
        **asdict(sim),
        **({"options": config.options} if config.options else {}),
    }
    claim_parts(arguments.out, {**settings, "encoder": encoder and encoder.encoder, "frames": config.frames})
    source = _source("collect", **settings)
    started = time.monotonic()
    counts: list[int] = []
    with Progress("collecting", "episodes", arguments.episodes) as bar:

        def on_episodes(count: int) -> None:
            counts.append(count)
            bar.move_to(count)

        if arguments.ray_address is not None:
            where = f"the Ray cluster at {arguments.ray_address}"
            dataset = collect_on_ray(
                arguments.out, config, encoder, arguments.episodes, arguments.ray_address, source, on_episodes
            )
        else:
            where = f"{workers} workers"
            dataset = collect(arguments.out, config, encoder, arguments.episodes, workers, source, on_episodes)
    wall_s = time.monotonic() - started
    print(_line(dataset))
    new = len(dataset) * (1 - counts[0] / arguments.episodes)
    print(f"{new:.0f} frames in {wall_s:.1f} s by {where}: {new / wall_s:.1f} frames/s")
    return 0


ACTIONS = {
    "dataset build": Action(build_command),
    "dataset info": Action(info_command),
    "dataset verify": Action(verify_command),
    "dataset merge": Action(merge_command),
    "dataset encode": Action(encode_command),
    "dataset reward": Action(reward_command),
    "dataset export": Action(export_command),
    "dataset push": Action(push_command),
    "collect": Action(collect_command),
}


def _encoder_config(arguments: WithEncoder, threads: int) -> Any:
    """Return the configuration of the chosen encoder, as of a live node except for the number of threads."""
    from vjepa_bringup.graph import StackOptions, merged_parameters
    from vjepa_perception.perception_parameters import encoder_config

    options = StackOptions(encoder=arguments.encoder, device=arguments.device, params_file=arguments.params_file)
    return encoder_config(merged_parameters(options)["vjepa_perception"], threads=threads)


def _load_encoder(arguments: WithEncoder) -> Any:
    from vjepa_perception.encoder import load_encoder

    return load_encoder(_encoder_config(arguments, arguments.threads))


def _source(command: str, **settings: Any) -> Any:
    """Return the source of new rows: the command, the versions and further settings."""
    from vjepa_bringup.graph import versions

    return {"command": f"vjepa {command}", "versions": versions(), **settings}


def _line(dataset: Any) -> str:
    kept = [name for name in ("observation.latent", "observation.image") if name in dataset.info.columns()]
    return f"{dataset.folder}: {len(dataset)} rows in {len(dataset.episodes)} episodes, with {' and '.join(kept)}"


def _bag_table(reports: Sequence[Any]) -> str:
    """Return a table of the frames, rows and episodes of each bag; below each are its faults, with their counts."""
    lines: list[Sequence[str]] = [("frames", "rows", "episodes", "bag")]
    for report in reports:
        lines.append((str(report.frames), str(report.rows), str(report.episodes), str(report.bag)))
        lines += [("", "", str(count), fault) for fault, count in sorted(report.faults.items())]
        lines += [("", "", str(count), f"(no fault) {note}") for note, count in sorted(report.notes.items())]
    return text_table(lines, right=range(3))
