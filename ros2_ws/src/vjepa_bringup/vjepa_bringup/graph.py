"""The graph, written once: which nodes run, from which executable, with which parameters.

`launch/stack.launch.py` turns it into launch_ros actions and `vjepa run` into child processes.
"""

import contextlib
import itertools
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory

from sim_bridge.backgrounds import Pictures
from sim_bridge.camera_view import PLAIN, refuse_unknown_rendering
from sim_bridge.looks import NOMINAL, Look
from sim_bridge.tasks import arm_of, task_domain, task_named
from vjepa_bringup.discovery import DISCOVERIES, discovery_environment
from vjepa_interfaces import topics
from vjepa_interfaces.address import FROM_ENVIRONMENT, is_reference, shown
from vjepa_interfaces.bundle import find_bundle, read_bundle
from vjepa_interfaces.environment import distribution_of_ros
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.yaml_file import read_yaml
from vjepa_perception.placement import AUTO, refuse_unknown_placement
from vjepa_planner.registry import refuse_unknown_planners

SOURCES = ("sim", "camera")
VERSIONED = ("rclpy", "torch", "transformers", "mujoco", "dm_control", "stable-baselines3", "numpy", "vjepa_bringup")
"""The distributions whose versions stand in results."""

LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
CONSUMERS = ("vjepa_perception", "vjepa_planner", "episode_recorder")
LIFECYCLE_ORDER = (*CONSUMERS, "camera", "sim_bridge")
"""Order of activation: every consumer before the source of what it consumes, of which a stack has one at most."""

GUARD = "effort_guard"
"""The last to be activated, where it is asked for, so that it is the first to be taken down: with zero torque."""

ENCLAVES = "/vjepa"
"""Above the SROS 2 enclaves of all nodes."""

OPERATOR = "operator"
"""The enclave of the command line's own node."""

STAND_IN = "arm_stand_in"
"""The node in the place of a real arm. It is no part of the stack, but its parameters may stand in the same file."""

STATE_PUBLISHER = "robot_state_publisher"
"""ROS's own node and package: joint states to the transforms of the links that a URDF describes."""

OPTION_PARAMETERS = {
    "camera": ("crop", "rotate", "flip"),
    "sim_bridge": ("task", "seed", "episodes", "episode_steps", "lockstep", "render", "look", "backgrounds"),
    "vjepa_perception": ("encoder", "device", "dtype"),
    "vjepa_planner": ("planner", "seed", "lockstep"),
    "episode_recorder": ("record", "bag_dir"),
    "stack_manager": ("autostart",),
}
"""The launch arguments that are parameters of the same name, by node."""


Parameters = dict[str, dict[str, Any]]
"""Parameters by the name of their node, flat, by dotted name."""

POLICY = "bc.bundle"
ARM_KINDS = ("policy", "actor", "dynamics")
"""Kinds of bundles that state the arm they were trained for."""
CAMERA_SOURCE = "VJEPA_CAMERA_SOURCE"
"""The environment variable in which the node `camera` gets an address that was given as a launch argument."""


@dataclass(frozen=True, kw_only=True)
class DriveOptions:
    """What drives which arm, and how it sees. None leaves a choice to the parameter files.

    Attributes:
        planner: the planner that drives (see: vjepa planner list); with a camera there is no default, since a real arm
            may be behind it.
        policy: bundle name or folder of the policy that the planner `bc` runs.
        encoder: bundle name, folder or hub id, with `@REVISION` behind it where one is meant.
        device: where the encoder runs, as torch names it; `auto` takes a GPU where there is one.
        dtype: in which type the encoder computes: `auto` (float32 on a CPU, bfloat16 on a GPU), `float32`,
            `bfloat16` or `float16`. On processors with bfloat16 instructions it is up to twice as fast.
        task: dm_control task, such as reacher-easy.
        seed: episode i uses seed + i, in the simulation and in the planner.
        render: how the simulation's frames are rendered: `dm_control`, `exact` or `plain`.
        backgrounds: folder of pictures and videos for looks with another background.
        params_file: YAML of parameters over the defaults of `config/stack.yaml`, `NODE: {ros__parameters: {NAME:
            VALUE}}`; `/**` means every node.
        namespace: moves the whole stack.
        log_level: of every node: debug, info, warn, error or fatal.
    """

    planner: str | None = None
    policy: str | None = None
    encoder: str | None = None
    device: str | None = None
    dtype: str | None = None
    task: str | None = None
    seed: int | None = None
    render: str | None = None
    backgrounds: str | None = None
    params_file: str = ""
    namespace: str = ""
    log_level: str = "info"


