"""The contract of planners: they take observations and return plans, and unsafe values of either are refused.

A planner subclasses `Planner`, declares its options as a frozen dataclass `Config`, and implements `_begin` and `_act`.
The base class does the common part: it refuses to plan before a reset or from an unsafe observation.
`conformance.PlannerConformance` tests the whole contract.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from vjepa_interfaces.bundle import encoder_label
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.models.novelty import Novelty

JOINT_STATE, TARGET, GOAL = "joint_state", "target", "goal"
INPUTS = frozenset({JOINT_STATE, TARGET, GOAL})
"""The inputs that a planner may name in `needs`. Every observation has a latent too."""


class ObservationRefusedError(VjepaError):
    """An observation that no plan may use: not finite, of a wrong shape, or without a needed input."""


class PlanRefusedError(VjepaError):
    """A plan that must not reach the arm: an action that is not finite, out of bounds, or of a wrong shape."""


@dataclass(frozen=True, eq=False)
class Observation:
    """The inputs of a planner at one frame. Arrays may be read-only views; a planner never writes into them.

    Attributes:
        stamp_ns: stamp of the latent's frame, nanoseconds.
        latent: (rows, dimension) float32: the mean of all tokens, then the grid of the last tubelet.
        joint_position: (n,) rad, or None.
        joint_velocity: (n,) rad/s, or None.
        target: (2,) or (3,) m in the arm's base frame, or None. Privileged: for scripted experts only.
        goal: a latent to reach, of the shape of `latent`, or None.
    """

    stamp_ns: int
    latent: np.ndarray
    joint_position: np.ndarray | None = None
    joint_velocity: np.ndarray | None = None
    target: np.ndarray | None = None
    goal: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Imagined:
    """The imagined rollout of a plan.

    Attributes:
        distance: (1 + predictions,) float64, distance from fingertip to target, m: in the present state, then after
            each prediction.
        steps: control steps that one prediction spans.
    """

    distance: np.ndarray
    steps: int


@dataclass(frozen=True, eq=False)
class Plan:
    """The result of planning. The caller measures the planning time.

    Attributes:
        action: (n,) float64 in [-1, 1], one per joint.
        cost: predicted cost of the plan in the planner's own units, or None.
        iterations: completed rounds of search; 0 for a planner that does not search.
        disagreement: spread among the members of an ensemble, or None without an ensemble.
        imagined: the imagined rollout of the plan, or None.
        novelty: distance of the latent from the latents of the planner's training, see `models.novelty`. Above 1 the
            latent is unlike nearly all of them; None if the distance is unknown.

    Raises:
        PlanRefusedError: the action is not a finite float64 vector in [-1, 1].
    """

    action: np.ndarray
    cost: float | None = None
    iterations: int = 0
    disagreement: float | None = None
    imagined: Imagined | None = None
    novelty: float | None = None

    def __post_init__(self) -> None:
        action = self.action
        if not isinstance(action, np.ndarray) or action.dtype != np.float64 or action.ndim != 1:
            raise PlanRefusedError(f"a plan's action is {_described(action)}; expected a float64 array of shape (n,)")
        if not np.all(np.abs(action) <= 1.0):
            raise PlanRefusedError(f"a plan's action is {action.tolist()}; expected finite values in [-1, 1]")


@dataclass(frozen=True)
class PlannerContext:
    """The arm and the stack that a planner works for.

    Attributes:
        action_size: number of joints, n.
        control_period_s: seconds from one action to the next.
        device: torch's name of the device; planners without torch ignore it.
        arm: joints and the torque of an action of 1 of each, N·m; None if they are unknown.
    """

    action_size: int
    control_period_s: float
    device: str = "cpu"
    arm: EffortLimits | None = None

    @classmethod
    def of(cls, arm: EffortLimits, control_period_s: float, device: str = "cpu") -> "PlannerContext":
        """Return the context of a known arm."""
        return cls(len(arm.joint_names), control_period_s, device, arm)

    def __post_init__(self) -> None:
        if self.action_size < 1:
            raise VjepaError(f"action_size is {self.action_size}; expected at least 1")
        if not (math.isfinite(self.control_period_s) and self.control_period_s > 0):
            raise VjepaError(f"control_period_s is {self.control_period_s}; expected seconds above 0")


@dataclass(frozen=True)
class NoOptions:
    """The configuration of a planner that has no options."""


class Planner(ABC):
    """Maps latents to actions. One thread at a time may use a planner.

    The constructor loads files and warms up, so it may be slow; `plan` is then at full speed.

    Attributes:
        Config: frozen dataclass of the options; its defaults are the documented settings.
        needs: the `INPUTS` that an observation must have.
        encoder_fingerprint: fingerprint of the encoder that made the latents; None for a planner that reads none.
        trained_periods_s: seconds from one frame to the next at each rate of the training; empty if unknown.
        novelty: distribution of the training's latents; None if unknown.
        config: the options of this planner.
        context: the arm and the stack of this planner.
    """

    Config: ClassVar[type] = NoOptions
    needs: frozenset[str] = frozenset()
    encoder_fingerprint: str | None = None
    trained_periods_s: tuple[float, ...] = ()
    novelty: Novelty | None = None

    def __init__(self, config: Any, context: PlannerContext):
        """Store the arguments. Subclasses load their files and warm up.

        Args:
            config: an instance of `Config`.
            context: the arm and the stack.

        Raises:
            VjepaError: a subclass refuses an option, a file or the arm.
        """
        self.config = config
        self.context = context
        self._begun = False

    def check_encoder(self, fingerprint: str, name: str = "") -> None:
        """Refuse latents of another encoder than the encoder of this planner's training.

        A planner from a bundle overrides this method with `Bundle.check_encoder`, which names the bundle too.

        Args:
            fingerprint: fingerprint of the encoder that made the latents.
            name: name of that encoder, for the message.

        Raises:
            VjepaError: the planner reads latents and the fingerprints differ; the message contains both.
        """
        if self.encoder_fingerprint not in (None, fingerprint):
            raise VjepaError(
                f"{type(self).__name__} expects latents of encoder {self.encoder_fingerprint}, but these come from "
                f"{encoder_label(name, fingerprint)}; use the encoder it expects"
            )

    def reset(self, seed: int) -> None:
        """Begin an episode: clear the state and seed all random draws with `seed` (>= 0)."""
        self._begin(seed)
        self._begun = True

    def plan(self, observation: Observation, deadline_s: float | None = None) -> Plan:
        """Return the plan for one frame. A refused observation does not change the planner.

        Args:
            observation: the inputs at the frame.
            deadline_s: seconds of the steady clock that this call may take, or None for no deadline. A planner that
                searches returns its best plan by then.

        Raises:
            ObservationRefusedError: no plan may use the observation.
            VjepaError: `reset` was never called.
        """
        if not self._begun:
            raise VjepaError(f"{type(self).__name__}.plan was called before reset; call reset(seed) first")
        self._check(observation)
        plan = self._act(observation, deadline_s)
        return plan if self.novelty is None else replace(plan, novelty=float(self.novelty.of(observation.latent)))

    def _begin(self, seed: int) -> None:  # noqa: B027 (optional to write)
        """Clear the state of the last episode. A planner without state and random draws need not implement it."""

    @abstractmethod
    def _act(self, observation: Observation, deadline_s: float | None) -> Plan:
        """Plan from an observation that has passed the checks, with the planner's own algorithm."""

    def _check(self, observation: Observation) -> None:
        """Refuse an observation with a wrong or non-finite latent, or without an input that the planner `needs`.

        Other inputs are not checked.
        """
        joints = (self.context.action_size,)
        _check_latent("latent", observation.latent)
        if JOINT_STATE in self.needs:
            _check_vector("joint_position", observation.joint_position, [joints], "rad")
            _check_vector("joint_velocity", observation.joint_velocity, [joints], "rad/s")
        if TARGET in self.needs:
            _check_vector("target", observation.target, [(2,), (3,)], "m")
        if GOAL in self.needs:
            _check_latent("goal", observation.goal)
            if observation.goal.shape != observation.latent.shape:  # type: ignore[union-attr]
                raise ObservationRefusedError(
                    f"goal is {_described(observation.goal)}; expected the latent's shape {observation.latent.shape}"
                )


