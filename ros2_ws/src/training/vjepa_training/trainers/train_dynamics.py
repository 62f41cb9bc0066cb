"""Train dynamics models: `vjepa train dynamics`.

The loss is the smooth L1 error of H consecutive predicted states, each predicted from the one before. Each member of an
ensemble draws its own rows. Validation is by episode and open loop. It compares predictions 1 to 20 control steps ahead
with the real states and, through a linear probe, in metres. A prediction of no change stands beside them.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vjepa_interfaces.bundle import encoder_in_card
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.tables import markdown_table
from vjepa_planner.models.conditioning import ConditioningConfig
from vjepa_planner.models.dynamics import Dynamics, preset, save_dynamics
from vjepa_planner.models.novelty import save_novelty
from vjepa_training.data.dataset import Dataset
from vjepa_training.data.split import split_episodes
from vjepa_training.data.transitions import Transitions, load_dynamics_for, open_transitions
from vjepa_training.data.usable_columns import ACTION, VELOCITY, require_columns
from vjepa_training.probes.probe import fit_ridge
from vjepa_training.trainers import ranks
from vjepa_training.trainers.configs import DynamicsTraining, Job
from vjepa_training.trainers.fit_conditioning import fit_conditioning
from vjepa_training.trainers.fit_novelty import fit_to_dataset
from vjepa_training.trainers.model_card import model_card
from vjepa_training.trainers.optimiser import adamw
from vjepa_training.trainers.training_run import Trainer, TrainingFacts, drawn, fit, identity_of, provenance

OPEN_LOOP_STEPS = 20
"""Largest number of control steps ahead in the open-loop error; fewer if episodes are shorter."""

VALIDATION_ROWS, VALIDATION_BATCH = 4096, 512
STATISTICS_ROWS = 20_000


def train_dynamics(dataset: Dataset, training: DynamicsTraining, job: Job, start: Path | str = "") -> TrainingFacts:
    """Train a dynamics model, write its bundle and return the recorded facts of the training.

    Several processes may train it, see `ranks`; only the first one writes the bundle and returns facts.

    Args:
        dataset: a dataset with latents.
        training: settings of the training.
        job: the outputs of the training, and its progress callback.
        start: bundle of a model of the same sizes to continue from, in its own states; empty for none.

    Raises:
        VjepaError: data without latents or with too short episodes, a `start` of other sizes, or a checkpoint of
            another run.
    """
    if dataset.info.latent_shape is None:
        raise VjepaError(f"{dataset.folder} has no latents; encode it first: vjepa dataset encode")
    require_columns(dataset, (ACTION, *((VELOCITY,) if training.joint_state else ())), "train dynamics")
    torch.manual_seed(training.seed)
    rows, dim = dataset.info.latent_shape
    config = preset(training.preset, **_changes(training))
    conditioning = ConditioningConfig(
        latent_dim=dim,
        latent_rows=(0,) if training.rows == "mean" else tuple(range(rows)),
        size=training.components,
        joint_state=training.joint_state,
        joints=len(dataset.info.joint_names),
    )
    fitted, held = split_episodes(np.arange(len(dataset.episodes)), training.validation_share, training.seed)
    model = Dynamics(config, conditioning)
    if start:
        digest = _go_on_from(start, model, dataset)
    else:
        digest = ""
        if ranks.is_first():
            method = training.state_projection
            model.conditioning = fit_conditioning(dataset, conditioning, method, fitted, training.seed, job.work)
        ranks.copy_from_first({"conditioning": model.conditioning}, "cpu")
    with ranks.first_before_others():
        data = open_transitions(dataset, model.conditioning, job.work)
    span = config.action_repeat * training.horizon
    train, validation = (data.rows(episodes, config.history, span) for episodes in (fitted, held))
    if not len(train) or not len(validation):
        raise VjepaError(f"{dataset.folder} has too few episodes of more than {span} steps to train on")
    if config.residual and training.components and not start:
        model.delta_scale.copy_(_delta_scale(data, train, config.action_repeat))
    model.to(training.device)
    trainer = _DynamicsTrainer(model, data, train, validation, training)
    identity = {"start": digest, "data": identity_of(dataset), "held_out": held.tolist()}
    steps = training.epochs * math.ceil(len(train) / training.batch_size)
    curve = fit(trainer, training, steps, job, identity)
    if not ranks.is_first():
        return {}
    model.eval().requires_grad_(False).cpu()
    facts = provenance([dataset], training, job.command)
    facts |= {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "transitions": len(train),
        "validation": curve["validation"][-1][1],
        "open_loop": open_loop(model, data, fitted, held),
    }
    fingerprint = dataset.info.encoder_fingerprint
    card = model_card(
        "dynamics",
        job.out,
        preset=training.preset,
        parameters=facts["parameters"],
        encoder=encoder_in_card(dataset.info.encoder_name, fingerprint),
        command=job.command,
        transitions=len(train),
        open_loop=_open_loop_table(facts["open_loop"]),
    )
    save_dynamics(job.out, model, fingerprint, card, facts)
    save_novelty(job.out, fit_to_dataset(dataset, conditioning.latent_rows, training.seed), job.command)
    return facts | {"curve": curve}


class _DynamicsTrainer(Trainer):
    """A model, the rows for its training, and the rows for validation."""

    def __init__(
        self, model: Dynamics, data: Transitions, rows: np.ndarray, held_out: np.ndarray, training: DynamicsTraining
    ):
        self._model, self._data, self._training = model, data, training
        self._rows, self._held_out = rows, held_out
        self.optimiser = adamw(model.parameters(), training.learning_rate, training.weight_decay)
        self.parts = {"model": model, "optimiser": self.optimiser}

    def loss(self, step: int) -> Tensor:
        """Return the loss of rows that are drawn for each member of the ensemble."""
        shape = self._model.config.members, self._training.batch_size
        rows = drawn(self._rows, shape, (self._training.seed, 9, step))
        return dynamics_loss(self._model, self._data, ranks.share(rows), self._training)

    def validate(self) -> dict[str, float]:
        """Return the loss on the validation rows, or on some thousands of them, averaged over the ensemble."""
        rows = np.sort(np.random.default_rng(1).permutation(self._held_out)[:VALIDATION_ROWS])
        self._model.eval()
        total = 0.0
        with torch.inference_mode():
            for part in np.split(rows, range(VALIDATION_BATCH, len(rows), VALIDATION_BATCH)):
                total += float(dynamics_loss(self._model, self._data, part[None], self._training)) * len(part)
        self._model.train()
        return {"loss": total / len(rows)}


def dynamics_loss(model: Dynamics, data: Transitions, rows: np.ndarray, training: DynamicsTraining) -> Tensor:
    """Return the mean loss of the predictions from `rows`, (members or 1, B)."""
    config, device = model.config, training.device
    gathered = _gathered(data, rows, config.history, training.horizon, config.action_repeat, device)
    states, actions, following = gathered
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=training.dtype == "bfloat16"):
        predicted = model.unroll(states, actions)
    predicted = predicted.float() / model.delta_scale
    return functional.smooth_l1_loss(predicted, (following / model.delta_scale).expand_as(predicted))


def open_loop(
    model: Dynamics, data: Transitions, fit: np.ndarray, held: np.ndarray, steps: int = OPEN_LOOP_STEPS
) -> list[dict[str, float]]:
    """Return the errors of the model's predictions and of a prediction of no change, by steps ahead.

    Args:
        model: in evaluation mode, on the CPU.
        data: the rows.
        fit: episodes for the probe from states to the way from fingertip to target, m.
        held: episodes to predict in.
        steps: largest number of control steps ahead.

    Returns:
        An entry for each prediction ahead. `steps` is its number of control steps. `state` and `no_change_state` are
            root mean squares over components, in units of the states' standard deviation. `metres` and
            `no_change_metres` are root mean square distances between the probe's ways in the predicted and in the real
            state.
    """
    config = model.config
    longest = int(data.left[np.isin(data.episode, held)].max())
    count = min(steps, longest) // config.action_repeat
    rows = data.rows(held, config.history, count * config.action_repeat)
    if not count or not len(rows):
        return []
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:VALIDATION_ROWS])
    scale = torch.from_numpy(np.asarray(data.states[rows], np.float32).std(0)).clamp(min=1e-6)
    probe = _offset_probe(data, fit)
    sums = torch.zeros(count, 4, dtype=torch.float64)
    for part in np.split(rows, range(VALIDATION_BATCH, len(rows), VALIDATION_BATCH)):
        states, actions, truth = _gathered(data, part[None], config.history, count, config.action_repeat, "cpu")
        with torch.inference_mode():
            predicted = model.unroll(states, actions).mean(0)
        for i in range(count):
            after, guess, before = truth[0, :, i], predicted[:, i], states[0, :, -1]
            sums[i, 0] += ((guess - after) / scale).square().mean(1).sum()
            sums[i, 1] += ((before - after) / scale).square().mean(1).sum()
            if probe is not None:
                sums[i, 2] += float(np.square(probe(guess) - probe(after)).sum())
                sums[i, 3] += float(np.square(probe(before) - probe(after)).sum())
    names = ("state", "no_change_state", *(("metres", "no_change_metres") if probe is not None else ()))
    roots = (sums / len(rows)).sqrt().tolist()
    return [{"steps": (i + 1) * config.action_repeat, **dict(zip(names, roots[i], strict=False))} for i in range(count)]


def _go_on_from(start: Path | str, model: Dynamics, dataset: Dataset) -> str:
    """Copy weights and state projection of the bundle `start` into `model`, and return the hash of the weights."""
    found, bundle = load_dynamics_for(dataset, start)
    if found.config != model.config or found.conditioning.config != model.conditioning.config:
        raise VjepaError(f"{start} is a model of other sizes or states than this training's; give the same settings")
    model.load_state_dict(found.state_dict())
    return bundle.weights_sha256


def _changes(training: DynamicsTraining) -> dict[str, int]:
    given = {name: getattr(training, name) for name in ("members", "action_repeat", "history")}
    return {name: value for name, value in given.items() if value}


def _gathered(
    data: Transitions, rows: np.ndarray, history: int, horizon: int, repeat: int, device: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return states (K, B, history, S), actions (K, B, H, repeat, n) and the states that followed (K, B, H, S)."""
    before = rows[..., None] + np.arange(1 - history, 1)
    within = rows[..., None, None] + np.arange(horizon)[:, None] * repeat + np.arange(repeat)
    after = rows[..., None] + np.arange(1, horizon + 1) * repeat
    arrays = (data.states[before], data.actions[within], data.states[after])
    states, actions, following = (torch.from_numpy(array.astype(np.float32)).to(device) for array in arrays)
    return states, actions, following