@dataclass(frozen=True, kw_only=True)
class StackOptions(DriveOptions):
    """The launch arguments. None leaves a choice to the parameter files.

    Attributes:
        source: `sim`, or `camera` where frames come from a camera.
        camera: device, video file, rtsp:// address, env:NAME or @PATH that `camera` opens; empty with your own driver.
        crop: x, y, width and height in pixels of the camera's picture, such as `40,0,240,240`.
        rotate: then turn it by so many degrees clockwise: 0, 90, 180 or 270.
        flip: then mirror it: `horizontal`, `vertical` or `both`.
        image_topic: topic of the frames, where it is not `camera/image_raw`; compressed ones are looked for at
            `/compressed` under it.
        joint_states_topic: topic of the joint states, where it is not `joint_states`.
        command_topic: topic of the torque commands, where it is not `joint_command`.
        guard: put `effort_guard` between the torque commands and the arm; it starts with a dry run. The simulated arm
            is then driven through it, in real time.
        robot_state_publisher: start ROS's node of this name with the URDF of the simulated reacher, for RViz; in an
            installed ROS alone.
        lockstep: one simulation step per answered frame, instead of real time.
        use_sim_time: follow `/clock`; unset: with the sim, not with a camera.
        discovery: who may see this stack: `localhost`, `subnet`, or `system_default` for the middleware's own setting.
        autostart: bring the nodes up to active at once.
        record: record a bag from the first frame on.
        bag_dir: folder for bags.
        episodes: episodes to run, after which the arm stands still; 0 runs on.
        episode_steps: control steps in an episode.
        look: what the simulation's camera sees otherwise than it is, such as `camera:hard:moving`.
    """

    source: str = "sim"
    camera: str = ""
    crop: tuple[int, ...] | None = None
    rotate: int | None = None
    flip: str | None = None
    image_topic: str = ""
    joint_states_topic: str = ""
    command_topic: str = ""
    guard: bool = False
    robot_state_publisher: bool = False
    lockstep: bool | None = None
    use_sim_time: bool | None = None
    discovery: str = "localhost"
    autostart: bool | None = None
    record: bool | None = None
    bag_dir: str | None = None
    episodes: int | None = None
    episode_steps: int | None = None
    look: str | None = None


@dataclass(frozen=True)
class NodeSpec:
    """One node of the graph: what to start, under which name, with which parameters and remappings.

    Attributes:
        environment: variables of this node alone, for what other users and nodes must not read.
    """

    package: str
    executable: str
    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    remappings: dict[str, str] = field(default_factory=dict)
    lifecycle: bool = True
    environment: dict[str, str] = field(default_factory=dict, repr=False)


def build_graph(options: StackOptions) -> list[NodeSpec]:
    """Return the nodes of the stack, lifecycle nodes in their order of activation, then the others.

    Raises:
        VjepaError: an option or a parameter file that makes no sense; the message gives what is valid.
    """
    if options.source not in SOURCES:
        raise unknown_name("source", shown(options.source), SOURCES)
    if options.camera and options.source != "camera":
        raise VjepaError(
            f"camera is '{shown(options.camera)}', but source is '{options.source}'; set source:=camera with it"
        )
    if options.discovery not in DISCOVERIES:
        raise unknown_name("discovery", options.discovery, DISCOVERIES)
    if options.log_level not in LOG_LEVELS:
        raise unknown_name("log_level", options.log_level, LOG_LEVELS)
    parameters = merged_parameters(options)
    sources = {"sim_bridge": options.source == "sim", "camera": bool(options.camera)}
    clock = {"use_sim_time": options.source == "sim"}
    asked = {"use_sim_time": options.use_sim_time} if options.use_sim_time is not None else {}
    remappings = _remappings(options)
    executables = {
        "vjepa_perception": ("vjepa_perception", "vjepa_perception"),
        "vjepa_planner": ("vjepa_planner", "vjepa_planner"),
        "episode_recorder": ("vjepa_bags", "episode_recorder"),
        "camera": ("vjepa_perception", "camera"),
        "sim_bridge": ("sim_bridge", "sim_bridge"),
        GUARD: ("vjepa_interfaces", GUARD),
    }
    names = [name for name in LIFECYCLE_ORDER if sources.get(name, True)]
    names += [GUARD] if options.guard else []
    # An empty list, such as no crop, has no type in ROS, whose launch refuses one: it is what a node has anyway.
    given = {name: {key: value for key, value in parameters[name].items() if value not in ([], ())} for name in names}
    nodes = [NodeSpec(*executables[name], name, clock | given[name] | asked, remappings) for name in names]
    nodes = [_without_address(node) if node.name == "camera" else node for node in nodes]
    manager = {"managed_nodes": names, **parameters["stack_manager"]}
    nodes.append(NodeSpec("vjepa_bringup", "stack_manager", "stack_manager", manager, lifecycle=False))
    if options.robot_state_publisher:
        described = {"robot_description": _urdf(parameters["sim_bridge"]["task"], options.source)}
        nodes.append(
            NodeSpec(STATE_PUBLISHER, STATE_PUBLISHER, STATE_PUBLISHER, clock | described | asked, remappings, False)
        )
    return nodes


