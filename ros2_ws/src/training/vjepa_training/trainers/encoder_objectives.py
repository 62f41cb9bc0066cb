"""Define the training objectives of a small V-JEPA 2 encoder, in embedding space, from video and joint readings.

No objective reads target, fingertip or reward. `JointEmbedding` works on simulator video of arms with a constant look,
`CanonicalView` on video with many looks. `MaskedPrediction` is V-JEPA's recipe, for real video and a GPU.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vjepa_perception.encoder import pooled

TARGET_SIZE = 64
"""Features of a patch in the fixed target embedding."""
TARGET_WIDTH = 256
PREDICTOR_WIDTH = 512
CELLS, ROBOT_WIDTH = 16, 256
"""Cells along a side of the canonical view, and the width of the network that predicts it from the joint readings."""
LEAST_ENERGY = 0.1
"""Squared difference of a cell's colour, preprocessed, at which the cell is an object or noise with equal chance."""
FUTURE_STEPS = 2
"""Control steps that are predicted: one tubelet."""


@dataclass(frozen=True)
class Clips:
    """A batch of B clips, with the robot's recordings.

    Attributes:
        video: (B, frames, 3, side, side) float32, preprocessed.
        present: (B, FUTURE_STEPS, 3, side, side) float32, the clip's last frames, plainly rendered if the data has
            plain frames.
        future: (B, FUTURE_STEPS, 3, side, side) float32, the same of the frames behind the clip.
        source: (B,) number of each clip's dataset.
        actions: (B, FUTURE_STEPS, n) in [-1, 1], applied from the clip's last frame on.
        joint_position: (B, n) rad, at the clip's last frame; 0 for joints that its arm does not have.
        joint_velocity: (B, n) rad/s, likewise.
    """

    video: Tensor
    present: Tensor
    future: Tensor
    source: Tensor
    actions: Tensor
    joint_position: Tensor
    joint_velocity: Tensor


class JointReadings(nn.Module):
    """A linear head that reads the robot's joint readings from a latent, with the statistics to standardise them."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, joints: Sequence[int]) -> None:
        """Create the head.

        Args:
            size: numbers in a latent.
            joints: number of joints of each dataset's robot.
        """
        super().__init__()
        self.sources, most = len(joints), max(joints)
        self.head = nn.Linear(size, self.sources * 3 * most)
        self.register_buffer("mean", torch.zeros(self.sources, 3 * most))
        self.register_buffer("std", torch.ones(self.sources, 3 * most))

    @torch.no_grad()
    def fit_statistics(self, batches: Sequence[Clips]) -> None:
        """Set mean and standard deviation of each dataset's readings from some batches."""
        readings = torch.cat([_readings(batch) for batch in batches])
        source = torch.cat([batch.source for batch in batches])
        for number in range(self.sources):
            std, self.mean[number] = torch.std_mean(readings[source == number], 0)
            self.std[number] = torch.where(std < 1e-6, 1.0, std)

    def standardised(self, clips: Clips) -> Tensor:
        """Return sines and cosines of the joint angles and the velocities, (B, 3 n), standardised by dataset."""
        return (_readings(clips) - self.mean[clips.source]) / self.std[clips.source]

    def forward(self, latents: Tensor, clips: Clips) -> Tensor:
        """Return the mean squared error of the readings predicted from `latents`, (B, size)."""
        read = _of_source(self.head(latents).float(), clips.source, self.sources)
        return functional.mse_loss(read, self.standardised(clips))


