"""The graph as data: what runs, with which parameters, and which of their sources wins."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from ament_index_python.packages import get_package_prefix

from vjepa_bringup.discovery import DISCOVERIES, discovery_environment
from vjepa_bringup.graph import (
    CONSUMERS,
    GUARD,
    LIFECYCLE_ORDER,
    OPTION_PARAMETERS,
    STATE_PUBLISHER,
    NodeSpec,
    StackOptions,
    arm_stand_in,
    build_graph,
    default_parameters,
    environment,
    find_bundle,
    merged_parameters,
    option_names,
    read_parameter_file,
    share,
)
from vjepa_bringup.options import option_default, option_help, parse_option, parse_options, replace
from vjepa_bringup.supervisor import command_of
from vjepa_interfaces.deprecated import LAUNCH_ARGUMENT, RENAMED
from vjepa_interfaces.errors import VjepaError


@pytest.fixture
def params_file(tmp_path):
    """Return a function that writes nodes' parameters into a ROS parameter file and returns its path."""

    def write(**nodes: dict) -> str:
        path = tmp_path / "parameters.yaml"
        path.write_text(yaml.safe_dump({name: {"ros__parameters": values} for name, values in nodes.items()}))
        return str(path)

    return write


def graph(**options) -> dict[str, NodeSpec]:
    return {node.name: node for node in build_graph(StackOptions(**options))}


def part(values: dict, names: Iterable[str]) -> dict:
    return {name: values[name] for name in names}


# What runs.


def test_consumers_come_before_the_simulation_and_the_manager_last():
    nodes = build_graph(StackOptions())
    assert [node.name for node in nodes] == [*CONSUMERS, "sim_bridge", "stack_manager"]
    assert [node.name for node in nodes if not node.lifecycle] == ["stack_manager"]
    assert nodes[-1].parameters["managed_nodes"] == [*CONSUMERS, "sim_bridge"]


def test_a_camera_takes_the_place_of_the_simulation():
    nodes = graph(source="camera", planner="random")
    assert set(nodes) == {"vjepa_perception", "vjepa_planner", "episode_recorder", "stack_manager"}
    assert "sim_bridge" not in nodes["stack_manager"].parameters["managed_nodes"]


@pytest.mark.parametrize("source", ["sim", "camera"])
def test_a_guard_is_there_where_it_is_asked_for_and_is_the_first_to_be_taken_down(source):
    assert GUARD not in graph(source=source, planner="random")
    nodes = graph(source=source, planner="random", guard=True, command_topic="torques")
    assert nodes["stack_manager"].parameters["managed_nodes"][-1] == GUARD
    assert nodes[GUARD].parameters["dry_run"] is True
    assert nodes[GUARD].remappings == {"joint_command": "torques"}
    if source == "sim":
        assert nodes["sim_bridge"].parameters["command_input"] == "effort_array"


@pytest.mark.parametrize(
    ("source", "planner_limit", "guard_limit", "refused"),
    [
        ("sim", None, 0.05, ""),
        ("sim", None, 0.06, "effort_limit of vjepa_planner, the torque of an action of 1, is 0.05"),
        ("camera", 2.0, 2.0, ""),
        ("camera", [2.0, 0.01], 2.0, ""),
        ("camera", [3.0, 0.005], 2.0, "effort_limit of vjepa_planner, the torque of an action of 1, is 3, 0.005"),
        ("camera", 2.0, 2.1, "effort_limit of vjepa_planner, the torque of an action of 1, is 2"),
        ("camera", None, 0.05, ""),
        ("camera", None, 0.06, "the effort limit of the planner's bundle, the torque of an action of 1, is 0.05"),
    ],
)
def test_a_guard_lets_no_more_torque_pass_than_its_arm_is_given(
    params_file, source, planner_limit, guard_limit, refused
):
    planner = {"effort_limit": planner_limit} if planner_limit else {"seed": 0}
    file = params_file(effort_guard={"effort_limits": [guard_limit, 0.01]}, vjepa_planner=planner)
    if not refused:
        assert graph(source=source, planner="bc", guard=True, params_file=file)[GUARD]
        return
    with pytest.raises(VjepaError, match=refused):
        graph(source=source, planner="bc", guard=True, params_file=file)


