"""Reward and distance heads on the states of a dynamics model: `vjepa train reward`.

Labels are the simulator's: the reward of each step and, for the distance head, where fingertip and target were. Only
training sees them; the heads read states.
"""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vjepa_interfaces.bundle import encoder_in_card
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.models.dynamics import load_dynamics
from vjepa_planner.models.reward import OFFSET_UNIT, RewardConfig, RewardModel, load_reward, save_reward
from vjepa_training.data.dataset import Dataset
from vjepa_training.data.transitions import Transitions, open_transitions, split_episodes
from vjepa_training.data.usable_columns import ACTION, VELOCITY, require_columns
from vjepa_training.trainers.configs import RewardTraining
from vjepa_training.trainers.optimiser import adamw
from vjepa_training.trainers.training_run import TrainingRun, figures_table, fit, identity_of

VALIDATION_BATCH = 4096


def train_reward(
    dataset: Dataset,
    dynamics: Path | str,
    training: RewardTraining,
    out: Path | str,
    work: Path | str,
    command: str,
    on_step: Callable[[int, int, dict[str, float]], None] | None = None,
    start: Path | str = "",
) -> dict[str, Any]:
    """Train the heads, write their bundle into the folder `out` and return what its configuration says of them.

    Args:
        dataset: with latents and rewards, of the encoder that the dynamics model was trained on.
        dynamics: bundle of the dynamics model whose states the heads read.
        training: how.
        out: folder of the bundle, written at the end.
        work: folder of states, checkpoint and TensorBoard's events; a run found there goes on.
        command: that the model card names.
        on_step: called now and then with the steps done, those there are, and the latest figures.
        start: bundle of heads of the same sizes to go on from; empty for none.

    Raises:
        VjepaError: data without latents, rewards or, for a distance head, targets; or a checkpoint of another run.
    """
    if dataset.info.latent_shape is None:
        raise VjepaError(f"{dataset.folder} has no latents; encode it first: vjepa dataset encode")
    model_of_states, bundle = load_dynamics(dynamics)
    fingerprint = dataset.info.encoder_fingerprint
    bundle.check_encoder(fingerprint, dataset.info.encoder_name)
    bundle.check_arm(dataset.info.arm)
    conditioning = model_of_states.conditioning
    require_columns(dataset, (ACTION, *((VELOCITY,) if conditioning.config.joint_state else ())), "train reward")
    repeat = model_of_states.config.action_repeat
    torch.manual_seed(training.seed)
    data = open_transitions(dataset, conditioning, work)
    fitted, held = split_episodes(len(dataset.episodes), training.validation_share, training.seed)
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
    optimiser = adamw(model.parameters(), training.learning_rate, training.weight_decay)
    weights = bundle.weights_sha256
    identity = {**asdict(training), "dynamics": weights, "start": digest, "data": identity_of(dataset)}
    run = TrainingRun(work, identity, {"model": model, "optimiser": optimiser}, training.device)
    steps = training.epochs * math.ceil(len(train) / training.batch_size)

    def loss_of(step: int) -> Tensor:
        rng = np.random.default_rng((training.seed, 9, step))
        drawn = train[rng.integers(len(train), size=training.batch_size)]
        errors = _errors(model, data, drawn, repeat, training, training.noise)
        return torch.stack([error.mean() for error in errors.values()]).sum()

    def validate() -> dict[str, float]:
        return validation_figures(model, data, validation, repeat, training)

    curve = fit(run, optimiser, training, steps, loss_of, validate, on_step)
    figures = validate()
    facts = {
        "encoder": dataset.info.encoder_name,
        "encoder_fingerprint": fingerprint,
        "dynamics_sha256": weights,
        "dataset": list(dataset.info.sources),
        "training": asdict(training),
        "command": command,
        "frames": len(train),
        "rewarded": float(np.mean(_rewards(data, train, repeat) > 0)),
        "figures": figures,
    }
    card = (
        f"# {Path(out).name}\n\nReward{' and distance' if training.distance else ''} heads on the states of the "
        f"dynamics model `{weights[:16]}`, which are made of latents of encoder "
        f"{encoder_in_card(dataset.info.encoder_name, fingerprint)}.\n\n    {command}\n\n"
        f"Trained on {len(train)} frames. On episodes kept for validation (reward: mean squared error; distance: root "
        f"mean square error, m):\n\n{figures_table(figures)}"
    )
    save_reward(out, model, conditioning.config, facts, card)
    return facts | {"curve": curve, "validation": figures["loss"]}


def validation_figures(
    model: RewardModel, data: Transitions, rows: np.ndarray, repeat: int, training: RewardTraining
) -> dict[str, float]:
    """Return `loss`, `reward_mse`, what always saying the mean reward would have, and the distance's error, m."""
    sums: dict[str, float] = {}
    model.eval()
    with torch.inference_mode():
        for part in np.split(rows, range(VALIDATION_BATCH, len(rows), VALIDATION_BATCH)):
            for name, error in _errors(model, data, part, repeat, training, 0.0).items():
                sums[name] = sums.get(name, 0.0) + float(error.sum())
    model.train()
    means = {name: value / len(rows) for name, value in sums.items()}
    figures = {"loss": sum(means.values()), "reward_mse": means["reward"]}
    figures["reward_variance"] = float(_rewards(data, rows, repeat).var())
    if "distance" in means:
        figures["distance_rmse_m"] = math.sqrt(means["distance"]) * OFFSET_UNIT
    return figures


def _labelled(data: Transitions, episodes: np.ndarray, repeat: int, distance: bool) -> np.ndarray:
    rows = data.rows(episodes, 1, repeat)
    return rows[np.isfinite(data.offsets[rows]).all(1)] if distance else rows


def _rewards(data: Transitions, rows: np.ndarray, repeat: int) -> np.ndarray:
    return data.rewards[rows[:, None] + np.arange(repeat)].mean(1)


def _errors(
    model: RewardModel,
    data: Transitions,
    rows: np.ndarray,
    repeat: int,
    training: RewardTraining,
    noise: float,
) -> dict[str, Tensor]:
    """Return the squared errors, (B,), of each head; the distance's in its own unit, added over x and y."""
    arrays = (
        data.states[rows],
        data.actions[rows[:, None] + np.arange(repeat)],
        _rewards(data, rows, repeat),
        data.offsets[rows] / OFFSET_UNIT,
    )
    states, actions, rewards, offsets = (
        torch.from_numpy(array.astype(np.float32)).to(training.device) for array in arrays
    )
    if noise:
        states = states + torch.randn_like(states) * noise
    found = {"reward": functional.mse_loss(model.reward(states, actions), rewards, reduction="none")}
    if training.distance:
        found["distance"] = (model.distance_head(states) - offsets).square().sum(-1)
    return found
