"""The settings of each trainer, with their bounds. No torch: the command line makes its options from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from sim_bridge.sim_parameters import SimConfig
from vjepa_interfaces.effort import EffortLimit
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.parameters import Range, check_choices, check_ranges

MAX_SEED = 2**31 - 1
MAX_SAC_SEED = 6000
"""Largest seed of `train_sac`: small, because the seeds of its episodes are computed from it."""

AtLeastOne = Annotated[int, Range(low=1)]
Count = Annotated[int, Range(low=0)]
Seed = Annotated[int, Range(low=0, high=MAX_SEED)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(low=0)]
Share = Annotated[float, Range(low=0, high=1)]
MixedPrecision = Literal["float32", "bfloat16"]
Rows = Literal["all", "mean"]


OnStep = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Job:
    """The outputs of a training, and its progress callback.

    Attributes:
        out: folder of the bundle, written at the end.
        work: folder of the checkpoint, TensorBoard's events and cached data; a run found there is continued.
        command: the command that the model card names.
        on_step: called from time to time with the steps done, all steps, and the latest figures. The first call of a
            continued run has no figures.
    """

    out: Path | str
    work: Path | str
    command: str
    on_step: OnStep | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of every training.

    Attributes:
        learning_rate: the highest; it falls to 0 along a cosine.
        seed: seed of weights, of the held-out episodes and of all draws.
        device: device of the training: cpu, cuda or cuda:N.
    """

    learning_rate: Positive = 1e-3
    seed: Seed = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse impossible values with a VjepaError."""
        check_choices(self)
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class ValidatedTraining(Training):
    """Settings of a training with held-out episodes.

    Attributes:
        validation_share: share of the episodes that are kept for validation.
    """

    validation_share: Share = 0.1

    def __post_init__(self) -> None:
        """Refuse impossible values with a VjepaError."""
        super().__post_init__()
        if not 0 < self.validation_share < 1:
            raise VjepaError(f"validation_share is {self.validation_share}; expected above 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class SteppedTraining(ValidatedTraining):
    """Settings of a training by `training_run.fit`.

    Attributes:
        checkpoint_every: steps between two checkpoints.
    """

    checkpoint_every: AtLeastOne = 500


@dataclass(frozen=True, kw_only=True)
class EncoderTraining(SteppedTraining):
    """Settings of the training of an encoder.

    Attributes:
        encoder: bundle or checkpoint with the architecture and the preprocessing.
        model: fields of transformers' `VJEPA2Config` that differ from it.
        finetune: begin with its weights too, instead of random ones. `model` may then only lengthen the tubelets. Their
            embedding begins as the mean of the shorter ones' (inflation: Carreira and Zisserman, Quo Vadis, Action
            Recognition?, 2017).
        augment: change light, colours, sharpness and more of each clip, see `augment`; the targets never change.
        objective: what it learns to predict, see `encoder_objectives`.
        steps: optimiser steps.
        batch_size: clips a step.
        learning_rate: the highest, after the warm-up; it falls to 0 along a cosine.
        warmup_steps: steps over which the learning rate rises.
        weight_decay: AdamW's.
        grid: cells along a side of the latents that the objective reads.
        dtype: type in which the encoder computes; weights stay float32.
        compile: compile the encoder by torch.compile: minutes to start, then faster.
    """

    encoder: str
    model: Mapping[str, Any] = field(default_factory=dict)
    finetune: bool = False
    augment: bool = False
    objective: Literal["joint-embedding", "canonical-view", "masked"] = "joint-embedding"
    steps: AtLeastOne = 5000
    batch_size: AtLeastOne = 64
    warmup_steps: AtLeastOne = 300
    weight_decay: NotNegative = 0.05
    grid: AtLeastOne = 4
    dtype: MixedPrecision = "float32"
    compile: bool = False
    validation_share: Share = 0.02
    checkpoint_every: AtLeastOne = 200

    def __post_init__(self) -> None:
        """Refuse impossible values with a VjepaError."""
        super().__post_init__()
        if self.finetune and (others := self.model.keys() - {"tubelet_size"}):
            raise VjepaError(f"weights fit their own model only; leave out finetune, or {', '.join(sorted(others))}")


AUTO, EXPERT, RECORDED = "auto", "expert", "recorded"


@dataclass(frozen=True, kw_only=True)
class BcTraining(ValidatedTraining):
    """Settings of behaviour cloning.

    Attributes:
        labels: the scripted expert's actions, or recorded ones (commands, else efforts); auto: recorded unless the
            dataset is of a simulated task.
        rows: rows of the latent that are read: all, or the mean row alone.
        joint_state: read joint positions and velocities too, not latents alone.
        hidden: widths of the two hidden layers.
        bottleneck: width of the narrow layer for the latent; 0 for none, as in the baseline settings.
        epochs: largest number of epochs; training stops early after `patience` epochs without a better validation.
        patience: epochs without a better validation before training stops.
        batch_size: frames a step.
        weight_decay: AdamW's.
        noise: standard deviation of noise on the normalised latent, against memorising targets.
        dagger: rounds of DAgger.
        dagger_episodes: episodes of each round, at each rate of the data.
        dagger_steps: control steps of each of these episodes.
        num_envs: episodes that are rolled out at the same time.
        task: task of the cloned expert and of DAgger's episodes.
        effort_limit: torque of an action of 1 in DAgger's episodes, N·m, one number or one for each joint; 0 for the
            task's own.
        rates_hz: control steps a second of simulated time in DAgger's episodes, which are rolled out at each of these
            rates; empty for the task's own.
        image_size: width and height of DAgger's frames, pixels.
        render: rendering of DAgger's frames.
        look: look of DAgger's frames.
        seed: seed of weights and batches; DAgger's episodes have seeds of their own behind it.
    """

    labels: Literal["auto", "expert", "recorded"] = "auto"
    rows: Rows = "all"
    joint_state: bool = True
    hidden: Annotated[tuple[int, int], Range(low=1)] = (256, 256)
    bottleneck: Count = 32
    epochs: AtLeastOne = 60
    patience: AtLeastOne = 15
    batch_size: AtLeastOne = 512
    weight_decay: NotNegative = 1e-2
    noise: NotNegative = 0.1
    dagger: Count = 0
    dagger_episodes: AtLeastOne = 100
    dagger_steps: AtLeastOne = 200
    num_envs: AtLeastOne = 25
    task: str = "reacher-easy"
    effort_limit: EffortLimit = 0.0
    rates_hz: tuple[float, ...] = ()
    image_size: tuple[int, int] = (64, 64)
    render: str = SimConfig.render
    look: str = SimConfig.look

    def __post_init__(self) -> None:
        """Refuse impossible values with a VjepaError."""
        super().__post_init__()
        if self.labels == RECORDED and self.dagger:
            raise VjepaError("DAgger needs an expert, and recorded labels have none; expected dagger 0")


BASELINE_BC = BcTraining(
    rows="mean",
    joint_state=False,
    hidden=(256, 64),
    bottleneck=0,
    epochs=100,
    patience=100,
    weight_decay=0.0,
    noise=0.0,
)
"""The baseline settings, of earlier work on this design: mean-pooled latents alone, no regularisation, 100 epochs."""


@dataclass(frozen=True, kw_only=True)
class DynamicsTraining(SteppedTraining):
    """Settings of the training of a dynamics model.

    Attributes:
        preset: the network's settings, one of `vjepa_planner.models.dynamics.PRESETS`.
        members: size of the ensemble; 0 for the preset's.
        action_repeat: control steps that a prediction spans; 0 for the preset's.
        history: states that a prediction starts from; 0 for the preset's.
        rows: rows of the latent that are read: all, or the mean row alone.
        components: values that a latent is projected on; 0 keeps the latent unchanged.
        state_projection: method that fits that projection, see `fit_conditioning`.
        joint_state: make joint positions and velocities part of a state.
        horizon: consecutive predictions in the loss.
        epochs: passes over the training rows.
        batch_size: rows a step, of each member.
        weight_decay: AdamW's.
        dtype: float32, or bfloat16 for mixed precision.
    """

    preset: str = "dynamics-ensemble"
    members: Count = 0
    action_repeat: Count = 0
    history: Count = 0
    rows: Rows = "all"
    components: Count = 32
    state_projection: Literal["probe", "pca"] = "probe"
    joint_state: bool = True
    horizon: AtLeastOne = 3
    epochs: AtLeastOne = 30
    batch_size: AtLeastOne = 256
    weight_decay: NotNegative = 1e-4
    dtype: MixedPrecision = "float32"


BASELINE_DYNAMICS = DynamicsTraining(
    rows="mean", components=0, joint_state=False, horizon=1, epochs=100, weight_decay=0.01
)
"""The baseline settings, of earlier work on this design, for its networks' presets: unchanged mean-pooled latents."""