def _without_address(camera: NodeSpec) -> NodeSpec:
    """Return the camera's node with its address in its environment: every node of a domain can read a parameter."""
    source = camera.parameters["source"]
    if is_reference(source) or shown(source) == source:
        return camera
    parameters = camera.parameters | {"source": f"{FROM_ENVIRONMENT}{CAMERA_SOURCE}"}
    return replace(camera, parameters=parameters, environment={CAMERA_SOURCE: source})


def _urdf(task: str, source: str) -> str:
    """Return the URDF of the arm of a simulated `task`, for which `robot_state_publisher` must be installed."""
    if source != "sim" or task_domain(task) != "reacher":
        arm = f"the arm of {task}" if source == "sim" else "the arm behind a camera"
        raise VjepaError(
            f"robot_state_publisher is true, but there is no URDF here of {arm}, only of the simulated reacher; leave "
            "it out, and start one with a URDF of that arm"
        )
    try:
        get_package_prefix(STATE_PUBLISHER)
    except PackageNotFoundError as error:
        raise VjepaError(
            "robot_state_publisher is true, but ROS's package of that name is not installed, and there is no wheel of "
            "it; in an installed ROS 2 Jazzy: apt-get install ros-jazzy-robot-state-publisher. Without one leave it out"
        ) from error
    return Path(get_package_share_directory("sim_bridge"), "urdf", "reacher.urdf").read_text(encoding="utf-8")


def arm_stand_in(options: StackOptions) -> NodeSpec:
    """Return the stand-in for a real arm, which is no part of the stack, on the topics that `options` name.

    Raises:
        VjepaError: a params_file that is not a parameter file.
    """
    file = read_parameter_file(Path(options.params_file)) if options.params_file else {}
    parameters: dict[str, Any] = {}
    for node, values in file.items():
        if node != "**" and _nodes_meant(node, options.namespace, [STAND_IN]):  # What holds for all is of the stack.
            parameters |= values
    return NodeSpec("sim_bridge", STAND_IN, STAND_IN, parameters, _remappings(options), lifecycle=False)


def _remappings(options: StackOptions) -> dict[str, str]:
    return {
        topic.name: other
        for topic, other in (
            (topics.IMAGE, options.image_topic),
            (topics.COMPRESSED_IMAGE, f"{options.image_topic}/compressed" if options.image_topic else ""),
            (topics.JOINT_STATES, options.joint_states_topic),
            (topics.JOINT_COMMAND, options.command_topic),
        )
        if other
    }


def enclave(name: str, namespace: str = "") -> str:
    """Return the SROS 2 enclave of the node `name` of a stack in `namespace`; without SROS 2 it is a mere label."""
    return "/".join(filter(None, (ENCLAVES, namespace.strip("/"), name)))


def environment(options: StackOptions) -> dict[str, str]:
    """Return the environment variables every node of the stack needs: who may reach it, and how frames travel.

    Raises:
        VjepaError: as `discovery_environment`.
    """
    return discovery_environment(options.discovery)


