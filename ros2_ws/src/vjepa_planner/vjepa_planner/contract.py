"""What a planner is: observations in, plans out, and what never passes between them.

A planner subclasses `Planner`, gives its options in a frozen dataclass `Config`, and writes `_begin` and `_act`. The
base class does what every planner must do alike: it refuses to plan before a reset, and it refuses an observation
that no arm should be moved by. `conformance.PlannerConformance` tests the whole contract.
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
"""What a planner may name in `needs`, beside the latent, which every observation has."""


class ObservationRefusedError(VjepaError):
    """An observation that must not be planned from: not finite, of a wrong shape, or without a needed input."""


class PlanRefusedError(VjepaError):
    """A plan that must not reach the arm: an action that is not finite, out of bounds, or of a wrong shape."""


@dataclass(frozen=True, eq=False)
class Observation:
    """What a planner may know at one frame. Arrays may be read-only views; a planner never writes into them.

    Attributes:
        stamp_ns: stamp of the frame that caused the latent, nanoseconds.
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
    """What a planner expects of the actions it chose.

    Attributes:
        distance: (1 + predictions,) float64, from fingertip to target, m: in the present state as the planner sees it,
            then after each of its predictions.
        steps: control steps that one prediction spans.
    """

    distance: np.ndarray
    steps: int


@dataclass(frozen=True, eq=False)
class Plan:
    """What a planner decided. The caller measures how long that took.

    Attributes:
        action: (n,) float64 in [-1, 1], one per joint.
        cost: predicted cost of the plan in the planner's own units, or None where it predicts none.
        iterations: rounds of search made; 0 for a planner that does not search.
        disagreement: spread among the members of an ensemble, or None where there is none.
        imagined: what the planner expects to come of its plan, or None where it does not say.
        novelty: how far the latent is from those of the planner's training, see `models.novelty`: above 1 it is unlike
            nearly all of them; None where that is not known.

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
    """What an arm and its stack tell a planner.

    Attributes:
        action_size: number of joints, n.
        control_period_s: seconds from one action to the next.
        device: where to compute, as torch names it; planners without torch ignore it.
        arm: its joints, and the torque of an action of 1; None where that is not known.
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
    """Latents to actions. Not for use from several threads at once.

    The constructor loads what is to be loaded and warms up, so it may be slow; `plan` is then at full speed.

    Attributes:
        Config: frozen dataclass of the options; its defaults are the documented settings.
        needs: which of `INPUTS` an observation must hold.
        encoder_fingerprint: fingerprint of the encoder whose latents are expected; None where none are read.
        trained_period_s: seconds from one frame to the next in its training; None where that is not known.
        novelty: what the latents of its training were like; None where that is not known.
        config: the options this planner was made with.
        context: the arm and stack it was made for.
    """

    Config: ClassVar[type] = NoOptions
    needs: frozenset[str] = frozenset()
    encoder_fingerprint: str | None = None
    trained_period_s: float | None = None
    novelty: Novelty | None = None

    def __init__(self, config: Any, context: PlannerContext):
        self.config = config
        self.context = context
        self._begun = False

    def check_encoder(self, fingerprint: str, name: str = "") -> None:
        """Refuse latents of another encoder than the one this planner was trained on.

        A planner made from a bundle overrides this with `Bundle.check_encoder`, which names the bundle as well.

        Args:
            fingerprint: of the encoder that the latents come from.
            name: of that encoder, for the message.

        Raises:
            VjepaError: the planner reads latents and the fingerprints differ; both are named.
        """
        if self.encoder_fingerprint not in (None, fingerprint):
            raise VjepaError(
                f"{type(self).__name__} expects latents of encoder {self.encoder_fingerprint}, but these come from "
                f"{encoder_label(name, fingerprint)}; use the encoder it expects"
            )

    def reset(self, seed: int) -> None:
        """Begin an episode: forget all that was planned before and draw all randomness anew from `seed` (>= 0)."""
        self._begin(seed)
        self._begun = True

    def plan(self, observation: Observation, deadline_s: float | None = None) -> Plan:
        """Return the plan for one frame.

        A refused observation leaves the planner as it was.

        Args:
            observation: what is known at the frame.
            deadline_s: seconds of the steady clock this call may take, or None for no deadline. A planner that
                searches returns the best it has by then.

        Raises:
            ObservationRefusedError: the observation is not one to plan from.
            VjepaError: `reset` was never called.
        """
        if not self._begun:
            raise VjepaError(f"{type(self).__name__}.plan was called before reset; call reset(seed) first")
        self._check(observation)
        plan = self._act(observation, deadline_s)
        return plan if self.novelty is None else replace(plan, novelty=float(self.novelty.of(observation.latent)))

    def _begin(self, seed: int) -> None:  # noqa: B027 (optional to write)
        """Forget the last episode. A planner that keeps no state and draws nothing at random need not write this."""

    @abstractmethod
    def _act(self, observation: Observation, deadline_s: float | None) -> Plan:
        """Plan from an observation that has passed the checks: the planner's own algorithm."""

    def _check(self, observation: Observation) -> None:
        """Refuse an observation with a wrong or non-finite latent, or without what the planner `needs`.

        Inputs the planner does not need are not looked at.
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
    """Refuse an arm whose number of joints is not the one `planner` was made for.

    Raises:
        VjepaError: `context.action_size` is not `expected`.
    """
    if context.action_size != expected:
        raise VjepaError(
            f"planner '{planner}' is for an arm of {expected} joints, but this one has {context.action_size}; "
            "choose another planner"
        )


def require_arm(planner: str, joint_names: tuple[str, ...], context: PlannerContext) -> None:
    """Refuse an arm that does not have the joints which `planner` was made for; one that is not known passes.

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

    Raises:
        VjepaError: names `owner`, the option, its value and the range.
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
