"""The choice of the planner that drives: the chosen one, or a fallback from a list while the chosen one fails.

A planner fails if it raises, exceeds the limit of disagreement or novelty, or misses its deadline. After an exception
or an exceeded limit there is no action, so the next planner plans from the same observation at once. A late plan is
still the newest, so it is sent, and the next planner drives from the next latent on. All counts are in latents and not
in seconds, so that lockstep gives equal results on any machine.
"""

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vjepa_interfaces import topics
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.statistics import Counts
from vjepa_planner.contract import TARGET, Observation, Plan, Planner, PlanRefusedError
from vjepa_planner.planner_parameters import PlannerParameters
from vjepa_planner.registry import described


@dataclass(frozen=True, eq=False)
class Decision:
    """The result for one latent.

    Attributes:
        planner: name of the planner that made the plan, or of the chosen planner if all failed.
        plan: the plan; a zero action if all failed.
        effort: (n,) N·m, the torque of the plan.
        planning_time_s: planning time of that planner, seconds.
        fallback: why a fallback made the plan; empty for the chosen planner.
        refused: why all planners failed; empty if one did not.
        tracebacks: tracebacks of planners that raised another exception than VjepaError.
    """

    planner: str
    plan: Plan
    effort: np.ndarray
    planning_time_s: float = 0.0
    fallback: str = ""
    refused: str = ""
    tracebacks: tuple[str, ...] = ()

    def record(self, stamp_ns: int) -> dict[str, Any]:
        """Return the content of the message on `~/plan` for a latent with stamp `stamp_ns`, nanoseconds."""
        fields: dict[str, Any] = {
            "stamp": stamp_ns,
            "planner": self.planner,
            "cost": self.plan.cost,
            "iterations": self.plan.iterations,
            "planning_time_s": self.planning_time_s,
            "disagreement": self.plan.disagreement,
            "novelty": self.plan.novelty,
        }
        if (imagined := self.plan.imagined) is not None:
            fields["imagined"] = {"distance": imagined.distance.tolist(), "steps": imagined.steps}
        reasons = {"fallback": self.fallback, "refused": self.refused}
        return fields | {name: reason for name, reason in reasons.items() if reason}


@dataclass
class Fallback:
    """The state of a supervisor in which a fallback drives.

    Attributes:
        planner: name of the fallback.
        reasons: why the chosen planner failed, and each fallback before this one.
        latents_left: number of latents until the chosen planner drives again.
    """

    planner: str
    reasons: list[str]
    latents_left: int


