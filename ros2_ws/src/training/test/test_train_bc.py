"""Behaviour cloning: whose labels, what is read, what is kept, and that it drives."""

import dataclasses

import numpy as np
import pytest
import torch

import vjepa_training.trainers.train_bc
from vjepa_interfaces.errors import VjepaError
from vjepa_perception.encoder import EncoderConfig, load_encoder
from vjepa_planner.contract import Observation, PlannerContext
from vjepa_planner.models.policy import Policy, PolicyConfig, save_policy
from vjepa_planner.registry import load_planner
from vjepa_training.data.dataset import write_pieces
from vjepa_training.trainers.configs import BASELINE_BC
from vjepa_training.trainers.train_bc import (
    BcTraining,
    Frames,
    chosen_episodes,
    dagger_seed,
    expert_actions,
    labelled_frames,
    require_one_arm,
    train_bc,
    write_policy,
)

QUICK = BcTraining(epochs=3, batch_size=64, hidden=(32, 16), bottleneck=8, num_envs=2)


def synthetic(episodes: int = 40, length: int = 10) -> Frames:
    """Frames whose labels are a linear function of one row of the latent."""
    rng = np.random.default_rng(0)
    count = episodes * length
    latents = rng.normal(size=(count, 3, 8)).astype(np.float16)
    labels = np.tanh(latents[:, 2, :2].astype(np.float64))
    joints = rng.normal(size=(2, count, 2))
    numbers = np.repeat(np.arange(episodes), length)
    return Frames(latents, joints[0], joints[1], labels, numbers, np.full(count, 0.02))


def test_the_labels_are_what_the_expert_planner_would_do(small_data):
    frames = labelled_frames(small_data, QUICK)
    expert = load_planner("expert", {}, PlannerContext(action_size=2, control_period_s=0.02, device="cpu"))
    expert.reset(0)
    for row in (0, 37, len(frames) - 1):
        observation = Observation(
            0,
            np.zeros((1, 1), np.float32),
            small_data["observation.joint_position"][row],
            small_data["observation.joint_velocity"][row],
            small_data["target"][row],
        )
        assert np.array_equal(frames.labels[row], expert.plan(observation, None).action)


def test_the_labels_are_the_experts_whatever_was_done(small_data):
    frames = labelled_frames(small_data, QUICK)
    done = small_data["action"][:]
    assert np.nanmax(np.abs(frames.labels - done)) > 0.5  # The data has random actions in it.


def test_frames_without_a_target_cannot_be_labelled(small_data, tmp_path):
    pieces = []
    for number, batch in small_data.pieces():
        nowhere = np.full(batch.num_rows * 3, np.nan)
        index = batch.schema.get_field_index("target")
        array = type(batch.column("target")).from_arrays(nowhere, 3)
        pieces.append((number, batch.set_column(index, batch.schema.field(index), array)))
    blind = write_pieces(tmp_path / "blind", small_data.info, pieces)
    with pytest.raises(VjepaError, match=r"420 frames without a target.*--labels recorded"):
        labelled_frames(blind, QUICK)


def rewritten(dataset, folder, columns, **info):
    """Return a copy of a dataset with other values in some columns, and other facts about it."""
    info = dataclasses.replace(dataset.info, **info)
    pieces = []
    for number, batch in dataset.pieces():
        for name, change in columns.items():
            index = batch.schema.get_field_index(name)
            old = batch.column(name)
            values = np.asarray(change(old.flatten().to_numpy(zero_copy_only=False).reshape(len(old), -1)))
            batch = batch.set_column(index, batch.schema.field(index), type(old).from_arrays(values.ravel(), 2))
        pieces.append((number, batch))
    return write_pieces(folder, info, pieces)


RECORDED = dataclasses.replace(QUICK, labels="recorded")


