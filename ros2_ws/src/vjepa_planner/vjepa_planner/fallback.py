"""Who drives: the chosen planner, or, where it cannot, the next in a list, until the chosen one is tried again.

A planner fails by raising, by a plan whose ensemble disagrees or whose latent is novel beyond a limit, or by missing
its deadline. Of all but the last no action comes, so the next planner plans from the same observation at once; a late
plan is still the newest there is, so it is sent, and the next planner drives from the next latent on. The chosen one is
tried again after one latent, and each time it fails again after twice as many, up to a limit. Where nobody is left
torque is zero, and the chosen planner is tried on the next latent. All is counted in latents, never in seconds, so that
lockstep gives the same on any machine.
"""

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

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
    """What came of one latent.

    Attributes:
        planner: who made the plan; where nobody could, the chosen planner.
        plan: what it decided; a zero action where nobody could.
        effort: (n,) N·m, the torque of the plan.
        planning_time_s: how long that planner took.
        fallback: why the plan is not the chosen planner's; empty where it is.
        refused: why no planner could plan; empty where one did.
        tracebacks: of planners that raised what they never should.
    """

    planner: str
    plan: Plan
    effort: np.ndarray
    planning_time_s: float = 0.0
    fallback: str = ""
    refused: str = ""
    tracebacks: tuple[str, ...] = ()


