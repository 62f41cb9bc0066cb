"""`vjepa train`: datasets in, bundles out."""

import argparse
import dataclasses
import math
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vjepa_bringup.graph import StackOptions, merged_parameters, versions
from vjepa_cli import arguments as types
from vjepa_cli.commands import COMMANDS
from vjepa_cli.result_files import require_writable, write_json
from vjepa_cli.views.training_picture import draw_training
from vjepa_interfaces.bundle import find_bundle
from vjepa_training.progress import Progress
from vjepa_training.trainers.training_words import against_constant, end_of_round, open_loop_line


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `train` with `encoder`, `bc`, `dynamics`, `reward`, `dreamer` and `sac`."""
    train = commands.add_parser("train", help=COMMANDS["train"][1])
    kinds = train.add_subparsers(title="what to train", required=True, metavar="WHAT")
    _add_encoder(kinds)
    _add_bc(kinds)
    _add_dynamics(kinds)
    _add_reward(kinds)
    _add_dreamer(kinds)
    _add_sac(kinds)


def _add_encoder(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = kinds.add_parser("encoder", help="a small V-JEPA 2 encoder, on a dataset that kept its frames")
    parser.add_argument(
        "--data", required=True, nargs="+", metavar="DS", help="datasets with frames (see: vjepa collect --frames)"
    )
    parser.add_argument("--out", required=True, metavar="BUNDLE", help="folder of the bundle")
    parser.add_argument("--work", metavar="DIR", help="folder of checkpoint and events (default: OUT.training)")
    parser.add_argument(
        "--encoder", default="encoder-small", help="whose architecture and preprocessing it gets (default %(default)s)"
    )
    parser.add_argument(
        "--model",
        type=types.setting,
        action="append",
        default=[],
        metavar="FIELD=NUMBER",
        help="a field of its model that is another, such as tubelet_size=4; repeatable",
    )
    parser.add_argument("--finetune", action="store_true", help="begin with its weights too, instead of random ones")
    parser.add_argument("--augment", action="store_true", help="change light, colours, sharpness ... of each clip anew")
    parser.add_argument("--objective", choices=("joint-embedding", "masked"), default="joint-embedding")
    parser.add_argument("--steps", type=types.positive, default=5000, help="default %(default)s")
    parser.add_argument("--batch-size", type=types.positive, default=64, help="clips a step (default %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="default %(default)s")
    parser.add_argument("--warmup-steps", type=types.positive, default=300, help="default %(default)s")
    parser.add_argument("--seed", type=types.seed, default=0, help="default %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="default %(default)s")
    parser.add_argument("--compile", action="store_true", help="through torch.compile: minutes to start, then faster")
    parser.add_argument("--checkpoint-every", type=types.positive, default=200, help="steps (default %(default)s)")
    parser.set_defaults(function=encoder_command)


def _add_bc(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = kinds.add_parser("bc", help="a policy cloned from the expert, on a dataset with latents")
    parser.add_argument("--data", required=True, metavar="DS", help="dataset with latents")
    parser.add_argument("--out", required=True, metavar="BUNDLE", help="folder of the bundle")
    parser.add_argument("--work", metavar="DIR", help="folder of what each round gave (default: OUT.training)")
    parser.add_argument(
        "--labels",
        choices=("auto", "expert", "recorded"),
        help="what to learn: what the scripted expert would do, or what was recorded (default auto: recorded where the "
        "dataset is of no simulated task)",
    )
    parser.add_argument("--episodes", type=types.numbers, default=(), metavar="0-9,12", help="use these episodes alone")
    parser.add_argument("--mark", default="", metavar="KEY=VALUE", help="use episodes of bags with this custom data")
    parser.add_argument("--min-return", type=float, metavar="R", help="use episodes with at least this sum of rewards")
    parser.add_argument("--old", action="store_true", help="the old architecture and settings, on the mean row alone")
    parser.add_argument("--no-joint-state", action="store_true", help="from latents alone")
    parser.add_argument("--encoder", help="encoder of the dataset's latents; needed for --dagger")
    parser.add_argument("--dagger", type=types.whole, default=0, metavar="N", help="rounds of DAgger (default 0)")
    parser.add_argument("--dagger-episodes", type=types.positive, help="of each round")
    parser.add_argument("--dagger-steps", type=types.positive, help="control steps of each of those")
    parser.add_argument("--epochs", type=types.positive)
    parser.add_argument("--patience", type=types.positive, help="epochs without a better validation before it stops")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--noise", type=float, help="on the normalised latent, against learning targets by heart")
    parser.add_argument("--max-frames", type=types.positive, default=0, help="at most so many of the dataset's frames")
    parser.add_argument("--seed", type=types.seed)
    parser.add_argument("--device", help="cpu, cuda or cuda:N")
    parser.add_argument("--json", metavar="FILE", help="write the learning curve and the settings")
    parser.set_defaults(function=bc_command)


def _add_dynamics(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = kinds.add_parser("dynamics", help="a model of what actions do, on a dataset with latents")
    parser.add_argument("--preset", help="the network's settings by name (default: dynamics-ensemble)")
    parser.add_argument("--old", action="store_true", help="as earlier work did otherwise, on the mean row as it is")
    parser.add_argument("--members", type=types.positive, help="size of the ensemble")
    parser.add_argument("--action-repeat", type=types.positive, help="control steps that a prediction spans")
    parser.add_argument("--history", type=types.positive, help="states that a prediction starts from")
    parser.add_argument("--components", type=types.whole, help="values a latent is projected on; 0: as it is")
    parser.add_argument("--conditioning", choices=("probe", "pca"), help="how that projection is fitted")
    parser.add_argument("--horizon", type=types.positive, help="predictions in a row that the loss runs over")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="bfloat16 for mixed precision")
    _add_training(parser)
    parser.set_defaults(function=dynamics_command)


def _add_reward(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = kinds.add_parser("reward", help="reward and distance heads on the states of a dynamics model")
    parser.add_argument("--dynamics", required=True, metavar="BUNDLE", help="the dynamics model")
    parser.add_argument("--no-distance", action="store_true", help="no distance head, as where there is no target")
    parser.add_argument("--hidden", type=types.positive, help="width of the heads' hidden layers")
    parser.add_argument("--noise", type=float, help="on the states, since planners ask about predicted ones")
    _add_training(parser)
    parser.set_defaults(function=reward_command)


def _add_dreamer(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = kinds.add_parser("dreamer", help="an actor, trained in what a dynamics model imagines")
    parser.add_argument("--dynamics", required=True, metavar="BUNDLE", help="the dynamics model to dream in")
    parser.add_argument("--reward", default="", metavar="BUNDLE", help="heads on its states")
    parser.add_argument("--policy", default="", metavar="BUNDLE", help="policy to start from and to stay near")
    parser.add_argument(
        "--preset", default="dreamer", help="dreamer, or dreamer-old and dreamer-hybrid of earlier work"
    )
    parser.add_argument("--horizon", type=types.positive, help="predictions in a dream")
    parser.add_argument("--dreams", type=types.positive, help="at once, in a step")
    parser.add_argument("--steps", type=types.positive, help="of the optimiser")
    parser.add_argument("--entropy", type=float, help="weight of the actions' entropy")
    parser.add_argument("--distance-weight", type=float, help="cost of a metre between fingertip and target")
    parser.add_argument("--disagreement-weight", type=float, help="cost of the ensemble's standard deviation")
    parser.add_argument("--cloning-steps", type=types.whole, help="first steps that only clone the policy")
    parser.add_argument("--cloning-weight", type=float, help="how much staying near the policy counts; 2.5 the return")
    _add_run(parser)
    parser.set_defaults(function=dreamer_command)


def _add_sac(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = kinds.add_parser("sac", help="an actor, by soft actor-critic in the simulator, with no data and no model")
    parser.add_argument("--dynamics", required=True, metavar="BUNDLE", help="the dynamics model whose states it reads")
    parser.add_argument("--encoder", help="whose latents those are made of (default: the parameters')")
    parser.add_argument("--task", help="dm_control task, such as reacher-easy")
    parser.add_argument("--params-file", default="", help="YAML of ROS parameters over the defaults")
    parser.add_argument("--steps", type=types.positive, help="control steps in all")
    parser.add_argument("--episode-steps", type=types.positive, help="control steps of an episode")
    parser.add_argument("--envs", type=types.positive, help="environments side by side")
    parser.add_argument("--random-steps", type=types.whole, help="first control steps, of random actions")
    parser.add_argument("--action-repeat", type=types.positive, help="control steps that an action is held meanwhile")
    parser.add_argument("--updates", type=float, help="gradient steps an action")
    parser.add_argument("--batch-size", type=types.positive, help="transitions a gradient step")
    _add_outcome(parser)
    parser.set_defaults(function=sac_command)


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--epochs", type=types.positive)
    parser.add_argument("--batch-size", type=types.positive)
    parser.add_argument("--weight-decay", type=float)
    _add_run(parser)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, metavar="DS", help="dataset with latents")
    parser.add_argument("--start", default="", metavar="BUNDLE", help="a trained one of the same sizes to go on from")
    parser.add_argument("--picture", metavar="FILE.png", help="draw the learning curve and, of dynamics, open loop")
    _add_outcome(parser)


def _add_outcome(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="BUNDLE", help="folder of the bundle")
    parser.add_argument("--work", metavar="DIR", help="folder of checkpoint and events (default: OUT.training)")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--checkpoint-every", type=types.positive, help="steps")
    parser.add_argument("--seed", type=types.seed)
    parser.add_argument("--device", help="cpu, cuda or cuda:N")
    parser.add_argument("--json", metavar="FILE", help="write the learning curve and the settings")


def encoder_command(arguments: argparse.Namespace) -> int:
    """`vjepa train encoder`."""
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.trainers.train_encoder import EncoderTraining, train_encoder

    names = [field.name for field in dataclasses.fields(EncoderTraining)]
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    training = EncoderTraining(**{**given, "encoder": find_bundle(arguments.encoder), "model": dict(arguments.model)})
    work = Path(arguments.work or arguments.out.rstrip("/") + ".training")
    with Progress("training", "steps", training.steps) as bar:

        def on_step(step: int, figures: dict[str, float]) -> None:
            _show(bar, step, training.steps, figures, 3)

        train_encoder(
            [Dataset(folder) for folder in arguments.data], training, arguments.out, work, _command(), on_step
        )
    print(f"encoder written to {arguments.out}; its training can be looked at with: tensorboard --logdir {work}")
    return 0


def bc_command(arguments: argparse.Namespace) -> int:
    """`vjepa train bc`."""
    from sim_bridge.tasks import arm_of
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.trainers.configs import EXPERT, OLD_BC, BcTraining
    from vjepa_training.trainers.train_bc import (
        chosen_episodes,
        encoder_of,
        labelled_frames,
        train_bc,
        write_policy,
    )

    changes = _given(arguments, BcTraining)
    if arguments.no_joint_state:
        changes["joint_state"] = False
    dataset = Dataset(arguments.data)
    if dataset.info.task:
        changes |= {"task": dataset.info.task, "effort_limit": dataset.info.effort_limit}
        if not math.isclose(period_s := dataset.info.control_period_s, arm_of(dataset.info.task)["control_period_s"]):
            changes["rate_hz"] = 1.0 / period_s
    sizes = {tuple(source["image_size"]) for source in dataset.info.sources if source.get("image_size")}
    if len(sizes) == 1:
        (changes["image_size"],) = sizes
    training = dataclasses.replace(OLD_BC if arguments.old else BcTraining(), **changes)
    encoder = encoder_of(dataset, find_bundle(arguments.encoder), training.device) if arguments.encoder else None
    started = time.monotonic()
    episodes = chosen_episodes(dataset, arguments.episodes, arguments.mark, arguments.min_return)
    frames = labelled_frames(dataset, training, arguments.max_frames, episodes)
    labels = "labelled by the expert" if frames.source == EXPERT else f"with the recorded {frames.source}s as labels"
    print(f"{len(frames)} frames of {len(episodes)} of {len(dataset.episodes)} episodes, {labels}", flush=True)

    rounds = _Rounds(training.epochs, training.patience, training.dagger)
    work = Path(arguments.work or arguments.out.rstrip("/") + ".training")
    with rounds:
        outcome = train_bc(frames, training, encoder, rounds.on_epoch, rounds.on_round, work, rounds.on_resume)
    facts = write_policy(arguments.out, outcome, training, dataset, _command(), frames.source)
    error = against_constant(facts["validation"], outcome.variance)
    print(f"policy written to {arguments.out}; on unseen episodes its mean squared error is {error}")
    if arguments.json:
        wall_s = time.monotonic() - started
        write_json(arguments.json, {**facts, "curve": outcome.curve, "wall_s": wall_s, "versions": versions()})
    return 0


def dynamics_command(arguments: argparse.Namespace) -> int:
    """`vjepa train dynamics`."""
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.trainers.configs import OLD_DYNAMICS, DynamicsTraining
    from vjepa_training.trainers.train_dynamics import train_dynamics

    base = OLD_DYNAMICS if arguments.old else DynamicsTraining()
    training = dataclasses.replace(base, **_given(arguments, DynamicsTraining))

    def train(out: str, work: Path, on_step: Callable[..., None]) -> dict[str, Any]:
        start = find_bundle(arguments.start)
        return train_dynamics(Dataset(arguments.data), training, out, work, _command(), on_step, start)

    return _trained(arguments, train)


def reward_command(arguments: argparse.Namespace) -> int:
    """`vjepa train reward`."""
    from sim_bridge.tasks import is_about_reaching
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.trainers.train_reward import RewardTraining, train_reward

    dataset = Dataset(arguments.data)
    reaches = is_about_reaching(dataset.info.task)
    if not reaches and not arguments.no_distance:
        print(f"{dataset.info.task} is not about reaching a target: the reward head alone is trained", flush=True)
    distance = reaches and not arguments.no_distance
    training = RewardTraining(**_given(arguments, RewardTraining), distance=distance)

    def train(out: str, work: Path, on_step: Callable[..., None]) -> dict[str, Any]:
        dynamics, start = find_bundle(arguments.dynamics), find_bundle(arguments.start)
        return train_reward(dataset, dynamics, training, out, work, _command(), on_step, start)

    return _trained(arguments, train)


def dreamer_command(arguments: argparse.Namespace) -> int:
    """`vjepa train dreamer`."""
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.trainers.configs import DreamerTraining, dreamer_preset
    from vjepa_training.trainers.train_dreamer import train_dreamer

    training = dataclasses.replace(dreamer_preset(arguments.preset), **_given(arguments, DreamerTraining))

    def train(out: str, work: Path, on_step: Callable[..., None]) -> dict[str, Any]:
        parts = {name: find_bundle(getattr(arguments, name)) for name in ("dynamics", "reward", "policy", "start")}
        dataset = Dataset(arguments.data)
        return train_dreamer(
            dataset, training=training, out=out, work=work, command=_command(), on_step=on_step, **parts
        )

    return _trained(arguments, train)


def sac_command(arguments: argparse.Namespace) -> int:
    """`vjepa train sac`."""
    from sim_bridge.sim_parameters import sim_config
    from vjepa_perception.encoder import load_encoder
    from vjepa_perception.perception_parameters import encoder_config
    from vjepa_training.trainers.train_sac import SacTraining, train_sac

    training = SacTraining(**_given(arguments, SacTraining))
    options = StackOptions(
        encoder=arguments.encoder, device=training.device, task=arguments.task, params_file=arguments.params_file
    )
    parameters = merged_parameters(options)
    sim = sim_config(parameters["sim_bridge"], episode_steps=training.episode_steps)
    encoder = load_encoder(encoder_config(parameters["vjepa_perception"], threads=0))

    def train(out: str, work: Path, on_step: Callable[..., None]) -> dict[str, Any]:
        return train_sac(encoder, sim, find_bundle(arguments.dynamics), training, out, work, _command(), on_step)

    return _trained(arguments, train)


def _given(arguments: argparse.Namespace, training: type) -> dict[str, Any]:
    """Return those options that are fields of `training` and were given."""
    values = {field.name: getattr(arguments, field.name, None) for field in dataclasses.fields(training)}
    return {name: value for name, value in values.items() if value is not None}


def _trained(arguments: argparse.Namespace, train: Callable[..., dict[str, Any]]) -> int:
    """Run `train` with a progress bar, and write what it returns where it is asked for."""
    if arguments.json:
        require_writable(arguments.json)
    work = Path(arguments.work or arguments.out.rstrip("/") + ".training")
    started = time.monotonic()
    with Progress("training", "steps") as bar:

        def on_step(step: int, steps: int, figures: dict[str, float]) -> None:
            _show(bar, step, steps, figures, 4)

        facts = train(arguments.out, work, on_step)
    print(f"written to {arguments.out}; its training can be looked at with: tensorboard --logdir {work}")
    for entry in facts.get("open_loop", ()):
        print(open_loop_line(entry))
    if arguments.json:
        write_json(arguments.json, {**facts, "wall_s": time.monotonic() - started, "versions": versions()})
    if getattr(arguments, "picture", None):
        draw_training(arguments.picture, facts)
    return 0


def _show(bar: Progress, step: int, steps: int, figures: dict[str, float], digits: int) -> None:
    """Move a progress bar to `step`, with figures behind it; those of a validation get a line of their own."""
    if not figures:
        print(f"going on from step {step} of {steps}", flush=True)
    text = "  ".join(f"{name} {value:.{digits}g}" for name, value in figures.items())
    if any(name.startswith("validation") for name in figures):
        print(f"step {step} of {steps}: {text}", flush=True)
        text = ""
    bar.move_to(step, steps, text)


class _Rounds:
    """The progress of a cloning in rounds of epochs: a bar for each round, and a line when it has ended."""

    def __init__(self, epochs: int, patience: int, last_round: int = 0):
        self._epochs, self._patience, self._last_round = epochs, patience, last_round
        self._entries: list[dict[str, float]] = []
        self._bar: Progress | None = None

    def __enter__(self) -> "_Rounds":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end(completed=kind is None)

    def on_epoch(self, entry: dict[str, float]) -> None:
        """Take an entry of the curve."""
        if self._bar is None:
            self._bar = Progress(f"round {entry['round']:.0f}: training", "epochs", self._epochs).start()
        self._entries.append(entry)
        self._bar.move_to(len(self._entries), figures=f"error {entry['train']:.4f}, unseen {entry['validation']:.4f}")
        if len(self._entries) == self._epochs or self._without_better() >= self._patience:
            self._end()

    def _without_better(self) -> int:
        """Return how many epochs have passed since the best one."""
        errors = [entry["validation"] for entry in self._entries]
        return len(errors) - 1 - errors.index(min(errors))

    def on_round(self, number: int, returns: list[float]) -> None:
        """Take the returns of a round's rollouts."""
        mean = sum(returns) / len(returns)
        print(f"round {number}: {len(returns)} episodes rolled out, mean return {mean:.1f}", flush=True)

    def on_resume(self, number: int, step: str) -> None:
        """Take the first step, of round `number`, that is not kept from a training that was ended."""
        words = {"rollouts": "rolling out", "policy": "training"}
        if step in words:
            print(f"going on from round {number} of {self._last_round}: {words[step]}", flush=True)
        else:
            print("every round was trained before; nothing is trained again", flush=True)

    def _end(self, completed: bool = True) -> None:
        if self._bar is None:
            return
        self._bar.stop(completed=False)  # The line below tells more.
        if completed:
            number = self._entries[0]["round"]
            print(f"round {number:.0f}: {end_of_round(self._entries, self._epochs, self._patience)}", flush=True)
        self._bar, self._entries = None, []


def _command() -> str:
    return shlex.join(["vjepa", *sys.argv[1:]])
