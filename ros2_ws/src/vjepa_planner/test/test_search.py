"""Searching planners: in a world whose best action is known, by their deadline, in worlds that do not fit together."""

import numpy as np
import pytest
import torch

from vjepa_interfaces.errors import VjepaError
from vjepa_planner.conformance import load_for_test
from vjepa_planner.contract import Observation, PlannerContext
from vjepa_planner.models.conditioning import ConditioningConfig
from vjepa_planner.models.dynamics import Dynamics, DynamicsConfig
from vjepa_planner.models.reward import OFFSET_UNIT, RewardConfig, RewardModel
from vjepa_planner.planners.world import load_world

CONTEXT = PlannerContext(action_size=2, control_period_s=0.02)
SEARCHES = ("cem", "mppi", "shooting")
MORE = {"samples": 200, "elites": 24, "iterations": 3}
THOROUGH = {"cem": MORE, "mppi": MORE, "shooting": {}}


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    """A plane on which an action is a step of a tenth: a state is a place, the latent; its distance is from 0."""
    torch.manual_seed(0)
    conditioning = ConditioningConfig(latent_dim=2)
    dynamics = Dynamics(DynamicsConfig(hidden=32, layers=2, members=2, action_repeat=2), conditioning)
    dynamics.delta_scale.fill_(0.2)
    heads = RewardModel(RewardConfig(state_size=2, action_values=4, hidden=32, distance=True))
    optimiser = torch.optim.Adam([*dynamics.parameters(), *heads.parameters()], 3e-3)
    for _ in range(500):
        places, actions = torch.rand(2, 128, 1, 2) * 4 - 2, torch.rand(2, 128, 2, 2) * 2 - 1
        there = places[:, :, 0] + 0.1 * actions.sum(2)
        error = ((dynamics(places, actions) - there) / 0.2).square().mean()
        error = error + (heads.distance_head(places[:, :, 0]) + places[:, :, 0]).square().mean()
        error = error + heads.reward(places[:, :, 0], actions).square().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
    assert OFFSET_UNIT == 0.1
    return tmp_path_factory.mktemp("plane"), dynamics.eval(), heads.eval()


def at(place, goal=None) -> Observation:
    latents = [None if where is None else np.array([where], np.float32) for where in (place, goal)]
    return Observation(1, latents[0], goal=latents[1])


@pytest.mark.parametrize("name", SEARCHES)
def test_it_goes_where_the_distance_is_less(plane, write_world, name):
    planner = load_for_test(name, **write_world(*plane), **THOROUGH[name])
    for place in ([1.5, -1.5], [-1.5, 1.5], [1.5, 1.5]):
        planner.reset(0)
        action = planner.plan(at(place)).action
        assert np.all(np.sign(action) == -np.sign(place)), f"{action} at {place}"


@pytest.mark.parametrize("name", SEARCHES)
def test_it_goes_to_the_goal(plane, write_world, name):
    planner = load_for_test(name, **write_world(*plane), **THOROUGH[name], objective="goal")
    for goal in ([1.5, -1.5], [-1.5, 1.5]):
        planner.reset(0)
        assert np.all(np.sign(planner.plan(at([0.0, 0.0], goal)).action) == np.sign(goal))


def test_driven_step_by_step_it_arrives_and_stays(plane, write_world):
    planner = load_for_test("cem", **write_world(*plane))
    planner.reset(0)
    place, distances = np.array([1.2, -0.8]), []
    for _ in range(40):
        place = place + 0.1 * planner.plan(at(place)).action
        distances.append(np.linalg.norm(place))
    assert max(distances[-10:]) < 0.15


@pytest.mark.parametrize("name", SEARCHES)
def test_what_it_imagines_of_its_action_is_what_happens_where_the_model_is_right(plane, write_world, name):
    planner = load_for_test(name, **write_world(*plane), **THOROUGH[name], imagine=True)
    for place in (np.array([1.5, -1.2]), np.array([-1.0, 0.8])):
        planner.reset(0)
        plan = planner.plan(at(place))
        passed = [place, place + plan.imagined.steps * 0.1 * plan.action]
        happened = OFFSET_UNIT * np.linalg.norm(passed, axis=1)
        assert happened[1] < happened[0] - 0.01, "or imagining that nothing changes would do"
        np.testing.assert_allclose(plan.imagined.distance[:2], happened, atol=0.005)