class PlannerSupervisor:
    """The planners that may drive, and which of them does. A planner that begins to drive is reset first.

    Attributes:
        chosen: the planner that drives wherever it can.
        driving: the one that the next latent is planned by.
        counts: since `begin`: `fallbacks` (times that a planner gave way to the next), `fallback_commands` (plans that
            were not the chosen planner's) and `missed_deadlines`.
        last_fallback: who gave way last, why, and to whom; empty where nobody did.
    """

    def __init__(
        self,
        planners: Mapping[str, Planner],
        parameters: PlannerParameters,
        limits: EffortLimits,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Supervise planners.

        Args:
            planners: those that are loaded, by name; a fallback that is not among them never drives.
            parameters: who is chosen, one of them, its fallbacks, and when it gives way to them.
            limits: of the arm.
            clock: seconds of a steady clock.
        """
        self._planners = planners
        self._parameters = parameters
        self._limits = limits
        self._clock = clock
        self.chosen = self.driving = self._asked = parameters.planner
        self._reason = ""
        self.begin()

    def begin(self) -> None:
        """Start anew with the planner that was chosen last: nothing counted, nobody reset, no fallback."""
        self.counts = Counts()
        self.last_fallback = ""
        self.chosen = self._asked
        self._seed = 0
        self._begun: set[str] = set()
        self._recover()
        self._try_chosen()

    @property
    def order(self) -> list[str]:
        """The names of those that may plan the next latent, the chosen one first."""
        loaded = [name for name in self._parameters.fallbacks if name in self._planners]
        return list(dict.fromkeys([self._asked, *loaded]))

    @property
    def needs(self) -> frozenset[str]:
        """The inputs that the planners in `order` need."""
        return frozenset(need for name in self.order for need in self._planners[name].needs)

    @property
    def reads_latents(self) -> bool:
        """Whether any of the planners in `order` must know whose latents it reads."""
        return any(self._planners[name].encoder_fingerprint is not None for name in self.order)

    @property
    def message(self) -> str:
        """Why the chosen planner does not drive, and who does; empty where it drives."""
        return f"{self._reason}: '{self.driving}' drives" if self._reason else ""

    def choose(self, name: str) -> None:
        """Have planner `name` drive from the next latent on, whoever drives until then."""
        self._asked = name
        self._retry_in = 0
        self._recover()

    def renew(self, name: str) -> None:
        """Note that planner `name` is another instance by now, which is reset before it plans its first latent."""
        self._begun.discard(name)

    def begin_tick(self, seed: int, begins_episode: bool) -> bool:
        """Settle who plans the next latent, and return whether that is a newly chosen planner.

        Args:
            seed: of the episode (>= 0).
            begins_episode: whether the latent is an episode's first: then every planner begins anew, the chosen first.
        """
        self._seed = seed
        swapped = self._asked != self.chosen
        self.chosen = self._asked
        if begins_episode:
            self._begun.clear()
            self._recover()
        if swapped:
            self._begun.discard(self.chosen)
        if begins_episode or self._retry_in <= 0:
            self._try_chosen()
        return swapped

    def plan(
        self, observation: Observation, deadline_s: float | None, fingerprint: str | None, encoder: str = ""
    ) -> Decision:
        """Return the plan of the first planner that has one, from the one that drives down the list.

        Args:
            observation: what is known at the frame; a planner that does not need the target is not shown it.
            deadline_s: seconds that planning may take, or None for no deadline.
            fingerprint: of the encoder of the latent; None where it is not known yet.
            encoder: name of that encoder, for messages.
        """
        order, started = self.order, self._clock()
        failures: list[str] = []
        tracebacks: list[str] = []
        for name in order[order.index(self.driving) :]:
            left_s = None if deadline_s is None else max(0.0, deadline_s - (self._clock() - started))
            try:
                plan, effort, elapsed_s = self._attempt(name, observation, left_s, fingerprint, encoder)
            except VjepaError as error:
                failures.append(f"planner '{name}': {error}" if len(order) > 1 else str(error))
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # Whatever a third party's planner raises, sys.exit too, another can drive.
                failures.append(f"planner '{name}' raised {described(error)}")
                tracebacks.append(traceback.format_exc())
            else:
                if failures:
                    self._give_way(name, failures)
                decision = Decision(name, plan, effort, elapsed_s, self._reason, "", tuple(tracebacks))
                self._sent(name, elapsed_s, deadline_s)
                return decision
        self._try_chosen()
        zero = np.zeros(len(self._limits.joint_names))
        return Decision(self.chosen, Plan(zero), zero, refused="; ".join(failures), tracebacks=tuple(tracebacks))

    def _attempt(
        self, name: str, observation: Observation, deadline_s: float | None, fingerprint: str | None, encoder: str
    ) -> tuple[Plan, np.ndarray, float]:
        """Return plan, effort and planning time of one planner, or raise whatever it raises."""
        planner = self._planners[name]
        if name not in self._begun:
            planner.reset(self._seed)
            self._begun.add(name)
        started = self._clock()
        if planner.encoder_fingerprint is not None:
            if fingerprint is None:
                raise VjepaError(f"no message on {topics.LATENT_INFO.name} yet, so whose latents these are is unknown")
            planner.check_encoder(fingerprint, encoder)
        shown = observation if TARGET in planner.needs else replace(observation, target=None)
        plan = planner.plan(shown, deadline_s)
        self._check_limits(plan)
        effort = self._limits.effort_of(plan.action)
        return plan, effort, self._clock() - started

    def _check_limits(self, plan: Plan) -> None:
        disagreement, novelty = self._parameters.disagreement_limit, self._parameters.novelty_limit
        if disagreement and plan.disagreement is not None and not plan.disagreement <= disagreement:
            raise PlanRefusedError(f"its ensemble disagrees by {plan.disagreement:.3g}; the limit is {disagreement:g}")
        if novelty and plan.novelty is not None and not plan.novelty <= novelty:
            raise PlanRefusedError(
                f"the latent is {plan.novelty:.3g} times as far from those of its training as nearly all of these are "
                f"from each other; the limit is {novelty:g}"
            )

    def _sent(self, name: str, elapsed_s: float, deadline_s: float | None) -> None:
        """Note that a plan of `name` drives, and what follows from the time that it took."""
        self._begun = {name}  # The others have missed a latent, and with it what they remembered.
        if name != self.chosen:
            self._retry_in -= 1
            self.counts["fallback_commands"] += 1
        if deadline_s is None or elapsed_s <= deadline_s:
            self._in_time(name)
            return
        self.counts["missed_deadlines"] += 1
        later = self.order[self.order.index(name) + 1 :]
        if later:
            late = f"planner '{name}' took {elapsed_s * 1e3:.1f} ms, with {deadline_s * 1e3:.1f} ms to plan in"
            self._give_way(later[0], [late])

    def _in_time(self, name: str) -> None:
        if name == self.chosen:
            self._steady += 1
            if self._steady >= self._parameters.fallback_steps:
                self._recover()

    def _recover(self) -> None:
        """Let the next failure of the chosen planner be its first."""
        self._sidelined, self._steady = 1, 0

    def _give_way(self, successor: str, reasons: list[str]) -> None:
        if self.driving == self.chosen:
            self._retry_in, self._steady = self._sidelined, 0
            self._sidelined = min(2 * self._sidelined, self._parameters.fallback_steps)
        self.driving = successor
        self._reason = "; ".join(filter(None, [self._reason, *reasons]))
        self.last_fallback = self.message
        self.counts["fallbacks"] += 1

    def _try_chosen(self) -> None:
        self.driving = self.chosen
        self._reason = ""
        self._retry_in = 0
