"""A policy survives its bundle bit for bit, and a bundle that does not fit is refused, naming what does not."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vjepa_interfaces.bundle import BundleError, read_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.contract import Observation, ObservationRefusedError, PlannerContext
from vjepa_planner.models.policy import Policy, PolicyConfig, load_policy, save_policy
from vjepa_planner.registry import load_planner

CONTEXT = PlannerContext(action_size=2, control_period_s=0.02)
SMALL = PolicyConfig(latent_dim=8, latent_rows=(2, 0), joint_state=True, hidden=(16, 4))


@pytest.fixture
def saved(tmp_path):
    """A bundle of a small policy that reads two rows and the joint state, and the policy."""
    torch.manual_seed(0)
    policy = Policy(SMALL)
    policy.set_statistics(torch.randn(20), torch.rand(20))
    return save_policy(tmp_path / "policy", policy, "fp-1", "# card", {"dataset": "d1", "command": "train"}), policy


def rewrite_config(bundle, **changes):
    file = bundle.path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return read_bundle(bundle.path, "policy")


def test_the_default_policy_has_the_documented_number_of_parameters():
    assert sum(parameter.numel() for parameter in Policy(PolicyConfig()).parameters()) == 279_490


def test_a_policy_loaded_from_its_bundle_is_the_one_saved(saved):
    bundle, policy = saved
    loaded = load_policy(read_bundle(bundle.path, "policy"))
    assert loaded.config == SMALL
    inputs = torch.randn(5, 20)
    assert torch.equal(loaded(inputs), policy.eval()(inputs))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_bundle_says_where_it_came_from(saved):
    bundle, _ = saved
    config = json.loads((bundle.path / "config.json").read_text())
    assert (config["dataset"], config["command"], config["encoder_fingerprint"]) == ("d1", "train", "fp-1")
    assert (config["kind"], config["architecture"], config["latent_rows"]) == ("policy", "bc-mlp", [2, 0])
    assert sorted(file.name for file in bundle.path.iterdir()) == ["MODEL_CARD.md", "config.json", "model.safetensors"]


def test_whoever_may_read_the_configuration_may_read_the_weights(saved):
    bundle, _ = saved
    modes = {file.stat().st_mode & 0o777 for file in bundle.path.iterdir()}
    assert len(modes) == 1


def test_provenance_cannot_overwrite_what_loading_relies_on(tmp_path):
    with pytest.raises(VjepaError, match="kind"):
        save_policy(tmp_path, Policy(SMALL), "fp", "card", {"kind": "encoder"})


def test_inputs_are_the_chosen_rows_in_order_then_positions_then_velocities():
    latent = torch.arange(24.0).reshape(3, 8)
    inputs = Policy(SMALL).inputs(latent, torch.tensor([100.0, 101.0]), torch.tensor([102.0, 103.0]))
    assert inputs.tolist() == [*range(16, 24), *range(8), 100, 101, 102, 103]


def test_inputs_of_a_batch_are_those_of_its_members():
    policy = Policy(SMALL)
    latents, joints = torch.randn(6, 3, 8), torch.randn(2, 6, 2)
    batch = policy.inputs(latents, *joints)
    for i in range(6):
        assert torch.equal(batch[i], policy.inputs(latents[i], joints[0, i], joints[1, i]))


def test_statistics_normalise_the_input():
    policy = Policy(PolicyConfig(latent_dim=4))
    plain = policy(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    policy.set_statistics(torch.full((4,), 10.0), torch.full((4,), 2.0))
    assert torch.allclose(policy(torch.tensor([12.0, 14.0, 16.0, 18.0])), plain)


def test_a_feature_that_never_varied_does_not_divide_by_zero():
    policy = Policy(PolicyConfig(latent_dim=4))
    policy.set_statistics(torch.zeros(4), torch.zeros(4))
    assert torch.isfinite(policy(torch.randn(4))).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"latent_dim": 0},
        {"latent_dim": -8},
        {"latent_dim": 10**30},
        {"latent_dim": 8.0},
        {"latent_dim": "8"},
        {"latent_dim": True},
        {"latent_dim": None},
        {"latent_rows": []},
        {"latent_rows": [0, 0]},
        {"latent_rows": [-1]},
        {"latent_rows": 0},
        {"latent_rows": [[0]]},
        {"latent_rows": list(range(10_000))},
        {"hidden": [16]},
        {"hidden": [16, 0]},
        {"hidden": {"a": 1}},
        {"action_size": 0},
        {"joint_state": 1},
        {"control_period": 1},
        {"control_period": True},
    ],
    ids=str,
)
def test_a_hostile_configuration_is_refused_naming_the_entry(saved, changes):
    (name,) = changes
    with pytest.raises(BundleError, match=f"{name}|input_mean|layers"):
        load_policy(rewrite_config(saved[0], **changes))


def test_sizes_are_compared_with_the_file_before_anything_is_allocated(saved):
    with pytest.raises(BundleError, match=r"'input_mean' is F32 of shape \[20\].*\[2000004\]"):
        load_policy(rewrite_config(saved[0], latent_dim=1_000_000, hidden=[1_000_000, 1_000_000]))


@pytest.mark.parametrize("architecture", ["bc-transformer", None, 3])
def test_another_architecture_is_refused(saved, architecture):
    with pytest.raises(BundleError, match="architecture"):
        load_policy(rewrite_config(saved[0], architecture=architecture))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("layers.3.weight", torch.zeros(4, 17), r"'layers.3.weight'.*\[4, 17\].*\[4, 16\]"),
        ("layers.3.weight", torch.zeros(4, 16, dtype=torch.float64), "'layers.3.weight' is F64"),
        ("layers.3.weight", torch.full((4, 16), float("nan")), "'layers.3.weight' has values that are not finite"),
        ("input_std", torch.zeros(20), "'input_std'.*not above 0"),
        ("input_std", torch.full((20,), -1.0), "'input_std'.*not above 0"),
        ("extra", torch.zeros(1), r"unknown tensors \['extra'\]"),
        ("layers.0.bias", None, r"lacks tensors \['layers.0.bias'\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused_naming_the_tensor(saved, name, tensor, message):
    bundle = rewrite_config(saved[0], weights_sha256=None)
    tensors = load_file(bundle.weights)
    tensors.pop(name, None)
    save_file(tensors | ({} if tensor is None else {name: tensor}), bundle.weights)
    with pytest.raises(BundleError, match=message):
        load_policy(bundle)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 64])
def test_a_file_that_is_not_safetensors_is_refused(saved, content):
    bundle = rewrite_config(saved[0], weights_sha256=None)
    bundle.weights.write_bytes(content)
    with pytest.raises(BundleError, match="not a readable safetensors file"):
        load_policy(bundle)


def test_weights_of_another_training_are_refused_although_they_fit(saved, tmp_path):
    bundle, policy = saved
    torch.nn.init.ones_(next(policy.parameters()))
    other = save_policy(tmp_path / "other", policy, "fp-1", "# card", {})
    bundle.weights.write_bytes(other.weights.read_bytes())
    with pytest.raises(BundleError, match="damaged or exchanged"):
        load_policy(bundle)


def test_missing_weights_are_refused(saved):
    saved[0].weights.unlink()
    with pytest.raises(BundleError, match="is missing"):
        load_policy(saved[0])


def test_saving_again_does_not_disturb_a_policy_that_drives(saved):
    bundle, _ = saved
    driving = load_policy(bundle)
    inputs = torch.randn(20)
    before = driving(inputs)
    other = Policy(SMALL)
    save_policy(bundle.path, other, "fp-2", "card")
    assert torch.equal(driving(inputs), before)
    assert torch.equal(load_policy(read_bundle(bundle.path, "policy"))(inputs), other(inputs))


def test_bc_without_a_bundle_says_what_to_set():
    with pytest.raises(VjepaError, match="'bundle'"):
        load_planner("bc", {}, CONTEXT)


def test_bc_with_a_bundle_that_is_not_there_names_the_path(tmp_path):
    with pytest.raises(BundleError, match="nowhere"):
        load_planner("bc", {"bundle": str(tmp_path / "nowhere")}, CONTEXT)


def test_bc_acts_as_its_policy_does(saved):
    bundle, policy = saved
    planner = load_planner("bc", {"bundle": str(bundle.path)}, CONTEXT)
    planner.reset(0)
    assert planner.needs == {"joint_state"}
    latent = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    action = planner.plan(Observation(1, latent, np.array([0.1, 0.2]), np.array([0.3, 0.4]))).action
    inputs = torch.tensor([*latent[2], *latent[0], 0.1, 0.2, 0.3, 0.4])
    assert action.tolist() == policy.eval()(inputs).double().tolist()


@pytest.mark.parametrize("shape", [(3, 9), (2, 8)], ids=["other dimension", "too few rows"])
def test_bc_refuses_latents_its_policy_cannot_read(saved, shape):
    planner = load_planner("bc", {"bundle": str(saved[0].path)}, CONTEXT)
    planner.reset(0)
    observation = Observation(1, np.zeros(shape, np.float32), np.zeros(2), np.zeros(2))
    with pytest.raises(ObservationRefusedError, match=r"expects dimension 8 and reads rows \[2, 0\]"):
        planner.plan(observation)


def test_bc_refuses_an_arm_of_other_joints(saved):
    with pytest.raises(VjepaError, match=r"2 joints.*has 3"):
        load_planner("bc", {"bundle": str(saved[0].path)}, dataclasses.replace(CONTEXT, action_size=3))


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "meta"])
def test_bc_refuses_a_device_that_cannot_be_used(saved, device):
    with pytest.raises(VjepaError, match=f"device '{device}'"):
        load_planner("bc", {"bundle": str(saved[0].path)}, dataclasses.replace(CONTEXT, device=device))
