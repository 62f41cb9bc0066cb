"""Train an actor in imagination: `vjepa train dreamer`.

From real states, a frozen ensemble of dynamics imagines the actor's rollouts. The actor climbs the gradient of the
lambda-return through model and heads, and a critic values states beyond the horizon (Hafner et al., Dreamer, 2020).
Three means keep the rollouts where the model is reliable. They are short. The ensemble's disagreement has a cost (Yu et
al., MOPO, 2020). A term keeps the actions near those of a cloned policy, from which the actor starts (Fujimoto and Gu,
TD3+BC, 2021).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vjepa_interfaces.bundle import Bundle, encoder_in_card, read_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.files import atomic_file
from vjepa_planner.models.actor import Actor, ActorConfig, TwinCritic, load_actor, save_actor
from vjepa_planner.models.dynamics import Dynamics
from vjepa_planner.models.novelty import copy_novelty
from vjepa_planner.models.policy import KIND as POLICY
from vjepa_planner.models.policy import load_policy
from vjepa_planner.models.reward import RewardModel, load_reward
from vjepa_training.data.dataset import Dataset
from vjepa_training.data.split import split_episodes
from vjepa_training.data.transitions import (
    BLOCK_ROWS,
    Transitions,
    load_dynamics_for,
    observed_blocks,
    open_transitions,
)
from vjepa_training.data.usable_columns import VELOCITY, require_columns
from vjepa_training.trainers.configs import DISTANCE, HYBRID, REWARD, DreamerTraining, Job
from vjepa_training.trainers.model_card import figures_table, model_card
from vjepa_training.trainers.optimiser import adamw
from vjepa_training.trainers.training_run import Trainer, TrainingFacts, drawn, fit, identity_of, provenance

BEST_STATES = 500
"""Number of states with the highest reward whose mean is the goal in the baseline settings."""

VALIDATION_ROLLOUTS = 512
TARGET_RATE = 0.02
"""Share of the distance to the critic that the slow critic moves in each step."""


def train_dreamer(
    dataset: Dataset,
    dynamics: Path | str,
    reward: Path | str,
    training: DreamerTraining,
    job: Job,
    prior: Path | str = "",
    start: Path | str = "",
) -> TrainingFacts:
    """Train an actor, write its bundle and return the recorded facts of the training.

    Args:
        dataset: with latents; imagined rollouts begin in its states.
        dynamics: bundle of the dynamics model that imagines.
        reward: bundle of the heads on its states; empty for the objective `goal-distance`.
        training: settings of the training.
        job: the outputs of the training, and its progress callback.
        prior: bundle of the policy to start from and stay near; empty for none.
        start: bundle of an actor to start from instead, in the same states; empty for none.

    Raises:
        VjepaError: data without latents, bundles that do not match, or a checkpoint of another run.
    """
    model, bundle = load_dynamics_for(dataset, dynamics)
    heads = _heads(reward, bundle, training)
    require_columns(dataset, (VELOCITY,) if model.conditioning.config.joint_state else (), "train dreamer")
    data = open_transitions(dataset, model.conditioning, job.work, needed=())
    model.to(training.device)
    labels = _labels(dataset, prior, job.work) if prior else None
    fitted, held = split_episodes(np.arange(len(dataset.episodes)), training.validation_share, training.seed)
    rows, kept = (data.rows(episodes, model.config.history, 0) for episodes in (fitted, held))
    torch.manual_seed(training.seed)
    actor = Actor(ActorConfig(action_size=model.conditioning.config.joints), model.conditioning.config)
    actor.conditioning.load_state_dict(model.conditioning.state_dict())
    if start:
        actor.layers.load_state_dict(_started(start, actor).layers.state_dict())
    imagination = _Imagination(model, heads, _goal(data, rows, training), training)
    trainer = _DreamerTrainer(imagination, actor.to(training.device), data, rows, kept, labels, training)
    weights = {"dynamics": bundle.weights_sha256, "reward": _sha256(reward), "policy": _sha256(prior)}
    identity = {**weights, "start": _sha256(start), "data": identity_of(dataset), "held_out": held.tolist()}
    curve = fit(trainer, training, training.steps, job, identity)
    facts = provenance([dataset], training, job.command)
    facts |= {
        "trained_with": {"dynamics": str(dynamics), "reward": str(reward), "policy": str(prior)},
        "frames": len(rows),
        "dynamics_sha256": weights["dynamics"],
    }
    if reward:
        facts["reward_sha256"] = weights["reward"]
    if prior:
        facts["policy_sha256"] = weights["policy"]
    facts["figures"] = trainer.validate()
    fingerprint = dataset.info.encoder_fingerprint
    card = model_card(
        "dreamer",
        job.out,
        frames=len(rows),
        encoder=encoder_in_card(dataset.info.encoder_name, fingerprint),
        command=job.command,
        figures=figures_table(facts["figures"]),
    )
    save_actor(job.out, actor.cpu(), fingerprint, card, facts)
    copy_novelty(bundle, job.out)
    return facts | {"curve": curve, "validation": facts["figures"]["loss"]}


class _DreamerTrainer(Trainer):
    """An actor, its critic, and the real states in which imagined rollouts begin."""

    def __init__(
        self,
        imagination: "_Imagination",
        actor: Actor,
        data: Transitions,
        rows: np.ndarray,
        held_out: np.ndarray,
        labels: np.ndarray | None,
        training: DreamerTraining,
    ):
        self._imagination, self._actor, self._data, self._training = imagination, actor, data, training
        self._rows, self._held_out, self._labels = rows, held_out, labels
        size = imagination.model.conditioning.config.state_size
        self._critic, self._slow = (TwinCritic(size, bins=training.bins).to(training.device) for _ in range(2))
        self._slow.load_state_dict(self._critic.state_dict())
        self._slow.requires_grad_(False)
        self.optimiser = adamw([*actor.parameters(), *self._critic.parameters()], training.learning_rate, 0.0)
        self.parts = {"actor": actor, "critic": self._critic, "slow": self._slow, "optimiser": self.optimiser}

    def loss(self, step: int) -> Tensor:
        """Return the critic's loss, minus the value of imagined rollouts, plus the distance to the policy."""
        training = self._training
        _follow(self._slow, self._critic)
        states, wanted = self._drawn(self._rows, training.imagined_rollouts, (training.seed, 9, step))
        cloned = torch.zeros(()) if wanted is None else (self._actor(states[:, -1]) - wanted).square().mean()
        is_cloning = wanted is not None and step < training.cloning_steps
        with torch.set_grad_enabled(not is_cloning):  # The critic learns the value of the policy meanwhile.
            imagined = self._imagination.returns(self._actor, self._slow, states)
        criticised = self._critic.loss(imagined.states.detach(), imagined.returns.detach())
        if is_cloning:
            return criticised + cloned
        value = imagined.returns.mean() + training.entropy * imagined.entropy
        if wanted is None or not training.cloning_weight:
            return criticised - value
        scale = 2.5 / imagined.returns.detach().abs().mean().clamp(min=1e-3)
        return criticised + training.cloning_weight * cloned - scale * value

    def validate(self) -> dict[str, float]:
        """Return figures of imagined rollouts from validation states; `loss` is the negative mean reward."""
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            states, wanted = self._drawn(self._held_out, VALIDATION_ROLLOUTS, (self._training.seed, 11))
            imagined = self._imagination.returns(self._actor, self._slow, states)
            action = self._actor(states[:, -1])
        figures = {
            "loss": -float(imagined.rewards.mean()),
            "imagined_return": float(imagined.returns[:, 0].mean()),
            "disagreement": float(imagined.disagreement),
            "action": float(action.abs().mean()),
        }
        if wanted is not None:
            figures["from_policy"] = float((action - wanted).square().mean())
        return figures

    def _drawn(self, among: np.ndarray, count: int, key: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
        """Return states to imagine from, (count, history, S), and the policy's actions there, if there is a policy."""
        chosen, device = drawn(among, count, key), self._training.device
        before = chosen[:, None] + np.arange(1 - self._imagination.model.config.history, 1)
        states = torch.from_numpy(np.asarray(self._data.states[before], np.float32)).to(device)
        return states, None if self._labels is None else torch.from_numpy(self._labels[chosen]).to(device)


@dataclass(frozen=True)
class _Imagined:
    """Imagined rollouts: states before each action (B, H, S), rewards and lambda-returns (B, H), and means."""

    states: Tensor
    rewards: Tensor
    returns: Tensor
    entropy: Tensor
    disagreement: Tensor


@dataclass(frozen=True)
class _Imagination:
    """Imagination: the model, the value of a state in it, and the horizon."""

    model: Dynamics
    heads: RewardModel | None
    goal: tuple[Tensor, Tensor] | None
    training: DreamerTraining

    def returns(self, actor: Actor, critic: TwinCritic, states: Tensor) -> _Imagined:
        """Imagine the actor's rollouts from states (B, history, S), each by one member of the ensemble."""
        training, config = self.training, self.model.config
        member = torch.arange(len(states), device=states.device) % config.members
        before, rewards, densities, spreads = [], [], [], []
        for _ in range(training.horizon):
            present = states[:, -1]
            action, density = actor.sample(present)
            repeated = action[:, None].expand(-1, config.action_repeat, -1)
            following = self.model(states[None], repeated[None])
            after = following[member, torch.arange(len(states), device=states.device)]
            spread = self.model.spread(following) if config.members > 1 else torch.zeros_like(density)
            rewards.append(self._reward(present, repeated, after) - training.disagreement_weight * spread)
            before.append(present)
            densities.append(density)
            spreads.append(spread)
            states = torch.cat([states[:, 1:], after[:, None]], dim=1)
        discount = training.discount**config.action_repeat
        values = critic(torch.stack([*before[1:], states[:, -1]], dim=1)).min(dim=0).values  # (B, H)
        ahead, found = values[:, -1], []
        for step in reversed(range(training.horizon)):
            mixed = (1 - training.lambda_) * values[:, step] + training.lambda_ * ahead
            ahead = rewards[step] + discount * mixed
            found.append(ahead)
        return _Imagined(
            torch.stack(before, dim=1),
            torch.stack(rewards, dim=1),
            torch.stack(found[::-1], dim=1),
            -torch.stack(densities).mean(),
            torch.stack(spreads).mean(),
        )

    def _reward(self, before: Tensor, actions: Tensor, after: Tensor) -> Tensor:
        """Return the reward of a prediction, (B,), from states (B, S) and actions (B, action_repeat, n)."""
        training = self.training
        far = None
        if self.goal is not None:
            mean, scale = self.goal
            far = torch.linalg.vector_norm(after - mean, dim=-1) / scale
        if training.objective == DISTANCE:
            assert far is not None
            return -far
        assert self.heads is not None
        reward = self.heads.reward(before, actions)
        if training.objective == HYBRID:
            assert far is not None
            return 10 * reward - 0.1 * far + 0.5 * actions.abs().mean(dim=(1, 2))
        if training.distance_weight:
            reward = reward - training.distance_weight * self.heads.distance(after)
        return reward


@torch.no_grad()
def _follow(slow: TwinCritic, critic: TwinCritic) -> None:
    """Move the slow critic a little towards the critic."""
    for theirs, mine in zip(slow.parameters(), critic.parameters(), strict=True):
        theirs.lerp_(mine, TARGET_RATE)


def _heads(reward: Path | str, dynamics: Bundle, training: DreamerTraining) -> RewardModel | None:
    if training.objective == DISTANCE:
        return None
    if not reward:
        raise VjepaError(f"the objective '{training.objective}' needs heads; give them with --reward")
    heads, about = load_reward(reward, training.device)
    about.check_dynamics(dynamics)
    if training.objective == REWARD and training.distance_weight and not heads.config.distance:
        raise VjepaError(f"{reward} has no distance head; set the distance weight to 0, or train such a head")
    return heads


def _goal(data: Transitions, rows: np.ndarray, training: DreamerTraining) -> tuple[Tensor, Tensor] | None:
    """Return the mean of the best states and the mean distance from it, for the objectives of the baseline settings."""
    if training.objective == REWARD:
        return None
    order = np.random.default_rng((training.seed, 12)).permutation(rows)
    best = np.sort(order[np.argsort(-data.rewards[order], kind="stable")[:BEST_STATES]])
    mean = torch.from_numpy(np.asarray(data.states[best], np.float32).mean(0))
    some = torch.from_numpy(np.asarray(data.states[np.sort(order[:BLOCK_ROWS])], np.float32))
    scale = torch.linalg.vector_norm(some - mean, dim=-1).mean()
    return mean.to(training.device), scale.to(training.device)


def _labels(dataset: Dataset, policy: Path | str, work: Path | str) -> np.ndarray:
    """Return the policy's actions in each row, (N, n) float32; kept in the folder `work` for later calls."""
    bundle = read_bundle(policy, POLICY)
    bundle.check_encoder(dataset.info.encoder_fingerprint, dataset.info.encoder_name)
    bundle.check_arm(dataset.info.arm)
    key = hashlib.sha256(repr((bundle.weights_sha256, identity_of(dataset))).encode()).hexdigest()[:16]
    path = Path(work) / f"policy-{key}.npy"
    if path.exists():
        return np.load(path)
    network, found = load_policy(bundle, control_period_s=dataset.info.control_period_s), []
    for _, arrays in observed_blocks(dataset):
        with torch.inference_mode():
            found.append(network(network.inputs(*arrays)).numpy())
    labels = np.concatenate(found)
    with atomic_file(path) as temporary:
        np.save(temporary, labels)
    return labels


def _started(start: Path | str, actor: Actor) -> Actor:
    """Return the actor of the bundle `start`, which must read the states that `actor` reads."""
    found, _ = load_actor(start)
    if found.config != actor.config or found.conditioning.config != actor.conditioning.config:
        raise VjepaError(f"{start} is an actor of other sizes or states; start from an actor of this dynamics model")
    return found


def _sha256(bundle: Path | str) -> str:
    return Bundle(Path(bundle), {}).weights_sha256 if bundle else ""