def test_it_imagines_each_prediction_from_the_one_before_and_averages_the_members(plane, write_world, tmp_path):
    """Members whose states drift, whatever the action, each in a way of its own."""
    dynamics = Dynamics(
        DynamicsConfig(hidden=8, layers=1, members=2, action_repeat=2), ConditioningConfig(latent_dim=2)
    )
    last = dynamics.layers[-1]
    torch.nn.init.zeros_(last.weight)
    drifts = torch.tensor([[0.3, -0.1], [-0.2, 0.4]])
    last.bias.data = drifts[:, None]
    heads, place = plane[2], torch.tensor([1.0, -0.5])
    planner = load_for_test("cem", **write_world(tmp_path, dynamics, heads), imagine=True)
    planner.reset(0)
    imagined = planner.plan(at(place.tolist())).imagined
    assert (imagined.steps, imagined.distance.dtype) == (2, np.float64)
    with torch.inference_mode():
        passed = place + torch.arange(planner.config.horizon + 1)[:, None, None] * drifts
        expected = heads.distance(passed).mean(dim=1)
    np.testing.assert_allclose(imagined.distance, expected, rtol=1e-4)


@pytest.mark.parametrize("name", SEARCHES)
def test_imagining_changes_no_plan_and_is_left_out_unless_asked_for(plane, write_world, name):
    silent, telling = (load_for_test(name, **write_world(*plane), imagine=imagine) for imagine in (False, True))
    for planner in (silent, telling):
        planner.reset(0)
    for place in ([1.0, -1.0], [0.9, -0.9]):
        plan, told = silent.plan(at(place)), telling.plan(at(place))
        assert plan.action.tolist() == told.action.tolist()
        assert plan.imagined is None
        assert told.imagined.distance.shape == (1 + telling.config.horizon,)


def test_the_cost_of_a_plan_falls_with_the_iterations(plane, write_world):
    costs = []
    for iterations in (1, 4):
        planner = load_for_test("cem", **write_world(*plane), iterations=iterations, samples=40)
        planner.reset(0)
        costs.append(planner.plan(at([1.0, -1.0])).cost)
    assert costs[1] < costs[0]


@pytest.mark.parametrize("name", ["cem", "mppi"])
def test_by_its_deadline_it_answers_with_what_it_has(plane, write_world, name):
    planner = load_for_test(name, **write_world(*plane), **MORE | {"iterations": 1000})
    planner.reset(0)
    hurried = planner.plan(at([1.5, -1.5]), deadline_s=0.0)
    assert hurried.iterations == 1
    assert hurried.action[0] < 0 < hurried.action[1]
    assert 1 < planner.plan(at([1.5, -1.5]), deadline_s=0.1).iterations < 1000


def test_it_says_how_much_the_ensemble_disagrees(plane, write_world, make_world, tmp_path):
    planner = load_for_test("cem", **write_world(*plane))
    planner.reset(0)
    known = planner.plan(at([0.5, 0.5])).disagreement
    unknown = planner.plan(at([80.0, -90.0])).disagreement
    assert 0 < known < unknown
    alone = load_for_test("cem", **make_world(tmp_path))
    alone.reset(0)
    assert alone.plan(Observation(1, np.zeros((3, 8), np.float32))).disagreement is None


def test_the_policy_proposes_what_it_would_do_now_and_then_in_what_is_imagined(make_world, tmp_path):
    options = make_world(tmp_path, members=3, joint_state=True)
    world = load_world(**options, policy=str(tmp_path / "policy"), context=CONTEXT, planner="cem")
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(3, 8)).astype(np.float32)
    tensors = world.tensors(Observation(1, latent, rng.normal(size=2), rng.normal(size=2)))
    history = world.state(tensors)[None]
    with torch.inference_mode():
        proposed = world.prior_actions(history, tensors, 3)
        assert proposed.shape == (3, 2)
        torch.testing.assert_close(proposed[0], world.policy(world.policy.inputs(*tensors)))
        after = world.dynamics(history[None, None], proposed[0].expand(1, 1, 2, -1)).mean(0)[0]
        second = world.policy(world.policy.inputs(*world.dynamics.conditioning.invert(after)))
    torch.testing.assert_close(proposed[1], second)


def test_heads_of_other_dynamics_are_refused(make_world, tmp_path):
    mine, other = make_world(tmp_path / "mine"), make_world(tmp_path / "other", members=2)
    with pytest.raises(VjepaError, match="train heads on its states: vjepa train reward"):
        load_for_test("cem", dynamics=mine["dynamics"], reward=other["reward"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dynamics": ""}, "has no dynamics model; set its option 'dynamics'"),
        ({"reward": ""}, "has no reward head; set its option 'reward'"),
        ({"objective": "fame"}, "objective is 'fame'; expected reward or goal"),
        ({"elites": 51}, "elites is 51; expected a number from 1 to 50"),
        ({"iterations": 0}, "option .iterations. of planner .cem. is 0; expected at least 1"),
        (
            {"imagine": True, "objective": "goal", "reward": ""},
            "imagine is true, but there is no distance head; expected the objective",
        ),
        ({"min_std": -1.0}, "option .min_std. of planner .cem. is -1.0; expected at least 0"),
    ],
)
def test_what_cannot_search_is_refused_saying_what_is_missing(make_world, tmp_path, options, message):
    with pytest.raises(VjepaError, match=message):
        load_for_test("cem", **{**make_world(tmp_path), **options})