def test_recorded_commands_are_the_labels_and_where_there_are_none_the_efforts(small_data, tmp_path):
    (limit, _) = small_data.info.effort_limit
    has_next = np.asarray(small_data["has_next"])
    unknown = rewritten(small_data, tmp_path / "efforts", {"command": lambda v: v * np.nan}, task="")
    commanded = rewritten(small_data, tmp_path / "commands", {"command": lambda v: np.full_like(v, 0.5 * limit)})
    efforts = labelled_frames(unknown, QUICK)
    assert efforts.source == "effort"
    assert np.array_equal(efforts.labels, np.asarray(small_data["action"])[has_next])
    commands = labelled_frames(commanded, RECORDED)
    assert (commands.source, len(commands)) == ("command", int(has_next.sum()))
    assert np.allclose(commands.labels, 0.5)
    once = [0.1 * limit]

    def first_alone(values):
        values = values * np.nan
        if once:
            values[0] = once.pop()
        return values

    rare = rewritten(small_data, tmp_path / "rare", {"command": first_alone})
    assert labelled_frames(rare, RECORDED).source == "effort", "one command does not outweigh all efforts"
    neither = rewritten(unknown, tmp_path / "neither", {"effort": lambda v: v * np.nan})
    with pytest.raises(VjepaError, match="has neither commands nor efforts"):
        labelled_frames(neither, RECORDED)


def test_a_dataset_of_the_first_format_gives_the_same_labels_to_the_bit(small_data, as_version_1, tmp_path):
    old = as_version_1(small_data, tmp_path / "old")
    uncommanded = [
        rewritten(dataset, tmp_path / name, {"command": lambda v: v * np.nan})
        for name, dataset in {"new-efforts": small_data, "old-efforts": old}.items()
    ]
    for new, previous in ((small_data, old), uncommanded):
        assert np.array_equal(labelled_frames(new, RECORDED).labels, labelled_frames(previous, RECORDED).labels)
    assert np.array_equal(labelled_frames(small_data, QUICK).labels, labelled_frames(old, QUICK).labels)


def test_dagger_on_a_dataset_of_no_task_is_refused_before_it_trains(small_data, tmp_path):
    unknown = rewritten(small_data, tmp_path / "unknown", {}, task="")
    with pytest.raises(
        VjepaError, match=r"is learnt from recorded actions, and DAgger needs an expert; expected dagger 0"
    ):
        labelled_frames(unknown, BcTraining(dagger=1))


def test_torques_beyond_the_effort_limit_are_refused_with_the_largest(small_data, tmp_path):
    (limit, _) = small_data.info.effort_limit
    strong = rewritten(small_data, tmp_path / "strong", {"command": lambda v: np.full_like(v, 3 * limit)})
    with pytest.raises(VjepaError, match=r"100% of the recorded torques exceed effort_limit, .*largest is 0.15"):
        labelled_frames(strong, RECORDED)


def test_episodes_are_chosen_by_number_mark_and_return(small_data, tmp_path):
    count = len(small_data.episodes)
    success = {"outcome": "success"}  # Of the three episodes of the first bag one gave no row.
    sources = (
        {"episodes": 3, "kept": 2, "recorded_with": success},
        {"episodes": count - 2, "kept": count - 2, "recorded_with": None},
    )
    marked = rewritten(small_data, tmp_path / "marked", {}, sources=sources)
    assert chosen_episodes(marked) == list(range(count))
    assert chosen_episodes(marked, mark="outcome=success") == [0, 1]
    assert chosen_episodes(marked, numbers=(1, 2), mark="outcome=success") == [1]
    returns = [np.nansum(marked["next.reward"][start:stop]) for start, stop in marked.episodes]
    assert chosen_episodes(marked, least_return=max(returns)) == [i for i, r in enumerate(returns) if r == max(returns)]
    assert set(labelled_frames(marked, QUICK, episodes=[1]).episode) == {1}
    unknown = rewritten(small_data, tmp_path / "unknown", {}, sources=sources[:1])
    with pytest.raises(VjepaError, match="does not record the bag of each episode; build it again"):
        chosen_episodes(unknown, mark="outcome=success")
    for asked, message in (
        ({"least_return": float("nan")}, "least return is nan; expected a finite sum of rewards"),
        (
            {"mark": "outcome=failure"},
            "none of its .* episodes meets all conditions; give fewer conditions",
        ),
        (
            {"mark": "nothing="},
            "none of its .* episodes meets all conditions; give fewer conditions",
        ),
        ({"mark": "outcome"}, "mark is 'outcome'; expected KEY=VALUE"),
        ({"numbers": (count,)}, f"has no episode {count}; it has {count}, from 0"),
    ):
        with pytest.raises(VjepaError, match=message):
            chosen_episodes(marked, **asked)


