"""The SROS 2 policy of a stack: who may do what, under which names; tests/test_security.py has running stacks."""

from xml.etree import ElementTree

import pytest

from vjepa_bringup.graph import STATE_PUBLISHER, StackOptions, build_graph
from vjepa_bringup.security_policy import Outside, policy
from vjepa_cli import cli
from vjepa_interfaces import access, topics
from vjepa_interfaces.errors import VjepaError

SIM = StackOptions(guard=True)
ARM = StackOptions(source="camera", planner="random", guard=True)
CAMERA = StackOptions(source="camera", camera="/dev/video0", planner="random", guard=True)
ROS_OWN = {"/parameter_events", "/rosout"}
"""What every node of ROS publishes."""


def allowed(options: StackOptions, outside: Outside | None = None) -> dict[str, dict[str, set[str]]]:
    """Return what the policy allows in each enclave, by what it is: publish, subscribe, reply and request."""
    found: dict[str, dict[str, set[str]]] = {}
    for enclave in ElementTree.fromstring(policy(options, outside)).iter("enclave"):
        rules = found.setdefault(enclave.attrib["path"], {})
        for block in enclave.iterfind("profiles/profile/*"):
            ((verb, rule),) = block.attrib.items()
            assert rule == "ALLOW"
            rules.setdefault(verb, set()).update(expression.text for expression in block)
    return found


def who_may(verb: str, name: str, rules: dict[str, dict[str, set[str]]]) -> set[str]:
    return {enclave.rpartition("/")[2] for enclave, verbs in rules.items() if name in verbs.get(verb, ())}


@pytest.mark.parametrize(
    ("options", "outside", "beside"),
    [
        (StackOptions(), None, {"operator"}),
        (SIM, None, {"button", "operator"}),
        (ARM, None, {"arm_controller", "camera_driver", "button", "operator"}),
        (CAMERA, None, {"arm_controller", "button", "operator"}),
        (ARM, Outside(rehearsal=True), {"arm_stand_in", "button", "operator"}),
    ],
)
def test_there_is_an_enclave_for_each_node_of_the_stack_and_for_what_is_beside_it(options, outside, beside):
    nodes = {node.name for node in build_graph(options)}
    assert set(allowed(options, outside)) == {f"/vjepa/{name}" for name in nodes | beside}


def test_compressed_frames_come_from_a_camera_driver_whatever_else_there_is(tmp_path):
    file = tmp_path / "compressed.yaml"
    file.write_text("vjepa_perception: {ros__parameters: {input_transport: compressed}}")
    options = StackOptions(source="camera", camera="0", planner="random", params_file=str(file))
    rules = allowed(options)
    assert who_may("publish", "/camera/image_raw/compressed", rules) == {"camera_driver"}
    assert who_may("subscribe", "/camera/image_raw/compressed", rules) == {"vjepa_perception", "operator"}


def test_torques_are_commanded_by_the_planner_and_reach_an_arm_through_the_guard_alone():
    rules = allowed(ARM)
    assert who_may("publish", "/joint_command", rules) == {"vjepa_planner"}
    assert who_may("publish", "/effort_controller/commands", rules) == {"effort_guard"}
    assert who_may("publish", "/vjepa_planner/goal", rules) == {"operator"}
    assert who_may("publish", "/joint_states", rules) == {"arm_controller"}
    assert who_may("publish", "/clock", rules) == set(), "before an arm nobody sets the time"
    assert "/joint_command" not in rules["/vjepa/arm_controller"]["subscribe"]


def test_the_button_may_hold_the_switch_and_nothing_else_and_nobody_else_may():
    for options in (SIM, ARM):
        rules = allowed(options)
        assert who_may("publish", "/effort_guard/enable", rules) == {"button"}
        button = rules["/vjepa/button"]
        assert button["publish"] - ROS_OWN == {"/effort_guard/enable"}
        assert "request" not in button, "no parameter of any node, and no other service"
        assert {name.rpartition("/")[0] for name in button["reply"]} == {"/button"}


