"""Clone behaviour: a policy from latents to the actions of an expert or of demonstrations, `vjepa train bc`.

The policy reads latents and, if set, joint states. Labels are of two kinds. For a simulated task, the scripted expert
labels every frame of a dataset from its joint state and target, whatever was done there. Rounds of DAgger then roll the
policy out, and the expert labels the visited states (Ross, Gordon and Bagnell, A Reduction of Imitation Learning,
2011). For a real arm, which has no such expert, the labels are the recorded actions.
"""

import hashlib
import math
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sim_bridge.env import SimConfig
from sim_bridge.tasks import expert_of, task_named
from vjepa_interfaces.bundle import encoder_in_card
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.errors import VjepaError
from vjepa_perception.encoder import Encoder, EncoderConfig, load_encoder
from vjepa_planner.contract import Observation, PlannerContext
from vjepa_planner.models.novelty import Novelty, save_novelty
from vjepa_planner.models.policy import Policy, PolicyConfig, save_policy
from vjepa_planner.registry import load_planner
from vjepa_training.data.dataset import LATENT, OF_ACTIONS, Dataset
from vjepa_training.data.split import split_episodes
from vjepa_training.data.usable_columns import EFFORT, VELOCITY, known_rows, require_columns, unusable_columns
from vjepa_training.evaluation.rollout import RolloutConfig, rollout
from vjepa_training.progress import Progress
from vjepa_training.trainers.configs import AUTO, EXPERT, RECORDED, BcTraining
from vjepa_training.trainers.fit_novelty import fit_novelty
from vjepa_training.trainers.model_card import model_card
from vjepa_training.trainers.optimiser import adamw, set_cosine_rate
from vjepa_training.trainers.training_run import TrainingFacts, TrainingRun, provenance

SCALE_QUANTILE, LEAST_SCALE = 0.999, 1e-3
"""Quantile of a joint's recorded actions that its normalisation takes as their size, and the least such size."""
COMMAND = "command"
ROLLOUTS, POLICY = "rollouts", "policy"
"""The stages of a round, each of which is kept."""
PERIOD_TOLERANCE = 0.01
"""Relative difference of control periods from which a policy reads them."""
CLIPPED_SHARE = 0.01
"""Largest share of recorded actions beyond the effort limit; a larger share means a limit of another arm."""


@dataclass
class Frames:
    """Labelled frames in memory, T of them.

    Attributes:
        latents: (T, rows, D) float16.
        position: (T, n) rad.
        velocity: (T, n) rad/s.
        labels: (T, n) the actions to learn, in [-1, 1].
        episode: (T,) number of the episode of each frame.
        period_s: (T,) control period, s.
        source: `expert`, or the dataset's column of the labels.
    """

    latents: np.ndarray
    position: np.ndarray
    velocity: np.ndarray
    labels: np.ndarray
    episode: np.ndarray
    period_s: np.ndarray
    source: str = EXPERT

    def __len__(self) -> int:
        return len(self.labels)

    def joined(self, other: "Frames") -> "Frames":
        """Return both, with the episodes of `other` numbered behind these.

        Raises:
            VjepaError: the labels of the two have different sources.
        """
        if self.source != other.source:
            raise VjepaError(
                f"some datasets have recorded {self.source}s, others {other.source}s; expected one kind of labels"
            )
        offset = int(self.episode.max()) + 1 - int(other.episode.min())
        return Frames(
            np.concatenate((self.latents, other.latents)),
            np.concatenate((self.position, other.position)),
            np.concatenate((self.velocity, other.velocity)),
            np.concatenate((self.labels, other.labels)),
            np.concatenate((self.episode, other.episode + offset)),
            np.concatenate((self.period_s, other.period_s)),
            self.source,
        )


@dataclass
class Outcome:
    """The result of a training.

    Attributes:
        policy: the best by validation, in evaluation mode.
        curve: an entry for each epoch: `round`, `epoch`, `train` and `validation`, mean squared errors.
        frames: number of frames in the last round, with validation.
        variance: variance of the labels, the error of a policy with a constant action.
        novelty: model of the latents of these frames.
    """

    policy: Policy
    curve: list[dict[str, float]] = field(default_factory=list)
    frames: int = 0
    variance: float = 0.0
    novelty: Novelty | None = None


