"""The next planner drives where the chosen one cannot, and the chosen one comes back: by latents, not by seconds."""

import numpy as np
import pytest

from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.contract import Observation, ObservationRefusedError, Plan, Planner, PlannerContext
from vjepa_planner.fallback import PlannerSupervisor
from vjepa_planner.planner_parameters import PlannerParameters

PERIOD_S = 0.02
STEPS = 3
LIMITS = EffortLimits.of(("shoulder", "wrist"), (0.05, 0.02))
ACTIONS = {"cem": 0.5, "bc": -0.25, "random": 1.0}


class Clock:
    """A clock that goes on only while a planner plans."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Scripted(Planner):
    """Plans its action, taking `takes_s`, after raising `error` where there is one."""

    def __init__(self, action: float, clock: Clock):
        super().__init__(None, PlannerContext(2, PERIOD_S))
        self.action, self.clock = np.full(2, action), clock
        self.takes_s = 0.001
        self.error: BaseException | None = None
        self.disagreement: float | None = None
        self.novel: float | None = None
        self.seeds: list[int] = []
        self.seen: list[Observation] = []
        self.deadlines: list[float | None] = []

    def _begin(self, seed):
        self.seeds.append(seed)

    def _act(self, observation, deadline_s):
        self.seen.append(observation)
        self.deadlines.append(deadline_s)
        self.clock.now_s += self.takes_s
        if self.error is not None:
            raise self.error
        return Plan(self.action, disagreement=self.disagreement, novelty=self.novel)


class Loop:
    """A supervisor of three planners, chosen `cem`, and the latents that it is given."""

    def __init__(self, fallbacks=("bc", "random"), limit=0.0, lockstep=True, novelty_limit=0.0):
        clock = Clock()
        self.planners = {name: Scripted(action, clock) for name, action in ACTIONS.items()}
        parameters = PlannerParameters(
            planner="cem",
            fallbacks=fallbacks,
            fallback_steps=STEPS,
            disagreement_limit=limit,
            novelty_limit=novelty_limit,
        )
        self.supervisor = PlannerSupervisor(self.planners, parameters, LIMITS, clock)
        self.deadline_s = None if lockstep else PERIOD_S
        self.fingerprint: str | None = "an-encoder"
        self.stamp_ns = 0

    def __getitem__(self, name) -> Scripted:
        return self.planners[name]

    def tick(self, seed=7, latent=None):
        begins = self.stamp_ns == 0
        self.stamp_ns += 20_000_000
        if begins:
            self.supervisor.begin_episode(seed)
        latent = np.zeros((1, 4), np.float32) if latent is None else latent
        joints = np.zeros(2)
        observation = Observation(self.stamp_ns, latent, joints, joints, target=np.ones(3))
        return self.supervisor.plan(observation, self.deadline_s, self.fingerprint)

    def drivers(self, count) -> list[str]:
        return [self.tick().planner for _ in range(count)]

    def new_episode(self):
        self.stamp_ns = 0


BAD_LATENT = np.full((1, 4), np.nan, np.float32)


@pytest.mark.parametrize("error", [SystemExit("quit"), GeneratorExit("quit")], ids=lambda error: type(error).__name__)
def test_a_planner_that_exits_while_it_plans_gives_way_like_any_other(error):
    loop = Loop()
    loop["cem"].error = error
    decision = loop.tick()
    assert decision.planner == "bc"
    assert decision.fallback == f"planner 'cem' raised {type(error).__name__}: quit"


def test_the_chosen_planner_drives_wherever_it_can():
    loop = Loop()
    decision = loop.tick()
    assert (decision.planner, decision.fallback, decision.refused) == ("cem", "", "")
    assert decision.effort.tolist() == [0.025, 0.01]
    assert loop.drivers(50) == ["cem"] * 50
    assert loop["cem"].seeds == [7]
    assert loop["bc"].seen == []
    assert loop.supervisor.message == ""
    assert not loop.supervisor.counts


def test_the_next_planner_plans_from_the_very_observation_that_the_chosen_one_failed_on():
    loop = Loop()
    loop.tick()
    loop["cem"].error = ValueError("no elite")
    decision = loop.tick()
    assert decision.planner == "bc"
    assert decision.effort.tolist() == (LIMITS.limits * loop["bc"].action).tolist()
    assert decision.fallback == "planner 'cem' raised ValueError: no elite"
    assert "no elite" in decision.tracebacks[0]
    assert loop["bc"].seen[0].stamp_ns == loop["cem"].seen[-1].stamp_ns == loop.stamp_ns
    assert loop.supervisor.message == "planner 'cem' raised ValueError: no elite: 'bc' drives"


def test_the_chosen_planner_comes_back_after_one_latent_reset_with_the_seed_of_the_episode():
    loop = Loop()
    loop.tick()
    loop["cem"].error = ValueError("once")
    assert loop.tick().planner == "bc"
    loop["cem"].error = None
    assert loop.drivers(2) == ["cem", "cem"]
    assert loop["cem"].seeds == [7, 7]
    assert loop["bc"].seeds == [7]
    assert loop.supervisor.message == ""
    assert loop.supervisor.counts == {"fallbacks": 1, "fallback_commands": 1}
    assert loop.supervisor.last_fallback == "planner 'cem' raised ValueError: once: 'bc' drives"


def test_a_planner_that_goes_on_failing_is_tried_ever_more_seldom_and_its_fallback_not_disturbed():
    loop = Loop()
    loop["cem"].error = ValueError("always")
    count = 1 + 2 + 3 * STEPS
    assert loop.drivers(count) == ["bc"] * count
    tried = [seen.stamp_ns // 20_000_000 for seen in loop["cem"].seen]
    assert tried == [1, 2, 4, 4 + STEPS, 4 + 2 * STEPS]
    assert loop["bc"].seeds == [7], "it drove on"
    assert loop.supervisor.counts["fallbacks"] == 5


@pytest.mark.parametrize(("steady", "sidelined"), [(STEPS - 1, 2), (STEPS, 1)])
def test_a_planner_that_has_driven_long_enough_since_it_failed_fails_for_the_first_time_again(steady, sidelined):
    loop = Loop()
    loop["cem"].error = ValueError("now and then")
    loop.tick()
    loop["cem"].error = None
    assert loop.drivers(steady) == ["cem"] * steady
    loop["cem"].error = ValueError("now and then")
    loop.tick()
    loop["cem"].error = None
    assert loop.drivers(2) == ["bc"] * (sidelined - 1) + ["cem"] * (3 - sidelined)


def test_a_plan_whose_ensemble_disagrees_beyond_the_limit_is_not_sent():
    loop = Loop(limit=0.5)
    loop["cem"].disagreement = 0.5
    assert loop.tick().planner == "cem"
    loop["cem"].disagreement = 0.51
    decision = loop.tick()
    assert decision.planner == "bc"
    assert decision.fallback == "planner 'cem': its ensemble disagrees by 0.51; the limit is 0.5"


def test_a_disagreement_that_is_no_number_is_beyond_any_limit():
    loop = Loop(limit=0.5)
    loop["cem"].disagreement = float("nan")
    assert loop.tick().planner == "bc"


def test_without_a_limit_an_ensemble_may_disagree():
    loop = Loop(limit=0.0)
    loop["cem"].disagreement = 1e9
    assert loop.tick().planner == "cem"


def test_a_plan_of_a_latent_that_is_novel_beyond_the_limit_is_not_sent():
    loop = Loop(novelty_limit=1.5)
    loop["cem"].novel = 1.5
    assert loop.tick().planner == "cem"
    loop["cem"].novel = 1.6
    decision = loop.tick()
    assert decision.planner == "bc"
    assert decision.fallback.startswith("planner 'cem': the novelty of the latent is 1.6; the limit is")
    assert decision.fallback.endswith("the limit is 1.5")
    loop = Loop(novelty_limit=0.0)
    loop["cem"].novel = 1e9
    assert loop.tick().planner == "cem"


def test_where_no_planner_knows_such_a_latent_torque_is_zero():
    loop = Loop(novelty_limit=1.0)
    for planner in loop.planners.values():
        planner.novel = 2.0
    decision = loop.tick()
    assert not decision.effort.any()
    assert decision.refused.count("the limit is 1") == 3


def test_a_late_plan_is_sent_and_the_next_planner_drives_from_the_next_latent_on():
    loop = Loop(lockstep=False)
    loop["cem"].takes_s = 0.031
    decision = loop.tick()
    assert (decision.planner, decision.fallback) == ("cem", "")
    assert decision.planning_time_s == pytest.approx(0.031)
    assert loop.supervisor.driver == "bc"
    loop["cem"].takes_s = 0.001
    assert loop.drivers(2) == ["bc", "cem"]
    assert loop.supervisor.counts == {"fallbacks": 1, "missed_deadlines": 1, "fallback_commands": 1}
    assert loop.supervisor.last_fallback == "planner 'cem' took 31.0 ms, with 20.0 ms to plan in: 'bc' drives"


def test_in_lockstep_no_plan_is_late():
    loop = Loop(lockstep=True)
    loop["cem"].takes_s = 60.0
    assert loop.drivers(5) == ["cem"] * 5
    assert loop["cem"].deadlines == [None] * 5
    assert not loop.supervisor.counts


def test_a_late_plan_with_nobody_left_is_counted_and_changes_nothing():
    loop = Loop(fallbacks=(), lockstep=False)
    loop["cem"].takes_s = 0.031
    assert loop.drivers(5) == ["cem"] * 5
    assert loop["cem"].seeds == [7]
    assert loop.supervisor.counts == {"missed_deadlines": 5}
    assert loop.supervisor.message == ""


def test_who_plans_second_has_what_is_left_of_the_period():
    loop = Loop(lockstep=False)
    loop["cem"].takes_s, loop["cem"].error = 0.015, ValueError("late and wrong")
    loop.tick()
    assert loop["cem"].deadlines == [pytest.approx(PERIOD_S)]
    assert loop["bc"].deadlines == [pytest.approx(0.005)]
    loop["bc"].takes_s, loop["bc"].error = 1.0, ValueError("later still")
    loop.tick()
    assert loop["random"].deadlines == [0.0]


def test_a_fallback_that_fails_gives_way_to_the_next_with_all_reasons_until_the_chosen_one_is_due():
    loop = Loop()
    loop["cem"].error = ValueError("one")
    loop.drivers(3)  # Tried at the first and the second, it is sidelined for the third.
    loop.tick()
    loop["bc"].error = ValueError("two")
    decision = loop.tick()
    assert decision.planner == "random"
    assert decision.fallback == "planner 'cem' raised ValueError: one; planner 'bc' raised ValueError: two"
    loop["cem"].error = None
    assert loop.drivers(STEPS - 1) == ["random"] * (STEPS - 2) + ["cem"]


def test_a_latent_that_everyone_refuses_is_answered_with_zero_torque_and_sidelines_nobody():
    loop = Loop()
    loop.tick()
    decision = loop.tick(latent=BAD_LATENT)
    assert decision.effort.tolist() == decision.plan.action.tolist() == [0.0, 0.0]
    for name in ACTIONS:
        assert f"planner '{name}': latent has 4 of 4 values not finite" in decision.refused
    assert decision.tracebacks == ()
    assert loop.tick().planner == "cem"
    assert loop["cem"].seeds == [7], "it goes on from where it was"
    assert not loop.supervisor.counts


def test_after_a_latent_that_nobody_could_plan_from_the_chosen_planner_is_tried_at_once():
    loop = Loop()
    loop["cem"].error = ValueError("twice")
    loop.drivers(2)
    loop["cem"].error = None
    assert loop.supervisor.driver == "bc"
    assert loop.tick(latent=BAD_LATENT).refused
    assert loop.tick().planner == "cem"
    assert loop["cem"].seeds == [7, 7, 7], "at first, when tried again, and now"


def test_without_fallbacks_a_refusal_is_the_planners_own_words():
    loop = Loop(fallbacks=())
    loop["cem"].error = ObservationRefusedError("goal is missing")
    decision = loop.tick()
    assert (decision.refused, decision.effort.tolist()) == ("goal is missing", [0.0, 0.0])
    loop["cem"].error = ValueError("no elite")
    assert loop.tick().refused == "planner 'cem' raised ValueError: no elite"
    loop["cem"].error = None
    assert loop.tick().planner == "cem"
    assert loop["cem"].seeds == [7]


def test_every_episode_resets_who_drives_with_its_own_seed():
    loop = Loop()
    loop.tick(seed=7)
    loop.new_episode()
    loop.tick(seed=8)
    loop.tick(seed=8)
    assert loop["cem"].seeds == [7, 8]


def test_a_new_episode_tries_the_chosen_planner_again():
    loop = Loop()
    loop["cem"].error = ValueError("twice")
    assert loop.drivers(2) == ["bc", "bc"]
    loop["cem"].error = None
    loop.new_episode()
    assert loop.tick(seed=8).planner == "cem"
    assert loop["cem"].seeds == [7, 7, 8]
    loop["cem"].error = ValueError("again")
    loop.new_episode()
    assert loop.tick(seed=9).planner == "bc"
    assert loop["bc"].seeds == [7, 9]


def test_a_planner_that_cannot_be_reset_fails_as_one_that_cannot_plan():
    loop = Loop()
    loop["cem"]._begin = lambda seed: 1 / 0
    assert loop.tick().fallback == "planner 'cem' raised ZeroDivisionError: division by zero"


def test_an_action_for_another_arm_is_a_failure():
    loop = Loop()
    loop["cem"].action = np.zeros(3)
    decision = loop.tick()
    assert decision.planner == "bc"
    assert "3 efforts, expected 2" in decision.fallback


def test_a_swap_ends_a_fallback():
    loop = Loop()
    loop["cem"].error = ValueError("always")
    loop.tick()
    loop.supervisor.choose("random")
    assert (loop.supervisor.chosen, loop.supervisor.driver) == ("random", "random")
    decision = loop.tick()
    assert (decision.planner, decision.fallback) == ("random", "")
    assert loop.supervisor.order == ["random", "bc"]
    assert loop["random"].seeds == [7]


def test_the_fallback_that_drives_can_be_chosen_and_is_reset_as_any_other():
    loop = Loop()
    loop["cem"].error = ValueError("always")
    loop.drivers(2)
    loop.supervisor.choose("bc")
    assert loop.drivers(3 * STEPS) == ["bc"] * 3 * STEPS
    assert loop["bc"].seeds == [7, 7]
    assert len(loop["cem"].seen) == 2
    assert loop.supervisor.message == ""


def test_to_choose_the_chosen_planner_again_tries_it_at_once():
    loop = Loop()
    loop["cem"].error = ValueError("twice")
    loop.drivers(2)
    loop["cem"].error = None
    loop.supervisor.choose("cem")
    assert loop.tick().planner == "cem"


def test_to_choose_the_planner_that_drives_changes_nothing():
    loop = Loop()
    loop.tick()
    loop.supervisor.choose("cem")
    assert loop.tick().planner == "cem"
    assert loop["cem"].seeds == [7]


def test_a_fallback_that_is_not_loaded_or_is_the_chosen_planner_never_drives():
    loop = Loop(fallbacks=("cem", "mppi", "bc", "bc"))
    assert loop.supervisor.order == ["cem", "bc"]


def test_inputs_are_those_that_any_planner_of_the_list_needs():
    loop = Loop(fallbacks=("bc",))
    loop["bc"].needs = frozenset({"joint_state"})
    loop["random"].needs = frozenset({"target"})
    assert loop.supervisor.needs == {"joint_state"}
    loop.supervisor.choose("random")
    assert loop.supervisor.needs == {"joint_state", "target"}, "also of who is to drive next"
    assert not loop.supervisor.reads_latents
    loop["bc"].encoder_fingerprint = "an-encoder"
    assert loop.supervisor.reads_latents


def test_only_a_planner_that_needs_the_target_is_shown_it():
    loop = Loop()
    loop["bc"].needs = frozenset({"target"})
    loop["cem"].error = ValueError("always")
    loop.tick()
    assert loop["cem"].seen[0].target is None
    assert loop["bc"].seen[0].target.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("fingerprint", "message"), [("another", "an-encoder"), (None, "latent_info")])
def test_a_fallback_must_be_made_for_the_latents_too(fingerprint, message):
    loop = Loop()
    loop["bc"].encoder_fingerprint = "an-encoder"
    loop["cem"].error = ValueError("always")
    loop.fingerprint = fingerprint
    decision = loop.tick()
    assert decision.planner == "random"
    assert message in decision.fallback
    loop.fingerprint = "an-encoder"
    loop.new_episode()
    assert loop.tick().planner == "bc"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fallback_steps": 0}, "fallback_steps is 0; expected at least 1"),
        ({"disagreement_limit": -0.1}, "disagreement_limit is -0.1; expected at least 0"),
        ({"disagreement_limit": float("nan")}, "disagreement_limit is nan"),
        ({"novelty_limit": -1.0}, "novelty_limit is -1.0; expected at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(VjepaError, match=message):
        PlannerParameters(**settings)


def test_a_new_instance_of_a_planner_is_reset_before_it_plans():
    loop = Loop()
    loop.tick()
    new = Scripted(0.75, loop["cem"].clock)
    loop.planners["cem"] = new
    loop.supervisor.renew("cem")
    decision = loop.tick()
    assert (decision.planner, new.seeds) == ("cem", [7])
    assert decision.effort.tolist() == (LIMITS.limits * new.action).tolist()
    loop.tick()
    assert new.seeds == [7]
