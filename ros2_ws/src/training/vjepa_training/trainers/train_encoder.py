"""Train a small V-JEPA 2 encoder on a dataset with frames: `vjepa train encoder`.

Everything is drawn from the seed and the number of the step. So a killed run that continues from its checkpoint gives
the same result, and two runs on one machine and thread count are equal.
"""

import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from vjepa_interfaces.bundle import WEIGHTS_FILE, file_sha256, write_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.files import write_atomically
from vjepa_perception.checkpoint import Checkpoint, find_checkpoint
from vjepa_perception.encoder import empty_module
from vjepa_perception.rotary import share_rotary_tables
from vjepa_perception.weights import place_weights
from vjepa_training.data.dataset import Dataset
from vjepa_training.data.split import split_episodes
from vjepa_training.trainers import ranks
from vjepa_training.trainers.clip_sampler import ClipSampler
from vjepa_training.trainers.configs import EncoderTraining, Job
from vjepa_training.trainers.encoder_objectives import CanonicalView, Clips, JointEmbedding, MaskedPrediction, Objective
from vjepa_training.trainers.model_card import figures_table, model_card
from vjepa_training.trainers.optimiser import adamw
from vjepa_training.trainers.training_run import Trainer, drawn, fit, identity_of

STATISTICS_BATCHES, VALIDATION_BATCHES = 16, 8
LEAST_RANK = 4.0
"""Effective rank of the latents' cells below which they have collapsed."""


class CollapseError(VjepaError):
    """The latents have collapsed: nearly all of their variance lies in a few directions."""


def train_encoder(datasets: Sequence[Dataset], training: EncoderTraining, job: Job) -> Path:
    """Train an encoder and write its bundle; return the bundle's folder. Several processes may train it, see `ranks`.

    Args:
        datasets: datasets with frames.
        training: settings of the training.
        job: the outputs of the training, and its progress callback.

    Raises:
        CollapseError: the latents collapsed.
        VjepaError: data that does not fit the encoder, or a checkpoint of another run.
    """
    checkpoint = _checkpoint(training)
    torch.manual_seed(training.seed)
    numbers = (np.arange(len(dataset.episodes)) for dataset in datasets)
    held_out = [split_episodes(each, training.validation_share, training.seed)[1] for each in numbers]
    bundle = _Bundle(Path(job.out), checkpoint, training, datasets, job.command)
    trainer = _EncoderTrainer(checkpoint, training, bundle, held_out)
    started_from = {
        "encoder": [checkpoint.model, _start(checkpoint) if training.finetune else ""],
        "data": [identity_of(dataset) for dataset in datasets],
        "held_out": [each.tolist() for each in held_out],
    }
    fit(trainer, training, training.steps, job, started_from)
    if ranks.is_first() and not trainer.is_written:
        # The run was finished already, perhaps with another folder for its bundle.
        trainer.after_checkpoint(training.steps, trainer.validate())
    return bundle.out


