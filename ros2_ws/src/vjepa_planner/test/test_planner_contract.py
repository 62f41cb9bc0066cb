"""The base class refuses what no planner may act on; a plan refuses to be one that no arm may follow."""

import numpy as np
import pytest

from vjepa_interfaces.errors import VjepaError
from vjepa_planner.contract import (
    Observation,
    ObservationRefusedError,
    Plan,
    Planner,
    PlannerContext,
    PlanRefusedError,
    require_in_range,
)

CONTEXT = PlannerContext(action_size=2, control_period_s=0.02)
LATENT = np.ones((17, 8), np.float32)


class Seeker(Planner):
    needs = frozenset({"goal"})
    encoder_fingerprint = "abc"

    def _act(self, observation, deadline_s):
        return Plan(np.zeros(2))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.array([np.nan, 0.0]), "finite"),
        (np.array([np.inf, 0.0]), "finite"),
        (np.array([1.0000001, 0.0]), r"\[-1, 1\]"),
        (np.zeros(2, np.float32), "float32"),
        (np.zeros((1, 2)), r"\(1, 2\)"),
        ([0.0, 0.0], "a list"),
    ],
)
def test_an_action_that_no_arm_may_follow_is_refused(action, message):
    with pytest.raises(PlanRefusedError, match=message):
        Plan(action)


def test_actions_on_the_bounds_are_plans():
    assert Plan(np.array([-1.0, 1.0])).action.tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("goal", [None, np.ones((17, 9), np.float32), np.ones((1, 8), np.float32)])
def test_a_goal_that_is_missing_or_of_another_shape_than_the_latent_is_refused(goal):
    planner = Seeker(Seeker.Config(), CONTEXT)
    planner.reset(0)
    with pytest.raises(ObservationRefusedError, match="goal"):
        planner.plan(Observation(1, LATENT, goal=goal))


def test_inputs_that_are_not_needed_are_not_looked_at():
    planner = Seeker(Seeker.Config(), CONTEXT)
    planner.reset(0)
    observation = Observation(1, LATENT, goal=LATENT, joint_position=np.full(7, np.nan), target=np.zeros(9))
    assert planner.plan(observation).action.tolist() == [0.0, 0.0]


def test_a_refusal_says_how_many_values_are_not_finite():
    planner = Seeker(Seeker.Config(), CONTEXT)
    planner.reset(0)
    latent = LATENT.copy()
    latent[0, :3] = np.nan
    with pytest.raises(ObservationRefusedError, match="latent has 3 of 136 values not finite"):
        planner.plan(Observation(1, latent, goal=LATENT))


def test_the_encoder_check_names_both_fingerprints():
    planner = Seeker(Seeker.Config(), CONTEXT)
    planner.check_encoder("abc")
    with pytest.raises(VjepaError, match=r"abc.*xyz"):
        planner.check_encoder("xyz")


@pytest.mark.parametrize(("size", "period"), [(0, 0.02), (2, 0.0), (2, float("nan")), (2, float("inf"))])
def test_a_context_no_arm_can_have_is_refused(size, period):
    with pytest.raises(VjepaError, match="expected"):
        PlannerContext(size, period)


def test_an_option_out_of_range_is_named():
    with pytest.raises(VjepaError, match="planner 'x': gain is nan"):
        require_in_range("planner 'x'", {"gain": float("nan")}, 0.0, 1.0)