def test_the_guard_of_a_simulated_arm_has_its_joints_and_limits_unless_a_file_says_others(params_file):
    names = ("joint_names", "effort_limits", "slew_rates", "damping")
    guard = graph(guard=True, task="cartpole-swingup")[GUARD].parameters
    assert [guard[name] for name in names] == [["slider"], [10.0], [100.0], [0.0]]
    guard = graph(guard=True)[GUARD].parameters
    assert [guard[name] for name in names] == [["shoulder", "wrist"], [0.05] * 2, [0.5] * 2, [0.0] * 2]
    file = params_file(effort_guard={"effort_limits": [1.0]}, sim_bridge={"effort_limit": 5.0})
    guard = graph(guard=True, task="cartpole-swingup", params_file=file)[GUARD].parameters
    assert [guard[name] for name in names] == [["slider"], [1.0], [50.0], [0.0]]


def test_the_guard_has_the_limit_of_each_joint(params_file):
    file = params_file(sim_bridge={"effort_limit": [30.0, 5.0]})
    guard = graph(guard=True, task="finger-spin", planner="random", params_file=file)[GUARD].parameters
    assert (guard["effort_limits"], guard["slew_rates"]) == ([30.0, 5.0], [300.0, 50.0])


def test_the_limits_of_guard_and_planner_are_compared_joint_by_joint(params_file):
    planner = {"joint_names": ["base", "elbow"], "effort_limit": [2.0, 0.5]}
    swapped = {"joint_names": ["elbow", "base"], "effort_limits": [0.5, 2.0]}
    file = params_file(vjepa_planner=planner, effort_guard=swapped)
    assert graph(source="camera", planner="random", guard=True, params_file=file)[GUARD]


@pytest.mark.parametrize("by_file", [False, True])
def test_a_guard_in_lockstep_is_refused_before_anything_starts(params_file, by_file):
    file = params_file(sim_bridge={"lockstep": True}) if by_file else ""
    with pytest.raises(VjepaError, match=r"guard and lockstep are both true .*; leave out guard or lockstep"):
        graph(guard=True, lockstep=None if by_file else True, params_file=file)
    assert GUARD in graph(guard=True, lockstep=False, params_file=file)


@pytest.fixture
def state_publisher(tmp_path, monkeypatch):
    """ROS's robot_state_publisher, installed as an empty program."""
    executable = tmp_path / "lib" / STATE_PUBLISHER / STATE_PUBLISHER
    marker = tmp_path / "share" / "ament_index" / "resource_index" / "packages" / STATE_PUBLISHER
    for file in (executable, marker):
        file.parent.mkdir(parents=True)
        file.touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join([os.environ["AMENT_PREFIX_PATH"], str(tmp_path)]))
    return executable


def test_the_robot_state_publisher_gets_the_urdf_and_the_arms_joint_states_and_is_managed_by_nobody(state_publisher):
    assert STATE_PUBLISHER not in graph()
    nodes = graph(robot_state_publisher=True, task="reacher-hard", joint_states_topic="states")
    node = nodes[STATE_PUBLISHER]
    assert '<robot name="reacher">' in node.parameters["robot_description"]
    assert node.parameters["use_sim_time"] is True
    assert node.remappings == {"joint_states": "states"}
    assert not node.lifecycle
    assert STATE_PUBLISHER not in nodes["stack_manager"].parameters["managed_nodes"]
    assert command_of(node, "file.yaml", "left", "warn")[0] == str(state_publisher)


def test_without_robot_state_publisher_installed_it_is_said_what_to_install(monkeypatch):
    own = {get_package_prefix(name) for name in ("vjepa_bringup", "sim_bridge")}
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join(own))
    with pytest.raises(VjepaError, match=r"not installed.*apt-get install ros-jazzy-robot-state-publisher"):
        graph(robot_state_publisher=True)


@pytest.mark.parametrize("options", [{"task": "finger-spin"}, {"source": "camera", "planner": "random"}])
def test_an_arm_without_a_urdf_is_not_shown_as_a_reacher(options, state_publisher):
    with pytest.raises(VjepaError, match=r"the stack has no URDF of the arm"):
        graph(robot_state_publisher=True, **options)


