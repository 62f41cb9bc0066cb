"""A request of parameters is taken as a whole or not at all, and a node is what its parameters state."""

import dataclasses
import subprocess
import sys
from types import SimpleNamespace

import pytest
import rclpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.exceptions import ParameterNotDeclaredException
from rclpy.parameter import Parameter

from sim_bridge.arm_stand_in_node import ArmStandInNode
from sim_bridge.sim_node import SimNode
from vjepa_bags.recorder_node import RecorderNode
from vjepa_bringup.domains import hold_domain
from vjepa_bringup.stack_manager_node import StackManagerNode
from vjepa_interfaces import access
from vjepa_interfaces.deprecated import PARAMETER, RENAMED
from vjepa_interfaces.effort_guard_node import EffortGuardNode
from vjepa_interfaces.errors import VjepaError
from vjepa_perception.camera_node import CameraNode
from vjepa_perception.perception_node import PerceptionNode
from vjepa_planner.planner_node import PlannerNode
from vjepa_planner.planners.bc import BcConfig

GUARD_VALUES = {
    "dry_run": st.sampled_from([True, False, 1, "false", [True]]),
    "rate_hz": st.sampled_from([100.0, 5.0, 100, "fast"]),
    "effort_limits": st.sampled_from([[0.05, 0.05], [0.01, 0.01], [1e308, 1e308], []]),
    "on_timeout": st.sampled_from(["zero", "hold", 3]),
    "use_sim_time": st.sampled_from([False, True]),
    "rearm": st.sampled_from(["release", "auto"]),
    "no_such_parameter": st.just(1.0),
}
PLANNER_VALUES = {
    "planner": st.sampled_from(["random", "expert-p", "expert", "no-such-planner", "", 3, ["random"]]),
    "seed": st.sampled_from([0, 1]),
    "effort_limit": st.sampled_from([0.05, 1.0, -1.0]),
    "lockstep": st.sampled_from([False, True]),
    "use_sim_time": st.sampled_from([False, True]),
    "no_such_parameter": st.just("a"),
}


@pytest.fixture(scope="module")
def configured():
    """Return a function that gives a configured node of a class."""
    nodes = []

    def make(node_class):
        node = node_class()
        nodes.append(node)
        assert node.trigger_configure().name == "SUCCESS", node.last_error
        return node

    with hold_domain(None, {"planner": "(parameters)"}) as domain:
        rclpy.init(domain_id=domain)
        yield make
        for node in nodes:
            node.destroy_node()
        rclpy.try_shutdown()


def requests(values):
    """Sequences of requests, each a list of parameters, with whether it is to be atomic."""
    parameter = st.sampled_from(sorted(values)).flatmap(lambda name: st.tuples(st.just(name), values[name]))
    return st.lists(st.tuples(st.lists(parameter, min_size=1, max_size=4), st.booleans()), max_size=6)


def ask(node, parameters, atomically):
    """Send a request as a service would get it."""
    made = [Parameter(name, value=value) for name, value in parameters]
    if not atomically:
        message = SetParameters.Request(parameters=[parameter.to_parameter_msg() for parameter in made])
        node._parameter_service._set_parameters_callback(message, SetParameters.Response())
        return
    try:
        node.set_parameters_atomically(made)
    except ParameterNotDeclaredException:
        assert "no_such_parameter" in dict(parameters)


def stated(node):
    """What the node's parameters state, by the names of its dataclass."""
    fields = [field.name for field in dataclasses.fields(node.Parameters)]
    values = {name: node.get_parameter(name).value for name in fields}
    return {name: tuple(value) if not isinstance(value, str | int | float) else value for name, value in values.items()}


def check(node):
    assert stated(node) == {name: value for name, value in dataclasses.asdict(node.parameters).items()}
    assert node._time_source.ros_time_is_active == node.get_parameter("use_sim_time").value


QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def guard(configured):
    return configured(EffortGuardNode)


@pytest.fixture(scope="module")
def planner(configured):
    return configured(PlannerNode)


@QUICK
@given(requests(GUARD_VALUES))
def test_whatever_is_asked_of_a_guard_it_is_what_its_parameters_state(guard, asked):
    for parameters, atomically in asked:
        ask(guard, parameters, atomically)
        check(guard)
        assert guard._guard.dry_run == guard.get_parameter("dry_run").value


@QUICK
@given(requests(PLANNER_VALUES))
def test_whatever_is_asked_of_a_planner_it_is_what_its_parameters_state(planner, asked):
    for parameters, atomically in asked:
        ask(planner, parameters, atomically)
        check(planner)
        assert planner._supervisor.chosen == planner.get_parameter("planner").value


def test_a_swap_that_is_asked_for_beside_what_is_refused_swaps_nothing(planner):
    planner.set_parameters_atomically([Parameter("planner", value="expert")])
    for others in ([Parameter("seed", value=7)], [Parameter("use_sim_time", value=True)]):
        result = planner.set_parameters_atomically([Parameter("planner", value="random"), *others])
        assert not result.successful
        assert planner._supervisor.chosen == "expert"
    assert "is read at configure; clean up vjepa_planner first" in result.reason


def test_a_parameter_cannot_be_deleted(guard):
    before = guard.get_parameter("dry_run").value
    result = guard.set_parameters_atomically([Parameter("dry_run", Parameter.Type.NOT_SET)])
    assert not result.successful
    assert "'dry_run' cannot be deleted" in result.reason
    assert guard.get_parameter("dry_run").value == before


# What is told of parameters.


@pytest.fixture(scope="module")
def nodes(configured, guard, planner):
    """A node of every class, by name; those that are configured at once are used by other tests too."""
    others = [SimNode(), CameraNode(), PerceptionNode(), RecorderNode(), StackManagerNode(), ArmStandInNode()]
    yield {node.get_name(): node for node in (guard, planner, *others)}
    for node in others:
        node.destroy_node()


