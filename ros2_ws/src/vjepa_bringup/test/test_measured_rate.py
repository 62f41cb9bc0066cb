"""The rate `auto` is the highest of the planner's training that the machine can hold, and it is the whole stack's."""

import dataclasses

import pytest
import yaml

from vjepa_bringup import measured_rate
from vjepa_bringup.graph import StackOptions, merged_parameters
from vjepa_bringup.measured_rate import with_measured_rate
from vjepa_interfaces.bundle import write_bundle
from vjepa_interfaces.errors import VjepaError


@pytest.fixture
def policy(tmp_path):
    """The folder of a policy that was trained at 50 and 25 Hz; nothing here reads its weights."""
    config = {"kind": "policy", "architecture": "bc-mlp", "control_period_s": [0.02, 0.04]}
    return str(write_bundle(tmp_path / "policy", config, "# Of a test\n").path)


@pytest.fixture
def encode_ms(monkeypatch):
    """Return a function that sets the time that encoding is found to take."""

    def take(milliseconds: float) -> None:
        monkeypatch.setattr(measured_rate, "_encode_time_s", lambda perception: 1e-3 * milliseconds)

    return take


@pytest.mark.parametrize(
    ("milliseconds", "rate", "line"),
    [
        (9.0, "50", "with 9.0 ms an encode this machine can hold 66.7 Hz\n"),
        (20.0, "25", "with 20.0 ms an encode this machine can hold 34.8 Hz\n"),
        (
            61.0,
            "25",
            "with 61.0 ms an encode this machine can hold 12.5 Hz; warning: expect frames without command\n",
        ),
    ],
)
def test_the_highest_rate_of_the_training_that_the_machine_holds_is_chosen(
    policy, encode_ms, capsys, milliseconds, rate, line
):
    encode_ms(milliseconds)
    options = StackOptions(planner="bc", bc_bundle=policy, rate="auto", task="reacher-hard")
    assert with_measured_rate(options) == dataclasses.replace(options, rate=rate)
    trained = "planner 'bc' was trained at 25 and 50 Hz"
    assert capsys.readouterr().err == f"vjepa: rate {rate} Hz: {trained}, and {line}"


def test_a_bundle_of_one_rate_is_driven_at_that_one(encode_ms):
    encode_ms(5.0)
    assert with_measured_rate(StackOptions(planner="cem", rate="auto")).rate == "50"


@pytest.mark.parametrize("rate", [None, "30"])
def test_nothing_is_measured_for_another_rate(rate, monkeypatch):
    monkeypatch.delattr(measured_rate, "_encode_time_s")
    options = StackOptions(rate=rate)
    assert with_measured_rate(options) is options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"planner": "expert"}, "planner 'expert' has no bundle that records the rates of its training; give a number"),
        ({"lockstep": True}, "rate is auto, but lockstep waits for every command, .*give a number"),
        ({"source": "camera", "planner": "bc"}, "your own camera driver has its own rate; give that as a number"),
    ],
)
def test_where_there_is_no_rate_to_choose_a_number_is_asked_for(options, message, encode_ms):
    encode_ms(5.0)
    with pytest.raises(VjepaError, match=message):
        with_measured_rate(StackOptions(rate="auto", **options))


def test_the_encoder_is_measured_with_the_parameters_of_the_stack(policy, tmp_path):
    file = tmp_path / "parameters.yaml"
    file.write_text(yaml.safe_dump({"vjepa_perception": {"ros__parameters": {"grid": 2, "device": "cpu"}}}))
    options = StackOptions(bc_bundle=policy, rate="auto", params_file=str(file))
    assert with_measured_rate(options).rate in ("25", "50")
    with pytest.raises(VjepaError, match="nowhere/at/all"):
        with_measured_rate(dataclasses.replace(options, encoder="nowhere/at/all"))


def test_a_rate_is_that_of_the_source_and_of_the_planner(tmp_path):
    file = tmp_path / "parameters.yaml"
    stated = {"sim_bridge": {"rate_hz": 10.0}, "vjepa_planner": {"control_period_s": 0.1}, "camera": {"fps": 10.0}}
    file.write_text(yaml.safe_dump({name: {"ros__parameters": values} for name, values in stated.items()}))
    simulated = merged_parameters(StackOptions(rate="25", params_file=str(file)))
    assert (simulated["sim_bridge"]["rate_hz"], simulated["vjepa_planner"]["control_period_s"]) == (25.0, 0.04)
    camera = StackOptions(rate="25", params_file=str(file), source="camera", camera="0", planner="bc")
    seen = merged_parameters(camera)
    assert (seen["camera"]["fps"], seen["camera"]["expected_rate_hz"]) == (25.0, 25.0)
    assert seen["vjepa_planner"]["control_period_s"] == 0.04


@pytest.mark.parametrize("rate", ["fast", "", "0.5", "2000", "nan"])
def test_a_rate_that_no_stack_has_is_refused(rate):
    with pytest.raises(VjepaError, match=f"rate is '{rate}'; expected auto, or 1 to 1000 Hz"):
        merged_parameters(StackOptions(rate=rate))


def test_one_node_alone_measures_no_rate():
    with pytest.raises(VjepaError, match="rate is auto, which is measured only for a whole stack in real time"):
        merged_parameters(StackOptions(rate="auto"))