def test_parameters_are_set_by_the_operator_and_states_changed_by_the_stack_manager_beside():
    rules = allowed(SIM)
    nodes = {node.name for node in build_graph(SIM)}
    for name in nodes:
        for service in access.PARAMETER_SERVICES:
            assert who_may("request", f"/{name}/{service}", rules) == {"operator"}
    for name in nodes - {"stack_manager"}:
        assert who_may("request", f"/{name}/change_state", rules) == {"operator", "stack_manager"}
    assert who_may("request", "/stack_manager/change_state", rules) == set()
    asking = {enclave for enclave, verbs in rules.items() if "request" in verbs}
    assert asking == {"/vjepa/operator", "/vjepa/stack_manager"}


def test_namespace_and_remappings_are_in_every_name():
    options = StackOptions(
        source="camera",
        planner="random",
        guard=True,
        namespace="/left/",
        image_topic="/ceiling/image",
        joint_states_topic="arm/joint_states",
        command_topic="arm/wish",
    )
    rules = allowed(options, Outside(button=("/desk/button",), arm_controller=("manager", "effort_controller")))
    assert all(path.startswith("/vjepa/left/") for path in rules)
    assert who_may("publish", "/ceiling/image/compressed", rules) == {"camera_driver"}
    assert who_may("publish", "/left/arm/wish", rules) == {"vjepa_planner"}
    assert who_may("publish", "/left/arm/joint_states", rules) == {"arm_controller"}
    assert who_may("publish", "/left/effort_guard/enable", rules) == {"button"}
    assert who_may("reply", "/desk/button/set_parameters", rules) == {"button"}
    assert who_may("reply", "/left/manager/get_parameters", rules) == {"arm_controller"}
    assert who_may("reply", "/left/effort_controller/get_parameters", rules) == {"arm_controller"}
    every = {name for verbs in rules.values() for names in verbs.values() for name in names}
    elsewhere = {
        name for name in every if not name.startswith(("/left/", "/desk/button/", "/ceiling/", "/_ros2cli_*/"))
    }
    assert elsewhere == {"/clock", "/diagnostics", "/parameter_events", "/rosout"}


def test_the_operators_node_which_is_not_remapped_may_listen_under_either_name():
    hears = allowed(StackOptions(command_topic="wish"))["/vjepa/operator"]["subscribe"]
    assert {"/wish", "/joint_command"} <= hears


def test_a_node_beside_the_stack_cannot_have_the_name_of_one_in_it():
    with pytest.raises(VjepaError, match="node /effort_guard is in two enclaves, effort_guard and button"):
        policy(SIM, Outside(button=("effort_guard",)))


def test_every_topic_has_somebody_who_publishes_it_and_somebody_who_hears_it():
    rows = [
        *access.NODES.values(),
        access.MANAGED_NODE,
        access.CAMERA_DRIVER,
        access.ARM_CONTROLLER,
        access.BUTTON,
        access.OPERATOR,
    ]
    known = {topic for topic in vars(topics).values() if isinstance(topic, topics.Topic)}
    assert known <= {topic for row in rows for topic in row.publishes}
    assert known <= {topic for row in rows for topic in row.subscribes}


def test_the_states_publisher_of_ros_has_a_row_as_the_nodes_here_have():
    assert set(access.NODES) == {
        STATE_PUBLISHER,
        *(node.name for options in (SIM, CAMERA) for node in build_graph(options)),
    }


def printed(capsys, *words: str) -> str:
    assert cli.parse(["security", "policy", *words]).run() == 0
    return capsys.readouterr().out


def test_the_command_prints_the_policy_of_its_options(capsys):
    assert printed(capsys) == policy(StackOptions())
    words = ("source:=camera", "planner:=random", "guard:=true", "namespace:=left", "--button", "/desk/knob")
    options = StackOptions(source="camera", planner="random", guard=True, namespace="left")
    assert printed(capsys, *words) == policy(options, Outside(button=("/desk/knob",)))
    assert printed(capsys, *words[:3], "--rehearsal") == policy(ARM, Outside(rehearsal=True))


def test_what_is_no_name_of_a_node_is_refused(capsys):
    with pytest.raises(SystemExit):
        printed(capsys, "guard:=true", "--button", "a button")
    assert "'a button' is not the name of a ROS node, such as button or /arm/controller_manager" in (
        capsys.readouterr().err
    )