def labelled_frames(
    dataset: Dataset, training: BcTraining, max_frames: int = 0, episodes: Collection[int] | None = None
) -> Frames:
    """Return the frames of `dataset` with the actions to learn.

    Args:
        dataset: with latents; for the expert's labels with targets, for recorded ones with commands or efforts.
        training: settings, with the rows to keep.
        max_frames: largest number of frames, drawn without replacement; 0 for all.
        episodes: numbers of the episodes to use; None for all.

    Raises:
        VjepaError: there are no latents, no expert knows the task, frames lack the target that an expert needs, or
            nothing was recorded for a label. DAgger with recorded labels is refused too.
    """
    latents = dataset[LATENT]
    require_columns(dataset, (VELOCITY,), "train bc")
    wanted = known_rows(dataset, VELOCITY)
    if episodes is not None:
        wanted = wanted & np.isin(np.asarray(dataset["episode_index"]), list(episodes))
    recorded = training.labels == RECORDED or (training.labels == AUTO and not dataset.info.task)
    if recorded and training.dagger:
        raise VjepaError(
            f"{dataset.folder} is learnt from recorded actions, and DAgger needs an expert; expected dagger 0, or a "
            "dataset of a simulated task"
        )
    source = recorded_column(dataset) if recorded else EXPERT
    if recorded:
        wanted = wanted & known_rows(dataset, source) & np.asarray(dataset["has_next"])
    index = np.flatnonzero(wanted)
    if not len(index):
        raise VjepaError(f"{dataset.folder}: no frame has all that is needed to learn from it; choose other episodes")
    if 0 < max_frames < len(index):
        index = np.sort(np.random.default_rng((training.seed, 5)).choice(index, max_frames, replace=False))
    position, velocity = (dataset[name][index] for name in ("observation.joint_position", "observation.joint_velocity"))
    kept = latents[index][:, :1] if training.rows == "mean" else latents[index]
    about = dataset["episode_index"][index], np.full(len(index), dataset.info.control_period_s), source
    if recorded:
        return Frames(kept, position, velocity, _recorded_actions(dataset, source, index), *about)
    target = dataset["target"][index]
    if not np.isfinite(target).all():
        raise VjepaError(
            f"{dataset.folder} has {int((~np.isfinite(target).all(1)).sum())} frames without a target, so the expert "
            "cannot label them; learn the recorded actions: --labels recorded"
        )
    info = dataset.info
    labels = expert_actions(position, velocity, target, training.task, info.arm, info.control_period_s)
    return Frames(kept, position, velocity, labels, *about)


def require_one_arm(datasets: Sequence[Dataset]) -> None:
    """Refuse datasets of different arms, tasks or encoders; their control periods may differ.

    Raises:
        VjepaError: two datasets differ, and the message states how.
    """
    first, *others = datasets
    for other in others:
        if differences := first.info.differences(other.info, OF_ACTIONS):
            raise VjepaError(
                f"{first.folder} and {other.folder} cannot train one policy: {'; '.join(differences)}; give datasets "
                "of one arm, task and encoder"
            )


def recorded_column(dataset: Dataset) -> str:
    """Return the column of a dataset with the torques of the labels: `command`, or `effort`, of the joint states.

    Raises:
        VjepaError: no row knows either.
    """
    unusable = unusable_columns(dataset)
    usable = [name for name in (COMMAND, EFFORT) if name not in unusable]
    if usable:  # The command, if as many steps have one: a few commands must not outweigh all efforts.
        has_next = np.asarray(dataset["has_next"])
        return max(usable, key=lambda name: int((known_rows(dataset, name) & has_next).sum()))
    raise VjepaError(
        f"{dataset.folder} has neither commands nor efforts to learn from; record joint_command with the stamps "
        "of the frames, or joint states with efforts"
    )


