"""Bundles are read whole and of the right kind, or refused; a policy is held to its encoder."""

import hashlib
import json
from pathlib import Path

import pytest

from vjepa_interfaces.bundle import (
    CARD_FILE,
    CONFIG_FILE,
    Bundle,
    BundleError,
    arm_record,
    encoder_in_card,
    read_bundle,
    shipped_bundles,
    write_bundle,
)
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.json_text import MAX_BYTES

CONFIG = {"kind": "policy", "architecture": "mlp", "encoder_fingerprint": "abcd", "latent_rows": "mean", "hidden": 256}


def test_what_was_written_is_read(tmp_path):
    written = write_bundle(tmp_path / "deep" / "policy", CONFIG, "# A policy\n")
    read = read_bundle(tmp_path / "deep" / "policy", "policy")
    assert read == written
    assert read.config == CONFIG
    assert read.weights == tmp_path / "deep" / "policy" / "model.safetensors"
    assert (read.path / CARD_FILE).read_text() == "# A policy\n"
    assert sorted(path.name for path in read.path.iterdir()) == [CARD_FILE, CONFIG_FILE]


def test_a_home_folder_is_written_and_read_alike(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_bundle("~/policy", CONFIG, "")
    assert (tmp_path / "policy" / CONFIG_FILE).is_file()
    assert read_bundle("~/policy", "policy").config == CONFIG


def test_a_missing_folder_or_config_is_refused_naming_it(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(BundleError, match=f"no bundle at '{path}': expected a folder with config.json"):
            read_bundle(path, "policy")


@pytest.mark.parametrize("text", ["", "{", "not json", "[" * 100_000, "\udcff", "[{}]", '"x"'])
def test_a_config_that_is_not_json_is_refused_naming_the_file(tmp_path, text):
    (tmp_path / CONFIG_FILE).write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(BundleError, match=f"{tmp_path / CONFIG_FILE} is not readable JSON"):
        read_bundle(tmp_path, "policy")


def test_an_oversized_config_is_refused_unread(tmp_path):
    (tmp_path / CONFIG_FILE).write_text(json.dumps(CONFIG) + " " * MAX_BYTES)
    with pytest.raises(BundleError, match=f"expected at most {MAX_BYTES}"):
        read_bundle(tmp_path, "policy")


@pytest.mark.parametrize(("content", "found"), [(CONFIG, "policy"), ({}, "None")])
def test_a_bundle_of_another_kind_is_refused_naming_both(tmp_path, content, found):
    (tmp_path / CONFIG_FILE).write_text(json.dumps(content))
    with pytest.raises(BundleError, match=f"is of kind '{found}'; expected 'encoder'"):
        read_bundle(tmp_path, "encoder")


@pytest.mark.parametrize(
    ("value", "kind", "names"),
    [
        (None, int, "int"),
        ("256", int, "int"),
        (True, int, "int"),
        (True, (int, float), "int or float"),
        (1.0, int, "int"),
        ([1], (str, dict), "str or dict"),
    ],
)
def test_a_required_value_of_another_type_is_refused_naming_file_and_key(tmp_path, value, kind, names):
    bundle = Bundle(tmp_path, {"hidden": value})
    with pytest.raises(BundleError, match=rf"config\.json: 'hidden' is .*; expected a value of type {names}$"):
        bundle.require("hidden", kind)


def test_a_required_value_of_its_type_is_returned(tmp_path):
    bundle = Bundle(tmp_path, {"hidden": 256, "mean": 1, "loud": True})
    assert bundle.require("hidden", int) == 256
    assert bundle.require("mean", (int, float)) == 1
    assert bundle.require("loud", bool) is True


def test_latents_of_another_encoder_are_refused_naming_both_fingerprints(tmp_path):
    bundle = Bundle(tmp_path, CONFIG)
    bundle.check_encoder("abcd")
    with pytest.raises(BundleError, match=r"encoder abcd.*come from ef01"):
        bundle.check_encoder("ef01")
    with pytest.raises(BundleError, match="'encoder_fingerprint' is nothing"):
        Bundle(tmp_path, {}).check_encoder("abcd")


def test_weights_that_were_exchanged_are_refused_with_both_hashes(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"mine")
    write_bundle(tmp_path, CONFIG, "")
    bundle = read_bundle(tmp_path, "policy")
    bundle.check_weights()
    (tmp_path / "model.safetensors").write_bytes(b"theirs")
    with pytest.raises(BundleError) as refused:
        bundle.check_weights()
    for content in (b"mine", b"theirs"):
        assert hashlib.sha256(content).hexdigest() in str(refused.value)


def test_a_bundle_written_again_has_the_hash_of_its_new_weights(tmp_path):
    for content in (b"old", b"new"):
        (tmp_path / "model.safetensors").write_bytes(content)
        config = {**read_bundle(tmp_path, "policy").config} if content == b"new" else CONFIG
        write_bundle(tmp_path, config, "").check_weights()
    assert read_bundle(tmp_path, "policy").config["weights_sha256"] == hashlib.sha256(b"new").hexdigest()


def test_a_bundle_from_before_there_were_hashes_is_taken(tmp_path):
    write_bundle(tmp_path, CONFIG, "")
    (tmp_path / "model.safetensors").write_bytes(b"any")
    read_bundle(tmp_path, "policy").check_weights()


@pytest.mark.parametrize(
    ("recorded", "periods_s"),
    [
        ({"control_period_s": [0.02, 0.04]}, (0.02, 0.04)),
        ({"control_period_s": [1]}, (1.0,)),
        ({"control_period_s": 0.02}, (0.02,)),  # An older bundle.
        ({}, ()),
    ],
)
def test_the_control_periods_of_its_training_are_known_where_they_are_recorded(recorded, periods_s):
    assert Bundle(Path("policy"), recorded).control_periods_s == periods_s


@pytest.mark.parametrize(
    "period", [0, -0.02, "fast", True, None, float("nan"), float("inf"), [], [0.02, 0], [True], ["0.02"], [[0.02]]]
)
def test_a_senseless_control_period_is_refused_naming_the_file(period):
    with pytest.raises(BundleError, match=r"policy/config.json: 'control_period_s' is"):
        _ = Bundle(Path("policy"), {"control_period_s": period}).control_periods_s


ARM = EffortLimits.of(("shoulder", "wrist"), 0.05)


def test_the_arm_it_was_trained_on_passes_and_so_does_any_where_none_is_recorded():
    Bundle(Path("policy"), {"arm": arm_record(ARM)}).check_arm(EffortLimits.of(("shoulder", "wrist"), 0.05))
    Bundle(Path("policy"), {}).check_arm(ARM)


def test_one_effort_limit_in_a_bundle_is_that_of_every_joint():
    bundle = Bundle(Path("policy"), {"arm": {"joint_names": ["shoulder", "wrist"], "effort_limit": 0.05}})
    assert bundle.arm == ARM
    bundle.check_arm(ARM)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        (
            EffortLimits.of(("proximal", "distal"), 0.05),
            "joints shoulder, wrist, but this one has proximal, distal; use",
        ),
        (EffortLimits.of(("wrist", "shoulder"), 0.05), "joints shoulder, wrist, but this one has wrist, shoulder"),
        (EffortLimits.of(("shoulder",), 0.05), "joints shoulder, wrist, but this one has shoulder;"),
        (EffortLimits.of(("shoulder", "wrist"), 0.2), "an action of 1 is 0.05 N·m, but here it is 0.2; set the same"),
        (EffortLimits.of(("shoulder", "wrist"), (0.05, 0.2)), "1 is 0.05 N·m, but here it is 0.05, 0.2; set the same"),
    ],
)
def test_another_arm_than_the_one_it_was_trained_on_is_refused_naming_both(arm, message):
    with pytest.raises(BundleError, match=f"policy was trained .*{message}"):
        Bundle(Path("policy"), {"arm": arm_record(ARM)}).check_arm(arm)