@dataclass(frozen=True, kw_only=True)
class RewardTraining(SteppedTraining):
    """Settings of the training of the heads.

    Attributes:
        hidden: width of the two hidden layers of each head.
        distance: train a distance head, which needs a dataset with a target.
        noise: standard deviation of noise on the states, since planners query predicted states.
        epochs: passes over the training rows.
        batch_size: rows a step.
        weight_decay: AdamW's.
    """

    hidden: AtLeastOne = 256
    distance: bool = True
    noise: NotNegative = 0.05
    epochs: AtLeastOne = 30
    batch_size: AtLeastOne = 512
    weight_decay: NotNegative = 1e-2


REWARD, DISTANCE, HYBRID = "reward", "goal-distance", "hybrid"


@dataclass(frozen=True, kw_only=True)
class DreamerTraining(SteppedTraining):
    """Settings of the training of an actor in imagination.

    Attributes:
        objective: `reward`: predicted reward, less `distance_weight` times the predicted distance from fingertip to
            target. `goal-distance`: normalised negative distance of the state from the mean of the best. `hybrid`: 10 x
            reward - 0.1 x that distance + 0.5 x the mean size of the action.
        horizon: predictions in an imagined rollout.
        imagined_rollouts: imagined rollouts in a step.
        steps: optimiser steps.
        discount: discount of a control step.
        lambda_: how much a lambda-return trusts imagined rewards rather than the critic.
        entropy: weight of the actions' entropy.
        bins: bins of the critic's two-hot values; 0 for plain numbers.
        distance_weight: cost of a metre between fingertip and target, as in the planner `cem`.
        disagreement_weight: cost of the ensemble's standard deviation, in units of the usual change.
        cloning_steps: first steps that only clone the policy, if one is given.
        cloning_weight: weight of staying near the policy, in TD3+BC's units, where the return has 2.5.
    """

    objective: Literal["reward", "goal-distance", "hybrid"] = "reward"
    horizon: AtLeastOne = 5
    imagined_rollouts: AtLeastOne = 256
    steps: AtLeastOne = 6000
    discount: Share = 0.99
    lambda_: Share = 0.95
    entropy: float = 0.001
    bins: Count = 41
    distance_weight: float = 5.0
    disagreement_weight: float = 0.1
    cloning_steps: Count = 1500
    cloning_weight: float = 1.0
    learning_rate: Positive = 5e-4


