"""The conformance suite fails planners that break the contract: each fault is caught by the test of that name."""

import time

import numpy as np
import pytest

from vjepa_planner.conformance import PlannerConformance
from vjepa_planner.contract import Plan, Planner, PlannerContext

CONTEXT = PlannerContext(action_size=2, control_period_s=0.02)


class Sound(Planner):
    needs = frozenset({"joint_state", "target", "goal"})
    encoder_fingerprint = "an-encoder"

    def _begin(self, seed):
        self.generator = np.random.default_rng(seed)

    def _act(self, observation, deadline_s):
        return Plan(self.generator.uniform(-1, 1, 2), cost=0.5)


class WrongSize(Sound):
    def _act(self, observation, deadline_s):
        return Plan(np.zeros(3))


class Slow(Sound):
    def _act(self, observation, deadline_s):
        started = time.monotonic()
        while time.monotonic() - started < 0.1:
            pass
        return super()._act(observation, deadline_s)


class Unseeded(Sound):
    def _begin(self, seed):
        self.generator = np.random.default_rng()


class Remembers(Sound):
    steps = 0

    def _begin(self, seed):
        pass

    def _act(self, observation, deadline_s):
        self.steps += 1
        return Plan(np.full(2, 1 / self.steps))


class ReadsTheClock(Sound):
    def _act(self, observation, deadline_s):
        return Plan(np.full(2, observation.stamp_ns % 97 / 97))


class Aliases(Sound):
    action = np.zeros(2)

    def _act(self, observation, deadline_s):
        self.action[:] = observation.latent[0, :2].clip(-1, 1)
        return Plan(self.action)


class ActsBeforeReset(Sound):
    def __init__(self, config, context):
        super().__init__(config, context)
        self.reset(0)


class TakesAnything(Sound):
    def _check(self, observation):
        pass


class DisturbedByRefusals(Sound):
    def _check(self, observation):
        self.generator.random()
        super()._check(observation)


class NumpyCost(Sound):
    def _act(self, observation, deadline_s):
        return Plan(np.zeros(2), cost=np.float32(1))


class TakesAnyEncoder(Sound):
    def check_encoder(self, fingerprint, name=""):
        pass


class NeedsTheWeather(Sound):
    needs = frozenset({"weather"})


class MutableOptions(Sound):
    class Config:
        pass


def outcome(planner_class, test):
    """Run one test of the suite on a planner class; return what it raised, or None where it passed."""

    class Suite(PlannerConformance):
        def make_planner(self):
            return planner_class(planner_class.Config(), CONTEXT)

    arguments = {"test_a_latent_that_is_not_finite_is_refused": [np.nan]}.get(test, [])
    arguments = {"test_a_latent_of_a_wrong_shape_or_type_is_refused": [None]}.get(test, arguments)
    try:
        getattr(Suite(), test)(*arguments)
    except (AssertionError, pytest.fail.Exception) as failure:
        return failure
    return None


TESTS = [name for name in dir(PlannerConformance) if name.startswith("test_")]

FAULTS = [
    (WrongSize, "test_actions_are_float64_one_per_joint_and_within_bounds"),
    (Slow, "test_a_tight_deadline_is_honoured"),
    (Unseeded, "test_the_same_seed_gives_the_same_actions_in_another_instance"),
    (Remembers, "test_a_reset_forgets_the_episode_before"),
    (ReadsTheClock, "test_the_same_episode_at_other_stamps_gives_the_same_actions"),
    (Aliases, "test_an_action_given_does_not_change_later"),
    (ActsBeforeReset, "test_planning_before_a_reset_is_refused"),
    (TakesAnything, "test_a_latent_that_is_not_finite_is_refused"),
    (TakesAnything, "test_a_latent_of_a_wrong_shape_or_type_is_refused"),
    (TakesAnything, "test_a_needed_input_that_is_missing_is_refused"),
    (TakesAnything, "test_a_needed_input_of_a_wrong_size_is_refused"),
    (TakesAnything, "test_a_needed_input_that_is_not_finite_is_refused"),
    (DisturbedByRefusals, "test_a_refused_observation_leaves_no_trace"),
    (NumpyCost, "test_diagnostics_have_their_types"),
    (TakesAnyEncoder, "test_latents_of_another_encoder_are_refused_naming_both"),
    (NeedsTheWeather, "test_it_says_what_it_needs_and_whose_latents_it_reads"),
    (MutableOptions, "test_its_options_are_a_frozen_dataclass"),
]


@pytest.mark.parametrize("test", TESTS)
def test_a_sound_planner_passes(test):
    assert outcome(Sound, test) is None


@pytest.mark.parametrize(("planner_class", "test"), FAULTS)
def test_a_fault_is_caught(planner_class, test):
    assert outcome(planner_class, test) is not None


def test_every_test_of_the_suite_is_shown_to_catch_a_fault():
    assert {test for _, test in FAULTS} == set(TESTS)