class JointEmbedding(nn.Module):
    """Action-conditioned prediction in the embedding space of a fixed random network, and the robot's joint readings.

    From the latent's rows, in the form that planners receive, three heads predict:

    - `present`: the embeddings of the last tubelet's patches, each from its own cell, so that a cell contains what it
      shows and where;
    - `future`: those of the next tubelet, from all rows and the actions between, so that the latent contains motion;
    - `joints`: sine and cosine of the joint angles and the joint velocities, linearly, for each dataset's arm.

    If the data has plain frames beside the visible ones, the heads predict the embeddings of the plain frames. A latent
    then contains the state of the arm, not the light, the camera or the background. This follows James et al.,
    Sim-to-Real via Sim-to-Sim: Randomized-to-Canonical Adaptation Networks, 2019.

    Targets of a fixed random network cannot collapse (Burda et al., Exploration by Random Network Distillation, 2019;
    Chiu et al., BEST-RQ, 2022). A trained teacher does collapse on a scene that is mostly background. Each feature is
    standardised at its patch, by dataset, so moving things count and still things do not. Action-conditioned prediction
    of embeddings is from V-JEPA 2-AC (Assran et al., 2025).
    """

    first: Tensor
    second: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(self, model: Any, grid: int, joints: Sequence[int], seed: int, joint_weight: float = 8.0) -> None:
        """Create the heads for an encoder.

        Args:
            model: its `VJEPA2Config`.
            grid: cells along a side of its latents' grid, a divisor of the patches along a side.
            joints: number of joints of each dataset's robot.
            seed: seed of the fixed target network.
            joint_weight: weight of the joint readings' mean squared error relative to the two predictions'.
        """
        super().__init__()
        self.side = model.crop_size // model.patch_size
        self.patch, self.grid, self.joint_weight = model.patch_size, grid, joint_weight
        dim, rows = model.hidden_size, 1 + grid**2
        self.patches_a_cell = (self.side // grid) ** 2
        generator = torch.Generator().manual_seed(seed)
        pixels = FUTURE_STEPS * 3 * model.patch_size**2
        self.sources, most = len(joints), max(joints)
        of_scene = (self.sources, self.side**2, TARGET_SIZE)
        self.register_buffer("first", torch.randn(pixels, TARGET_WIDTH, generator=generator) / pixels**0.5)
        self.register_buffer("second", torch.randn(TARGET_WIDTH, TARGET_SIZE, generator=generator) / TARGET_WIDTH**0.5)
        self.register_buffer("target_mean", torch.zeros(of_scene))
        self.register_buffer("target_std", torch.ones(of_scene))
        self.present = nn.Sequential(nn.Linear(dim, 256), nn.GELU(), nn.Linear(256, self.patches_a_cell * TARGET_SIZE))
        self.present_place = nn.Parameter(torch.zeros(grid**2, dim))
        self.future = nn.Sequential(
            nn.Linear(rows * dim + FUTURE_STEPS * most, PREDICTOR_WIDTH),
            nn.LayerNorm(PREDICTOR_WIDTH),
            nn.GELU(),
            nn.Linear(PREDICTOR_WIDTH, self.side**2 * TARGET_SIZE),
        )
        self.joints = JointReadings(rows * dim, joints)

    @torch.no_grad()
    def fit_statistics(self, batches: Sequence[Clips]) -> None:
        """Set the statistics that standardise targets and readings, from some batches of the data."""
        self.joints.fit_statistics(batches)
        targets = torch.cat([self._embedded(batch.future) for batch in batches])
        source = torch.cat([batch.source for batch in batches])
        for number in range(self.sources):
            chosen = targets[source == number]
            std = chosen.std(0)
            self.target_mean[number] = chosen.mean(0)
            least = max(float(std.median()) / 4, 1e-6)  # Patches in which nothing moves stay small.
            self.target_std[number] = std.clamp(min=least)

    def forward(self, encoder: Any, clips: Clips) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its parts, and under `rows` the latents, (B, rows, D), detached."""
        tokens = encoder(clips.video).last_hidden_state
        rows = pooled(tokens.float(), self.side, self.grid)
        with torch.no_grad():
            present = self._standardised(clips.present, clips.source)
            future = self._standardised(clips.future, clips.source)
        cells = self._by_cell(present)
        present_loss = functional.mse_loss(self.present(rows[:, 1:] + self.present_place), cells)
        known = torch.cat((rows.flatten(1), clips.actions.flatten(1)), dim=1)
        future_loss = functional.mse_loss(self.future(known).view_as(future), future)
        joint_loss = self.joints(rows.flatten(1), clips)
        loss = present_loss + future_loss + self.joint_weight * joint_loss
        return loss, {
            "present": present_loss.detach(),
            "future": future_loss.detach(),
            "joints": joint_loss.detach(),
            "rows": rows.detach(),
        }

    def after_step(self, encoder: Any, progress: float) -> None:
        """Do nothing: the targets are fixed."""

    def _embedded(self, frames: Tensor) -> Tensor:
        """Return the fixed embeddings of one tubelet's patches, (B, P, TARGET_SIZE)."""
        count, p = frames.shape[0], self.patch
        patches = frames.unflatten(3, (self.side, p)).unflatten(5, (self.side, p))
        flat = patches.permute(0, 3, 5, 1, 2, 4, 6).reshape(count, self.side**2, -1)
        return (flat @ self.first).relu() @ self.second

    def _standardised(self, frames: Tensor, source: Tensor) -> Tensor:
        return (self._embedded(frames) - self.target_mean[source]) / self.target_std[source]

    def _by_cell(self, targets: Tensor) -> Tensor:
        """Return (B, P, T) as (B, cells, patches a cell x T)."""
        k = self.side // self.grid
        split = targets.unflatten(1, (self.grid, k, self.grid, k))
        return split.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)