_BASELINE_DREAMER = DreamerTraining(
    objective="goal-distance",
    horizon=15,
    imagined_rollouts=64,
    steps=500,
    entropy=0.01,
    bins=0,
    distance_weight=0.0,
    disagreement_weight=0.0,
    cloning_steps=0,
    cloning_weight=0.0,
    learning_rate=1e-3,
)
DREAMER_PRESETS = {
    "dreamer": DreamerTraining(),
    "baseline-dreamer": _BASELINE_DREAMER,
    "dreamer-hybrid": replace(_BASELINE_DREAMER, objective="hybrid"),
}
"""Settings by name; the last two are baseline settings, of earlier work, which ended in a return of 0."""


def dreamer_preset(name: str) -> DreamerTraining:
    """Return the settings `name` of `DREAMER_PRESETS`.

    Raises:
        VjepaError: there is no such name; the message lists the valid ones.
    """
    if name not in DREAMER_PRESETS:
        raise unknown_name("preset", name, DREAMER_PRESETS)
    return DREAMER_PRESETS[name]


@dataclass(frozen=True, kw_only=True)
class SacTraining(Training):
    """Settings of the training of an actor by interaction with the simulator.

    Attributes:
        steps: control steps in all environments together; the last step of all of them may exceed it.
        episode_steps: control steps of an episode. Short episodes begin often, so training meets many targets.
        envs: number of environments.
        action_repeat: control steps that an action is held in training, so that noise moves the arm far and fewer clips
            are encoded. An action that an episode's end shortens counts fully. The trained actor acts at every step.
        random_steps: first control steps, with uniformly random actions and without gradient steps.
        updates: gradient steps an action.
        batch_size: transitions a gradient step, drawn from all so far.
        hidden: width of the two hidden layers of actor and critics.
        discount: discount of a control step.
        temperature: first weight of the actions' entropy; it is learned.
        learning_rate: learning rate of actor, critics and temperature.
        checkpoint_every: control steps between two checkpoints.
        seed: seed of weights, draws and episodes, whose seeds are computed from it.
    """

    steps: AtLeastOne = 100_000
    episode_steps: AtLeastOne = 100
    envs: AtLeastOne = 16
    action_repeat: AtLeastOne = 4
    random_steps: Count = 2000
    updates: Positive = 1.0
    batch_size: AtLeastOne = 256
    hidden: AtLeastOne = 256
    discount: Share = 0.99
    temperature: Positive = 0.1
    learning_rate: Positive = 5e-4
    checkpoint_every: AtLeastOne = 5000
    seed: Annotated[int, Range(low=0, high=MAX_SAC_SEED)] = 0

    def __post_init__(self) -> None:
        """Refuse impossible values with a VjepaError."""
        super().__post_init__()
        if not self.updates * self.envs >= 1:
            raise VjepaError(
                f"updates is {self.updates} with {self.envs} environments; expected at least 1 for all together"
            )
