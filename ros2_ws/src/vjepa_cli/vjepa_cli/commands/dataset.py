"""`vjepa dataset` and `vjepa collect`: bags or simulated episodes in, datasets out."""

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vjepa_bringup.graph import StackOptions, merged_parameters, versions
from vjepa_cli import arguments as types
from vjepa_cli.commands import COMMANDS
from vjepa_interfaces.errors import VjepaError
from vjepa_training.progress import Progress

EPISODE_STEPS = 200
RANDOMIZED = ("camera", "appearance", "target_size")


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `dataset` with its actions, and `collect`."""
    dataset = commands.add_parser("dataset", help=COMMANDS["dataset"][1])
    actions = dataset.add_subparsers(required=True, metavar="ACTION")
    _add_build(actions)
    info = actions.add_parser("info", help="what a dataset holds and what made it")
    info.add_argument("dataset", metavar="DS")
    info.add_argument("--json", action="store_true", help="as JSON")
    info.set_defaults(function=info_command)
    verify = actions.add_parser("verify", help="whether the files of a dataset are those that were written")
    verify.add_argument("dataset", metavar="DS")
    verify.set_defaults(function=verify_command)
    merge = actions.add_parser("merge", help="several datasets of the same rows made one")
    merge.add_argument("datasets", metavar="DS", nargs="+")
    merge.add_argument("--out", required=True, metavar="DS", help="folder of the new dataset")
    merge.set_defaults(function=merge_command)
    encode = actions.add_parser("encode", help="a dataset that kept its frames, with the latents of another encoder")
    encode.add_argument("dataset", metavar="DS")
    encode.add_argument("--out", required=True, metavar="DS", help="folder of the new dataset")
    encode.add_argument("--frames", action="store_true", help="keep the frames there too")
    _add_encoder(encode)
    encode.set_defaults(function=encode_command)
    reward = actions.add_parser("reward", help="a dataset with a reward of how near to a goal picture each step leads")
    reward.add_argument("dataset", metavar="DS")
    reward.add_argument("--out", required=True, metavar="DS", help="folder of the new dataset")
    reward.add_argument("--goal", required=True, type=Path, metavar="PICTURE", help="PNG or JPEG of the goal")
    _add_encoder(reward)
    reward.set_defaults(function=reward_command)
    export = actions.add_parser("export", help="a dataset in the format of other tools")
    export.add_argument("dataset", metavar="DS")
    export.add_argument("--format", choices=["lerobot"], default="lerobot", help="LeRobot v3.0 (default)")
    export.add_argument("--out", required=True, metavar="FOLDER", help="new folder")
    export.set_defaults(function=export_command)
    _add_push(actions)
    _add_collect(commands)


def _add_push(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    push = actions.add_parser("push", help="upload a dataset to the Hugging Face Hub, with a card")
    push.add_argument("dataset", metavar="DS")
    push.add_argument("repo", metavar="OWNER/NAME", help="or OWNER/NAME@BRANCH (default: the main branch)")
    push.add_argument(
        "--format", choices=["native", "lerobot"], default="native", help="our columns, or LeRobot v3.0 (default: ours)"
    )
    push.add_argument("--license", metavar="ID", default="unknown", help="such as apache-2.0 (default %(default)s)")
    push.add_argument("--private", action="store_true", help="for you alone")
    push.add_argument("--update", action="store_true", help="replace the data of a repository that exists")
    push.add_argument("--dry-run", metavar="FOLDER", help="write what would be uploaded into this new folder instead")
    push.set_defaults(function=push_command)


def _add_build(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    build = actions.add_parser("build", help="a dataset from rosbag2 bags, MCAP or sqlite3, whoever recorded them")
    build.add_argument("bags", metavar="BAG", nargs="+", help="rosbag2 folder, or a single .mcap or .db3 file")
    build.add_argument("--out", required=True, metavar="DS", help="folder of the new dataset")
    build.add_argument("--strict", action="store_true", help="fail, before encoding, if anything is wrong in a bag")
    build.add_argument("--topics", metavar="FILE", type=Path, help="YAML of topics with other names: ours: theirs")
    build.add_argument("--namespace", type=types.namespace, default="", help="of the stack that was recorded")
    build.add_argument("--task", default="", help="dm_control task (default: what the bags say)")
    build.add_argument(
        "--effort-limit", type=float, metavar="NM", help="torque of an action of 1 (default: of the task)"
    )
    build.add_argument(
        "--control-period", type=types.seconds, metavar="S", help="default: the task's, else the frames' distance"
    )
    build.add_argument(
        "--joint-state-max-age",
        type=types.seconds,
        default=0.1,
        metavar="S",
        help="of the joint state that an independent sensor adds to a frame (default %(default)s)",
    )
    build.add_argument(
        "--joints",
        type=_names,
        default=(),
        metavar="NAME,NAME",
        help="of the arm (default: the task's, else those commanded, else the most that one joint state has)",
    )
    build.add_argument(
        "--reward-topic",
        default="",
        metavar="TOPIC",
        help="of a reward: std_msgs Float64 or Float32, or x of a geometry_msgs Vector3Stamped",
    )
    build.add_argument(
        "--derive-velocity", action="store_true", help="from positions and stamps, whatever the driver sends"
    )
    _add_kept(build)
    build.set_defaults(function=build_command)


def _add_collect(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    collect = commands.add_parser("collect", help=COMMANDS["collect"][1])
    collect.add_argument("--out", required=True, metavar="DS", help="folder of the new dataset")
    collect.add_argument(
        "--policy", default="mix", help="a planner, or mix: a scripted one drawn each episode (default %(default)s)"
    )
    collect.add_argument("--epsilon", type=float, default=0.0, help="share of steps with a random action instead")
    collect.add_argument("--hold", type=types.positive, default=1, help="steps that a random action is held")
    collect.add_argument("--episodes", type=types.positive, default=100, help="default %(default)s")
    collect.add_argument("--episode-steps", type=types.positive, default=EPISODE_STEPS, help="default %(default)s")
    collect.add_argument("--workers", type=types.positive, help="processes (default: one a core)")
    collect.add_argument("--ray-address", metavar="ADDRESS", help="simulate on the Ray cluster there instead")
    collect.add_argument("--task", help="dm_control task, such as reacher-easy")
    collect.add_argument("--seed", type=types.seed, help="episode i uses seed + i (default: the parameters', else 0)")
    for what in RANDOMIZED:
        collect.add_argument(
            f"--randomize-{what.replace('_', '-')}", action="store_true", help="drawn anew each episode"
        )
    collect.add_argument(
        "--plain-share", type=float, default=0.0, help="share of episodes that look as the task does all the same"
    )
    collect.add_argument("--render", help="dm_control, exact or plain (default: the parameters')")
    collect.add_argument("--look", metavar="NAME[:LEVEL[:moving]]", help="what the camera sees, such as camera:hard")
    collect.add_argument(
        "--plain-frames", action="store_true", help="keep beside each frame the one without look and shadows"
    )
    _add_kept(collect)
    collect.set_defaults(function=collect_command)


def _add_kept(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-latents", action="store_true", help="keep frames alone, and encode later")
    parser.add_argument("--frames", action="store_true", help="keep the frames, so that the encoder can be changed")
    _add_encoder(parser)


def _add_encoder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder", help="bundle, checkpoint folder or hub id (default: the parameters')")
    parser.add_argument("--device", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=types.whole, default=0, help="of the encoder (default: torch's choice)")
    parser.add_argument("--params-file", default="", help="YAML of ROS parameters over the defaults")


def _names(text: str) -> tuple[str, ...]:
    """Return the names in a list with commas between them."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"'{text}' is no list of names such as shoulder,wrist, each once")
    return names