@pytest.mark.parametrize(
    "arm",
    [
        {},
        [],
        {"joint_names": 3, "effort_limit": 1},
        {"joint_names": ["a"], "effort_limit": "x"},
        {"joint_names": ["a"], "effort_limit": [1, 2]},
        {"joint_names": ["a"], "effort_limit": -1},
        {"joint_names": ["a"], "effort_limit": 10**400},
    ],
)
def test_a_damaged_record_of_the_arm_is_refused_naming_the_file(arm):
    with pytest.raises(BundleError, match=r"policy/config.json: 'arm' is"):
        Bundle(Path("policy"), {"arm": arm}).check_arm(ARM)


def test_another_encoder_is_refused_with_names_beside_fingerprints(tmp_path):
    named = Bundle(tmp_path, {"encoder_fingerprint": "9e8b", "encoder": "encoder-small"})
    with pytest.raises(BundleError, match=r"of encoder encoder-small \(9e8b\), but these come from mine \(77aa\); use"):
        named.check_encoder("77aa", "mine")
    with pytest.raises(BundleError, match="of encoder 9e8b, but these come from 77aa; use"):
        Bundle(tmp_path, {"encoder_fingerprint": "9e8b"}).check_encoder("77aa")


def test_every_bundle_that_ships_names_its_encoder_in_config_and_card():
    assert "bc-small" in shipped_bundles("policy")
    for name in shipped_bundles():
        bundle = read_bundle(name)
        if "encoder_fingerprint" in bundle.config:
            label = encoder_in_card(bundle.config["encoder"], bundle.config["encoder_fingerprint"])
            assert f"of encoder {label}" in (bundle.path / CARD_FILE).read_text(), name


def test_a_bundle_that_there_is_not_is_refused_with_those_of_its_kind_that_ship():
    with pytest.raises(BundleError, match=r"no bundle at 'bc-smal': .*, or one that ships: bc-latents, bc-small$"):
        read_bundle("bc-smal", "policy")


def test_a_bundle_that_ships_is_called_by_its_name_and_any_other_by_its_folder(tmp_path):
    shipped = read_bundle("bc-small")
    other = write_bundle(tmp_path / "bc-small", {**shipped.config}, "")
    assert (shipped.label, other.label) == ("bc-small", str(tmp_path / "bc-small"))
    with pytest.raises(BundleError, match=r"^bc-small was trained on latents of encoder "):
        shipped.check_encoder("0123456789abcdef")
    with pytest.raises(BundleError, match=r"is of kind 'policy'; expected 'reward', such as reward-small$"):
        read_bundle("bc-small", "reward")
