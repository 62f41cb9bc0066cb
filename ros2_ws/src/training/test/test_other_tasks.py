"""Any task of the table, whatever its joints, goes from data to scores; what knows another arm is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim_bridge.env import SimConfig, SimEnv
from sim_bridge.tasks import TASKS, experts_of, is_about_reaching
from vjepa_interfaces.bundle import read_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_perception.encoder import EncoderConfig, load_encoder
from vjepa_planner.contract import PlannerContext
from vjepa_planner.models.dynamics import load_dynamics
from vjepa_planner.registry import load_planner
from vjepa_training.data.collect import CollectConfig, Collector, collect
from vjepa_training.data.transitions import open_transitions
from vjepa_training.evaluation.goals import goal_latent
from vjepa_training.evaluation.rollout import RolloutConfig, rollout
from vjepa_training.evaluation.score import PROTOCOLS, summarise
from vjepa_training.probes.probe_suite import ProbeConfig, run_probes
from vjepa_training.trainers.configs import Job
from vjepa_training.trainers.train_bc import BcTraining, labelled_frames, train_bc, write_policy
from vjepa_training.trainers.train_dynamics import DynamicsTraining, train_dynamics
from vjepa_training.trainers.train_reward import RewardTraining, train_reward
from vjepa_training.trainers.train_sac import SacTraining, train_sac

pytestmark = pytest.mark.slow

OTHERS = sorted(name for name in TASKS if not name.startswith("reacher"))
WITHOUT_EXPERT = [name for name in OTHERS if not experts_of(name)]
MODELS = Path(__file__).resolve().parents[4] / "models"
SIM = SimConfig(seed=700, image_size=(32, 32), episode_steps=12)
QUICK = BcTraining(epochs=2, batch_size=64, hidden=(16, 16), bottleneck=4)
SMALL = DynamicsTraining(
    members=2, action_repeat=1, horizon=1, components=4, epochs=1, batch_size=32, state_projection="pca"
)


@pytest.fixture(scope="module")
def encoder_config(tiny_encoder):
    return EncoderConfig(str(tiny_encoder), "cpu", clip_frames=4, grid=2, threads=1)


@pytest.fixture(scope="module")
def encoder(encoder_config):
    return load_encoder(encoder_config)


@pytest.fixture(scope="module")
def data(tmp_path_factory, encoder_config):
    """Return a function to the dataset of a task, of random actions and whatever scripted policies know it."""
    made = {}

    def of(task):
        if task not in made:
            config = CollectConfig(sim=replace(SIM, task=task), behaviour="mix", epsilon=0.5, hold=2)
            made[task] = collect(tmp_path_factory.mktemp(task) / "ds", config, encoder_config, 12, 1, {})
        return made[task]

    return of


@pytest.mark.parametrize(
    "task",
    ["finger-spin", "cartpole-swingup", "manipulator-bring_ball"],
)
def test_any_number_of_joints_goes_from_data_to_an_actor_that_drives(task, data, encoder, tmp_path):
    dataset, sim = data(task), replace(SIM, task=task)
    assert dataset.info.joint_names == TASKS[task].joint_names
    train_dynamics(dataset, SMALL, Job(tmp_path / "dynamics", tmp_path / "work", "x"))
    heads = RewardTraining(epochs=1, hidden=8, batch_size=32, distance=is_about_reaching(task))
    train_reward(dataset, tmp_path / "dynamics", heads, Job(tmp_path / "reward", tmp_path / "reward-work", "x"))
    quick = SacTraining(steps=60, episode_steps=10, envs=2, random_steps=8, batch_size=8, hidden=8, action_repeat=2)
    train_sac(encoder, sim, tmp_path / "dynamics", quick, Job(tmp_path / "sac", tmp_path / "sac-work", "x"))
    world = {"dynamics": str(tmp_path / "dynamics"), "reward": str(tmp_path / "reward"), "horizon": 2}
    for planner, options in (("sac", {"bundle": str(tmp_path / "sac")}), ("cem", world), ("random", {})):
        episodes, _ = rollout(RolloutConfig(planner, sim, options, episodes=1), encoder)
        summary = summarise(episodes, PROTOCOLS["full"])
        assert summary["steps"] == [SIM.episode_steps]
        assert (summary["success"] == [None]) == (not is_about_reaching(task))


def test_joints_of_different_limits_go_from_data_to_a_policy_that_drives(encoder_config, encoder, tmp_path):
    limits = (20.0, 5.0)
    sim = replace(SIM, task="finger-spin", effort_limit=limits)
    config = CollectConfig(sim=sim, behaviour="random")
    dataset = collect(tmp_path / "ds", config, encoder_config, 12, 1, {})
    assert dataset.info.effort_limit == limits
    has_next = np.asarray(dataset["has_next"])
    actions, efforts, commands = (np.asarray(dataset[name])[has_next] for name in ("action", "effort", "command"))
    np.testing.assert_allclose(actions * limits, efforts, rtol=1e-12)
    assert (np.abs(efforts).max(axis=0) > 0.8 * np.array(limits)).all()
    training = replace(QUICK, labels="recorded")
    frames = labelled_frames(dataset, training)
    np.testing.assert_array_equal(frames.labels, commands / limits)
    write_policy(tmp_path / "policy", train_bc(frames, training), training, [dataset], "x", frames.source)
    assert read_bundle(tmp_path / "policy", "policy").arm == dataset.info.arm
    driving = RolloutConfig("bc", sim, {"bundle": str(tmp_path / "policy")}, episodes=1)
    applied: list[np.ndarray] = []
    rollout(driving, encoder, lambda _, step: applied.append(step.joint_effort))
    assert len(applied) == 1 + SIM.episode_steps
    assert (np.abs(applied) <= limits).all()
    assert np.abs(applied).max() > 0
    with pytest.raises(VjepaError, match="an action of 1 is 20, 5 N·m, but here it is 30; set the same effort_limit"):
        rollout(replace(driving, sim=replace(sim, effort_limit=0.0)), encoder)


def test_mixed_data_is_of_the_planners_that_know_the_task(encoder):
    for task, names in {"reacher-hard": ["expert", "expert-p", "random"], "finger-spin": ["random"]}.items():
        collector = Collector(CollectConfig(sim=replace(SIM, task=task), behaviour="mix"), encoder)
        assert list(collector._policies) == names
        collector.close()


def test_a_pushed_point_is_cloned_from_its_own_expert(data, encoder, tmp_path):
    dataset = data("point_mass-easy")
    training = replace(
        QUICK, task="point_mass-easy", dagger=1, dagger_episodes=2, dagger_steps=5, image_size=(32, 32), num_envs=2
    )
    frames = labelled_frames(dataset, training)
    towards = np.sign(frames.labels) == np.sign(dataset["target"][:][:, :2] - dataset["observation.joint_position"][:])
    assert towards.mean() > 0.9
    outcome = train_bc(frames, training, encoder)
    write_policy(tmp_path / "policy", outcome, training, [dataset], "x")
    arm = {"joint_names": ["t1", "t2"], "effort_limit": [0.1, 0.1]}
    bundle = read_bundle(tmp_path / "policy", "policy")
    assert (bundle.config["arm"], bundle.control_periods_s) == (arm, (0.02,))
    config = RolloutConfig("bc", replace(SIM, task="point_mass-easy"), {"bundle": str(tmp_path / "policy")}, episodes=1)
    assert rollout(config, encoder)[0][0].steps == SIM.episode_steps


@pytest.mark.parametrize("task", WITHOUT_EXPERT)
def test_where_no_expert_knows_the_task_there_is_nothing_to_clone_and_no_goal_to_reach(task, data, encoder):
    with pytest.raises(VjepaError, match=f"no scripted expert knows the task '{task}'.*vjepa train sac --task {task}"):
        labelled_frames(data(task), replace(QUICK, task=task))
    with pytest.raises(VjepaError, match=f"no scripted expert knows the task '{task}'"):
        goal_latent(replace(SIM, task=task), encoder, 0, "same")


def test_an_arm_of_unknown_task_with_other_joints_is_not_labelled_by_the_reachers_expert(data):
    dataset = data("finger-spin")
    with pytest.raises(VjepaError, match="planner 'expert' is for an arm with the joints shoulder, wrist"):
        labelled_frames(dataset, QUICK)


@pytest.mark.parametrize(
    ("planner", "options"),
    [
        ("bc", {"bundle": "bc-small"}),
        ("dreamer", {"bundle": "dreamer-small"}),
        ("sac", {"bundle": "sac-small"}),
        ("cem", {"dynamics": "dynamics-small", "reward": "reward-small"}),
        ("expert", {}),
        ("expert-p", {}),
    ],
)
def test_what_ships_for_the_reacher_is_refused_for_a_finger(planner, options):
    with_paths = {name: str(MODELS / value) for name, value in options.items()}
    finger, reacher = (replace(SIM, task=name) for name in ("finger-spin", "reacher-hard"))
    with SimEnv(finger) as env, pytest.raises(VjepaError, match=r"joints shoulder, wrist.*proximal, distal"):
        load_planner(planner, with_paths, PlannerContext.of(env.limits, 0.02))
    with SimEnv(reacher) as env:
        load_planner(planner, with_paths, PlannerContext.of(env.limits, 0.02))


def test_models_of_another_arm_are_not_trained_on(data, encoder, tmp_path):
    train_dynamics(data("point_mass-easy"), SMALL, Job(tmp_path / "dynamics", tmp_path / "work", "x"))
    with pytest.raises(VjepaError, match="joints t1, t2, but this one has proximal, distal"):
        train_reward(
            data("finger-spin"), tmp_path / "dynamics", RewardTraining(), Job(tmp_path / "reward", tmp_path / "w", "x")
        )
    finger = replace(SIM, task="finger-spin")
    with pytest.raises(VjepaError, match="joints t1, t2, but this one has proximal, distal"):
        train_sac(encoder, finger, tmp_path / "dynamics", SacTraining(), Job(tmp_path / "sac", tmp_path / "w", "x"))


def test_the_way_to_the_target_is_measured_in_the_plane_in_which_the_arm_moves(data, tmp_path):
    dataset = data("finger-spin")
    train_dynamics(dataset, SMALL, Job(tmp_path / "dynamics", tmp_path / "work", "x"))
    model, _ = load_dynamics(tmp_path / "dynamics")
    offsets = open_transitions(dataset, model.conditioning, tmp_path / "work").offsets
    np.testing.assert_allclose(offsets, (dataset["target"][:] - dataset["fingertip"][:])[:, [0, 2]], atol=1e-6)


def test_probes_read_an_upright_arm_whose_looks_are_randomised(tiny_encoder, monkeypatch):
    monkeypatch.setattr("vjepa_training.probes.probe_suite.PIXELS", 8)
    config = ProbeConfig(
        str(tiny_encoder), "cpu", task="finger-spin", episodes=6, episode_steps=20, workers=1, randomize=True
    )
    result = run_probes(replace(config, attentive=False, grid=2)).result
    places = [score for score in result["scores"] if score["target"] in ("fingertip", "target")]
    assert places
    assert all(list(score["components"]) == ["x", "z"] for score in places)
    assert set(result["left_out"]) == {"colour class", "target size"}
