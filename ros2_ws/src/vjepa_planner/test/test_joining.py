"""A latent becomes an observation with what belongs to its frame, and with nothing from a later one."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.messages import fill_goal
from vjepa_planner.contract import JOINT_STATE, TARGET
from vjepa_planner.joining import ObservationJoiner
from vjepa_planner.planner_parameters import PlannerParameters

PERIOD_NS = 20_000_000
NOTHING = frozenset()
LATENT = np.ones((2, 3), np.float32)


def joiner(lockstep: bool) -> ObservationJoiner:
    return ObservationJoiner(PlannerParameters(lockstep=lockstep, joint_state_max_age_s=0.05))


def add_joints(inputs: ObservationJoiner, stamp_ns: int, position: float) -> None:
    names = ["shoulder", "wrist"]
    inputs.joints.add(
        stamp_ns, SimpleNamespace(name=names, position=[position, 0.0], velocity=[0.0, 0.0], effort=[0.0, 0.0])
    )


def encoder(fingerprint: str) -> str:
    return json.dumps({"fingerprint": fingerprint, "shape": [2, 3]})


def goal_message(fingerprint: str) -> SimpleNamespace:
    message = SimpleNamespace(header=SimpleNamespace())
    fill_goal(message, LATENT, fingerprint)
    return message


def test_in_lockstep_a_latent_waits_for_the_inputs_of_its_own_stamp():
    inputs = joiner(lockstep=True)
    needs = frozenset({JOINT_STATE, TARGET})
    inputs.add_latent(PERIOD_NS, LATENT)
    add_joints(inputs, PERIOD_NS - 1, 0.1)
    assert inputs.take_observation(needs, False) is None
    add_joints(inputs, PERIOD_NS, 0.2)
    assert inputs.take_observation(needs, False) is None
    inputs.targets.add(PERIOD_NS, np.ones(3))
    assert inputs.take_observation(needs, True) is None, "the encoder is not known yet"
    inputs.set_encoder(encoder("mine"))
    observation = inputs.take_observation(needs, True)
    assert (observation.stamp_ns, observation.joint_position[0], observation.target[0]) == (PERIOD_NS, 0.2, 1.0)
    assert inputs.take_observation(NOTHING, False) is None, "it was taken"


def test_in_real_time_a_latent_is_joined_at_once_to_the_newest_reading_that_is_not_of_its_future():
    inputs = joiner(lockstep=False)
    for stamp_ns, position in ((PERIOD_NS, 0.1), (2 * PERIOD_NS, 0.2), (4 * PERIOD_NS, 0.4)):
        add_joints(inputs, stamp_ns, position)
    inputs.add_latent(3 * PERIOD_NS, LATENT)
    assert inputs.take_observation(frozenset({JOINT_STATE}), True).joint_position[0] == 0.2


def test_in_real_time_a_reading_that_is_too_old_is_left_out_and_its_age_stated():
    inputs = joiner(lockstep=False)
    add_joints(inputs, PERIOD_NS, 0.1)
    inputs.add_latent(10 * PERIOD_NS, LATENT)
    observation = inputs.take_observation(frozenset({JOINT_STATE}), False)
    assert observation.joint_position is None
    assert "180 ms older" in inputs.why_without_joints(observation)


def test_of_two_latents_that_wait_the_newer_one_is_planned():
    inputs = joiner(lockstep=True)
    for stamp_ns in (PERIOD_NS, 2 * PERIOD_NS):
        inputs.add_latent(stamp_ns, LATENT)
    assert inputs.take_observation(NOTHING, False).stamp_ns == 2 * PERIOD_NS


def test_a_goal_is_part_of_observations_until_another_encoder_runs():
    inputs = joiner(lockstep=True)
    with pytest.raises(VjepaError, match="the goal's encoder is unknown"):
        inputs.set_goal(7, goal_message("mine"))
    inputs.set_encoder(encoder("mine"))
    inputs.set_goal(7, goal_message("mine"))
    with pytest.raises(VjepaError, match="goal is of encoder 'other'"):
        inputs.set_goal(8, goal_message("other"))
    inputs.add_latent(PERIOD_NS, LATENT)
    assert inputs.take_observation(NOTHING, False).goal.tolist() == LATENT.tolist()
    assert inputs.goal_ns == 7
    inputs.set_encoder(encoder("mine"))
    assert inputs.goal is not None
    inputs.set_encoder(encoder("other"))
    assert inputs.goal is None


@pytest.mark.parametrize("text", ["", "[]", '{"fingerprint": "mine"}'])
def test_what_describes_no_encoder_is_refused(text):
    with pytest.raises(VjepaError, match="latent_info is not JSON with fingerprint and shape"):
        joiner(lockstep=True).set_encoder(text)