def test_the_camera_node_is_activated_last_and_opens_what_the_argument_names(params_file):
    file = params_file(camera={"source": "other.avi", "loop": True}, vjepa_planner={"control_period_s": 0.1})
    *_, camera, manager = build_graph(
        StackOptions(source="camera", camera="/dev/video0", planner="random", params_file=file)
    )
    assert (camera.package, camera.executable, camera.name) == ("vjepa_perception", "camera", "camera")
    assert manager.parameters["managed_nodes"] == [*CONSUMERS, "camera"]
    assert part(camera.parameters, ["source", "loop", "use_sim_time", "expected_rate_hz"]) == {
        "source": "/dev/video0",
        "loop": True,
        "use_sim_time": False,
        "expected_rate_hz": 10.0,
    }


def test_no_rate_is_expected_of_a_camera_unless_a_file_says_the_control_period():
    camera = graph(source="camera", camera="0", planner="random")["camera"]
    assert "expected_rate_hz" not in camera.parameters
    assert "camera" not in graph(source="camera", planner="random")


def test_a_camera_beside_the_simulation_is_refused():
    with pytest.raises(VjepaError, match="camera is '0', but source is 'sim'; set source:=camera"):
        graph(camera="0")


def test_what_drives_behind_a_camera_is_chosen_by_its_user(params_file):
    with pytest.raises(VjepaError, match="no planner is chosen"):
        graph(source="camera")
    file = params_file(vjepa_planner={"planner": "random"})
    parameters = graph(source="camera", params_file=file)["vjepa_planner"].parameters
    assert parameters["planner"] == "random"
    assert "fallbacks" not in parameters, "the default planner is for the simulated arm only"
    file = params_file(vjepa_planner={"planner": "random", "fallbacks": ["bc"]})
    assert graph(source="camera", params_file=file)["vjepa_planner"].parameters["fallbacks"] == ["bc"]


@pytest.mark.parametrize(("source", "expected"), [("sim", True), ("camera", False)])
def test_nodes_follow_the_clock_of_the_simulation_and_a_camera_has_none(source, expected):
    nodes = graph(source=source, planner="random")
    found = {name: node.parameters["use_sim_time"] for name, node in nodes.items() if node.lifecycle}
    assert found.pop("episode_recorder") is False, "it needs no time, and each tick would wake it"
    assert set(found.values()) == {expected}


def test_use_sim_time_can_be_asked_for_and_the_argument_wins_over_the_file(params_file):
    file = params_file(**{"/**": {"use_sim_time": False}})
    assert graph(params_file=file)["vjepa_planner"].parameters["use_sim_time"] is False
    for name in ("vjepa_planner", "episode_recorder"):
        assert graph(params_file=file, use_sim_time=True)[name].parameters["use_sim_time"] is True
    camera = graph(source="camera", planner="random", use_sim_time=True)
    assert camera["vjepa_perception"].parameters["use_sim_time"] is True


def test_topics_that_are_elsewhere_are_remapped_in_every_node_that_uses_them():
    nodes = graph(image_topic="/my/cam", joint_states_topic="/arm/joints", command_topic="torques")
    remappings = {
        "camera/image_raw": "/my/cam",
        "camera/image_raw/compressed": "/my/cam/compressed",
        "joint_states": "/arm/joints",
        "joint_command": "torques",
    }
    assert all(node.remappings == remappings for node in nodes.values() if node.lifecycle)
    assert all(node.remappings == {} for node in graph().values())


def test_the_stand_in_for_an_arm_is_where_the_options_say_and_no_part_of_the_stack():
    node = arm_stand_in(StackOptions(image_topic="/my/cam", joint_states_topic="/arm/joints"))
    assert (node.package, node.executable, node.parameters) == ("sim_bridge", "arm_stand_in", {})
    assert node.remappings.items() >= {"camera/image_raw": "/my/cam", "joint_states": "/arm/joints"}.items()
    assert node.name not in graph()