def merged_parameters(options: StackOptions) -> Parameters:
    """Return the parameters of every node, overlaid from five layers, of which a later one wins over those before it.

    1. derived: what follows from parameters of other nodes, such as the arm of the simulated task for the planner;
    2. defaults: `config/stack.yaml`;
    3. file: the user's `params_file`;
    4. arguments: the options that were given;
    5. wiring: what the graph itself settles, such as who commands a guarded arm.

    Bundles are named by their folders in what is returned.

    Raises:
        VjepaError: a file that is not a parameter file, or names no node of this stack; a camera, behind which there
            may be a real arm, and no planner chosen to drive it.
    """
    defaults = _default_layer(options)
    file = _file_layer(options, defaults)
    arguments = _argument_layer(options, _overlaid(defaults, file))
    stated = _overlaid(defaults, file, arguments)
    _check_stated(stated)
    merged = _overlaid(_derived_layer(options, stated), stated, _wiring_layer(options))
    _find_bundles(merged)
    if options.guard and options.source == "sim":
        _check_guarded_clock(merged)
    if options.guard:
        _check_guard(merged[GUARD], merged["vjepa_planner"])
    merged["episode_recorder"]["provenance"] = [f"{key}={value}" for key, value in _provenance(merged).items()]
    return merged


def _overlaid(*layers: Parameters) -> Parameters:
    """Return the parameters of all layers, the later ones winning."""
    merged: Parameters = {}
    for layer in layers:
        for node, values in layer.items():
            merged[node] = merged.get(node, {}) | values
    return merged


def _default_layer(options: StackOptions) -> Parameters:
    """Return the defaults; with a camera, behind which there may be a real arm, none of them chooses a planner."""
    defaults = default_parameters()
    if options.source == "camera":
        for name in ("planner", "fallbacks"):
            del defaults["vjepa_planner"][name]
    return defaults


def _file_layer(options: StackOptions, known: Parameters) -> Parameters:
    """Return the parameters in the user's file, for nodes that are `known`."""
    layer: Parameters = {}
    file = read_parameter_file(Path(options.params_file)) if options.params_file else {}
    for key, values in file.items():
        meant = _nodes_meant(key, options.namespace, known)
        if not meant and not _nodes_meant(key, options.namespace, [STAND_IN]):
            raise VjepaError(f"{options.params_file}: {unknown_name('node', key, known)}")
        layer = _overlaid(layer, dict.fromkeys(meant, values))
    return layer


def _argument_layer(options: StackOptions, below: Parameters) -> Parameters:
    """Return the parameters that options were given for; a policy's planner is loaded beside those `below`."""
    layer: Parameters = {}
    for node, names in OPTION_PARAMETERS.items():
        given = {name: value for name in names if (value := getattr(options, name)) is not None}
        layer[node] = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    if options.camera:
        layer["camera"]["source"] = options.camera
    if options.policy is not None:
        planners = below["vjepa_planner"].get("planners", ())
        layer["vjepa_planner"] |= {POLICY: options.policy, "planners": list(dict.fromkeys([*planners, "bc"]))}
    return layer


def _check_stated(stated: Parameters) -> None:
    """Refuse parameters that do not say which planner drives, or name an encoder by what is no name."""
    encoder = stated["vjepa_perception"].get("encoder", "")
    if not isinstance(encoder, str):
        raise VjepaError(f"parameter 'encoder' of vjepa_perception is {encoder!r}; expected the name of a bundle")
    if "planner" not in stated["vjepa_planner"]:
        raise VjepaError(
            "no planner is chosen, and the default one knows the simulated arm alone; "
            "set planner:=NAME, or --planner NAME"
        )


def _derived_layer(options: StackOptions, stated: Parameters) -> Parameters:
    """Return what nodes must know of each other, as far as it follows from what is `stated`."""
    planner = stated["vjepa_planner"]
    layer: Parameters = {}
    if options.camera:
        layer["camera"] = _expected_rate(planner)
    if options.source == "sim":
        layer["vjepa_planner"] = arm = _arm_of(stated["sim_bridge"])
        if options.guard:
            layer[GUARD] = _guarded(arm | planner)
    return layer


def _wiring_layer(options: StackOptions) -> Parameters:
    """Return what holds whatever is stated: the simulated arm behind a guard obeys the guard alone."""
    if options.guard and options.source == "sim":
        return {"sim_bridge": {"command_input": "effort_array"}, GUARD: {"simulated_arm": True}}
    return {}