def test_a_joint_that_moves_little_is_learned_as_well_as_one_that_moves_much(tmp_path):
    frames = synthetic()
    frames.labels = frames.labels * np.array([1.0, 0.01])
    frames.source = "effort"
    training = dataclasses.replace(QUICK, epochs=60, patience=60, noise=0.0, learning_rate=1e-2)
    outcome = train_bc(frames, training)
    scale = outcome.policy.config.action_scale
    assert scale == pytest.approx(np.quantile(np.abs(frames.labels), 0.999, axis=0), rel=1e-6)
    assert min(entry["validation"] for entry in outcome.curve) < 0.15 * outcome.variance
    save_policy(tmp_path, outcome.policy, "fp", "card")
    planner = load_planner("bc", {"bundle": str(tmp_path)}, PlannerContext(2, 0.02))
    planner.reset(0)
    actions = [
        planner.plan(Observation(0, 9 * latent.astype(np.float32), np.zeros(2), np.zeros(2))).action
        for latent in frames.latents[:50]
    ]
    assert (np.abs(actions).max(axis=0) <= np.array(scale) + 1e-6).all(), "it never asks for more than was shown"


def test_recorded_labels_have_no_expert_to_ask(small_data):
    with pytest.raises(VjepaError, match="DAgger needs an expert"):
        dataclasses.replace(RECORDED, dagger=1)


def test_it_learns_what_the_latent_says():
    training = dataclasses.replace(QUICK, epochs=60, patience=60, noise=0.0, learning_rate=1e-2)
    outcome = train_bc(synthetic(), training)
    assert min(entry["validation"] for entry in outcome.curve) < 0.15 * outcome.variance


def test_the_mean_row_alone_does_not_say_it():
    frames = synthetic()
    frames.latents = frames.latents[:, :1]
    outcome = train_bc(frames, dataclasses.replace(QUICK, epochs=30, rows="mean"))
    assert min(entry["validation"] for entry in outcome.curve) > 0.6 * outcome.variance


def test_what_validates_best_is_kept():
    outcome = train_bc(synthetic(), dataclasses.replace(QUICK, epochs=40, patience=5, learning_rate=0.05))
    best = min(outcome.curve, key=lambda entry: entry["validation"])
    assert len(outcome.curve) <= best["epoch"] + 6


