"""The tests that every planner must pass, as a mixin for pytest. Only tests may import it, because it imports pytest.

Five lines apply all tests to a planner::

    from vjepa_planner.conformance import PlannerConformance, load_for_test

    class TestMyPlanner(PlannerConformance):
        def make_planner(self):
            return load_for_test("my-planner", gain=2.0)
"""

# ruff: noqa: D102 (the names of the tests state what they test)

import dataclasses
import math
import time
from typing import Any

import numpy as np
import pytest

from vjepa_interfaces.errors import VjepaError
from vjepa_planner.contract import (
    GOAL,
    INPUTS,
    JOINT_STATE,
    TARGET,
    Observation,
    ObservationRefusedError,
    Plan,
    Planner,
    PlannerContext,
)
from vjepa_planner.registry import load_planner

STEP_NS = 20_000_000


def load_for_test(name: str, **options: Any) -> Planner:
    """Return the planner registered as `name`, with `options`, for an arm of two joints at 50 Hz on the CPU."""
    return load_planner(name, options, PlannerContext(action_size=2, control_period_s=0.02))


class PlannerConformance:
    """A mixin of tests for a planner. Subclasses implement `make_planner`, and may override the attributes.

    Attributes:
        latent_shape: (rows, dimension) of the test's latents.
        deadline_s: the test's deadline, seconds.
        slack_s: longest delay of a plan after the deadline, seconds.
    """

    latent_shape: tuple[int, int] = (17, 1024)
    deadline_s: float = 0.005
    slack_s: float = 0.05

    def make_planner(self) -> Planner:
        """Return a new planner, not yet reset."""
        raise NotImplementedError("write make_planner in your test class")

    def observations(self, planner: Planner, count: int = 5, start_ns: int = 1_000_000_000) -> list[Observation]:
        """Return `count` consecutive random observations, equal in every call, with all inputs that `planner` needs.

        Their arrays are read-only, like arrays from messages.
        """
        generator = np.random.default_rng(7)
        joints = planner.context.action_size
        made = []
        for step in range(count):
            values: dict[str, Any] = {
                "latent": generator.normal(size=self.latent_shape).astype(np.float32),
                "joint_position": generator.uniform(-3.0, 3.0, joints),
                "joint_velocity": generator.normal(size=joints),
                "target": np.append(generator.uniform(-0.15, 0.15, 2), 0.01),
                "goal": generator.normal(size=self.latent_shape).astype(np.float32),
            }
            for array in values.values():
                array.setflags(write=False)
            unneeded = values.keys() - {"latent"} - set(_needed_fields(planner))
            values |= dict.fromkeys(unneeded)
            made.append(Observation(stamp_ns=start_ns + step * STEP_NS, **values))
        return made

    def begun(self, seed: int = 0) -> tuple[Planner, list[Observation]]:
        """Return a new planner reset with `seed`, and observations for it."""
        planner = self.make_planner()
        planner.reset(seed)
        return planner, self.observations(planner)

    def test_it_says_what_it_needs_and_whose_latents_it_reads(self) -> None:
        planner = self.make_planner()
        assert isinstance(planner, Planner)
        assert planner.needs <= INPUTS
        assert planner.encoder_fingerprint is None or planner.encoder_fingerprint

    def test_its_options_are_a_frozen_dataclass(self) -> None:
        planner = self.make_planner()
        assert dataclasses.is_dataclass(planner.Config)
        assert isinstance(planner.config, planner.Config)
        with pytest.raises(dataclasses.FrozenInstanceError):
            planner.config.anything = 1  # type: ignore[attr-defined]

    def test_latents_of_another_encoder_are_refused_naming_both(self) -> None:
        planner = self.make_planner()
        if planner.encoder_fingerprint is None:
            planner.check_encoder("of-another-encoder", "another")
            return
        planner.check_encoder(planner.encoder_fingerprint)
        with pytest.raises(VjepaError, match="of-another-encoder") as refusal:
            planner.check_encoder("of-another-encoder", "another")
        assert planner.encoder_fingerprint in str(refusal.value)

    def test_actions_are_float64_one_per_joint_and_within_bounds(self) -> None:
        planner, observations = self.begun()
        for plan in (planner.plan(observation, None) for observation in observations):
            assert isinstance(plan, Plan)
            assert plan.action.shape == (planner.context.action_size,)
            assert plan.action.dtype == np.float64
            assert np.all(np.abs(plan.action) <= 1.0)

    def test_diagnostics_have_their_types(self) -> None:
        planner, observations = self.begun()
        plan = planner.plan(observations[0], None)
        assert type(plan.iterations) is int
        assert plan.iterations >= 0
        for value in (plan.cost, plan.disagreement):
            assert value is None or (type(value) is float and math.isfinite(value))

    def test_an_action_given_does_not_change_later(self) -> None:
        planner, observations = self.begun()
        plan = planner.plan(observations[0], None)
        before = plan.action.copy()
        planner.plan(observations[1], None)
        assert plan.action.tolist() == before.tolist()

    def test_planning_before_a_reset_is_refused(self) -> None:
        planner = self.make_planner()
        with pytest.raises(VjepaError, match="reset"):
            planner.plan(self.observations(planner)[0], None)

    def test_the_same_seed_gives_the_same_actions_in_another_instance(self) -> None:
        one, observations = self.begun(seed=3)
        other, _ = self.begun(seed=3)
        assert _actions(one, observations) == _actions(other, observations)

    def test_a_reset_forgets_the_episode_before(self) -> None:
        planner, observations = self.begun(seed=3)
        first = _actions(planner, observations)
        _actions(planner, observations[::-1])
        planner.reset(3)
        assert _actions(planner, observations) == first

    def test_the_same_episode_at_other_stamps_gives_the_same_actions(self) -> None:
        planner, observations = self.begun(seed=3)
        first = _actions(planner, observations)
        planner.reset(3)
        assert _actions(planner, self.observations(planner, start_ns=90_000_000_000)) == first

    def test_a_tight_deadline_is_honoured(self) -> None:
        planner, observations = self.begun()
        planner.plan(observations[0], None)
        elapsed = []
        for observation in observations[1:]:
            start = time.perf_counter()
            plan = planner.plan(observation, self.deadline_s)
            elapsed.append(time.perf_counter() - start)
            assert np.all(np.abs(plan.action) <= 1.0)
        # The shortest of several, because a busy machine may delay any single call.
        assert min(elapsed) <= self.deadline_s + self.slack_s

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_latent_that_is_not_finite_is_refused(self, value: Any) -> None:
        planner, observations = self.begun()
        _assert_refused(planner, _with_last_value(observations[0], "latent", value), "latent")

    @pytest.mark.parametrize(
        "latent",
        [None, np.zeros(1024, np.float32), np.zeros((0, 1024), np.float32), np.zeros((17, 1024), np.float64)],
        ids=["missing", "one-axis", "empty", "float64"],
    )
    def test_a_latent_of_a_wrong_shape_or_type_is_refused(self, latent: Any) -> None:
        planner, observations = self.begun()
        _assert_refused(planner, _with(observations[0], "latent", latent), "latent")

    def test_a_needed_input_that_is_missing_is_refused(self) -> None:
        planner, observations = self.begun()
        for name in _needed_fields(planner):
            _assert_refused(planner, _with(observations[0], name, None), name)

    def test_a_needed_input_of_a_wrong_size_is_refused(self) -> None:
        planner, observations = self.begun()
        for name in _needed_fields(planner):
            value = getattr(observations[0], name)
            for wrong in (value[:-2], np.concatenate([value, value]), value[None]):
                _assert_refused(planner, _with(observations[0], name, wrong), name)

    def test_a_needed_input_that_is_not_finite_is_refused(self) -> None:
        planner, observations = self.begun()
        for name in _needed_fields(planner):
            _assert_refused(planner, _with_last_value(observations[0], name, math.nan), name)

    def test_a_refused_observation_leaves_no_trace(self) -> None:
        planner, observations = self.begun(seed=3)
        undisturbed = _actions(planner, observations)
        planner.reset(3)
        disturbed = []
        for observation in observations:
            _assert_refused(planner, _with_last_value(observation, "latent", math.nan), "latent")
            disturbed += _actions(planner, [observation])
        assert disturbed == undisturbed


def _needed_fields(planner: Planner) -> list[str]:
    fields = {JOINT_STATE: ["joint_position", "joint_velocity"], TARGET: ["target"], GOAL: ["goal"]}
    return [name for need in sorted(planner.needs) for name in fields[need]]


def _assert_refused(planner: Planner, observation: Observation, name: str) -> None:
    with pytest.raises(ObservationRefusedError, match=name):
        planner.plan(observation, None)


def _actions(planner: Planner, observations: list[Observation]) -> list[list[float]]:
    return [planner.plan(observation, None).action.tolist() for observation in observations]


def _with(observation: Observation, name: str, value: Any) -> Observation:
    changes: dict[str, Any] = {name: value}
    return dataclasses.replace(observation, **changes)


def _with_last_value(observation: Observation, name: str, value: float) -> Observation:
    array = np.array(getattr(observation, name))
    array.flat[-1] = value
    return _with(observation, name, array)