def _find_bundles(merged: Parameters) -> None:
    """Put the folders of bundles in the place of their names."""
    perception, planner = merged["vjepa_perception"], merged["vjepa_planner"]
    perception["encoder"] = find_bundle(perception.get("encoder", ""))
    for name, value in planner.items():
        if "." in name and isinstance(value, str):  # An option of a planner, which may name a bundle.
            planner[name] = find_bundle(value)


def default_parameters() -> Parameters:
    """Return the parameters in `config/stack.yaml`, by node name."""
    return read_parameter_file(share("config") / "stack.yaml")


def _nodes_meant(key: str, namespace: str, nodes: Iterable[str]) -> list[str]:
    """Return which of `nodes` a parameter file's `key` means: one's name, with or without its namespace, or `/**`."""
    if key == "**":
        return list(nodes)
    return [name for name in nodes if key in (name, f"**/{name}", f"{namespace.strip('/')}/{name}")]


def _arm_of(sim: dict[str, Any]) -> dict[str, Any]:
    """Return what the planner must know of the simulated arm: what its task says, and what is set for the sim alone."""
    if not isinstance(sim["task"], str):
        raise VjepaError(f"parameter 'task' of sim_bridge is {sim['task']!r}; expected the name of a task")
    arm = arm_of(sim["task"]) | {name: sim[name] for name in ("seed", "lockstep") if name in sim}
    if sim.get("effort_limit"):
        arm["effort_limit"] = sim["effort_limit"]
    if _is_positive(sim.get("rate_hz")):
        arm["control_period_s"] = 1.0 / sim["rate_hz"]
    return arm


def _guarded(planner: dict[str, Any]) -> dict[str, Any]:
    """Return what the guard must know of the planner's arm; it takes a tenth of a second from none to all torque."""
    names, limit = planner["joint_names"], planner["effort_limit"]
    if not isinstance(names, list) or not _is_positive(limit):
        return {}  # The planner's node says so.
    joints = len(names)
    return {
        "joint_names": names,
        "effort_limits": [float(limit)] * joints,
        "slew_rates": [10.0 * limit] * joints,
        "damping": [0.0] * joints,
    }


def _check_guarded_clock(merged: Parameters) -> None:
    """Refuse a guard in lockstep, where the simulation waits for the stamp that the guard's efforts do not carry."""
    nodes = [name for name in ("sim_bridge", "vjepa_planner") if merged[name].get("lockstep")]
    if nodes:
        raise VjepaError(
            f"guard and lockstep are both true (lockstep of {nodes[0]}), but the guard's efforts carry no stamp that "
            "says which frame they answer; expected real time with a guard: leave out one of the two"
        )


def _check_guard(guard: dict[str, Any], planner: dict[str, Any]) -> None:
    """Refuse a guard that lets more torque pass than an action of 1 asks for: one of the two is mistaken."""
    stated: Any = planner.get("effort_limit")
    most: Any = stated if stated is not None else _trained_limit(planner)
    limits = guard.get("effort_limits", ())
    if not _is_positive(most) or not isinstance(limits, list):
        return  # The nodes refuse these.
    if any(_is_positive(limit) and limit > most for limit in limits):
        whose = "effort_limit of vjepa_planner" if stated is not None else "the effort limit of the planner's bundle"
        raise VjepaError(
            f"effort_limits of {GUARD} is {limits}, but {whose}, the torque of an action of 1, "
            f"is {most:g}; give limits of at most that, or raise effort_limit where arm and policy are made for it"
        )


def _trained_limit(planner: dict[str, Any]) -> Any:
    """Return the effort limit of the arm that the chosen planner's bundles were made for; None where none states it."""
    options = [v for k, v in planner.items() if k.startswith(f"{planner['planner']}.") and isinstance(v, str)]
    for path, kind in itertools.product(options, ARM_KINDS):
        # What is no bundle, or of no arm, is for the planner's node to refuse.
        with contextlib.suppress(VjepaError, AttributeError, KeyError):
            return read_bundle(path, kind).config["arm"].get("effort_limit")
    return None


