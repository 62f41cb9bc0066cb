"""A request of parameters is taken as a whole or not at all, and a node is what its parameters state."""

import dataclasses

import pytest
import rclpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rcl_interfaces.srv import SetParameters
from rclpy.exceptions import ParameterNotDeclaredException
from rclpy.parameter import Parameter

from vjepa_bringup.domains import hold_domain
from vjepa_interfaces.effort_guard_node import EffortGuardNode
from vjepa_planner.planner_node import PlannerNode

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