def test_a_parameter_file_may_have_the_stand_in_beside_the_nodes_of_the_stack(tmp_path):
    file = tmp_path / "arm.yaml"
    file.write_text(
        "/**: {ros__parameters: {use_sim_time: false}}\n"
        "arm_stand_in: {ros__parameters: {model: arm.xml}}\n"
        "vjepa_planner: {ros__parameters: {seed: 3}}\n"
    )
    assert arm_stand_in(StackOptions(params_file=str(file))).parameters == {"model": "arm.xml"}
    nodes = graph(params_file=str(file))
    assert nodes["vjepa_planner"].parameters["seed"] == 3
    assert not any("model" in node.parameters for node in nodes.values())


@pytest.mark.parametrize(
    ("option", "value", "valid"),
    [
        ("source", "video", "camera, sim"),
        ("discovery", "off", "localhost, subnet, system_default"),
        ("log_level", "loud", "debug, error, fatal, info, warn"),
    ],
)
def test_an_unknown_choice_is_refused_with_the_valid_ones(option, value, valid):
    with pytest.raises(VjepaError, match=rf"unknown {option} '{value}'; valid are: {valid}$"):
        build_graph(StackOptions(**{option: value}))


def test_the_nodes_environment_follows_the_option_discovery():
    for discovery in DISCOVERIES:
        assert environment(StackOptions(discovery=discovery)) == discovery_environment(discovery)


@pytest.mark.parametrize("address", ["rtsp://me:secret@cam/a", "rtsp://cam/user=me_password=secret", "me:secret@cam/a"])
def test_the_address_of_a_camera_is_in_the_environment_of_its_node_alone_and_no_parameter(address):
    nodes = build_graph(StackOptions(source="camera", camera=address, planner="random"))
    (camera,) = [node for node in nodes if node.name == "camera"]
    assert camera.parameters["source"] == "env:VJEPA_CAMERA_SOURCE"
    assert camera.environment == {"VJEPA_CAMERA_SOURCE": address}
    assert "secret" not in repr([node.parameters for node in nodes]) + repr(nodes)
    assert [node.name for node in nodes if node.environment] == ["camera"]


@pytest.mark.parametrize("source", ["/dev/video0", "clip.mp4", "env:ARM_CAMERA", "@/run/secrets/camera", "rtsp://cam"])
def test_a_source_without_a_secret_is_a_parameter(source):
    nodes = build_graph(StackOptions(source="camera", camera=source, planner="random"))
    (camera,) = [node for node in nodes if node.name == "camera"]
    assert (camera.parameters["source"], camera.environment) == (source, {})


def test_an_address_in_the_wrong_argument_is_refused_without_its_password():
    with pytest.raises(VjepaError, match=r"^unknown source 'rtsp://cam'; valid are: camera, sim$"):
        build_graph(StackOptions(source="rtsp://me:secret@cam/a"))


def test_a_camera_without_a_source_that_asks_for_it_is_refused_without_its_password():
    with pytest.raises(VjepaError, match=r"^camera is 'rtsp://cam', but source is 'sim'; set source:=camera with it"):
        build_graph(StackOptions(camera="rtsp://me:secret@cam/a"))


# Which parameters: defaults, then the user's file, then explicit options.


def test_without_file_and_options_the_defaults_hold():
    merged, defaults = merged_parameters(StackOptions()), default_parameters()
    assert set(merged) == set(defaults) == {*LIFECYCLE_ORDER, GUARD, "stack_manager"}
    assert merged["sim_bridge"] == defaults["sim_bridge"]
    options = {name: value for name, value in defaults["vjepa_planner"].items() if "." in name}
    bundles = {name: str(share("models", value)) for name, value in options.items()}
    assert all(Path(bundle, "config.json").is_file() for bundle in bundles.values())
    expected = defaults["vjepa_planner"] | bundles
    assert part(merged["vjepa_planner"], expected) == expected


def test_a_file_wins_over_the_defaults_and_leaves_the_rest(params_file):
    file = params_file(sim_bridge={"episode_steps": 7}, vjepa_planner={"planner": "random"})
    merged, defaults = merged_parameters(StackOptions(params_file=file)), default_parameters()
    assert merged["sim_bridge"] == defaults["sim_bridge"] | {"episode_steps": 7}
    assert merged["vjepa_planner"]["planner"] == "random"
    assert merged["vjepa_planner"]["planners"] == defaults["vjepa_planner"]["planners"]