def _recorded_actions(dataset: Dataset, column: str, index: np.ndarray) -> np.ndarray:
    """Return the recorded actions of the rows `index`, (T, n) in [-1, 1]; refuse a limit that many of them exceed."""
    efforts = dataset[column][index]
    beyond = float((np.abs(efforts) > dataset.info.effort_limit).any(axis=1).mean())
    if beyond > CLIPPED_SHARE:
        raise VjepaError(
            f"{beyond:.0%} of the recorded torques exceed effort_limit, {dataset.info.arm.limits_text} N·m, and "
            f"the largest is {np.abs(efforts).max():.3g}; build the dataset with --effort-limit"
        )
    return dataset.info.arm.to_action(efforts)


def chosen_episodes(
    dataset: Dataset, numbers: Collection[int] = (), mark: str = "", least_return: float | None = None
) -> list[int]:
    """Return the numbers of the episodes of a dataset that meet every given condition.

    Args:
        dataset: with the provenance of its bags in `sources`.
        numbers: allowed numbers of episodes; empty for all.
        mark: `KEY=VALUE` in the metadata of an episode's bag (`ros2 bag record --custom-data KEY=VALUE`).
        least_return: smallest sum of an episode's rewards.

    Raises:
        VjepaError: no episode meets them, the mark has another form, the return is not finite, or the rewards are
            unknown.
    """
    count = len(dataset.episodes)
    kept = set(range(count))
    if numbers:
        if unknown := sorted(set(numbers) - kept):
            raise VjepaError(f"{dataset.folder} has no episode {unknown[0]}; it has {count}, from 0")
        kept &= set(numbers)
    if mark:
        kept &= _marked(dataset, mark)
    if least_return is not None:
        if not math.isfinite(least_return):
            raise VjepaError(f"least return is {least_return}; expected a finite sum of rewards")
        require_columns(dataset, ("next.reward",), "a least return")
        rewards = np.nan_to_num(np.asarray(dataset["next.reward"]))
        kept &= {i for i, (start, stop) in enumerate(dataset.episodes) if rewards[start:stop].sum() >= least_return}
    if not kept:
        raise VjepaError(f"{dataset.folder}: none of its {count} episodes meets all conditions; give fewer conditions")
    return sorted(kept)


def _marked(dataset: Dataset, mark: str) -> set[int]:
    key, found, value = mark.partition("=")
    if not (key and found):
        raise VjepaError(f"mark is '{mark}'; expected KEY=VALUE, such as outcome=success")
    marked, first = set(), 0
    for source in dataset.info.sources:
        kept = int(source.get("kept", source.get("episodes", 0)))
        about = source.get("recorded_with") or {}
        if key in about and str(about[key]) == value:
            marked |= set(range(first, first + kept))
        first += kept
    if first != len(dataset.episodes):
        raise VjepaError(
            f"{dataset.folder} does not record the bag of each episode; build it again to choose by a mark"
        )
    return marked


def expert_actions(
    position: np.ndarray,
    velocity: np.ndarray,
    target: np.ndarray,
    task: str = BcTraining.task,
    arm: EffortLimits | None = None,
    control_period_s: float | None = None,
) -> np.ndarray:
    """Return the actions of the task's expert, (T, n) in [-1, 1], in each of T situations.

    Args:
        position: (T, n) rad.
        velocity: (T, n) rad/s.
        target: (T, 3) m.
        task: task of the expert.
        arm: arm of the situations; None if unknown.
        control_period_s: seconds that an action lasts; None for the task's own.

    Raises:
        VjepaError: no scripted expert knows the task, or its arm differs from `arm`.
    """
    name = expert_of(
        task, f"there is nothing to clone; train an actor by reward instead: vjepa train sac --task {task}"
    )
    period_s = control_period_s or task_named(task).control_period_s
    context = PlannerContext(position.shape[1], period_s, arm=arm)
    expert = load_planner(name, {}, context)
    expert.reset(0)
    nothing = np.zeros((1, 1), np.float32)
    situations = zip(position, velocity, target, strict=True)
    return np.stack([expert.plan(Observation(0, nothing, p, v, t), None).action for p, v, t in situations])


