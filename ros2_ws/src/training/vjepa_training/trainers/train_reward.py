"""Train reward and distance heads on the states of a dynamics model: `vjepa train reward`.

Labels are from the simulator: the reward of each step and, for the distance head, the places of fingertip and target.
Only training uses them; the heads read states.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vjepa_interfaces.bundle import encoder_in_card
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.models.reward import OFFSET_UNIT, RewardConfig, RewardModel, load_reward, save_reward
from vjepa_training.data.dataset import Dataset
from vjepa_training.data.split import split_episodes
from vjepa_training.data.transitions import Transitions, load_dynamics_for, open_transitions
from vjepa_training.data.usable_columns import ACTION, VELOCITY, require_columns
from vjepa_training.trainers.configs import Job, RewardTraining
from vjepa_training.trainers.model_card import figures_table, model_card
from vjepa_training.trainers.optimiser import adamw
from vjepa_training.trainers.training_run import Trainer, TrainingFacts, drawn, fit, identity_of, provenance

VALIDATION_BATCH = 4096


def train_reward(
    dataset: Dataset, dynamics: Path | str, training: RewardTraining, job: Job, start: Path | str = ""
) -> TrainingFacts:
    """Train the heads, write their bundle and return the recorded facts of the training.

    Args:
        dataset: with latents and rewards, of the dynamics model's encoder.
        dynamics: bundle of the dynamics model whose states the heads read.
        training: settings of the training.
        job: the outputs of the training, and its progress callback.
        start: bundle of heads of the same sizes to continue from; empty for none.

    Raises:
        VjepaError: data without latents, rewards or, for a distance head, targets; or a checkpoint of another run.
    """
    model_of_states, bundle = load_dynamics_for(dataset, dynamics)
    conditioning = model_of_states.conditioning
    require_columns(dataset, (ACTION, *((VELOCITY,) if conditioning.config.joint_state else ())), "train reward")
    repeat = model_of_states.config.action_repeat
    torch.manual_seed(training.seed)
    data = open_transitions(dataset, conditioning, job.work)
    fitted, held = split_episodes(np.arange(len(dataset.episodes)), training.validation_share, training.seed)
    train, validation = (_labelled(data, episodes, repeat, training.distance) for episodes in (fitted, held))
    if not len(train) or not len(validation):
        raise VjepaError(
            f"{dataset.folder} has too few rows with {repeat} steps of known reward"
            f"{' and a known target' if training.distance else ''} to train on; heads need data of the simulator"
        )
    sizes = RewardConfig(
        state_size=conditioning.config.state_size,
        action_values=repeat * conditioning.config.joints,
        hidden=training.hidden,
        distance=training.distance,
    )
    model, digest = RewardModel(sizes), ""
    if start:
        found, before = load_reward(start)
        if found.config != sizes:
            raise VjepaError(f"{start} has heads of other sizes than this training's; give the same settings")
        model.load_state_dict(found.state_dict())
        digest = before.weights_sha256
    model.to(training.device)
    trainer = _RewardTrainer(model, data, train, validation, repeat, training)
    weights = bundle.weights_sha256
    identity = {"dynamics": weights, "start": digest, "data": identity_of(dataset), "held_out": held.tolist()}
    steps = training.epochs * math.ceil(len(train) / training.batch_size)
    curve = fit(trainer, training, steps, job, identity)
    figures = trainer.validate()
    facts = provenance([dataset], training, job.command)
    facts |= {
        "encoder_fingerprint": dataset.info.encoder_fingerprint,
        "dynamics_sha256": weights,
        "frames": len(train),
        "rewarded": float(np.mean(trainer.rewards(train) > 0)),
        "figures": figures,
    }
    card = model_card(
        "reward",
        job.out,
        heads="Reward and distance heads" if training.distance else "A reward head",
        dynamics=weights[:16],
        encoder=encoder_in_card(dataset.info.encoder_name, dataset.info.encoder_fingerprint),
        command=job.command,
        frames=len(train),
        figures=figures_table(figures),
    )
    save_reward(job.out, model, conditioning.config, facts, card)
    return facts | {"curve": curve, "validation": figures["loss"]}


class _RewardTrainer(Trainer):
    """Heads, the rows for their training, and the rows for validation."""

    def __init__(
        self,
        model: RewardModel,
        data: Transitions,
        rows: np.ndarray,
        held_out: np.ndarray,
        repeat: int,
        training: RewardTraining,
    ):
        self._model, self._data, self._training = model, data, training
        self._rows, self._held_out = rows, held_out
        self._steps = np.arange(repeat)
        self.optimiser = adamw(model.parameters(), training.learning_rate, training.weight_decay)
        self.parts = {"model": model, "optimiser": self.optimiser}

    def loss(self, step: int) -> Tensor:
        """Return the sum of the heads' mean squared errors."""
        rows = drawn(self._rows, self._training.batch_size, (self._training.seed, 9, step))
        return torch.stack([error.mean() for error in self._errors(rows, self._training.noise).values()]).sum()

    def validate(self) -> dict[str, float]:
        """Return `loss`, `reward_mse`, the error of always predicting the mean reward, and the distance's error, m."""
        rows = self._held_out
        sums: dict[str, float] = {}
        self._model.eval()
        with torch.inference_mode():
            for part in np.split(rows, range(VALIDATION_BATCH, len(rows), VALIDATION_BATCH)):
                for name, error in self._errors(part).items():
                    sums[name] = sums.get(name, 0.0) + float(error.sum())
        self._model.train()
        means = {name: value / len(rows) for name, value in sums.items()}
        figures = {"loss": sum(means.values()), "reward_mse": means["reward"]}
        figures["reward_variance"] = float(self.rewards(rows).var())
        if "distance" in means:
            figures["distance_rmse_m"] = math.sqrt(means["distance"]) * OFFSET_UNIT
        return figures

    def rewards(self, rows: np.ndarray) -> np.ndarray:
        """Return the mean reward, (B,), of the steps from each row on that one action of the model spans."""
        return self._data.rewards[rows[:, None] + self._steps].mean(1)

    def _errors(self, rows: np.ndarray, noise: float = 0.0) -> dict[str, Tensor]:
        """Return the squared errors, (B,), of each head; the distance's in its own unit, summed over x and y."""
        data, training = self._data, self._training
        arrays = (
            data.states[rows],
            data.actions[rows[:, None] + self._steps],
            self.rewards(rows),
            data.offsets[rows] / OFFSET_UNIT,
        )
        states, actions, rewards, offsets = (
            torch.from_numpy(array.astype(np.float32)).to(training.device) for array in arrays
        )
        if noise:
            states = states + torch.randn_like(states) * noise
        model = self._model
        found = {"reward": functional.mse_loss(model.reward(states, actions), rewards, reduction="none")}
        if training.distance:
            found["distance"] = (model.distance_head(states) - offsets).square().sum(-1)
        return found


def _labelled(data: Transitions, episodes: np.ndarray, repeat: int, distance: bool) -> np.ndarray:
    rows = data.rows(episodes, 1, repeat)
    return rows[np.isfinite(data.offsets[rows]).all(1)] if distance else rows