def build_command(arguments: argparse.Namespace) -> int:
    """`vjepa dataset build`: exit status 0 when there is a dataset, whatever had to be left out."""
    from vjepa_bags.bag_reader import Bag, topic_names
    from vjepa_training.data.build import BuildConfig, build_dataset

    config = BuildConfig(
        names=topic_names(arguments.namespace, arguments.topics, arguments.reward_topic),
        frames=arguments.frames or arguments.no_latents,
        strict=arguments.strict,
        task=arguments.task,
        effort_limit=arguments.effort_limit,
        control_period_s=arguments.control_period,
        joint_state_max_age_s=arguments.joint_state_max_age,
        joint_names=arguments.joints,
        derive_velocity=arguments.derive_velocity,
    )
    bags = [Bag(path, config.names) for path in arguments.bags]
    places = Counter(bag.path.resolve() for bag in bags)
    if twice := [str(path) for path, times in places.items() if times > 1]:
        raise VjepaError(f"{', '.join(twice)} is named twice; name each bag once")
    encoder = None if arguments.no_latents else _load_encoder(arguments)
    making: dict[str, Any] = {"bags": [str(bag.path.resolve()) for bag in bags], "topics": config.names}
    making |= {"joints": config.joint_names, "derive_velocity": config.derive_velocity}
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
        raise VjepaError("no frame of these bags gave a row; the table says what was missing")
    print(_line(dataset))
    return 0