class PlannerSupervisor:
    """A state machine over the loaded planners with two states: the chosen planner drives, or a fallback drives.

    - From the chosen planner to a fallback: the chosen one fails, and a planner after it in `order` does not.
    - From a fallback to another: the fallback fails, and a planner after it in `order` does not.
    - From a fallback to the chosen planner: the fallback has planned all latents for which the chosen one is sidelined.
    - From any planner to the chosen one: every planner failed, an episode begins, or a planner is chosen.

    A first failure sidelines the chosen planner for one latent. Each further failure doubles the number, up to
    `fallback_steps`. After `fallback_steps` plans in time, the next failure counts as the first. A planner is reset
    before it plans, unless it planned the last latent. If every planner failed, torque is zero.

    Attributes:
        chosen: the planner that drives unless it fails.
        counts: counts since `begin`: `fallbacks` (changes to the next planner), `fallback_commands` (plans of
            fallbacks) and `missed_deadlines`.
        last_fallback: the last change: the reason and the new driver; empty for none.
    """

    _fallback: Fallback | None
    _sidelined: int
    _steady: int

    def __init__(
        self,
        planners: Mapping[str, Planner],
        parameters: PlannerParameters,
        limits: EffortLimits,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Begin with the chosen planner.

        Args:
            planners: the loaded planners, by name; a fallback that is not loaded never drives.
            parameters: the chosen planner, its fallbacks and the limits.
            limits: joints and effort limits of the arm.
            clock: returns the seconds of a steady clock.
        """
        self._planners = planners
        self._parameters = parameters
        self._limits = limits
        self._clock = clock
        self.chosen = parameters.planner
        self.begin()

    def begin(self) -> None:
        """Begin again with the chosen planner and clear all counts."""
        self.counts = Counts()
        self.last_fallback = ""
        self.begin_episode(0)

    def begin_episode(self, seed: int) -> None:
        """Let the chosen planner drive, and reset each planner with `seed` (>= 0) before its first plan."""
        self._seed = seed
        self._up_to_date: set[str] = set()
        self._forgive()

    def choose(self, name: str) -> None:
        """Let planner `name` drive from the next latent on; reset it unless it was chosen before."""
        if name != self.chosen:
            self.chosen = name
            self._up_to_date.discard(name)
        self._forgive()

    def renew(self, name: str) -> None:
        """Mark planner `name` as a new instance, to be reset before its first plan."""
        self._up_to_date.discard(name)

    @property
    def driver(self) -> str:
        """The name of the planner that drives now."""
        return self.chosen if self._fallback is None else self._fallback.planner

    @property
    def message(self) -> str:
        """Why a fallback drives, and its name; empty while the chosen planner drives."""
        return "" if self._fallback is None else f"{self._reason}: '{self.driver}' drives"

    @property
    def order(self) -> list[str]:
        """The names of the planners that may plan the next latent, the chosen one first."""
        loaded = [name for name in self._parameters.fallbacks if name in self._planners]
        return list(dict.fromkeys([self.chosen, *loaded]))

    @property
    def needs(self) -> frozenset[str]:
        """The inputs that the planners in `order` need."""
        return frozenset(need for name in self.order for need in self._planners[name].needs)

    @property
    def reads_latents(self) -> bool:
        """Whether any planner in `order` must know the encoder of the latents."""
        return any(self._planners[name].encoder_fingerprint is not None for name in self.order)

    def plan(
        self, observation: Observation, deadline_s: float | None, fingerprint: str | None, encoder: str = ""
    ) -> Decision:
        """Return the plan of the first planner that does not fail, from the driver on in `order`.

        Args:
            observation: the inputs at the frame; only a planner that needs the target gets it.
            deadline_s: seconds that planning may take, or None for no deadline.
            fingerprint: fingerprint of the latent's encoder; None while it is unknown.
            encoder: name of that encoder, for messages.
        """
        if self._fallback is not None and self._fallback.latents_left <= 0:
            self._fallback = None
        order, started = self.order, self._clock()
        failures: list[str] = []
        tracebacks: list[str] = []
        for name in order[order.index(self.driver) :]:
            left_s = None if deadline_s is None else max(0.0, deadline_s - (self._clock() - started))
            try:
                plan, effort, elapsed_s = self._attempt(name, observation, left_s, fingerprint, encoder)
            except VjepaError as error:
                failures.append(f"planner '{name}': {error}" if len(order) > 1 else str(error))
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # Even after sys.exit of a foreign planner, another planner can drive.
                failures.append(f"planner '{name}' raised {described(error)}")
                tracebacks.append(traceback.format_exc())
            else:
                if failures:
                    self._give_way(name, failures)
                decision = Decision(name, plan, effort, elapsed_s, self._reason, "", tuple(tracebacks))
                self._note_plan(name, elapsed_s, deadline_s)
                return decision
        self._fallback = None
        zero = np.zeros(len(self._limits.joint_names))
        return Decision(self.chosen, Plan(zero), zero, refused="; ".join(failures), tracebacks=tuple(tracebacks))

    def _attempt(
        self, name: str, observation: Observation, deadline_s: float | None, fingerprint: str | None, encoder: str
    ) -> tuple[Plan, np.ndarray, float]:
        """Return plan, effort (n,) in N·m and planning time in seconds of one planner. Its exceptions pass through."""
        planner = self._planners[name]
        if name not in self._up_to_date:
            planner.reset(self._seed)
            self._up_to_date.add(name)
        started = self._clock()
        if planner.encoder_fingerprint is not None:
            if fingerprint is None:
                raise VjepaError(f"no message on {topics.LATENT_INFO.name} yet, so the latents' encoder is unknown")
            planner.check_encoder(fingerprint, encoder)
        shown = observation if TARGET in planner.needs else replace(observation, target=None)
        plan = planner.plan(shown, deadline_s)
        self._check_limits(plan)
        return plan, self._limits.effort_of(plan.action), self._clock() - started

    def _check_limits(self, plan: Plan) -> None:
        disagreement, novelty = self._parameters.disagreement_limit, self._parameters.novelty_limit
        if disagreement and plan.disagreement is not None and not plan.disagreement <= disagreement:
            raise PlanRefusedError(f"its ensemble disagrees by {plan.disagreement:.3g}; the limit is {disagreement:g}")
        if novelty and plan.novelty is not None and not plan.novelty <= novelty:
            raise PlanRefusedError(f"the novelty of the latent is {plan.novelty:.3g}; the limit is {novelty:g}")

    def _note_plan(self, name: str, elapsed_s: float, deadline_s: float | None) -> None:
        """Count a plan of the driver `name`, and let the next planner drive if the plan was late."""
        self._up_to_date = {name}  # The others have missed this latent, so their state is old.
        if self._fallback is not None:
            self._fallback.latents_left -= 1
            self.counts["fallback_commands"] += 1
        if deadline_s is not None and elapsed_s > deadline_s:
            self.counts["missed_deadlines"] += 1
            later = self.order[self.order.index(name) + 1 :]
            if later:
                late = f"planner '{name}' took {elapsed_s * 1e3:.1f} ms, with {deadline_s * 1e3:.1f} ms to plan in"
                self._give_way(later[0], [late])
        elif self._fallback is None:
            self._steady += 1
            if self._steady >= self._parameters.fallback_steps:
                self._forgive()

    @property
    def _reason(self) -> str:
        return "" if self._fallback is None else "; ".join(self._fallback.reasons)

    def _give_way(self, successor: str, reasons: list[str]) -> None:
        """Enter the state in which `successor` drives."""
        if self._fallback is None:
            self._fallback = Fallback(successor, reasons, self._sidelined)
            self._sidelined, self._steady = min(2 * self._sidelined, self._parameters.fallback_steps), 0
        else:
            self._fallback.planner = successor
            self._fallback.reasons += reasons
        self.last_fallback = self.message
        self.counts["fallbacks"] += 1

    def _forgive(self) -> None:
        """Enter the state in which the chosen planner drives, and count its next failure as the first."""
        self._fallback = None
        self._sidelined, self._steady = 1, 0