def _expected_rate(planner: dict[str, Any]) -> dict[str, float]:
    """Return the rate that a camera should have where a parameter file says the planner's control period."""
    period_s: Any = planner.get("control_period_s")
    return {"expected_rate_hz": 1.0 / period_s} if _is_positive(period_s) else {}


def _is_positive(value: Any) -> bool:
    """Say whether a parameter is a number above 0; of what is no number, the node that it is for says so."""
    return isinstance(value, int | float) and value > 0


def _provenance(merged: Parameters) -> dict[str, str]:
    sim, planner = merged["sim_bridge"], merged["vjepa_planner"]
    return {
        "task": str(sim.get("task", "")),
        "seed": str(sim.get("seed", 0)),
        "lockstep": str(bool(sim.get("lockstep", False))),
        "render": str(sim.get("render", "")),
        "look": str(sim.get("look", "")),
        **({"backgrounds": str(sim["backgrounds"])} if sim.get("backgrounds") else {}),
        "planner_at_start": str(planner.get("planner", "")),
        "encoder": str(merged["vjepa_perception"]["encoder"]),
        **{f"version {name}": version for name, version in versions().items()},
    }


def versions() -> dict[str, str]:
    """Return the versions that a result depends on, by distribution name."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        for distribution in (
            f"ros-{distribution_of_ros()}-{name}",
            name,
        ):  # A ROS wheel's own version is that of this name.
            with contextlib.suppress(metadata.PackageNotFoundError):
                found[name] = metadata.version(distribution)
                break
        else:
            found[name] = "not installed"
    return found


def read_parameter_file(path: Path) -> Parameters:
    """Return the parameters in a ROS parameter file, by node name.

    Raises:
        VjepaError: no such file, not `NODE: {ros__parameters: {...}}` with nothing beside `ros__parameters`, or a node
            or a parameter stands there twice, in whatever notation.
    """
    content = read_yaml(path, "parameter file")
    blocks = content if isinstance(content, dict) else {"": content}
    for node, block in blocks.items():
        if isinstance(block, dict) and (other := [str(key) for key in block if key != "ros__parameters"]):
            raise VjepaError(
                f"parameter file {path}, node '{node}': '{other[0]}' is not read; expected ros__parameters, with two "
                "underscores, and nothing beside it"
            )
        if not isinstance(block, dict) or not isinstance(block.get("ros__parameters"), dict):
            raise VjepaError(f"parameter file {path} is not of the form NODE: {{ros__parameters: {{NAME: VALUE}}}}")
    nodes: dict[str, dict[str, Any]] = {}
    for node, value in content.items():
        name = str(node).strip("/")
        if name in nodes:
            raise VjepaError(
                f"parameter file {path} has the node '{name}' twice, with and without '/'; write one block"
            )
        try:
            nodes[name] = flatten(value["ros__parameters"])
        except VjepaError as error:
            raise VjepaError(f"parameter file {path}, node '{name}': {error}") from error
    return nodes


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested parameters by dotted name, as ROS names them.

    Raises:
        VjepaError: a parameter stands there twice, nested and dotted.
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        found = flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        if twice := flat.keys() & found.keys():
            raise VjepaError(f"parameter '{min(twice)}' stands twice, nested and with dots; write it once")
        flat |= found
    return flat


def share(*parts: str) -> Path:
    """Return a path in this package's installed share folder."""
    return Path(get_package_share_directory("vjepa_bringup"), *parts)


def option_names() -> list[str]:
    """Return the names of the launch arguments, in the order of `StackOptions`."""
    return [option.name for option in fields(StackOptions)]


def refuse_unknown_names(parameters: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse, before anything is started, a task, look, rendering, background, planner, device or type there is not.

    Args:
        parameters: of every node, by node name, flat.

    Raises:
        VjepaError: naming it, and the valid ones.
    """
    sim = parameters["sim_bridge"]
    task_named(sim["task"])
    Look.of(str(sim.get("look", NOMINAL)))
    refuse_unknown_rendering(sim.get("render", PLAIN))
    Pictures(str(sim.get("backgrounds", "")))
    refuse_unknown_planners(parameters["vjepa_planner"])
    device, dtype = (parameters["vjepa_perception"].get(name, AUTO) for name in ("device", "dtype"))
    if isinstance(device, str) and isinstance(dtype, str):  # The encoder's configuration refuses other types.
        refuse_unknown_placement(device, dtype)