def require_joints(planner: str, expected: int, context: PlannerContext) -> None:
    """Refuse an arm with another number of joints than `planner` expects.

    Args:
        planner: name of the planner, for the message.
        expected: the planner's number of joints.
        context: the arm.

    Raises:
        VjepaError: `context.action_size` is not `expected`.
    """
    if context.action_size != expected:
        raise VjepaError(
            f"planner '{planner}' is for an arm of {expected} joints, but this one has {context.action_size}; "
            "choose another planner"
        )


def require_arm(planner: str, joint_names: tuple[str, ...], context: PlannerContext) -> None:
    """Refuse an arm with other joints than `planner` expects. An unknown arm passes.

    Args:
        planner: name of the planner, for the message.
        joint_names: the planner's joints, in the order of an action.
        context: the arm.

    Raises:
        VjepaError: the joints of `context.arm` have other names.
    """
    if context.arm is not None and context.arm.joint_names != joint_names:
        raise VjepaError(
            f"planner '{planner}' is for an arm with the joints {', '.join(joint_names)}, but this one has "
            f"{', '.join(context.arm.joint_names)}; choose another planner"
        )


def require_in_range(owner: str, values: Mapping[str, float], low: float, high: float) -> None:
    """Refuse options that are not finite numbers in [`low`, `high`].

    Args:
        owner: name of the configuration, for the message.
        values: values by option name.
        low: smallest value.
        high: largest value.

    Raises:
        VjepaError: an option is out of range; the message contains `owner`, the option, its value and the range.
    """
    for name, value in values.items():
        if not low <= value <= high:
            raise VjepaError(f"{owner}: {name} is {value}; expected a number from {low:g} to {high:g}")


def _check_latent(name: str, value: Any) -> None:
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.size == 0 or value.dtype != np.float32:
        raise ObservationRefusedError(
            f"{name} is {_described(value)}; expected float32 of shape (rows, dimension), not empty"
        )
    _check_finite(name, value)


def _check_vector(name: str, value: Any, shapes: list[tuple[int, ...]], unit: str) -> None:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or value.shape not in shapes:
        expected = " or ".join(str(shape) for shape in shapes)
        raise ObservationRefusedError(
            f"{name} is {_described(value)}; expected real numbers ({unit}), shape {expected}"
        )
    _check_finite(name, value)


def _check_finite(name: str, value: np.ndarray) -> None:
    bad = int(value.size - np.count_nonzero(np.isfinite(value)))
    if bad:
        raise ObservationRefusedError(f"{name} has {bad} of {value.size} values not finite; expected finite values")


def _described(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return f"a {type(value).__name__}"
