"""Train by soft actor-critic in the simulator, on the states of a world model: `vjepa train sac`.

The result is the reference without a model: what reward alone teaches (Haarnoja et al., Soft Actor-Critic, 2018). The
temperature is learned, as in their Soft Actor-Critic Algorithms and Applications, 2018. The algorithm is from
Stable-Baselines3. Encoder and state projection stay frozen, so the actor has a dreamer's inputs and bundle.
"""

import math
import sys
from collections import deque
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from sim_bridge.env import SimConfig
from vjepa_interfaces.bundle import arm_record, encoder_in_card
from vjepa_perception.encoder import Encoder
from vjepa_planner.models.actor import Actor, ActorConfig, save_actor
from vjepa_planner.models.dynamics import load_dynamics
from vjepa_planner.models.novelty import copy_novelty
from vjepa_training.envs.gym_env import ConditionedStates, ReacherLatents
from vjepa_training.envs.vec_env import SideBySide
from vjepa_training.trainers.configs import Job, OnStep, SacTraining
from vjepa_training.trainers.model_card import model_card
from vjepa_training.trainers.ranks import Stateful
from vjepa_training.trainers.training_run import TrainingFacts, TrainingRun, require_finite

RECENT_EPISODES = 100
"""Number of episodes whose mean return is reported."""

SHOWN = ("return", "ent_coef", "critic_loss")
"""Figures beside the progress bar; TensorBoard has all of them."""


def train_sac(encoder: Encoder, sim: SimConfig, dynamics: Path | str, training: SacTraining, job: Job) -> TrainingFacts:
    """Train an actor, write its bundle and return the recorded facts of the training.

    A killed run continues from its checkpoint with its networks, optimisers and transitions, but not to the bit. The
    episodes that ran are lost, and random draws differ.

    Args:
        encoder: encoder of the latents in the states.
        sim: the simulation; the training sets its seed and the length of its episodes.
        dynamics: bundle of the dynamics model whose state projection is used; it predicts nothing here.
        training: settings of the training.
        job: the outputs of the training, and its progress callback.

    Raises:
        VjepaError: dynamics of another encoder or arm, or a checkpoint of another run.
    """
    model, bundle = load_dynamics(dynamics)
    bundle.check_encoder(encoder.fingerprint, encoder.name)
    conditioning = model.conditioning
    sim = replace(sim, seed=sac_seed(training), episode_steps=training.episode_steps)
    made = [ConditionedStates(ReacherLatents(sim, encoder), conditioning) for _ in range(training.envs)]
    arm, control_period_s = made[0].env.arm, made[0].env.control_period_s
    environments = SideBySide(made, sim.seed, training.action_repeat)
    settings = {**asdict(training), "sim": asdict(sim)}
    try:
        bundle.check_arm(arm)
        sac = _soft_actor_critic(environments, training)
        identity = {**settings, "dynamics_sha256": bundle.weights_sha256}
        parts: dict[str, Stateful] = {"networks": _Networks(sac), "replay": _Replay(sac)}
        run = TrainingRun(job.work, identity, parts, "cpu")
        done, beside = run.resume()
        if done:
            if job.on_step and done < training.steps:
                job.on_step(done, training.steps, {})
            sac.num_timesteps = done // training.action_repeat  # It counts actions.
            sac.set_random_seed(training.seed + done)
            environments.next_seed = sim.seed + beside["episodes"]
        with run.events(done) as log:
            progress = _Progress(run, training, log, environments, beside.get("curve", []), job.on_step)
            if done < training.steps:
                left = math.ceil((training.steps - done) / training.action_repeat)
                sac.learn(left, progress, log_interval=sys.maxsize, reset_num_timesteps=False)
                progress.save()
    finally:
        environments.close()
    curve = progress.curve
    facts: TrainingFacts = {
        "encoder": encoder.name,
        "arm": arm_record(arm),
        "control_period_s": [control_period_s],
        "training": settings,
        "command": job.command,
        "dynamics_sha256": bundle.weights_sha256,
        "figures": {"return": curve[-1][1]} if curve else {},
    }
    actor = exported(sac, conditioning)
    card = model_card(
        "sac",
        job.out,
        task=sim.task,
        encoder=encoder_in_card(encoder.name, encoder.fingerprint),
        command=job.command,
        mean_return=f"{curve[-1][1]:.1f}" if curve else "not known",
        steps=training.episode_steps,
    )
    save_actor(job.out, actor, encoder.fingerprint, card, facts)
    copy_novelty(bundle, job.out)
    return facts | {"curve": {"return": curve}}


def sac_seed(training: SacTraining) -> int:
    """Return the seed of the first episode: far from the seeds of evaluations and of DAgger's rounds."""
    return 1_500_000_000 + training.seed * 100_000