def test_the_same_seed_gives_the_same_policy():
    first, second = (train_bc(synthetic(), QUICK).policy.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_old_settings_are_the_old_network():
    episodes, periods_s = np.repeat(np.arange(10), 2), np.full(20, 0.02)
    frames = Frames(np.zeros((20, 1, 1024), np.float16), *np.zeros((3, 20, 2)), episodes, periods_s)
    outcome = train_bc(frames, dataclasses.replace(BASELINE_BC, epochs=1))
    assert outcome.policy.config == PolicyConfig()
    assert sum(parameter.numel() for parameter in outcome.policy.parameters()) == 279_490


def test_dagger_adds_what_the_policy_saw_with_the_experts_labels(small_data, tiny_encoder):
    encoder = load_encoder(EncoderConfig(str(tiny_encoder), clip_frames=4, grid=2))
    training = dataclasses.replace(QUICK, epochs=1, dagger=2, dagger_episodes=3, dagger_steps=5)
    rounds = []
    frames = labelled_frames(small_data, training)
    outcome = train_bc(
        frames, training, encoder, on_round=lambda number, returns: rounds.append((number, len(returns)))
    )
    assert rounds == [(1, 3), (2, 3)]
    assert outcome.frames == len(frames) + 2 * 3 * 5
    assert {entry["round"] for entry in outcome.curve} == {0, 1, 2}


@pytest.mark.slow
def test_killed_between_rounds_it_goes_on_and_ends_in_the_same_policy(small_data, tiny_encoder, tmp_path):
    encoder = load_encoder(EncoderConfig(str(tiny_encoder), clip_frames=4, grid=2))
    training = dataclasses.replace(QUICK, epochs=1, dagger=2, dagger_episodes=2, dagger_steps=5)
    frames = labelled_frames(small_data, training)
    whole = train_bc(frames, training, encoder)
    fitted, resumed_at = [], []

    def note(*at):
        resumed_at.append(at)

    def killed_in_round_2(entry):
        fitted.append(entry["round"])
        if entry["round"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_bc(frames, training, encoder, killed_in_round_2, work=tmp_path, on_resume=note)
    assert fitted == [0, 1, 2]
    assert not resumed_at
    resumed = train_bc(
        frames,
        training,
        encoder,
        lambda entry: fitted.append(entry["round"]),
        work=tmp_path,
        on_resume=note,
    )
    assert fitted == [0, 1, 2, 2]
    assert resumed_at == [(2, "policy")]
    train_bc(frames, training, encoder, work=tmp_path, on_resume=note)
    assert resumed_at == [(2, "policy"), (2, "")]
    assert resumed.curve == whole.curve
    for name, tensor in whole.policy.state_dict().items():
        assert torch.equal(tensor, resumed.policy.state_dict()[name]), name
    with pytest.raises(VjepaError, match=r"is from a run with other held_out, seed; give another --work"):
        train_bc(frames, dataclasses.replace(training, seed=1), encoder, work=tmp_path)


def test_a_damaged_file_of_a_training_that_was_killed_is_named_with_what_to_do(tmp_path):
    train_bc(synthetic(), QUICK, work=tmp_path)
    path = tmp_path / "policy-0.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(VjepaError, match=rf"{path} is damaged .*; remove it to begin the training anew"):
        train_bc(synthetic(), QUICK, work=tmp_path)


def test_dagger_sees_frames_of_the_size_that_it_is_given(small_data, tiny_encoder, monkeypatch):
    encoder = load_encoder(EncoderConfig(str(tiny_encoder), clip_frames=4, grid=2))
    preprocess, sizes = encoder.preprocess, set()
    monkeypatch.setattr(encoder, "preprocess", lambda rgb: sizes.add(rgb.shape) or preprocess(rgb))
    changes = {"epochs": 1, "dagger": 1, "dagger_episodes": 1, "dagger_steps": 2, "image_size": (48, 40)}
    training = dataclasses.replace(QUICK, **changes)
    train_bc(labelled_frames(small_data, training), training, encoder)
    assert sizes == {(40, 48, 3)}


def test_dagger_sees_frames_that_look_as_it_is_told(small_data, tiny_encoder, monkeypatch):
    encoder = load_encoder(EncoderConfig(str(tiny_encoder), clip_frames=4, grid=2))
    preprocess, brightness = encoder.preprocess, []
    monkeypatch.setattr(encoder, "preprocess", lambda rgb: brightness.append(rgb.mean()) or preprocess(rgb))
    changes = {"epochs": 1, "dagger": 1, "dagger_episodes": 1, "dagger_steps": 2}
    for look, render in (("nominal", "plain"), ("nominal", "dm_control"), ("background:hard", "dm_control")):
        training = dataclasses.replace(QUICK, look=look, render=render, **changes)
        train_bc(labelled_frames(small_data, training), training, encoder)
    plain, shaded, strange = np.split(np.array(brightness), 3)
    assert (np.abs(plain - shaded) > 3).all()
    assert (np.abs(strange - shaded) > 3).all()


def test_dagger_labels_are_for_the_torque_and_the_rate_of_its_episodes(small_data, tiny_encoder, monkeypatch):
    encoder = load_encoder(EncoderConfig(str(tiny_encoder), clip_frames=4, grid=2))
    contexts = []

    def loaded(name, options, context):
        if name == "expert":
            contexts.append((*context.arm.limits, context.control_period_s))
        return load_planner(name, options, context)

    monkeypatch.setattr(vjepa_training.trainers.train_bc, "load_planner", loaded)
    episodes = {"dagger": 1, "dagger_episodes": 1, "dagger_steps": 2, "effort_limit": (0.02, 0.01)}
    training = dataclasses.replace(QUICK, epochs=1, rates_hz=(25.0, 50.0), **episodes)
    frames = labelled_frames(small_data, training)
    outcome = train_bc(frames, training, encoder)
    of_data = (*small_data.info.effort_limit, small_data.info.control_period_s)
    of_rollouts = [(0.02, 0.01, period_s) for period_s in (0.04, 0.02)]
    assert contexts == [pytest.approx(each) for each in (of_data, *of_rollouts)]
    assert outcome.frames == len(frames) + 2 * 2


def at_two_rates() -> Frames:
    """Frames of two datasets. At 40 ms the labels are a quarter of those at 20 ms, in situations that are alike."""
    fast, slow = synthetic(), synthetic()
    slow.labels, slow.period_s = slow.labels / 4, np.full(len(slow), 0.04)
    return fast.joined(slow)


@pytest.mark.parametrize("bottleneck", [0, 8])
def test_a_policy_of_two_rates_acts_by_the_control_period_of_its_arm(tmp_path, small_data, bottleneck):
    training = dataclasses.replace(QUICK, bottleneck=bottleneck, epochs=60, patience=60, noise=0.0, learning_rate=1e-2)
    frames = at_two_rates()
    outcome = train_bc(frames, training)
    assert outcome.policy.config.control_period
    assert min(entry["validation"] for entry in outcome.curve) < 0.15 * outcome.variance
    slow = rewritten(small_data, tmp_path / "slow", {}, control_period_ns=40_000_000)
    write_policy(tmp_path / "policy", outcome, training, [slow, small_data], "vjepa train bc")
    card = (tmp_path / "policy/MODEL_CARD.md").read_text()
    assert "joint positions and velocities and the control period. It never reads the target." in card
    assert "frames at 50 and 25 Hz" in card
    actions = []
    for period_s in (0.02, 0.04):
        planner = load_planner("bc", {"bundle": str(tmp_path / "policy")}, PlannerContext(2, period_s))
        assert planner.trained_periods_s == (0.02, 0.04)
        planner.reset(0)
        rows = range(50)
        seen = [(frames.latents[i].astype(np.float32), frames.position[i], frames.velocity[i]) for i in rows]
        actions.append(np.stack([planner.plan(Observation(0, *each)).action for each in seen]))
        periods = torch.full((len(rows),), period_s)
        tensors = [torch.tensor(np.stack(arrays), dtype=torch.float32) for arrays in zip(*seen, strict=True)]
        expected = outcome.policy(outcome.policy.inputs(*tensors, periods))
        assert np.allclose(actions[-1], expected.numpy(), atol=1e-5), "as in training"
    at_20_ms, at_40_ms = (np.abs(each).mean() for each in actions)
    assert 3 < at_20_ms / at_40_ms < 5


def test_a_policy_of_one_rate_does_not_read_the_control_period():
    slow = synthetic()
    slow.period_s = slow.period_s + 1e-9
    assert not train_bc(synthetic().joined(slow), QUICK).policy.config.control_period


def test_datasets_of_several_rates_have_the_labels_of_their_own_and_others_are_refused(small_data, tmp_path):
    slow = rewritten(small_data, tmp_path / "slow", {}, control_period_ns=40_000_000)
    require_one_arm([small_data, slow])
    fast_labels, slow_labels = (labelled_frames(dataset, QUICK).labels for dataset in (small_data, slow))
    assert np.abs(fast_labels).mean() > 1.2 * np.abs(slow_labels).mean(), "a slower loop is less stiff"
    for name, changed, message in (
        ("weak", {"effort_limit": (0.01, 0.05)}, r"effort_limit \(0.05, 0.05\) and \(0.01, 0.05\)"),
        ("hard", {"task": "reacher-hard"}, "task reacher-easy and reacher-hard"),
        ("seen", {"encoder": {"fingerprint": "another"}}, "encoder fingerprint .* and another"),
    ):
        other = rewritten(small_data, tmp_path / name, {}, **changed)
        with pytest.raises(VjepaError, match=f"cannot train one policy: {message}; give datasets of one arm"):
            require_one_arm([small_data, slow, other])
    efforts, commands = (dataclasses.replace(synthetic(), source=source) for source in ("effort", "command"))
    with pytest.raises(VjepaError, match="some datasets have recorded efforts, others commands; expected one kind"):
        efforts.joined(commands)


def test_dagger_without_an_encoder_is_refused(small_data):
    training = dataclasses.replace(QUICK, dagger=1)
    with pytest.raises(VjepaError, match="--encoder"):
        train_bc(labelled_frames(small_data, training), training)


def test_the_seeds_of_dagger_are_none_that_an_evaluation_uses():
    seeds = {dagger_seed(QUICK, number) + i for number in (1, 5) for i in range(1000)}
    assert min(seeds) >= 1_000_000_000
    assert len(seeds) == 2000


def test_the_expert_labels_a_batch_as_it_plans_one_by_one():
    rng = np.random.default_rng(1)
    position, velocity = rng.normal(size=(2, 5, 2))
    target = rng.uniform(-0.2, 0.2, (5, 3))
    whole = expert_actions(position, velocity, target)
    single = [expert_actions(position[i : i + 1], velocity[i : i + 1], target[i : i + 1])[0] for i in range(5)]
    assert np.array_equal(whole, np.stack(single))


@pytest.mark.parametrize("joint_state", [True, False])
def test_a_bottleneck_policy_drives_from_its_bundle(tmp_path, joint_state):
    config = PolicyConfig(8, (0, 2), joint_state, hidden=(16, 16), bottleneck=4)
    policy = Policy(config).eval()
    save_policy(tmp_path, policy, "fp", "card")
    planner = load_planner(
        "bc", {"bundle": str(tmp_path)}, PlannerContext(action_size=2, control_period_s=0.02, device="cpu")
    )
    planner.reset(0)
    latent, joints = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32), np.array([0.5, -1.0])
    action = planner.plan(Observation(0, latent, joints, -joints), None).action
    tensors = torch.from_numpy(latent), *(torch.tensor(v, dtype=torch.float32) for v in (joints, -joints))
    assert np.allclose(action, policy(policy.inputs(*tensors)).detach().numpy(), atol=1e-6)


def test_a_whole_turn_of_a_joint_changes_nothing_for_a_bottleneck_policy():
    policy = Policy(PolicyConfig(8, (0,), True, hidden=(16, 16), bottleneck=4)).eval()
    latent, position, velocity = torch.randn(1, 8), torch.randn(2), torch.randn(2)
    turned = position + 2 * torch.pi
    same = [policy(policy.inputs(latent, p, velocity)) for p in (position, turned)]
    assert torch.allclose(*same, atol=1e-5)


def test_a_cloned_policy_knows_latents_like_those_of_its_training_from_others(small_data, tmp_path):
    training = dataclasses.replace(QUICK, epochs=1)
    frames = synthetic(episodes=100)
    outcome = train_bc(frames, training)
    write_policy(tmp_path / "policy", outcome, training, [small_data], "vjepa train bc")
    planner = load_planner("bc", {"bundle": str(tmp_path / "policy")}, PlannerContext(2, 0.02))
    planner.reset(0)

    def novelty(latent):
        return planner.plan(Observation(0, latent.astype(np.float32), np.zeros(2), np.zeros(2))).novelty

    of_training = [novelty(latent) for latent in frames.latents[:200]]
    assert np.mean(np.array(of_training) > 1) < 0.05
    assert all(novelty(latent + 3.0) > 1 for latent in frames.latents[:20])