class _EncoderTrainer(Trainer):
    """An encoder, its training objective, and the clips of the datasets."""

    largest_gradient = 1.0
    log_every = 20
    is_written = False
    _measured: dict[str, Tensor]

    def __init__(
        self, checkpoint: Checkpoint, training: EncoderTraining, bundle: "_Bundle", held_out: Sequence[np.ndarray]
    ):
        self._training, self._bundle = training, bundle
        self._encoder = _encoder(checkpoint, training)
        frames = self._encoder.config.frames_per_clip
        self._sampler = ClipSampler(bundle.datasets, checkpoint, frames, training.device)
        self._rows, self._held_out = self._sampler.split_rows(held_out)
        self._objective = _objective(training, self._encoder, self._sampler.joints).to(training.device)
        trained = [*self._encoder.parameters(), *(p for p in self._objective.parameters() if p.requires_grad)]
        self.optimiser = adamw(trained, training.learning_rate, training.weight_decay, betas=(0.9, 0.98))
        self.warmup_steps = training.warmup_steps
        self.parts = {"encoder": self._encoder, "objective": self._objective, "optimiser": self.optimiser}
        self._forward = torch.compile(self._objective) if training.compile else self._objective

    def begin(self) -> None:
        """Set the objective's statistics, from some clips to train on."""
        self._objective.fit_statistics([self._clips(self._rows, -1 - i) for i in range(STATISTICS_BATCHES)])

    def loss(self, step: int) -> Tensor:
        """Return the loss, as `Trainer.loss`."""
        change = (self._training.seed, step, ranks.rank()) if self._training.augment else None
        clips = self._clips(self._rows, step, change)
        loss: Tensor
        with self._autocast():
            loss, self._measured = self._forward(self._encoder, clips)
        return loss

    def after_step(self, progress: float) -> None:
        """Move a teacher towards the encoder."""
        self._objective.after_step(self._encoder, progress)

    def measured(self, step: int) -> dict[str, float]:
        """Return the parts of the loss and the effective rank of the latents, which must not have collapsed."""
        figures = _figures({**self._measured, "rows": ranks.gather(self._measured["rows"])})
        if figures["rank"] < LEAST_RANK:
            raise CollapseError(
                f"the latents collapsed by step {step}: their effective rank is {figures['rank']:.1f}, at least "
                f"{LEAST_RANK:g} is expected; use the objective joint-embedding, a lower learning rate or more varied "
                "data"
            )
        return figures

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the means of the loss, its parts and the rank over some batches of the held-out episodes."""
        sums: dict[str, float] = {}
        self._encoder.eval()
        for i in range(VALIDATION_BATCHES):
            with self._autocast():
                loss, measured = self._objective(self._encoder, self._clips(self._held_out, -1 - i))
            for name, value in {"loss": float(loss), **_figures(measured)}.items():
                sums[name] = sums.get(name, 0.0) + value / VALIDATION_BATCHES
        self._encoder.train()
        return sums

    def after_checkpoint(self, step: int, figures: dict[str, float]) -> None:
        """Write the bundle of the encoder in its present state."""
        self._bundle.write(self._encoder, self._objective, step, figures)
        self.is_written = True

    def _clips(self, rows: np.ndarray, step: int, change: tuple[int, ...] | None = None) -> Clips:
        """Return a step's clips, drawn from those that end at `rows`; in training, those of this process.

        Statistics and validation have negative steps.
        """
        key = (self._training.seed, int(step < 0), abs(step))
        chosen = np.sort(drawn(rows, self._training.batch_size, key))
        return self._sampler.clips(chosen if step < 0 else ranks.share(chosen), change)

    def _autocast(self) -> Any:
        kind = torch.device(self._training.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self._training.dtype == "bfloat16")


def _figures(measured: Mapping[str, Tensor]) -> dict[str, float]:
    """Return an objective's measures as numbers, with the effective rank in place of its latents, `rows`."""
    parts = {name: float(value) for name, value in measured.items() if name != "rows"}
    return {**parts, "rank": effective_rank(measured["rows"])}


def effective_rank(latents: Tensor) -> float:
    """Return the effective rank of the cells of `latents`, (B, rows, D), with each cell centred over the batch.

    It is the exponential of the entropy of the singular values' shares (Roy and Vetterli, The effective rank, 2007).
    """
    cells = latents[:, 1:] - latents[:, 1:].mean(0)
    values = torch.linalg.svdvals(cells.flatten(0, 1).float())
    share = values / values.sum().clamp(min=1e-12)
    return float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()))


def _checkpoint(training: EncoderTraining) -> Checkpoint:
    """Return the checkpoint with the encoder's architecture, with the changed fields of the settings."""
    checkpoint = find_checkpoint(training.encoder)
    model = {**checkpoint.model, **training.model}
    preprocessing = checkpoint.preprocessing
    if "crop_size" in training.model:
        preprocessing = replace(preprocessing, crop=model["crop_size"], resize=model["crop_size"])
    return replace(checkpoint, model=model, preprocessing=preprocessing)


def _start(checkpoint: Checkpoint) -> str:
    """Return a text that identifies the weights at the start of a finetuning, wherever their files are."""
    return " ".join([f"seed {checkpoint.init_seed}", *(file_sha256(path) for path in checkpoint.weights)])


def _encoder(checkpoint: Checkpoint, training: EncoderTraining) -> Any:
    module = empty_module(checkpoint)
    if training.finetune:
        module.to_empty(device=training.device)
        module.load_state_dict(_weights_to_start_from(training, checkpoint))
    else:
        module.to_empty(device=training.device)
        # These weights are larger than V-JEPA 2's own 0.02, from which so narrow a network learns slowly. The signal
        # keeps its size.
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter.data.view(parameter.shape[0], -1))
            else:
                nn.init.constant_(parameter.data, float("norm" in name and name.endswith("weight")))
    if training.objective != "masked":
        share_rotary_tables(module)
        _speed_up(module)
    return module.train().requires_grad_(True)