def train_bc(
    frames: Frames,
    training: BcTraining,
    encoder: Encoder | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    on_round: Callable[[int, list[float]], None] | None = None,
    work: Path | None = None,
    on_resume: Callable[[int, str], None] | None = None,
) -> Outcome:
    """Clone the labels of `frames`, then also those of DAgger's rollouts.

    Args:
        frames: frames of the first round.
        training: settings of the training.
        encoder: encoder of the frames' latents; needed for DAgger.
        on_epoch: called with each entry of the curve.
        on_round: called after each round's rollouts with its number and the returns of its episodes.
        work: folder in which each round's rollouts and policy are kept; a training found there is continued.
        on_resume: called when a training is continued, before its first missing stage, with the round and the stage.
            The stage is `rollouts`, `policy`, or empty if none is missing.

    Raises:
        VjepaError: DAgger without an encoder, no episodes to validate on, or a training of other settings in `work`.
    """
    if training.dagger and encoder is None:
        raise VjepaError("DAgger needs the encoder of the dataset; name it with --encoder")
    _, held_out = split_episodes(frames.episode, training.validation_share, training.seed)
    labels = hashlib.sha256(frames.labels.tobytes()).hexdigest()
    identity = {**asdict(training), "labels_sha256": labels, "held_out": held_out.tolist()}
    run = TrainingRun(work, identity, {}, "cpu") if work else None

    def tell_resumed(number: int, stage: str) -> None:
        nonlocal on_resume
        if run and run.is_resumed and on_resume:
            on_resume(number, stage)
        on_resume = None

    def kept(number: int, stage: str, make: Callable[[], Any]) -> Any:
        """Return the kept result of a round's stage or, if there is none, the result of `make`."""

        def made() -> Any:
            tell_resumed(number, stage)
            return make()

        return run.kept(f"{stage}-{number}", made) if run else make()

    outcome: Outcome | None = None
    for number in range(training.dagger + 1):
        if number:
            assert encoder is not None
            assert outcome is not None
            rows, returns = kept(number, ROLLOUTS, partial(_dagger_frames, outcome.policy, training, encoder, number))
            if on_round:
                on_round(number, returns)
            frames = frames.joined(Frames(*(tensor.numpy() for tensor in rows)))
        start = outcome.policy if outcome else None
        state, curve, variance = kept(number, POLICY, partial(_fit, frames, training, number, start, on_epoch))
        policy = Policy(_policy_config(frames, training)).to(training.device)
        policy.load_state_dict(state)
        before = outcome.curve if outcome else []
        outcome = Outcome(policy.eval().requires_grad_(False), before + curve, len(frames), variance)
    tell_resumed(training.dagger, "")
    assert outcome is not None
    read = outcome.policy.config.latent_rows
    outcome.novelty = fit_novelty(lambda index: frames.latents[index], read, frames.episode, training.seed)
    return outcome


def encoder_of(dataset: Dataset, name: str, device: str) -> Encoder:
    """Load the encoder `name`, which must be the encoder of the latents of `dataset`.

    Raises:
        VjepaError: it is another one, or cannot be loaded.
    """
    made = dataset.info.encoder or {}
    config = EncoderConfig(name, device, clip_frames=made.get("clip_frames", 8), grid=made.get("grid", 4))
    encoder = load_encoder(config)
    dataset.check_encoder(encoder.name, encoder.fingerprint)
    return encoder


def write_policy(
    folder: Path | str,
    outcome: Outcome,
    training: BcTraining,
    datasets: Sequence[Dataset],
    command: str,
    source: str = EXPERT,
) -> TrainingFacts:
    """Write the bundle of a cloned policy with a card; return the recorded facts of the training.

    Args:
        folder: folder of the bundle.
        outcome: result of the training.
        training: settings of the training.
        datasets: datasets of the training.
        command: command of the training.
        source: source of the labels, see `Frames`.
    """
    best = min(outcome.curve, key=lambda entry: (-entry["round"], entry["validation"]))
    facts = provenance(datasets, training, command)
    facts |= {
        "labels": source,
        "frames": outcome.frames,
        "validation": best["validation"],
        "label_variance": outcome.variance,
    }
    info = datasets[0].info
    fingerprint = info.encoder_fingerprint
    rows = "all rows" if training.rows == "all" else "the mean row"
    joints = " and joint positions and velocities" if training.joint_state else ""
    period = " and the control period" if outcome.policy.config.control_period else ""
    card = model_card(
        "policy",
        folder,
        source="the scripted expert, which reads the target" if source == EXPERT else f"the recorded {source}s",
        encoder=encoder_in_card(info.encoder_name, fingerprint),
        reads=f"{rows} of the latent{joints}{period}",
        command=command,
        frames=outcome.frames,
        rates=" and ".join(f"{1 / period_s:g}" for period_s in facts["control_period_s"]),
        rounds=training.dagger,
        episodes=training.dagger_episodes,
        validation=f"{best['validation']:.4f}",
        variance=f"{outcome.variance:.4f}",
    )
    save_policy(folder, outcome.policy, fingerprint, card, facts)
    if outcome.novelty is not None:
        save_novelty(folder, outcome.novelty, command)
    return facts


