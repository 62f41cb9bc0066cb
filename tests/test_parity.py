"""A policy gives offline, from a recorded run, the torques that it gave live."""

import numpy as np
import torch

from vjepa_bags.bag_reader import Bag, topic_names
from vjepa_interfaces.bundle import find_bundle
from vjepa_perception.clip import ClipBuffer
from vjepa_perception.encoder import EncoderConfig, load_encoder
from vjepa_planner.contract import Observation, PlannerContext
from vjepa_planner.models.policy import Policy, PolicyConfig, save_policy
from vjepa_planner.registry import load_planner
from vjepa_training.data.build import BuildConfig, build_dataset
from vjepa_training.data.dataset import IMAGE, LATENT

EPISODES, STEPS = 2, 60


def torques(bundle, limit: float, latents, dataset) -> np.ndarray:
    """What the policy commands at every row, (T, n) N·m, planned from one row after the other."""
    planner = load_planner("bc", {"bundle": str(bundle)}, PlannerContext(2, 0.02, "cpu"))
    planner.reset(0)
    joints = dataset["observation.joint_position"], dataset["observation.joint_velocity"]
    plans = (
        planner.plan(Observation(0, latents[row].astype(np.float32), *(column[row] for column in joints)), None)
        for row in range(len(dataset))
    )
    return np.stack([plan.action * limit for plan in plans])


def encoded_one_by_one(encoder, dataset) -> np.ndarray:
    """The latents of all rows in float32, (T, rows, dimension), each clip encoded alone, as a live node does."""
    latents = []
    for start, stop in dataset.episodes:
        clip = ClipBuffer(encoder.clip_frames)
        for stamp_ns, frame in zip(dataset["stamp_ns"][start:stop].tolist(), dataset[IMAGE][start:stop], strict=True):
            latents.append(encoder.encode([clip.push(stamp_ns, encoder.preprocess(frame))])[0])
    return np.stack(latents)


def test_a_policy_gives_offline_the_torques_that_it_gave_live(lockstep_stack, tmp_path):
    encoder = load_encoder(EncoderConfig(find_bundle("encoder-small"), device="cpu", threads=1))
    torch.manual_seed(0)
    policy = Policy(
        PolicyConfig(encoder.shape[1], tuple(range(encoder.shape[0])), True, hidden=(64, 64), bottleneck=16)
    )
    save_policy(tmp_path / "policy", policy, encoder.fingerprint, "# A policy with random weights, for a test\n")
    stack = lockstep_stack(
        planner="bc",
        bc_bundle=str(tmp_path / "policy"),
        episodes=EPISODES,
        episode_steps=STEPS,
        device="cpu",
        record=True,
        bag_dir=str(tmp_path / "bags"),
    )
    stack.wait_finished()
    stack.supervisor.stop()
    (path,) = (tmp_path / "bags").iterdir()

    names = topic_names()
    built, _, _ = build_dataset(
        tmp_path / "built", [Bag(path, names)], BuildConfig(names=names, frames=True), encoder, {}
    )
    live, limit = np.asarray(built["command"]), np.array(built.info.effort_limit)
    answered = np.isfinite(live).all(axis=1)
    assert answered.sum() == EPISODES * STEPS
    assert (np.ptp(live[answered], axis=0) > 0.01 * limit).all(), "a policy answers to what it sees"

    exact = torques(tmp_path / "policy", limit, encoded_one_by_one(encoder, built), built)
    stored = torques(tmp_path / "policy", limit, built[LATENT], built)
    assert (np.abs(stored[answered] - live[answered]) <= 0.01 * limit).all()
    np.testing.assert_array_equal(exact[answered], live[answered])