def _weights_to_start_from(training: EncoderTraining, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the weights of the encoder to start from, its patch embedding inflated to the tubelets of `checkpoint`."""
    known = find_checkpoint(training.encoder)
    source = empty_module(known)
    place_weights(source, known, torch.device(training.device), torch.float32)
    longer, rest = divmod(checkpoint.model["tubelet_size"], known.model["tubelet_size"])
    if rest or not longer:
        raise VjepaError(
            f"tubelet_size is {checkpoint.model['tubelet_size']}; expected a multiple of {known.model['tubelet_size']}"
            f", the tubelet_size of {known.name}, whose weights are the start"
        )
    weights = dict(source.state_dict())
    name = "embeddings.patch_embeddings.proj.weight"
    weights[name] = weights[name].repeat(1, 1, longer, 1, 1) / longer
    return weights


def _speed_up(module: Any) -> None:
    """Replace two steps by matrix products of the same result, whose backward pass is much faster on a CPU."""
    size = module.config.hidden_size // module.config.num_attention_heads
    turn = torch.zeros(size, size)
    even = torch.arange(0, size, 2)
    turn[even + 1, even], turn[even, even + 1] = -1.0, 1.0

    def embed(self: Any, video: Tensor) -> Tensor:
        """Embed patches as rows, instead of a convolution: (B, 3, frames, side, side) to (B, N, D)."""
        t, p = self.tubelet_size, self.patch_size
        split = video.unflatten(2, (-1, t)).unflatten(4, (-1, p)).unflatten(6, (-1, p))
        patches = split.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)
        return functional.linear(patches, self.proj.weight.flatten(1), self.proj.bias)

    def rotate(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """Rotate queries or keys by a matrix of signs, instead of splitting and joining them."""
        cosines, sines = (table.to(x.dtype) for table in tables)
        return x * cosines + (x @ turn.to(x)) * sines

    embeddings = module.embeddings.patch_embeddings
    embeddings.forward = types.MethodType(embed, embeddings)
    for layer in module.layer:
        layer.attention.apply_rotary_embeddings = rotate


def _objective(training: EncoderTraining, encoder: Any, joints: Sequence[int]) -> Objective:
    if training.objective == "masked":
        return MaskedPrediction(encoder.config, training.grid, encoder, training.seed)
    if training.objective == "canonical-view":
        return CanonicalView(encoder.config, training.grid, joints)
    return JointEmbedding(encoder.config, training.grid, joints, training.seed)


@dataclass(frozen=True)
class _Bundle:
    """Write the bundle of an encoder in training."""

    out: Path
    checkpoint: Checkpoint
    training: EncoderTraining
    datasets: Sequence[Dataset]
    command: str

    def write(self, encoder: Any, objective: Any, step: int, figures: dict[str, float]) -> None:
        """Write weights, configuration and card."""
        trained = objective.teacher if isinstance(objective, MaskedPrediction) else encoder
        tensors = {f"encoder.{name}": value.detach().cpu().contiguous() for name, value in trained.state_dict().items()}
        write_atomically(self.out / WEIGHTS_FILE, save(tensors))
        training = {name: value for name, value in asdict(self.training).items() if name != "encoder"}
        config = {
            "kind": "encoder",
            "architecture": "vjepa2",
            "clip_frames": encoder.config.frames_per_clip,
            "model": self.checkpoint.model,
            "preprocessing": asdict(self.checkpoint.preprocessing),
            "training": training,
            "steps_done": step,
            "validation": figures,
            "data": [source for dataset in self.datasets for source in dataset.info.sources],
            "command": self.command,
        }
        card = model_card(
            "encoder",
            self.out,
            parameters=f"{sum(parameter.numel() for parameter in encoder.parameters()) / 1e6:.2f}",
            episodes=sum(len(dataset.episodes) for dataset in self.datasets),
            frames=sum(map(len, self.datasets)),
            objective=self.training.objective,
            steps=step,
            batch_size=self.training.batch_size,
            command=self.command,
            figures=figures_table(figures),
        )
        write_bundle(self.out, config, card)