def _fit(
    frames: Frames,
    training: BcTraining,
    number: int,
    start: Policy | None,
    on_epoch: Callable[[dict[str, float]], None] | None,
) -> tuple[dict[str, Tensor], list[dict[str, float]], float]:
    """Train one round, from `start` if given; return the best weights by validation, the curve, and the variance."""
    torch.manual_seed(training.seed + number)
    _, held_out = split_episodes(frames.episode, training.validation_share, training.seed)
    is_held_out = np.isin(frames.episode, held_out)
    train, validation = np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
    policy = Policy(_policy_config(frames, training)).to(training.device)
    if start is None:
        mean, std = _statistics(policy, frames, train)
        policy.set_statistics(mean, std)
    else:
        policy.load_state_dict(start.state_dict())
    policy.requires_grad_(True)
    scale = policy.action_scale
    optimiser = adamw(policy.parameters(), training.learning_rate, training.weight_decay)
    steps, step = training.epochs * math.ceil(len(train) / training.batch_size), 0
    best, best_state, since, curve = math.inf, policy.state_dict(), 0, []
    for epoch in range(training.epochs):
        order = np.random.default_rng((training.seed, number, epoch)).permutation(train)
        policy.train()
        total = 0.0
        for part in np.split(order, range(training.batch_size, len(order), training.batch_size)):
            set_cosine_rate(optimiser, training.learning_rate, step, steps)
            inputs, labels = _batch(policy, frames, np.sort(part), training.device)
            if training.noise:
                size = policy.config.latent_size
                noise = torch.randn_like(inputs[:, :size]) * training.noise
                inputs[:, :size] += noise * policy.input_std[:size]
            loss = functional.mse_loss(policy(inputs) / scale, labels / scale)  # Each joint has the same weight.
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            step += 1
            total += float(loss.detach()) * len(part)
        error = _error(policy, frames, validation, training)
        entry = {"round": number, "epoch": epoch, "train": total / len(train), "validation": error}
        curve.append(entry)
        if on_epoch:
            on_epoch(entry)
        if error < best:
            best, since = error, 0
            best_state = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
        else:
            since += 1
            if since >= training.patience:
                break
    return best_state, curve, float((frames.labels[validation] / scale.cpu().numpy()).var(0).mean())


def _policy_config(frames: Frames, training: BcTraining) -> PolicyConfig:
    rows, dim = frames.latents.shape[1:]
    periods_s = np.append(frames.period_s, [1.0 / rate_hz for rate_hz in training.rates_hz])
    return PolicyConfig(
        latent_dim=dim,
        latent_rows=tuple(range(rows)),
        joint_state=training.joint_state,
        action_size=frames.labels.shape[1],
        hidden=training.hidden,
        bottleneck=training.bottleneck,
        action_scale=() if frames.source == EXPERT else _action_scale(frames.labels),
        control_period=bool(np.ptp(periods_s) > PERIOD_TOLERANCE * periods_s.min()),
    )


def _action_scale(labels: np.ndarray) -> tuple[float, ...]:
    """Return the largest action of each joint, so that small actions are learned as well as large ones."""
    scale = np.quantile(np.abs(labels), SCALE_QUANTILE, axis=0)
    return tuple(float(value) for value in np.clip(scale, LEAST_SCALE, 1.0))