def exported(sac: SAC, conditioning: nn.Module) -> Actor:
    """Return the trained actor of `sac` as an `Actor` with `conditioning`, on the CPU.

    It has the same layers and so the same mode. Its spread differs from training, which has other limits: it is the
    middle of an `Actor`'s range, in every state. The bundle promises the mode alone.
    """
    theirs, n = sac.actor, sac.action_space.shape[0]  # type: ignore[index]
    first = theirs.latent_pi[0]
    actor = Actor(ActorConfig(hidden=first.out_features, action_size=n), conditioning.config)  # type: ignore[arg-type]
    actor.conditioning.load_state_dict(conditioning.state_dict())
    mine = [layer for layer in actor.layers if isinstance(layer, nn.Linear)]
    hidden = [layer for layer in theirs.latent_pi if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for own, learned in zip(mine, hidden, strict=False):
            own.load_state_dict(learned.state_dict())
        for name, tensor in mine[-1].named_parameters():
            tensor.zero_()
            tensor[:n] = theirs.mu.get_parameter(name)
    return actor.eval()


def _soft_actor_critic(environments: SideBySide, training: SacTraining) -> SAC:
    return SAC(
        "MlpPolicy",
        environments,
        learning_rate=training.learning_rate,
        buffer_size=training.steps // training.action_repeat + 3 * training.envs,  # More than all transitions.
        learning_starts=training.random_steps // training.action_repeat,
        batch_size=training.batch_size,
        gamma=training.discount**training.action_repeat,
        ent_coef=f"auto_{training.temperature}",
        train_freq=1,  # Of all environments at once.
        gradient_steps=round(training.updates * training.envs),
        policy_kwargs={"net_arch": [training.hidden] * 2, "activation_fn": nn.ELU},  # The layers of `Actor`.
        seed=training.seed,
        device=training.device,
    )


@dataclass(frozen=True)
class _Networks:
    """Actor, critics, temperature and their optimisers."""

    sac: SAC

    def state_dict(self) -> dict[str, Any]:
        return {**self.sac.get_parameters(), "log_ent_coef": self._temperature().detach()}

    def load_state_dict(self, state: Any, /) -> None:
        with torch.no_grad():
            self._temperature().copy_(state["log_ent_coef"])
        self.sac.set_parameters({name: part for name, part in state.items() if name != "log_ent_coef"})

    def _temperature(self) -> torch.Tensor:
        assert self.sac.log_ent_coef is not None
        return self.sac.log_ent_coef


@dataclass(frozen=True)
class _Replay:
    """The transitions so far. All of them fit in, so none is ever overwritten."""

    sac: SAC
    arrays = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")

    def state_dict(self) -> dict[str, Any]:
        replay = self._replay()
        return {name: torch.from_numpy(getattr(replay, name)[: replay.pos]) for name in self.arrays}

    def load_state_dict(self, state: Any, /) -> None:
        replay = self._replay()
        replay.pos = len(state["rewards"])
        for name in self.arrays:
            getattr(replay, name)[: replay.pos] = state[name].numpy()

    def _replay(self) -> ReplayBuffer:
        assert self.sac.replay_buffer is not None
        return self.sac.replay_buffer


class _Progress(BaseCallback):
    """Follow a training: keep the returns of its episodes, report, and save checkpoints."""

    def __init__(
        self,
        run: TrainingRun,
        training: SacTraining,
        log: Any,
        environments: SideBySide,
        curve: list[list[float]],
        on_step: OnStep | None,
    ):
        super().__init__()
        self._run, self._training, self._log, self._environments = run, training, log, environments
        self._report = on_step
        self.curve = curve
        self._saved = 0
        self._running = np.zeros(training.envs)
        self._ended: deque[float] = deque(maxlen=RECENT_EPISODES)

    def save(self) -> None:
        """Write the checkpoint."""
        episodes = self._environments.next_seed - sac_seed(self._training)
        self._run.save(self._steps, {"curve": self.curve, "episodes": episodes})
        self._saved = self._steps

    @property
    def _steps(self) -> int:
        """Return the number of control steps done."""
        return self.model.num_timesteps * self._training.action_repeat

    def _on_training_start(self) -> None:
        self._saved = self._steps

    def _on_rollout_start(self) -> None:  # Between two actions, all transitions are stored and learned from.
        if self._steps >= self._saved + self._training.checkpoint_every:
            self.save()

    def _on_step(self) -> bool:
        self._running += self.locals["rewards"]
        ended = self.locals["dones"]
        if ended.any():
            self._ended.extend(self._running[ended].tolist())
            self._running[ended] = 0
            self._say()
        return True

    def _say(self) -> None:
        step = self._steps
        learned = {name.removeprefix("train/"): float(value) for name, value in self.logger.name_to_value.items()}
        figures = {"return": float(np.mean(self._ended)), **learned}
        require_finite(figures, step)
        self.curve.append([step, figures["return"]])
        for name, value in figures.items():
            self._log.add_scalar(f"train/{name}", value, step)
        if self._report:
            told = {name: value for name, value in figures.items() if name in SHOWN}
            self._report(min(step, self._training.steps), self._training.steps, told)