@pytest.mark.parametrize("name", sorted({*access.NODES, "arm_stand_in"} - {"robot_state_publisher"}))
def test_every_parameter_is_described(nodes, name):
    node = nodes[name]
    for parameter in node._parameters:
        if parameter == "start_type_description_service":  # rclpy's own.
            continue
        descriptor = node.describe_parameter(parameter)
        assert descriptor.description, parameter
        number = isinstance(node.get_parameter(parameter).value, int | float) and descriptor.additional_constraints
        assert not number or descriptor.integer_range or descriptor.floating_point_range, parameter
    own = [p for p in node._parameters if not p.startswith("qos_overrides") and p != "use_sim_time"]
    assert all(node.describe_parameter(p).read_only for p in own) == (name in ("stack_manager", "arm_stand_in"))


@pytest.mark.parametrize("name", ["effort_guard", "vjepa_planner", "stack_manager", "arm_stand_in"])
def test_a_node_takes_what_it_has_dumped_itself(nodes, name):
    node = nodes[name]
    dumped = [node.get_parameter(p).to_parameter_msg() for p in node._parameters]
    request = SetParameters.Request(parameters=dumped)
    response = node._parameter_service._set_parameters_callback(request, SetParameters.Response())
    assert [result.reason for result in response.results if not result.successful] == []


def test_the_options_of_a_planner_are_parameters_though_nobody_gave_them(planner):
    assert planner.get_parameter("expert.damping").value > 0
    assert planner.describe_parameter("expert.damping").description
    result = planner.set_parameters_atomically([Parameter("expert.damping", value="much")])
    assert not result.successful
    assert "option 'damping' of planner 'expert' is 'much'; expected a value of type float" in result.reason


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_an_option_out_of_its_range_is_refused_and_described(planner, value):
    before = planner.get_parameter("expert.damping").value
    assert not planner.set_parameters_atomically([Parameter("expert.damping", value=value)]).successful
    assert planner.get_parameter("expert.damping").value == before
    (allowed,) = planner.describe_parameter("expert.damping").floating_point_range
    assert allowed.from_value == 0.0


def test_a_deprecated_parameter_is_set_by_its_present_name(planner, monkeypatch, capsys):
    monkeypatch.setitem(RENAMED[PARAMETER], "expert.softness", "expert.damping")
    service = planner._parameter_service
    for value, callback, service_type in (
        (1.5, service._set_parameters_callback, SetParameters),
        (1.25, service._set_parameters_atomically_callback, SetParametersAtomically),
    ):
        parameter = Parameter("expert.softness", value=value).to_parameter_msg()
        callback(service_type.Request(parameters=[parameter]), service_type.Response())
        assert planner.get_parameter("expert.damping").value == value
        assert "'expert.softness' is deprecated; use 'expert.damping'" in capsys.readouterr().err


STARTED = """
import rclpy
from vjepa_planner.planner_node import PlannerNode
rclpy.init(args=["--ros-args", "-p", "cem.proposals:=3"], domain_id={})
node = PlannerNode()
print(node.options("cem"))
node.destroy_node()
rclpy.shutdown()
"""


def test_a_deprecated_parameter_of_the_start_is_the_present_one():
    with hold_domain(None, {"planner": "(parameters)"}) as domain:
        run = [sys.executable, "-P", "-c", STARTED.format(domain)]
        ended = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert ended.stdout == "{'prior_samples': 3}\n", ended.stderr
    assert "'cem.proposals' is deprecated; use 'cem.prior_samples'" in ended.stderr


def test_an_option_that_names_a_bundle_is_not_set_to_what_is_none(planner, monkeypatch):
    monkeypatch.setitem(planner._pool.loaded, "bc", SimpleNamespace(config=BcConfig(bundle="bc-small")))
    planner.check_live_options("bc", {"bundle": "bc-latents"})
    with pytest.raises(VjepaError, match=r"no bundle at 'nonsense'.*bc-small"):
        planner.check_live_options("bc", {"bundle": "nonsense"})


def test_a_parameter_that_there_is_not_is_named(planner):
    request = SetParameters.Request(parameters=[Parameter("warp_factor", value=9).to_parameter_msg()])
    (result,) = planner._parameter_service._set_parameters_callback(request, SetParameters.Response()).results
    assert not result.successful
    assert "vjepa_planner has none of the name 'warp_factor'" in result.reason


def test_a_value_out_of_its_range_is_refused(planner):
    result = planner.set_parameters_atomically([Parameter("latent_timeout_s", value=-1.0)])
    assert not result.successful
    assert "latent_timeout_s out of range" in result.reason


def test_a_value_out_of_its_range_at_the_start_is_refused_with_the_range():
    code = "from vjepa_planner.planner_node import main; main()"
    run = [sys.executable, "-P", "-c", code, "--ros-args", "-p", "latent_timeout_s:=-1.0"]
    ended = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "parameter 'latent_timeout_s' of vjepa_planner is -1.0; expected more than 0, and finite" in ended.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("modle:=arm.xml", "arm_stand_in: there is no parameter modle; valid are: camera, camera_rate_hz,"),
        (
            "model:=no/arm.xml",
            "arm_stand_in: model file 'no/arm.xml' does not exist; give the path of an MJCF",
        ),
    ],
)
def test_the_stand_in_ends_at_a_parameter_that_it_does_not_have_or_a_model_that_is_none(given, message):
    code = "from sim_bridge.arm_stand_in_node import main; main()"
    run = [sys.executable, "-P", "-c", code, "--ros-args", "-p", given]
    ended = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert message in ended.stderr