def _batch(policy: Policy, frames: Frames, index: np.ndarray, device: str) -> tuple[Tensor, Tensor]:
    columns = (frames.latents, frames.position, frames.velocity, frames.period_s, frames.labels)
    *inputs, labels = (torch.from_numpy(column[index].astype(np.float32)).to(device) for column in columns)
    return policy.inputs(*inputs), labels


def _statistics(policy: Policy, frames: Frames, index: np.ndarray) -> tuple[Tensor, Tensor]:
    chosen = np.sort(np.random.default_rng(7).choice(index, min(len(index), 20_000), replace=False))
    inputs, _ = _batch(policy, frames, chosen, "cpu")
    return inputs.mean(0), inputs.std(0)


@torch.inference_mode()
def _error(policy: Policy, frames: Frames, index: np.ndarray, training: BcTraining) -> float:
    policy.eval()
    total = 0.0
    for part in np.split(index, range(4096, len(index), 4096)):
        inputs, labels = _batch(policy, frames, part, training.device)
        error = functional.mse_loss(policy(inputs) / policy.action_scale, labels / policy.action_scale)
        total += float(error) * len(part)
    return total / len(index)


def _dagger_frames(
    policy: Policy, training: BcTraining, encoder: Encoder, number: int
) -> tuple[list[Tensor], list[float]]:
    """Roll the policy out; return the fields of `Frames` of the visited states, and the returns of the episodes."""
    rollouts = [_rollout(policy, training, encoder, number, rate_hz) for rate_hz in training.rates_hz or (0.0,)]
    frames = reduce(Frames.joined, (frames for frames, _ in rollouts))
    arrays = [getattr(frames, column.name) for column in fields(frames) if column.name != "source"]
    return [torch.from_numpy(array) for array in arrays], [each for _, returns in rollouts for each in returns]


def _rollout(
    policy: Policy, training: BcTraining, encoder: Encoder, number: int, rate_hz: float
) -> tuple[Frames, list[float]]:
    """Roll the policy out at one rate, 0 for the task's; return the visited states, and the returns of the episodes."""
    seen: list[tuple[int, Any, np.ndarray]] = []
    rows = slice(0, 1) if training.rows == "mean" else slice(None)
    sim = SimConfig(
        task=training.task,
        effort_limit=training.effort_limit,
        rate_hz=rate_hz,
        seed=dagger_seed(training, number),
        episode_steps=training.dagger_steps,
        image_size=training.image_size,
        render=training.render,
        look=training.look,
    )

    def on_latent(episode: int, step: Any, latent: np.ndarray) -> None:
        seen.append((episode, step, latent[rows].astype(np.float16)))

    with tempfile.TemporaryDirectory() as folder:
        save_policy(folder, policy, encoder.fingerprint, "a round of DAgger")
        config = RolloutConfig(
            planner="bc",
            options={"bundle": folder},
            sim=sim,
            episodes=training.dagger_episodes,
            batch_size=training.num_envs,
        )
        with Progress(f"round {number}: rolling out", "episodes", training.dagger_episodes) as bar:
            episodes, _ = rollout(config, encoder, on_episode=lambda number, score: bar.advance(), on_latent=on_latent)
    position = np.stack([step.joint_position for _, step, _ in seen])
    velocity = np.stack([step.joint_velocity for _, step, _ in seen])
    target = np.stack([step.target for _, step, _ in seen])
    task = task_named(training.task)
    arm = EffortLimits.of(task.joint_names, training.effort_limit or task.effort_limit)
    period_s = 1.0 / rate_hz if rate_hz else task.control_period_s
    labels = expert_actions(position, velocity, target, training.task, arm, period_s)
    numbers, latents = np.array([episode for episode, _, _ in seen]), np.stack([latent for _, _, latent in seen])
    frames = Frames(latents, position, velocity, labels, numbers, np.full(len(seen), period_s))
    return frames, [episode.episode_return for episode in episodes]


def dagger_seed(training: BcTraining, number: int) -> int:
    """Return the seed of the first episode of a round: far from the seeds of evaluations."""
    return 1_000_000_000 + training.seed * 1_000_000 + number * 10_000