EXPLICIT = {
    "crop": [0, 0, 32, 32],
    "rotate": 0,
    "flip": "",
    "planner": "random",
    "encoder": "/some/encoder",
    "device": "cuda",
    "dtype": "bfloat16",
    "lockstep": False,
    "autostart": False,
    "record": False,
    "bag_dir": "/bags",
    "seed": 0,
    "episodes": 0,
    "episode_steps": 9,
    "task": "reacher-hard",
    "render": "exact",
    "look": "camera:easy",
    "backgrounds": "",
    "trace": False,
}
IN_FILE = {
    "crop": [4, 0, 16, 16],
    "rotate": 90,
    "flip": "both",
    "planner": "expert-p",
    "encoder": "/another/encoder",
    "device": "cpu",
    "dtype": "float32",
    "lockstep": True,
    "autostart": True,
    "record": True,
    "bag_dir": "elsewhere",
    "seed": 3,
    "episodes": 4,
    "episode_steps": 5,
    "task": "reacher-easy",
    "render": "dm_control",
    "look": "colour:hard",
    "backgrounds": "pictures",
    "trace": True,
}


def test_every_option_that_is_a_parameter_has_a_default_in_the_configuration():
    defaults = default_parameters()
    assert {name for names in OPTION_PARAMETERS.values() for name in names} == set(EXPLICIT)
    for name in EXPLICIT:
        assert any(name in defaults[node] for node, names in OPTION_PARAMETERS.items() if name in names), name


@pytest.mark.parametrize("name", EXPLICIT)
def test_an_explicit_option_wins_over_the_file_even_where_it_is_false_or_zero(name, params_file):
    nodes = [node for node, names in OPTION_PARAMETERS.items() if name in names]
    file = params_file(**{node: {name: IN_FILE[name]} for node in nodes})
    from_file = merged_parameters(StackOptions(params_file=file))
    explicit = merged_parameters(StackOptions(params_file=file, **{name: EXPLICIT[name]}))
    for node in nodes:
        assert from_file[node][name] == IN_FILE[name]
        assert explicit[node][name] == EXPLICIT[name]


@pytest.mark.parametrize(
    ("sim", "expected"),
    [
        ({"lockstep": True, "seed": 5}, {"lockstep": True, "seed": 5, "control_period_s": 0.02}),
        ({"effort_limit": 0.02}, {"effort_limit": 0.02}),
        ({"effort_limit": [0.02, 0.01]}, {"effort_limit": [0.02, 0.01]}),
        ({"rate_hz": 25.0}, {"control_period_s": 0.04}),
        ({"rate_hz": 25.0, "lockstep": True}, {"control_period_s": 0.04}),
        ({"playback_speed": 0.5}, {"control_period_s": 0.02}),
    ],
)
def test_what_the_file_says_of_the_simulation_alone_reaches_the_planner(sim, expected, params_file):
    planner = merged_parameters(StackOptions(params_file=params_file(sim_bridge=sim)))["vjepa_planner"]
    assert part(planner, expected) == expected


@pytest.mark.parametrize("lockstep", [False, True])
def test_perception_is_told_whether_the_simulation_waits_for_it(lockstep, params_file):
    for options in ({"params_file": params_file(sim_bridge={"lockstep": lockstep})}, {"lockstep": lockstep}):
        assert merged_parameters(StackOptions(**options))["vjepa_perception"]["lockstep"] == lockstep


def test_what_the_file_says_of_the_planner_itself_stays(params_file):
    file = params_file(sim_bridge={"effort_limit": 0.02}, vjepa_planner={"effort_limit": 0.01})
    assert merged_parameters(StackOptions(params_file=file))["vjepa_planner"]["effort_limit"] == 0.01


def test_options_of_a_planner_are_flattened_to_dotted_names(params_file):
    file = params_file(vjepa_planner={"expert-p": {"gain": 2.0}})
    assert merged_parameters(StackOptions(params_file=file))["vjepa_planner"]["expert-p.gain"] == 2.0
    assert graph(params_file=file)["vjepa_planner"].parameters["expert-p.gain"] == 2.0