class CanonicalView(nn.Module):
    """Prediction of a scene under a nominal look, and of the robot's joint readings, whatever look the clip has.

    Three linear heads read the latent, as a planner's first layer does:

    - `joints`: the robot's joint readings, as in `JointEmbedding`;
    - `appearance`: the last frame, plainly rendered and averaged to a few cells, minus its prediction from the
      readings;
    - `where` and `centre`: the cells of that remainder, as a distribution, and its mean.

    A small network, the robot's model of its own appearance, is trained beside the encoder from readings to plain
    frames. The remainder of its prediction shows the objects beside the robot. Such an object covers few cells, and a
    squared error over all cells has almost no gradient until the latent contains the object's place. A distribution
    over cells and its mean have a gradient from anywhere.

    Plain frames of the same states as targets are from James et al., Sim-to-Real via Sim-to-Sim:
    Randomized-to-Canonical Adaptation Networks, 2019. The centre of a map of cells is from Levine et al., End-to-End
    Training of Deep Visuomotor Policies, 2016. Without plain frames in the data, the targets are the frames themselves.
    """

    cells: Tensor
    scale: Tensor

    def __init__(self, model: Any, grid: int, joints: Sequence[int]) -> None:
        """Create the heads for an encoder.

        Args:
            model: its `VJEPA2Config`; the side of its pictures is a multiple of `CELLS`.
            grid: cells along a side of its latents' grid.
            joints: number of joints of each dataset's robot.
        """
        super().__init__()
        self.side, self.grid, self.sources = model.crop_size // model.patch_size, grid, len(joints)
        size = (1 + grid**2) * model.hidden_size
        self.joints = JointReadings(size, joints)
        self.robot = nn.Sequential(
            nn.Linear(3 * max(joints) + self.sources, ROBOT_WIDTH),
            nn.GELU(),
            nn.Linear(ROBOT_WIDTH, ROBOT_WIDTH),
            nn.GELU(),
            nn.Linear(ROBOT_WIDTH, self.sources * 3 * CELLS**2),
        )
        self.appearance = nn.Linear(size, 3 * (CELLS // 2) ** 2)
        self.where = nn.Linear(size, CELLS**2)
        self.centre = nn.Linear(size, 2)
        along = (torch.arange(CELLS) + 0.5) * 4 / CELLS - 2
        self.register_buffer("cells", torch.cartesian_prod(along, along))
        self.register_buffer("scale", torch.ones(self.sources))

    @torch.no_grad()
    def fit_statistics(self, batches: Sequence[Clips]) -> None:
        """Set the statistics of readings and of plain frames from some batches of the data."""
        self.joints.fit_statistics(batches)
        views = torch.cat([functional.avg_pool2d(_cells(batch), 2) for batch in batches])
        source = torch.cat([batch.source for batch in batches])
        for number in range(self.sources):
            self.scale[number] = views[source == number].std(0).square().mean().sqrt().clamp(min=1e-3)

    def forward(self, encoder: Any, clips: Clips) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its parts, and under `rows` the latents, (B, rows, D), detached."""
        rows = pooled(encoder(clips.video).last_hidden_state.float(), self.side, self.grid)
        latents = rows.flatten(1)
        view = _cells(clips)
        known = torch.cat((self.joints.standardised(clips), functional.one_hot(clips.source, self.sources)), dim=1)
        explained = _of_source(self.robot(known).float(), clips.source, self.sources).view_as(view)
        robot_loss = functional.mse_loss(explained, view)
        remainder = view - explained.detach()
        coarse = (functional.avg_pool2d(remainder, 2) / self.scale[clips.source].view(-1, 1, 1, 1)).clamp(-5, 5)
        appearance_loss = functional.mse_loss(self.appearance(latents).float(), coarse.flatten(1))
        share, weight = _salience(remainder)
        unlikely = self.where(latents).float().log_softmax(1)
        where_loss = (weight * functional.kl_div(unlikely, share, reduction="none").sum(1)).mean()
        distance = (self.centre(latents).float() - share @ self.cells).square().mean(1)
        centre_loss = (weight * distance).mean()
        joint_loss = self.joints(latents, clips)
        loss = robot_loss + 8 * joint_loss + 8 * appearance_loss + 2 * where_loss + 8 * centre_loss
        parts = {"appearance": appearance_loss, "where": where_loss, "centre": centre_loss, "joints": joint_loss}
        return loss, {name: value.detach() for name, value in (parts | {"robot": robot_loss, "rows": rows}).items()}

    def after_step(self, encoder: Any, progress: float) -> None:
        """Do nothing: there is no teacher."""


def _cells(clips: Clips) -> Tensor:
    """Return the plainly rendered last frame, averaged to cells: (B, 3, CELLS, CELLS)."""
    frame = clips.present[:, -1]
    return functional.avg_pool2d(frame, frame.shape[-1] // CELLS)


def _salience(remainder: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distribution over the cells of objects beside the robot, and the certainty that there is an object.

    Args:
        remainder: (B, 3, CELLS, CELLS), preprocessed.

    Returns:
        Shares of the cells, (B, CELLS²), and weights from 0 to 1, (B,), which are small if all remainders are.
    """
    energy = remainder.square().sum(1).flatten(1)
    most = energy.max(1).values
    sharpened = (energy / most.clamp(min=1e-6).unsqueeze(1)) ** 1.5
    return sharpened / sharpened.sum(1, keepdim=True).clamp(min=1e-6), most / (most + LEAST_ENERGY)


def _of_source(outputs: Tensor, source: Tensor, sources: int) -> Tensor:
    """Return each row's outputs for its own dataset, (B, n), of a head's outputs for all datasets, (B, sources x n)."""
    return outputs.unflatten(1, (sources, -1))[torch.arange(len(outputs), device=outputs.device), source]


def _readings(clips: Clips) -> Tensor:
    """Return sines and cosines of the joint angles and the velocities, (B, 3 n)."""
    return torch.cat((clips.joint_position.sin(), clips.joint_position.cos(), clips.joint_velocity), dim=1)


class MaskedPrediction(nn.Module):
    """V-JEPA's own recipe: predict the embeddings of masked patches by a teacher that follows the encoder slowly.

    The encoder sees the patches outside a few blocks that span all tubelets. Inside the blocks, transformers'
    `VJEPA2Predictor` predicts the teacher's normalised outputs, with an L1 loss. On a scene that is mostly background
    it collapses within some hundred steps: watch the effective rank.

    Source: Bardes et al., Revisiting Feature Prediction for Learning Visual Representations from Video, 2024.
    """

    def __init__(
        self, model: Any, grid: int, encoder: Any, seed: int, masked_share: float = 0.75, momentum: float = 0.998
    ) -> None:
        """Create the teacher, a copy of `encoder`, and the predictor.

        Args:
            model: its `VJEPA2Config`; the predictor's sizes are its `pred_*` fields.
            grid: cells along a side of its latents' grid.
            encoder: transformers' `VJEPA2Encoder`.
            seed: seed of the masks.
            masked_share: share of the patches that are hidden.
            momentum: the teacher's momentum at the start; it rises to 1.
        """
        from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Predictor

        super().__init__()
        self.side, self.grid = model.crop_size // model.patch_size, grid
        self.depth = model.frames_per_clip // model.tubelet_size
        self.momentum, self.masked_share = momentum, masked_share
        self.teacher = copy.deepcopy(encoder).eval().requires_grad_(False)
        self.predictor = VJEPA2Predictor(model)
        self._masks = torch.Generator().manual_seed(seed)

    def get_extra_state(self) -> Tensor:
        """Return the state of the mask generator, so that a continued run draws the same masks."""
        return self._masks.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the state of the mask generator."""
        self._masks.set_state(state.cpu())

    def fit_statistics(self, batches: Sequence[Clips]) -> None:
        """Do nothing: a teacher's outputs are normalised token by token."""

    def forward(self, encoder: Any, clips: Clips) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its parts, and under `rows` the teacher's latents, (B, rows, D)."""
        with torch.no_grad():
            tokens = self.teacher(clips.video).last_hidden_state.float()
            targets = functional.layer_norm(tokens, tokens.shape[-1:])
        count = clips.video.shape[0]
        context, hidden = (ids.expand(count, -1).to(tokens.device) for ids in self._draw())
        embedded = encoder.embeddings(clips.video)
        seen = embedded.gather(1, context.unsqueeze(-1).expand(-1, -1, embedded.shape[-1]))
        for layer in encoder.layer:
            seen = layer(seen, context)[0]
        seen = encoder.layernorm(seen)
        whole = torch.zeros_like(embedded, dtype=seen.dtype)
        whole = whole.scatter(1, context.unsqueeze(-1).expand(-1, -1, embedded.shape[-1]), seen)
        predicted = self.predictor(whole, [context], [hidden]).last_hidden_state.float()
        wanted = targets.gather(1, hidden.unsqueeze(-1).expand(-1, -1, targets.shape[-1]))
        loss = functional.l1_loss(predicted, wanted)
        return loss, {"masked": loss.detach(), "rows": pooled(tokens, self.side, self.grid)}

    @torch.no_grad()
    def after_step(self, encoder: Any, progress: float) -> None:
        """Move the teacher towards the encoder; `progress` runs from 0 to 1 over the training."""
        weight = 1 - (1 - self.momentum) * (1 - progress)
        for slow, fast in zip(self.teacher.parameters(), encoder.parameters(), strict=True):
            slow.lerp_(fast, 1 - weight)

    def _draw(self) -> tuple[Tensor, Tensor]:
        """Return the numbers of the visible and the hidden tokens, (1, N) each: one mask a batch for all tubelets."""
        hidden = torch.zeros(self.side, self.side, dtype=torch.bool)
        wanted = int(self.masked_share * self.side**2)
        while int(hidden.sum()) < wanted:
            size = torch.randint(2, max(3, self.side // 2 + 1), (2,), generator=self._masks)
            top, left = (int(torch.randint(0, self.side - int(s) + 1, (1,), generator=self._masks)) for s in size)
            hidden[top : top + int(size[0]), left : left + int(size[1])] = True
        hidden.view(-1)[0] = False  # At least one token is always visible.
        mask = hidden.flatten().repeat(self.depth)
        return (~mask).nonzero().view(1, -1), mask.nonzero().view(1, -1)


Objective = JointEmbedding | CanonicalView | MaskedPrediction
