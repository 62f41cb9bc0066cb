"""What each trainer is given: settings, with their bounds. No torch: the command line makes its options from these."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from sim_bridge.sim_parameters import SimConfig
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.parameters import Range, check_choices, check_ranges

MAX_SEED = 2**31 - 1
MAX_SAC_SEED = 6000
"""`train_sac` makes the seeds of its episodes from its own, which therefore is small."""

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
    """Where a training leaves what it makes, and who is told of it.

    Attributes:
        out: folder of the bundle, written at the end.
        work: folder of the checkpoint, of TensorBoard's events and of what is computed once; a run found there goes on.
        command: that the model card names.
        on_step: called now and then with the steps done, those there are, and the latest figures; where a run goes on,
            at first without figures.
    """

    out: Path | str
    work: Path | str
    command: str
    on_step: OnStep | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """What every training has.

    Attributes:
        learning_rate: at its highest; it falls to 0 along a cosine.
        seed: of weights, of the episodes held out and of all that is drawn.
        device: where it trains: cpu, cuda or cuda:N.
    """

    learning_rate: Positive = 1e-3
    seed: Seed = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse values that no training can have, with a VjepaError."""
        check_choices(self)
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class ValidatedTraining(Training):
    """What a training has that some episodes are held out from.

    Attributes:
        validation_share: share of the episodes that are kept for validation.
    """

    validation_share: Share = 0.1

    def __post_init__(self) -> None:
        """Refuse values that no training can have, with a VjepaError."""
        super().__post_init__()
        if not 0 < self.validation_share < 1:
            raise VjepaError(f"validation_share is {self.validation_share}; expected above 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class SteppedTraining(ValidatedTraining):
    """What a training has whose steps `training_run.fit` takes.

    Attributes:
        checkpoint_every: steps between two checkpoints.
    """

    checkpoint_every: AtLeastOne = 500


@dataclass(frozen=True, kw_only=True)
class EncoderTraining(SteppedTraining):
    """How an encoder is trained.

    Attributes:
        encoder: bundle or checkpoint whose architecture and preprocessing it gets.
        model: fields of transformers' `VJEPA2Config` that it has otherwise.
        finetune: begin with that one's weights too, instead of random ones. `model` may then have longer tubelets, and
            nothing else: their embedding begins as the mean of the shorter ones', as Carreira and Zisserman (Quo Vadis,
            Action Recognition?, 2017) inflate pictures to videos.
        augment: change light, colours, sharpness and more of each clip that it sees anew, see `augment`; what it
            predicts never is changed.
        objective: what it learns to predict, see `encoder_objectives`.
        steps: optimiser steps.
        batch_size: clips a step.
        learning_rate: at its highest, after the warm-up; it falls to 0 along a cosine.
        warmup_steps: steps over which the learning rate rises.
        weight_decay: AdamW's.
        grid: cells along a side of the latents that the objective reads.
        dtype: in which type the encoder computes; weights stay float32.
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
        """Refuse values that no training can have, with a VjepaError."""
        super().__post_init__()
        if self.finetune and (others := self.model.keys() - {"tubelet_size"}):
            raise VjepaError(f"weights fit one model alone; leave out {', '.join(sorted(others))}, or finetune")


AUTO, EXPERT, RECORDED = "auto", "expert", "recorded"


@dataclass(frozen=True, kw_only=True)
class BcTraining(ValidatedTraining):
    """How a policy is cloned.

    Attributes:
        labels: what to learn: what the scripted expert would do, or what was recorded, which are the commands or where
            there are none the efforts; auto: recorded where the dataset is of no simulated task.
        rows: of the latent that are read: all, or the mean row alone.
        joint_state: read joint positions and velocities too, not latents alone.
        hidden: widths of the two hidden layers.
        bottleneck: width of the narrow layer for the latent; 0 for none, which is the old architecture.
        epochs: at most; training stops early where validation has not improved for `patience` of them.
        patience: epochs without a better validation before training stops.
        batch_size: frames a step.
        weight_decay: AdamW's.
        noise: standard deviation of noise on the normalised latent, against learning targets by heart.
        dagger: rounds of DAgger.
        dagger_episodes: episodes of each round.
        dagger_steps: control steps of each of those.
        batch_lanes: episodes rolled out side by side.
        task: whose expert is cloned, and of DAgger's episodes.
        effort_limit: torque of an action of 1 in those, N·m; 0 for the task's own.
        rate_hz: control steps a second of simulated time in those; 0 for the task's own.
        image_size: of their frames, width and height in pixels.
        render: how their frames are rendered.
        look: of their frames.
        seed: of weights and batches; DAgger's episodes have seeds of their own behind it.
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
    batch_lanes: AtLeastOne = 25
    task: str = "reacher-easy"
    effort_limit: float = 0.0
    rate_hz: float = 0.0
    image_size: tuple[int, int] = (64, 64)
    render: str = SimConfig.render
    look: str = SimConfig.look

    def __post_init__(self) -> None:
        """Refuse values that no training can have, with a VjepaError."""
        super().__post_init__()
        if self.labels == RECORDED and self.dagger:
            raise VjepaError("DAgger asks the expert, and recorded labels have none; expected dagger 0")


OLD_BC = BcTraining(
    rows="mean",
    joint_state=False,
    hidden=(256, 64),
    bottleneck=0,
    epochs=100,
    patience=100,
    weight_decay=0.0,
    noise=0.0,
)
"""The settings of earlier work on this design: mean-pooled latents alone, no regularisation, 100 epochs."""


@dataclass(frozen=True, kw_only=True)
class DynamicsTraining(SteppedTraining):
    """How a dynamics model is trained.

    Attributes:
        preset: the network's settings, one of `vjepa_planner.models.dynamics.PRESETS`.
        members: size of the ensemble; 0 for the preset's.
        action_repeat: control steps that a prediction spans; 0 for the preset's.
        history: states that a prediction starts from; 0 for the preset's.
        rows: of the latent that are read: all, or the mean row alone.
        components: values that a latent is projected on; 0 takes the latent as it is.
        conditioning: how that projection is fitted, see `fit_conditioning`.
        joint_state: make joint positions and velocities part of a state.
        horizon: predictions in a row that the loss runs over.
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
    conditioning: Literal["probe", "pca"] = "probe"
    joint_state: bool = True
    horizon: AtLeastOne = 3
    epochs: AtLeastOne = 30
    batch_size: AtLeastOne = 256
    weight_decay: NotNegative = 1e-4
    dtype: MixedPrecision = "float32"


OLD_DYNAMICS = DynamicsTraining(rows="mean", components=0, joint_state=False, horizon=1, epochs=100, weight_decay=0.01)
"""What earlier work on this design had otherwise, with the presets of its networks: mean-pooled latents as they are."""


@dataclass(frozen=True, kw_only=True)
class RewardTraining(SteppedTraining):
    """How the heads are trained.

    Attributes:
        hidden: width of the two hidden layers of each head.
        distance: train a distance head, which needs a target to be distant from.
        noise: standard deviation of noise on the states, since planners ask about predicted ones.
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
    """How an actor is trained in imagination.

    Attributes:
        objective: `reward`: predicted reward, less `distance_weight` times the predicted distance from fingertip to
            target; `goal-distance`: the negative distance of the state from the mean of the best ones, normalised;
            `hybrid`: 10 x reward - 0.1 x that distance + 0.5 x the mean size of the action.
        horizon: predictions in a dream.
        dreams: at once, in a step.
        steps: of the optimiser.
        discount: of a control step.
        lambda_: how much a lambda-return trusts what was imagined rather than the critic.
        entropy: weight of the actions' entropy.
        bins: of the critic's two-hot values; 0 for plain numbers.
        distance_weight: cost of a metre between fingertip and target, as the planner `cem` has it.
        disagreement_weight: cost of the ensemble's standard deviation, in units of the usual change.
        cloning_steps: first steps that only clone the policy, where one is given.
        cloning_weight: how much staying near the policy counts, in TD3+BC's units: the return counts for 2.5.
    """

    objective: Literal["reward", "goal-distance", "hybrid"] = "reward"
    horizon: AtLeastOne = 5
    dreams: AtLeastOne = 256
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


_OLD_DREAMER = DreamerTraining(
    objective="goal-distance",
    horizon=15,
    dreams=64,
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
    "dreamer-old": _OLD_DREAMER,
    "dreamer-hybrid": replace(_OLD_DREAMER, objective="hybrid"),
}
"""Settings by name; the last two as earlier work had them, which ended in a return of 0."""


def dreamer_preset(name: str) -> DreamerTraining:
    """Return the settings `name` of `DREAMER_PRESETS`.

    Raises:
        VjepaError: there are none of that name; those there are, are named.
    """
    if name not in DREAMER_PRESETS:
        raise unknown_name("preset", name, DREAMER_PRESETS)
    return DREAMER_PRESETS[name]


@dataclass(frozen=True, kw_only=True)
class SacTraining(Training):
    """How an actor is trained by trial and error.

    Attributes:
        steps: control steps in all environments together; the last step of all of them may go beyond.
        episode_steps: control steps of an episode. Short ones begin often, and a target is learned wherever one was.
        envs: environments side by side.
        action_repeat: control steps that an action is held in training: so noise gets the arm somewhere, and fewer
            clips are encoded. One that an episode's end cuts short counts whole. What is learned acts at every step.
        random_steps: first control steps, whose actions are drawn uniformly and which nothing is learned between.
        updates: gradient steps an action.
        batch_size: transitions a gradient step, drawn from all there were.
        hidden: width of the two hidden layers of actor and critics.
        discount: of a control step.
        temperature: weight of the actions' entropy at first; it is learned.
        learning_rate: of actor, critics and temperature.
        checkpoint_every: control steps between two checkpoints.
        seed: of weights, draws and episodes, whose seeds are made from it.
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
        """Refuse values that no training can have, with a VjepaError."""
        super().__post_init__()
        if not self.updates * self.envs >= 1:
            raise VjepaError(
                f"updates is {self.updates} with {self.envs} environments; expected at least 1 for all of them together"
            )