@pytest.mark.parametrize("key", ["vjepa_planner", "/vjepa_planner", "/**/vjepa_planner", "/left/vjepa_planner"])
def test_a_node_is_named_with_or_without_its_namespace(key, params_file):
    file = params_file(**{key: {"planner": "random"}})
    assert merged_parameters(StackOptions(params_file=file, namespace="/left"))["vjepa_planner"]["planner"] == "random"


@pytest.mark.parametrize("key", ["planner", "/right/vjepa_planner"])
def test_a_node_that_is_not_in_the_stack_is_refused_with_those_that_are(key, params_file):
    file = params_file(**{key: {"planner": "random"}})
    valid = ", ".join(sorted((*LIFECYCLE_ORDER, GUARD, "stack_manager")))
    with pytest.raises(VjepaError, match=rf"parameters\.yaml: unknown node '{key.strip('/')}'; valid are: {valid}"):
        merged_parameters(StackOptions(params_file=file, namespace="left"))


@pytest.mark.parametrize(
    "content", ["", "[1, 2]", "sim_bridge: {task: reacher-easy}", "sim_bridge:\n  ros__parameters: 3", "a: [", "\tx"]
)
def test_what_is_not_a_parameter_file_is_refused_by_name(content, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(content)
    with pytest.raises(VjepaError, match=r"wrong\.yaml"):
        read_parameter_file(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sim: {ros__parameters: {a: 1}}\nsim: {ros__parameters: {b: 1}}", "'sim' stands twice, in lines 1 and 2"),
        ("sim: {ros__parameters: {a: 1}}\n/sim: {ros__parameters: {b: 1}}", "has the node 'sim' twice"),
        ("sim: {ros__parameters: {a: 1, a: 2}}", "'a' stands twice, in lines 1 and 1"),
        (
            "sim: {ros__parameters: {a.b: 1, a: {b: 2}}}",
            "node 'sim': parameter 'a.b' is given twice, nested and with dots",
        ),
        (
            "sim: {ros__parameters: {cem.proposals: 1, cem.prior_samples: 1}}",
            "node 'sim': parameter: 'cem.proposals' is the deprecated name of 'cem.prior_samples'; give the latter",
        ),
        (
            "sim:\n  ros__parameters: {a: 1}\n  ros__parameters: {b: 1}",
            "'ros__parameters' stands twice, in lines 2 and 3",
        ),
    ],
)
def test_a_node_or_parameter_that_stands_twice_is_refused_by_name(content, message, tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text(content)
    with pytest.raises(VjepaError, match=rf"twice\.yaml.*{message}"):
        read_parameter_file(path)


@pytest.mark.parametrize("content", ["{cem.proposals: 3}", "{cem: {proposals: 3}}"])
def test_a_deprecated_parameter_of_a_file_is_the_present_one(content, tmp_path, capsys):
    path = tmp_path / "parameters.yaml"
    path.write_text(f"vjepa_planner: {{ros__parameters: {content}}}")
    assert read_parameter_file(path) == {"vjepa_planner": {"cem.prior_samples": 3}}
    assert capsys.readouterr().err == "vjepa: parameter: 'cem.proposals' is deprecated; use 'cem.prior_samples'\n"


@pytest.mark.parametrize(
    "content", ["sim: {ros_parameters: {a: 1}}", "sim: {ros__parameters: {b: 1}, ros_parameters: {a: 1}}"]
)
def test_what_stands_in_place_of_ros__parameters_or_beside_it_is_refused_by_name(content, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(content)
    with pytest.raises(VjepaError, match=r"wrong\.yaml, node 'sim': 'ros_parameters' is not read; .* two underscores"):
        read_parameter_file(path)


def test_a_missing_parameter_file_is_refused_by_name(tmp_path):
    with pytest.raises(VjepaError, match=r"nowhere\.yaml"):
        merged_parameters(StackOptions(params_file=str(tmp_path / "nowhere.yaml")))


def test_recording_is_switched_on_into_a_folder_and_carries_the_provenance():
    recorder = merged_parameters(
        StackOptions(
            record=True,
            bag_dir="/my/bags",
            task="reacher-hard",
            seed=4,
            lockstep=True,
            planner="random",
            look="all:easy",
            render="exact",
            backgrounds="/my/pictures",
        )
    )["episode_recorder"]
    assert recorder["record"] is True
    assert recorder["bag_dir"] == "/my/bags"
    provenance = dict(entry.split("=", 1) for entry in recorder["provenance"])
    expected = {"task": "reacher-hard", "seed": "4", "lockstep": "True", "planner_at_start": "random"}
    expected |= {"look": "all:easy", "render": "exact", "backgrounds": "/my/pictures", "control_period_s": "0.02"}
    assert part(provenance, expected) == expected
    assert provenance["version numpy"]


def test_the_provenance_has_the_control_period_of_a_simulation_and_none_of_a_camera(params_file):
    file = params_file(sim_bridge={"rate_hz": 25.0})
    for options, expected in (({}, "0.04"), ({"source": "camera", "planner": "random"}, None)):
        recorder = merged_parameters(StackOptions(params_file=file, **options))["episode_recorder"]
        assert dict(entry.split("=", 1) for entry in recorder["provenance"]).get("control_period_s") == expected


def test_a_policy_is_given_to_the_planner_that_runs_one_which_is_then_loaded():
    planner = merged_parameters(StackOptions(bc_bundle="/my/policy"))["vjepa_planner"]
    assert planner["bc.bundle"] == "/my/policy"
    assert planner["planners"].count("bc") == 1


def test_a_bundle_that_ships_is_found_by_name_and_a_path_or_hub_id_stays():
    shipped = next(path for path in share("models").iterdir() if path.is_dir())
    assert Path(find_bundle(shipped.name)) == shipped
    assert find_bundle("facebook/vjepa2-vitl-fpc64-256") == "facebook/vjepa2-vitl-fpc64-256"
    assert find_bundle("/my/encoder") == "/my/encoder"


# Options as text.


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lockstep", "true", True),
        ("lockstep", "OFF", False),
        ("record", "1", True),
        ("autostart", "no", False),
        ("episodes", "12", 12),
        ("seed", "-1", -1),
        ("planner", "expert-p", "expert-p"),
        ("bag_dir", "1", "1"),
        ("namespace", "left", "left"),
        ("crop", "40,0,240,240", (40, 0, 240, 240)),
        ("crop", "[40, 0, 240, 240]", (40, 0, 240, 240)),
    ],
)
def test_a_text_is_read_as_the_type_of_its_option(name, text, value):
    parsed = parse_option(name, text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("lockstep", "maybe", "lockstep is 'maybe'; expected true or false"),
        ("episodes", "few", "episodes is 'few'; expected a whole number"),
        ("episodes", "1.5", "episodes is '1.5'; expected a whole number"),
        ("crop", "40;0", "crop is '40;0'; expected whole numbers with commas between"),
        ("sorce", "sim", "unknown launch argument 'sorce'; valid are: .*, source, "),
    ],
)
def test_a_text_that_is_no_value_of_its_option_is_refused(name, text, expected):
    with pytest.raises(VjepaError, match=expected):
        parse_option(name, text)


def test_a_deprecated_launch_argument_is_the_present_one(capsys):
    assert parse_options(["policy:=mine"]) == StackOptions(bc_bundle="mine")
    assert capsys.readouterr().err == "vjepa: launch argument: 'policy' is deprecated; use 'bc_bundle'\n"
    assert set(RENAMED[LAUNCH_ARGUMENT].values()) <= set(option_names())
    assert not RENAMED[LAUNCH_ARGUMENT].keys() & set(option_names())


@pytest.mark.parametrize("name", option_names())
def test_every_option_says_what_it_is_and_its_default_reads_back(name):
    assert len(option_help(name)) > 10
    text = option_default(name)
    default = getattr(StackOptions, name)
    assert parse_option(name, text) == default if text else default in (None, "")


def test_the_help_of_an_option_gives_the_default_of_the_configuration():
    planner = default_parameters()["vjepa_planner"]["planner"]
    assert option_help("planner").endswith(f"else {planner}.")
    assert option_help("lockstep").endswith("else false.")


def test_a_change_of_none_keeps_what_is_there():
    options = StackOptions(planner="random", seed=3)
    assert replace(options, planner=None, seed=0) == StackOptions(planner="random", seed=0)
