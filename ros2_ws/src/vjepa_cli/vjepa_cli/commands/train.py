"""`vjepa train`: train bundles, on datasets or in the simulator."""

import dataclasses
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Suppress, UseAppendAction

from vjepa_cli import arguments as types
from vjepa_cli.actions import Command
from vjepa_cli.command_line import Action, option, parsed_by
from vjepa_cli.result_files import require_writable, write_result
from vjepa_cli.views.training_picture import draw_training
from vjepa_interfaces.effort import EffortLimit
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.parameters import Range, as_base
from vjepa_training.progress import Progress
from vjepa_training.trainers.configs import (
    BASELINE_BC,
    BASELINE_DYNAMICS,
    EXPERT,
    BcTraining,
    DreamerTraining,
    DynamicsTraining,
    EncoderTraining,
    Job,
    RewardTraining,
    SacTraining,
    dreamer_preset,
)
from vjepa_training.trainers.training_words import against_constant, end_of_round, open_loop_line

if TYPE_CHECKING:  # Importing this for the command line needs no torch.
    from vjepa_training.trainers.training_run import TrainingFacts

Bundle = Annotated[str, option(metavar="BUNDLE")]
MaybeBundle = Annotated[str, option(metavar="BUNDLE", default="none")]
ModelField = Annotated[tuple[str, int | float], parsed_by(types.setting, "FIELD=NUMBER")]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The folders that a training writes.

    Attributes:
        out: folder of the bundle.
        work: folder of the checkpoint and the events.
    """

    out: Bundle
    work: Annotated[str | None, option(metavar="DIR", default="OUT.training")] = None

    @property
    def work_folder(self) -> Path:
        """Folder of the checkpoint and the events."""
        return Path(self.work or self.out.rstrip("/") + ".training")


@dataclass(frozen=True, kw_only=True)
class OutcomeWithFacts(Outcome):
    """The outputs of a training that reports figures too.

    Attributes:
        json: write the learning curve and the settings.
    """

    json: Annotated[str | None, option(metavar="FILE", default="")] = None


@dataclass(frozen=True, kw_only=True)
class OnLatents(OutcomeWithFacts):
    """A training on the latents of a dataset.

    Attributes:
        data: dataset with latents.
        start: trained bundle of the same sizes to continue from.
        picture: draw the learning curve and, for dynamics, the error in open loop.
    """

    data: Annotated[str, option(metavar="DS")]
    start: MaybeBundle = ""
    picture: Annotated[str | None, option(metavar="FILE.png", default="")] = None


@dataclass(frozen=True, kw_only=True)
class EncoderCommand(EncoderTraining, Outcome):
    """Train a small V-JEPA 2 encoder on datasets with frames.

    Attributes:
        data: datasets with frames (see: vjepa collect --frames).
        model_fields: changed field of its model, such as tubelet_size=4.
    """

    data: Annotated[tuple[str, ...], option(metavar="DS [DS ...]")]
    encoder: str = "encoder-small"
    model: Suppress[dict[str, Any]] = dataclasses.field(default_factory=dict)
    model_fields: Annotated[UseAppendAction[tuple[ModelField, ...]], option(name="model")] = ()


@dataclass(frozen=True, kw_only=True)
class BcCommand(BcTraining, OutcomeWithFacts):
    """Clone a policy from the expert or from recorded actions, on datasets with latents.

    Attributes:
        data: datasets with latents; their rates may differ.
        baseline: use the baseline architecture and settings, on the mean row alone.
        episodes: use these episodes of the one dataset only.
        mark: use episodes of bags with this custom data.
        min_return: use episodes with at least this sum of rewards.
        max_frames: use at most this many frames of each dataset; 0 for all.
        encoder: encoder of the datasets' latents; needed for --dagger.
    """

    data: Annotated[tuple[str, ...], option(metavar="DS [DS ...]")]
    baseline: bool = False
    episodes: Annotated[tuple[int, ...], parsed_by(types.numbers, "0-9,12"), option(default="all")] = ()
    mark: Annotated[str, option(metavar="KEY=VALUE", default="all")] = ""
    min_return: Annotated[float | None, option(metavar="R", default="all")] = None
    max_frames: Annotated[int, Range(low=0)] = 0
    encoder: Annotated[str | None, option(default="none")] = None
    task: Suppress[str] = BcTraining.task
    effort_limit: Suppress[EffortLimit] = BcTraining.effort_limit
    rates_hz: Suppress[tuple[float, ...]] = BcTraining.rates_hz
    image_size: Suppress[tuple[int, int]] = BcTraining.image_size
    render: Suppress[str] = BcTraining.render
    look: Suppress[str] = BcTraining.look


@dataclass(frozen=True, kw_only=True)
class DynamicsCommand(DynamicsTraining, OnLatents):
    """Train a dynamics model on a dataset with latents.

    Attributes:
        baseline: use the baseline settings, on the mean row as it is.
    """

    baseline: bool = False


@dataclass(frozen=True, kw_only=True)
class RewardCommand(RewardTraining, OnLatents):
    """Train reward and distance heads on the states of a dynamics model.

    Attributes:
        dynamics: bundle of the dynamics model.
    """

    dynamics: Bundle


@dataclass(frozen=True, kw_only=True)
class DreamerCommand(DreamerTraining, OnLatents):
    """Train an actor on imagined rollouts of a dynamics model.

    Attributes:
        dynamics: dynamics model of the imagined rollouts.
        reward: heads on the states of the dynamics model.
        prior: policy to start from and to stay near.
        preset: set of defaults: dreamer, or baseline-dreamer or dreamer-hybrid of earlier work.
    """

    dynamics: Bundle
    reward: MaybeBundle = ""
    prior: MaybeBundle = ""
    preset: str = "dreamer"
    lambda_: Annotated[float, Range(low=0, high=1), option(name="lambda")] = DreamerTraining.lambda_


@dataclass(frozen=True, kw_only=True)
class SacCommand(SacTraining, OutcomeWithFacts):
    """Train an actor by soft actor-critic in the simulator, with no data and no model.

    Attributes:
        dynamics: dynamics model whose states the actor reads.
        encoder: encoder whose latents the states are made of.
        task: dm_control task, such as reacher-easy.
        params_file: YAML of ROS parameters that override the defaults.
    """

    dynamics: Bundle
    encoder: Annotated[str | None, option(default="the parameters'")] = None
    task: Annotated[str | None, option(default="the parameters'")] = None
    params_file: Annotated[str, option(default="none")] = ""


@dataclass(frozen=True, kw_only=True)
class NoveltyCommand:
    """Fit the novelty of a training's latents, for bundles that lack it.

    Every training except an encoder's does this by itself. A bundle then recognises a latent unlike all of these.

    Attributes:
        data: dataset with latents like the training data of the bundles.
        bundles: folders of the bundles.
        seed: seed of the draw if there are more latents than needed.
    """

    data: Annotated[str, option(metavar="DS")]
    bundles: Annotated[tuple[str, ...], option(metavar="BUNDLE [BUNDLE ...]")]
    seed: Annotated[int, Range(low=0, high=types.MAX_SEED)] = 0


def encoder_command(arguments: EncoderCommand) -> int:
    """Run `vjepa train encoder`."""
    from vjepa_interfaces.bundle import find_bundle
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.trainers import ranks
    from vjepa_training.trainers.train_encoder import train_encoder

    if not arguments.data:
        raise VjepaError("--data names no dataset; give at least one with frames")
    model, encoder = dict(arguments.model_fields), find_bundle(arguments.encoder)
    training = as_base(EncoderTraining, dataclasses.replace(arguments, model=model, encoder=encoder))
    datasets = [Dataset(folder) for folder in arguments.data]
    job = Job(arguments.out, arguments.work_folder, Command.of(arguments).line)
    with ranks.joined(training.device):
        if not ranks.is_first():
            train_encoder(datasets, training, job)
            return 0
        with Progress("training", "steps", training.steps) as bar:

            def on_step(step: int, steps: int, figures: dict[str, float]) -> None:
                _show(bar, step, steps, figures, 3)

            train_encoder(datasets, training, dataclasses.replace(job, on_step=on_step))
    print(f"encoder written to {arguments.out}; view its training with: tensorboard --logdir {arguments.work_folder}")
    return 0


def bc_command(arguments: BcCommand) -> int:
    """Run `vjepa train bc`."""
    from sim_bridge.tasks import arm_of
    from vjepa_bringup.graph import versions
    from vjepa_interfaces.bundle import find_bundle
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.trainers import ranks
    from vjepa_training.trainers.train_bc import (
        Frames,
        chosen_episodes,
        encoder_of,
        labelled_frames,
        require_one_arm,
        train_bc,
        write_policy,
    )

    ranks.refuse_several()
    if not arguments.data:
        raise VjepaError("--data names no dataset; give at least one with latents")
    if arguments.episodes and len(arguments.data) > 1:
        raise VjepaError("--episodes numbers the episodes of one dataset; give one --data, or choose by --mark")
    datasets = [Dataset(folder) for folder in arguments.data]
    require_one_arm(datasets)
    info, periods_s = datasets[0].info, sorted({dataset.info.control_period_s for dataset in datasets})
    changes: dict[str, Any] = {}
    if info.task:
        changes |= {"task": info.task, "effort_limit": info.effort_limit}
        if periods_s != [arm_of(info.task)["control_period_s"]]:
            changes["rates_hz"] = tuple(1.0 / period_s for period_s in periods_s)
    sources = [source for dataset in datasets for source in dataset.info.sources]
    readers: dict[str, Callable[[Any], Any]] = {"image_size": tuple, "render": str, "look": str}
    for name, read in readers.items():
        seen = {read(source.get(name)) for source in sources if source.get(name)}
        if len(seen) == 1:
            (changes[name],) = seen
    training = dataclasses.replace(as_base(BcTraining, arguments), **changes)
    encoder = encoder_of(datasets[0], find_bundle(arguments.encoder), training.device) if arguments.encoder else None
    started = time.monotonic()
    chosen = [chosen_episodes(each, arguments.episodes, arguments.mark, arguments.min_return) for each in datasets]
    labelled = (
        labelled_frames(dataset, training, arguments.max_frames, episodes)
        for dataset, episodes in zip(datasets, chosen, strict=True)
    )
    frames = functools.reduce(Frames.joined, labelled)
    labels = "labelled by the expert" if frames.source == EXPERT else f"with the recorded {frames.source}s as labels"
    count, of = sum(map(len, chosen)), sum(len(dataset.episodes) for dataset in datasets)
    print(f"{len(frames)} frames of {count} of {of} episodes, {labels}", flush=True)

    rounds = _Rounds(training.epochs, training.patience, training.dagger)
    work = arguments.work_folder
    with rounds:
        outcome = train_bc(frames, training, encoder, rounds.on_epoch, rounds.on_round, work, rounds.on_resume)
    facts = write_policy(arguments.out, outcome, training, datasets, Command.of(arguments).line, frames.source)
    error = against_constant(facts["validation"], outcome.variance)
    print(f"policy written to {arguments.out}; on unseen episodes its mean squared error is {error}")
    if arguments.json:
        content = {**facts, **Command.of(arguments).record, "curve": outcome.curve}
        write_result(arguments.json, content | {"wall_s": time.monotonic() - started, "versions": versions()})
    return 0


def dynamics_command(arguments: DynamicsCommand) -> int:
    """Run `vjepa train dynamics`."""
    from vjepa_interfaces.bundle import find_bundle
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.trainers import ranks
    from vjepa_training.trainers.train_dynamics import train_dynamics

    training = as_base(DynamicsTraining, arguments)

    def train(job: Job) -> "TrainingFacts":
        return train_dynamics(Dataset(arguments.data), training, job, find_bundle(arguments.start))

    with ranks.joined(training.device):
        if ranks.is_first():
            return _trained(arguments, train, arguments.picture)
        train(Job(arguments.out, arguments.work_folder, Command.of(arguments).line))
        return 0


def reward_command(arguments: RewardCommand) -> int:
    """Run `vjepa train reward`."""
    from sim_bridge.tasks import is_about_reaching
    from vjepa_interfaces.bundle import find_bundle
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.trainers.train_reward import train_reward

    dataset = Dataset(arguments.data)
    reaches = is_about_reaching(dataset.info.task)
    if not reaches and arguments.distance:
        print(f"{dataset.info.task} is not about reaching a target: the reward head alone is trained", flush=True)
    training = dataclasses.replace(as_base(RewardTraining, arguments), distance=reaches and arguments.distance)

    def train(job: Job) -> "TrainingFacts":
        return train_reward(dataset, find_bundle(arguments.dynamics), training, job, find_bundle(arguments.start))

    return _trained(arguments, train, arguments.picture)


def dreamer_command(arguments: DreamerCommand) -> int:
    """Run `vjepa train dreamer`."""
    from vjepa_interfaces.bundle import find_bundle
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.trainers.train_dreamer import train_dreamer

    training = as_base(DreamerTraining, arguments)

    def train(job: Job) -> "TrainingFacts":
        parts = {name: find_bundle(getattr(arguments, name)) for name in ("dynamics", "reward", "prior", "start")}
        return train_dreamer(Dataset(arguments.data), training=training, job=job, **parts)

    return _trained(arguments, train, arguments.picture)


def sac_command(arguments: SacCommand) -> int:
    """Run `vjepa train sac`."""
    from sim_bridge.sim_parameters import sim_config
    from vjepa_bringup.graph import StackOptions, merged_parameters
    from vjepa_interfaces.bundle import find_bundle
    from vjepa_perception.encoder import load_encoder
    from vjepa_perception.perception_parameters import encoder_config
    from vjepa_training.trainers.train_sac import train_sac

    training = as_base(SacTraining, arguments)
    options = StackOptions(
        encoder=arguments.encoder, device=training.device, task=arguments.task, params_file=arguments.params_file
    )
    parameters = merged_parameters(options)
    sim = sim_config(parameters["sim_bridge"], episode_steps=training.episode_steps)
    encoder = load_encoder(encoder_config(parameters["vjepa_perception"], threads=0))

    def train(job: Job) -> "TrainingFacts":
        return train_sac(encoder, sim, find_bundle(arguments.dynamics), training, job)

    return _trained(arguments, train)


def novelty_command(arguments: NoveltyCommand) -> int:
    """Run `vjepa train novelty`."""
    from vjepa_interfaces.bundle import read_bundle
    from vjepa_planner.models.novelty import save_novelty
    from vjepa_training.data.dataset import Dataset
    from vjepa_training.trainers.fit_novelty import fit_to_dataset

    dataset = Dataset(arguments.data)
    bundles = [read_bundle(folder) for folder in arguments.bundles]
    for bundle in bundles:
        bundle.check_encoder(dataset.info.encoder_fingerprint, dataset.info.encoder_name)
    for rows in {tuple(bundle.require("latent_rows", list)) for bundle in bundles}:
        novelty = fit_to_dataset(dataset, rows, arguments.seed)
        for bundle in bundles:
            if tuple(bundle.config["latent_rows"]) == rows:
                save_novelty(bundle.path, novelty, Command.of(arguments).line)
                print(f"{bundle.path}: knows {len(dataset)} latents of {len(dataset.episodes)} episodes")
    return 0


ACTIONS = {
    "train encoder": Action(encoder_command),
    "train bc": Action(bc_command, "baseline", lambda baseline: BASELINE_BC),
    "train dynamics": Action(dynamics_command, "baseline", lambda baseline: BASELINE_DYNAMICS),
    "train reward": Action(reward_command),
    "train dreamer": Action(dreamer_command, "preset", dreamer_preset),
    "train sac": Action(sac_command),
    "train novelty": Action(novelty_command),
}


def _trained(arguments: OutcomeWithFacts, train: "Callable[[Job], TrainingFacts]", picture: str | None = None) -> int:
    """Run `train` with a progress bar; write its facts as JSON and as a picture if requested."""
    from vjepa_bringup.graph import versions
    from vjepa_training.trainers import ranks

    ranks.refuse_several()
    if arguments.json:
        require_writable(arguments.json)
    work = arguments.work_folder
    started = time.monotonic()
    with Progress("training", "steps") as bar:

        def on_step(step: int, steps: int, figures: dict[str, float]) -> None:
            _show(bar, step, steps, figures, 4)

        facts = train(Job(arguments.out, work, Command.of(arguments).line, on_step))
    print(f"written to {arguments.out}; view its training with: tensorboard --logdir {work}")
    for entry in facts.get("open_loop", ()):
        print(open_loop_line(entry))
    if arguments.json:
        content = {**facts, **Command.of(arguments).record}
        write_result(arguments.json, content | {"wall_s": time.monotonic() - started, "versions": versions()})
    if picture:
        draw_training(picture, facts)
    return 0


def _show(bar: Progress, step: int, steps: int, figures: dict[str, float], digits: int) -> None:
    """Move a progress bar to `step`, with figures beside it; figures of a validation get a line of their own."""
    if not figures:
        print(f"continuing from step {step} of {steps}", flush=True)
    text = "  ".join(f"{name} {value:.{digits}g}" for name, value in figures.items())
    if any(name.startswith("validation") for name in figures):
        print(f"step {step} of {steps}: {text}", flush=True)
        text = ""
    bar.move_to(step, steps, text)


class _Rounds:
    """The progress of cloning in rounds of epochs: a bar during each round, and a line after it."""

    def __init__(self, epochs: int, patience: int, last_round: int = 0):
        self._epochs, self._patience, self._last_round = epochs, patience, last_round
        self._entries: list[dict[str, float]] = []
        self._bar: Progress | None = None

    def __enter__(self) -> "_Rounds":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end(completed=kind is None)

    def on_epoch(self, entry: dict[str, float]) -> None:
        """Show an entry of the curve."""
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
        """Print the mean return of a round's rollouts."""
        mean = sum(returns) / len(returns)
        print(f"round {number}: {len(returns)} episodes rolled out, mean return {mean:.1f}", flush=True)

    def on_resume(self, number: int, step: str) -> None:
        """Print where an interrupted training continues: at a `step` of round `number`, or nowhere."""
        words = {"rollouts": "rolling out", "policy": "training"}
        if step in words:
            print(f"continuing from round {number} of {self._last_round}: {words[step]}", flush=True)
        else:
            print("all rounds are trained already; nothing is trained again", flush=True)

    def _end(self, completed: bool = True) -> None:
        if self._bar is None:
            return
        self._bar.stop(completed=False)  # The line below is more detailed.
        if completed:
            number = self._entries[0]["round"]
            print(f"round {number:.0f}: {end_of_round(self._entries, self._epochs, self._patience)}", flush=True)
        self._bar, self._entries = None, []