def _delta_scale(data: Transitions, rows: np.ndarray, repeat: int) -> Tensor:
    """Return the standard deviation of the change over a prediction's span, (S,)."""
    rows = np.sort(np.random.default_rng(2).permutation(rows)[:STATISTICS_ROWS])
    change = np.asarray(data.states[rows + repeat], np.float32) - np.asarray(data.states[rows], np.float32)
    return torch.from_numpy(change.std(0)).clamp(min=1e-6)


def _offset_probe(data: Transitions, episodes: np.ndarray) -> Any:
    """Return a linear probe from states to the way from fingertip to target, m; None if no row knows it."""
    rows = np.flatnonzero(np.isin(data.episode, episodes) & np.isfinite(data.offsets).all(1) & (data.left >= 0))
    rows = np.sort(np.random.default_rng(3).permutation(rows)[:STATISTICS_ROWS])
    if len(rows) < 100:
        return None
    held = np.random.default_rng(4).random(len(rows)) < 0.2
    return fit_ridge(np.asarray(data.states[rows], np.float32), data.offsets[rows], held)


def _open_loop_table(entries: Sequence[Mapping[str, float]]) -> str:
    if not entries:
        return "The episodes are too short to measure it."
    rows = [[f"{value:.4g}" for value in entry.values()] for entry in entries]
    return markdown_table([[name.replace("_", " ") for name in entries[0]], *rows])