def info_command(arguments: argparse.Namespace) -> int:
    """`vjepa dataset info`."""
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
        "effort_limit": info.effort_limit,
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
    print(f"arm: {', '.join(info.joint_names)}; {info.effort_limit:g} N·m at most; task {info.task or 'not known'}")
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


def merge_command(arguments: argparse.Namespace) -> int:
    """`vjepa dataset merge`."""
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.data.dataset_tools import merge_datasets

    print(_line(merge_datasets([Dataset(folder) for folder in arguments.datasets], arguments.out)))
    return 0


def encode_command(arguments: argparse.Namespace) -> int:
    """`vjepa dataset encode`."""
    from vjepa_training.data.dataset import Dataset, claim_parts
    from vjepa_training.data.dataset_tools import encode_dataset

    dataset = Dataset(arguments.dataset)
    encoder = _load_encoder(arguments)
    source = _source("dataset encode")
    claim_parts(arguments.out, {"dataset": str(dataset.folder.resolve()), "encoder": encoder.info()})
    with Progress("encoding", "frames", len(dataset)) as bar:
        encoded = encode_dataset(dataset, arguments.out, encoder, source, arguments.frames, bar.advance)
    print(_line(encoded))
    return 0


def reward_command(arguments: argparse.Namespace) -> int:
    """`vjepa dataset reward`."""
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.data.dataset_tools import reward_by_goal
    from vjepa_training.evaluation.goals import read_picture, still_latent

    dataset = Dataset(arguments.dataset)
    picture, encoder = read_picture(arguments.goal), _load_encoder(arguments)
    dataset.check_encoder(encoder.name, encoder.fingerprint)
    source = {**_source("dataset reward"), "goal": str(arguments.goal)}
    print(_line(reward_by_goal(dataset, arguments.out, still_latent(picture, encoder), source)))
    return 0


def export_command(arguments: argparse.Namespace) -> int:
    """`vjepa dataset export`."""
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.data.lerobot_export import export_lerobot

    dataset = Dataset(arguments.dataset)
    with Progress("exporting", "rows", len(dataset)) as bar:
        print(export_lerobot(dataset, arguments.out, bar.advance))
    return 0


def verify_command(arguments: argparse.Namespace) -> int:
    """`vjepa dataset verify`."""
    from vjepa_training.data.dataset import Dataset

    dataset = Dataset(arguments.dataset)
    dataset.verify()
    print(f"{dataset.folder}: every file is the one that was written")
    return 0


def push_command(arguments: argparse.Namespace) -> int:
    """`vjepa dataset push`."""
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.data.hub import PushConfig, push_dataset, write_hub_files

    dataset = Dataset(arguments.dataset)
    config = PushConfig(arguments.repo, arguments.format, arguments.license, arguments.private, arguments.update)
    if arguments.dry_run:
        write_hub_files(dataset, arguments.dry_run, config)
        print(f"{arguments.dry_run}: what would be uploaded to {config.repo}; its card is README.md")
    else:
        print(push_dataset(dataset, config))
    return 0


def collect_command(arguments: argparse.Namespace) -> int:
    """`vjepa collect`."""
    from sim_bridge.sim_parameters import sim_config
    from vjepa_planner.registry import options_of
    from vjepa_training.data.collect import CollectConfig, collect
    from vjepa_training.data.dataset import claim_parts

    options = StackOptions(task=arguments.task, seed=arguments.seed, params_file=arguments.params_file)
    given = {f"randomize_{what}": getattr(arguments, f"randomize_{what}") for what in RANDOMIZED}
    given |= {"render": arguments.render, "look": arguments.look}
    given = {name: value for name, value in given.items() if value}
    parameters = merged_parameters(options)
    sim = sim_config(parameters["sim_bridge"], episode_steps=arguments.episode_steps, **given)
    config = CollectConfig(
        sim=sim,
        policy=arguments.policy,
        options=options_of(arguments.policy, parameters["vjepa_planner"]),
        epsilon=arguments.epsilon,
        hold=arguments.hold,
        plain_share=arguments.plain_share,
        latents=not arguments.no_latents,
        frames=arguments.frames or arguments.no_latents,
        plain_frames=arguments.plain_frames,
    )
    workers = arguments.workers or len(os.sched_getaffinity(0))
    encoder = None if arguments.no_latents else _encoder_config(arguments, threads=arguments.threads or 1)
    settings = {"policy": config.policy, "epsilon": config.epsilon, "hold": config.hold, "episodes": arguments.episodes}
    settings |= {
        "plain_share": config.plain_share,
        **asdict(sim),
        **({"options": config.options} if config.options else {}),
    }
    claim_parts(arguments.out, {**settings, "encoder": encoder and encoder.encoder, "frames": config.frames})
    source = {**_source("collect"), **settings}
    started = time.monotonic()
    counts: list[int] = []
    with Progress("collecting", "episodes", arguments.episodes) as bar:

        def on_episodes(count: int) -> None:
            counts.append(count)
            bar.move_to(count)

        if arguments.ray_address:
            from vjepa_training.data.ray_collect import collect_on_ray

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


def _encoder_config(arguments: argparse.Namespace, threads: int) -> Any:
    """Return the configuration of the encoder that was asked for: what a live node would have, but for the threads."""
    from vjepa_perception.perception_parameters import encoder_config

    options = StackOptions(encoder=arguments.encoder, device=arguments.device, params_file=arguments.params_file)
    return encoder_config(merged_parameters(options)["vjepa_perception"], threads=threads)


def _load_encoder(arguments: argparse.Namespace) -> Any:
    from vjepa_perception.encoder import load_encoder

    return load_encoder(_encoder_config(arguments, arguments.threads))


def _source(command: str) -> dict[str, Any]:
    return {"command": f"vjepa {command}", "versions": versions()}


def _line(dataset: Any) -> str:
    kept = [name for name in ("observation.latent", "observation.image") if name in dataset.info.columns()]
    return f"{dataset.folder}: {len(dataset)} rows in {len(dataset.episodes)} episodes, with {' and '.join(kept)}"


def _bag_table(reports: Sequence[Any]) -> str:
    """Return what became of each bag: frames, rows, episodes, and below what was wrong, with its count."""
    lines = [f"{'frames':>8} {'rows':>8} {'episodes':>8}  bag"]
    for report in reports:
        lines.append(f"{report.frames:8} {report.rows:8} {report.episodes:8}  {report.bag}")
        lines += [f"{count:>26}  {fault}" for fault, count in sorted(report.faults.items())]
        lines += [f"{count:>26}  (no fault) {note}" for note, count in sorted(report.notes.items())]
    return "\n".join(lines)
