"""The graph of a stack: its nodes, their executables and their parameters.

`launch/stack.launch.py` turns it into launch_ros actions, and `vjepa run` into child processes.
"""

import contextlib
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix

from sim_bridge.backgrounds import Pictures
from sim_bridge.camera_view import refuse_unknown_rendering
from sim_bridge.looks import Look
from sim_bridge.sim_parameters import MAX_RATE_HZ, MIN_RATE_HZ, SimConfig
from sim_bridge.tasks import arm_of, task_domain, task_named
from vjepa_bringup.discovery import DISCOVERIES, discovery_environment
from vjepa_interfaces import topics
from vjepa_interfaces.address import FROM_ENVIRONMENT, is_reference, shown
from vjepa_interfaces.bundle import Bundle, find_bundle, is_bundle, read_bundle
from vjepa_interfaces.deprecated import PARAMETER, current_names
from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.environment import distribution_of_ros
from vjepa_interfaces.errors import VjepaError, unknown_name
from vjepa_interfaces.guard_parameters import GuardParameters
from vjepa_interfaces.share import share_folder
from vjepa_interfaces.yaml_file import read_yaml
from vjepa_perception.placement import AUTO, refuse_unknown_placement
from vjepa_planner.registry import options_of, refuse_unknown_planners

SOURCES = ("sim", "camera")
VERSIONED = ("rclpy", "torch", "transformers", "mujoco", "dm_control", "stable-baselines3", "numpy", "vjepa_bringup")
"""The distributions whose versions are in results."""

AUTO_RATE = "auto"
"""The rate that is measured before the start, see `measured_rate`."""
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
CONSUMERS = ("vjepa_perception", "vjepa_planner", "episode_recorder")
LIFECYCLE_ORDER = (*CONSUMERS, "camera", "sim_bridge")
"""Order of activation: every consumer before its source. A stack has at most one source."""

GUARD = "effort_guard"
"""The optional guard. It is activated last, so that it is taken down first, with zero torque."""

ENCLAVES = "/vjepa"
"""The prefix of all nodes' SROS 2 enclaves."""

OPERATOR = "operator"
"""The enclave of the command line's own node."""

STAND_IN = "arm_stand_in"
"""The node in place of a real arm. It is not part of the stack, but the same file may contain its parameters."""

STATE_PUBLISHER = "robot_state_publisher"
"""ROS's own node and package, which turns joint states into the transforms of a URDF's links."""

OPTION_PARAMETERS = {
    "camera": ("crop", "rotate", "flip"),
    "sim_bridge": ("task", "seed", "episodes", "episode_steps", "lockstep", "render", "look", "backgrounds", "trace"),
    "vjepa_perception": ("encoder", "device", "dtype", "lockstep", "trace"),
    "vjepa_planner": ("planner", "seed", "lockstep", "trace"),
    "episode_recorder": ("record", "bag_dir"),
    "stack_manager": ("autostart",),
}
"""The launch arguments that set parameters of the same name, by node."""


Parameters = dict[str, dict[str, Any]]
"""Flat parameters by node name, then by dotted parameter name."""

BC_BUNDLE = "bc.bundle"
ARM_KINDS = ("policy", "actor", "dynamics")
"""Kinds of bundles that contain the arm of their training."""
CAMERA_SOURCE = "VJEPA_CAMERA_SOURCE"
"""The environment variable that passes an address from a launch argument to the node `camera`."""


@dataclass(frozen=True, kw_only=True)
class DriveOptions:
    """Options of planner, encoder and task. None leaves a choice to the parameter files.

    Attributes:
        planner: the planner that drives (see: vjepa planner list). There is no default with a camera, because a real
            arm may be connected.
        bc_bundle: bundle name or folder of the policy that the planner `bc` runs.
        encoder: bundle name, folder or hub id, with an optional `@REVISION`.
        device: torch's name of the encoder's device; `auto` for a GPU if there is one.
        dtype: number type of the encoder: `float32`, `bfloat16`, `float16` or `auto`: bfloat16 on a GPU and float32 on
            a CPU. On a CPU in real time, `auto` is the faster of the two, by measurement.
        task: dm_control task, such as reacher-easy.
        seed: episode i uses seed + i, in the simulation and in the planner.
        rate: control steps a second, such as 25, of simulation or camera and planner. In real time also `auto`: the
            highest rate of the planner's training that this machine can hold. An encode is timed before the start.
        render: rendering of the simulation's frames: `dm_control`, `exact` or `plain`.
        backgrounds: folder of pictures and videos for looks with another background.
        params_file: YAML file of parameters over the defaults of `config/stack.yaml`, `NODE: {ros__parameters: {NAME:
            VALUE}}`; `/**` for every node.
        namespace: ROS namespace of the whole stack.
        log_level: log level of every node: debug, info, warn, error or fatal.
    """

    planner: str | None = None
    bc_bundle: str | None = None
    encoder: str | None = None
    device: str | None = None
    dtype: str | None = None
    task: str | None = None
    seed: int | None = None
    rate: str | None = None
    render: str | None = None
    backgrounds: str | None = None
    params_file: str = ""
    namespace: str = ""
    log_level: str = "info"


@dataclass(frozen=True, kw_only=True)
class StackOptions(DriveOptions):
    """The launch arguments. None leaves a choice to the parameter files.

    Attributes:
        source: source of the frames: `sim` or `camera`.
        camera: device, video file, rtsp:// address, env:NAME or @PATH that `camera` opens; empty with your own driver.
        crop: x, y, width and height in pixels of the camera's picture, such as `40,0,240,240`.
        rotate: clockwise turn of the cropped picture in degrees: 0, 90, 180 or 270.
        flip: mirroring of the turned picture: `horizontal`, `vertical` or `both`.
        image_topic: topic of the frames, if it is not `camera/image_raw`; compressed frames are at `/compressed` under
            it.
        joint_states_topic: topic of the joint states, if it is not `joint_states`.
        command_topic: topic of the torque commands, if it is not `joint_command`.
        guard: put `effort_guard` between the torque commands and the arm; it starts with a dry run. The guard then
            drives the simulated arm too, in real time.
        robot_state_publisher: start ROS's node of this name with the URDF of the simulated reacher, for RViz; only in
            an installed ROS.
        lockstep: one simulation step per answered frame, instead of real time.
        use_sim_time: follow `/clock`; unset: with the sim, except the recorder; not with a camera.
        discovery: who may see this stack: `localhost`, `subnet`, or `system_default` for the middleware's own setting.
        autostart: bring the nodes up to active at once.
        record: record a bag from the first frame on.
        bag_dir: folder for bags.
        episodes: episodes to run, after which the arm stands still; 0 for no end.
        episode_steps: control steps in an episode.
        look: visual distraction of the simulation, such as `camera:hard:moving`.
        trace: publish when each frame passed the parts of each node.
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
    trace: bool | None = None


@dataclass(frozen=True)
class NodeSpec:
    """One node of the graph.

    Attributes:
        package: package of the executable.
        executable: name of the executable.
        name: name of the node.
        parameters: flat parameters by dotted name.
        remappings: new names of topics by name.
        lifecycle: whether it is a lifecycle node.
        environment: variables of this node alone, for secrets from other users and nodes.
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
        VjepaError: an option or a parameter file is not valid; the message states valid values.
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
    # ROS's launch refuses an empty list, such as no crop, because it has no type. It is the node's default anyway.
    given = {name: {key: value for key, value in parameters[name].items() if value not in ([], ())} for name in names}
    clocks = dict.fromkeys(names, clock) | {"episode_recorder": {"use_sim_time": False}}  # `/clock` would wake it.
    nodes = [NodeSpec(*executables[name], name, clocks[name] | given[name] | asked, remappings) for name in names]
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
    """Return the camera's node with its address in its environment: every node of a domain can read parameters."""
    source = camera.parameters["source"]
    if is_reference(source) or shown(source) == source:
        return camera
    parameters = camera.parameters | {"source": f"{FROM_ENVIRONMENT}{CAMERA_SOURCE}"}
    return replace(camera, parameters=parameters, environment={CAMERA_SOURCE: source})


def _urdf(task: str, source: str) -> str:
    """Return the URDF of a simulated task's arm. Raise VjepaError if there is none, or no `robot_state_publisher`."""
    if source != "sim" or task_domain(task) != "reacher":
        arm = f"the arm of {task}" if source == "sim" else "the arm behind a camera"
        raise VjepaError(
            f"robot_state_publisher is true, but the stack has no URDF of {arm}; leave it out, and start "
            "robot_state_publisher with a URDF of that arm"
        )
    try:
        get_package_prefix(STATE_PUBLISHER)
    except PackageNotFoundError as error:
        raise VjepaError(
            "robot_state_publisher is true, but this package is not installed, and wheels lack it; leave it out, or "
            "in an installed ROS 2 Jazzy: apt-get install ros-jazzy-robot-state-publisher"
        ) from error
    return (share_folder("sim_bridge") / "urdf" / "reacher.urdf").read_text(encoding="utf-8")


def arm_stand_in(options: StackOptions) -> NodeSpec:
    """Return the stand-in for a real arm, which is not part of the stack, with the topics of `options`.

    Raises:
        VjepaError: `params_file` is not a parameter file.
    """
    file = read_parameter_file(Path(options.params_file)) if options.params_file else {}
    parameters: dict[str, Any] = {}
    for node, values in file.items():
        if node != "**" and _nodes_meant(node, options.namespace, [STAND_IN]):  # `/**` means nodes of the stack.
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
    """Return the SROS 2 enclave of the node `name` in `namespace`. Without SROS 2 it has no effect."""
    return "/".join(filter(None, (ENCLAVES, namespace.strip("/"), name)))


def environment(options: StackOptions) -> dict[str, str]:
    """Return the environment variables of every node of the stack, for discovery and the transport of frames.

    Raises:
        VjepaError: as in `discovery_environment`.
    """
    return discovery_environment(options.discovery)


def merged_parameters(options: StackOptions) -> Parameters:
    """Return the parameters of every node, merged from five layers. A later layer wins over the earlier ones.

    1. derived: values that follow from other nodes, such as the simulated task's arm for the planner;
    2. defaults: `config/stack.yaml`;
    3. file: the user's `params_file`;
    4. arguments: the given options;
    5. wiring: values that the graph itself decides, such as the commands of a guarded arm.

    The result contains the folders of bundles in place of their names.

    Raises:
        VjepaError: a file is not a parameter file, or names an unknown node; or there is a camera without a planner.
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
    provenance = _provenance(options.source, merged)
    merged["episode_recorder"]["provenance"] = [f"{key}={value}" for key, value in provenance.items()]
    return merged


def _overlaid(*layers: Parameters) -> Parameters:
    """Return the parameters of all layers; a later layer wins."""
    merged: Parameters = {}
    for layer in layers:
        for node, values in layer.items():
            merged[node] = merged.get(node, {}) | values
    return merged


def _default_layer(options: StackOptions) -> Parameters:
    """Return the defaults. With a camera, there may be a real arm, so they choose no planner."""
    defaults = default_parameters()
    if options.source == "camera":
        for name in ("planner", "fallbacks"):
            del defaults["vjepa_planner"][name]
    return defaults


def _file_layer(options: StackOptions, known: Parameters) -> Parameters:
    """Return the parameters in the user's file, for the nodes in `known`."""
    layer: Parameters = {}
    file = read_parameter_file(Path(options.params_file)) if options.params_file else {}
    for key, values in file.items():
        meant = _nodes_meant(key, options.namespace, known)
        if not meant and not _nodes_meant(key, options.namespace, [STAND_IN]):
            raise VjepaError(f"{options.params_file}: {unknown_name('node', key, known)}")
        layer = _overlaid(layer, dict.fromkeys(meant, values))
    return layer


def _argument_layer(options: StackOptions, below: Parameters) -> Parameters:
    """Return the parameters of the given options. A policy's planner is added to the planners of `below`."""
    layer: Parameters = {}
    for node, names in OPTION_PARAMETERS.items():
        given = {name: value for name in names if (value := getattr(options, name)) is not None}
        layer[node] = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    if options.camera:
        layer["camera"]["source"] = options.camera
    if options.rate is not None:
        rate_hz = _rate_hz(options.rate)
        layer["vjepa_planner"]["control_period_s"] = 1.0 / rate_hz
        layer["sim_bridge"]["rate_hz"] = layer["camera"]["fps"] = rate_hz
    if options.bc_bundle is not None:
        planners = below["vjepa_planner"].get("planners", ())
        layer["vjepa_planner"] |= {BC_BUNDLE: options.bc_bundle, "planners": list(dict.fromkeys([*planners, "bc"]))}
    return layer


def _rate_hz(rate: str) -> float:
    """Return the number of a rate, Hz; `with_measured_rate` has replaced `auto` before."""
    if rate == AUTO_RATE:
        raise VjepaError(
            "rate is auto, which is measured only for a whole stack in real time: vjepa run, or ros2 launch; give a "
            "number of Hz"
        )
    with contextlib.suppress(ValueError):
        if MIN_RATE_HZ <= (rate_hz := float(rate)) <= MAX_RATE_HZ:
            return rate_hz
    raise VjepaError(f"rate is '{rate}'; expected auto, or {MIN_RATE_HZ:g} to {MAX_RATE_HZ:g} Hz")


def _check_stated(stated: Parameters) -> None:
    """Refuse parameters without a planner, or with an encoder that is not a text."""
    encoder = stated["vjepa_perception"].get("encoder", "")
    if not isinstance(encoder, str):
        raise VjepaError(f"parameter 'encoder' of vjepa_perception is {encoder!r}; expected the name of a bundle")
    if "planner" not in stated["vjepa_planner"]:
        raise VjepaError(
            "no planner is chosen, and the default planner is for the simulated arm only; "
            "set planner:=NAME, or --planner NAME"
        )


def _derived_layer(options: StackOptions, stated: Parameters) -> Parameters:
    """Return the parameters of nodes that follow from the `stated` parameters of other nodes."""
    planner = stated["vjepa_planner"]
    layer: Parameters = {}
    if options.camera:
        layer["camera"] = _expected_rate(planner)
    if options.source == "sim":
        layer["vjepa_perception"] = {"lockstep": stated["sim_bridge"].get("lockstep", False)}
        layer["vjepa_planner"] = arm = _arm_of(stated["sim_bridge"])
        if options.guard:
            layer[GUARD] = _guarded(arm | planner)
    return layer


def _wiring_layer(options: StackOptions) -> Parameters:
    """Return fixed parameters, which win over all others: a guarded simulated arm takes commands of the guard alone."""
    if options.guard and options.source == "sim":
        return {"sim_bridge": {"command_input": "effort_array"}, GUARD: {"simulated_arm": True}}
    return {}


def _find_bundles(merged: Parameters) -> None:
    """Replace the names of bundles by their folders."""
    perception, planner = merged["vjepa_perception"], merged["vjepa_planner"]
    perception["encoder"] = find_bundle(perception.get("encoder", ""))
    for name, value in planner.items():
        if "." in name and isinstance(value, str):  # A planner's option, which may be the name of a bundle.
            planner[name] = find_bundle(value)


def default_parameters() -> Parameters:
    """Return the parameters in `config/stack.yaml`, by node name."""
    return read_parameter_file(share("config") / "stack.yaml")


def _nodes_meant(key: str, namespace: str, nodes: Iterable[str]) -> list[str]:
    """Return the `nodes` of a parameter file's `key`: a name, with or without its namespace, or `/**` for all."""
    if key == "**":
        return list(nodes)
    return [name for name in nodes if key in (name, f"**/{name}", f"{namespace.strip('/')}/{name}")]


def _arm_of(sim: dict[str, Any]) -> dict[str, Any]:
    """Return the planner's parameters of the simulated arm, from its task and the parameters of the simulation."""
    if not isinstance(sim["task"], str):
        raise VjepaError(f"parameter 'task' of sim_bridge is {sim['task']!r}; expected the name of a task")
    arm = arm_of(sim["task"]) | {name: sim[name] for name in ("seed", "lockstep") if name in sim}
    if sim.get("effort_limit"):
        arm["effort_limit"] = sim["effort_limit"]
    if _is_positive(sim.get("rate_hz")):
        arm["control_period_s"] = 1.0 / sim["rate_hz"]
    return arm


def _guarded(planner: dict[str, Any]) -> dict[str, Any]:
    """Return the guard's parameters of the planner's arm. Torque takes a tenth of a second from zero to its limit."""
    arm = _limits_of(planner["joint_names"], planner["effort_limit"])
    if arm is None:
        return {}  # The planner's node refuses these values.
    return {
        "joint_names": list(arm.joint_names),
        "effort_limits": list(arm.limits),
        "slew_rates": [10.0 * limit for limit in arm.limits],
        "damping": [0.0 for _ in arm.limits],
    }


def _limits_of(joint_names: Any, effort_limit: Any) -> EffortLimits | None:
    """Return the joints and limits of parameters; None for values that are no joints or no limits of them."""
    if not isinstance(joint_names, list | tuple) or not all(isinstance(name, str) for name in joint_names):
        return None
    with contextlib.suppress(VjepaError, TypeError, ValueError, OverflowError):
        return EffortLimits.of(joint_names, effort_limit)
    return None


def _check_guarded_clock(merged: Parameters) -> None:
    """Refuse a guard in lockstep: the simulation waits for a stamp, which the guard's efforts do not have."""
    nodes = [name for name in ("sim_bridge", "vjepa_planner") if merged[name].get("lockstep")]
    if nodes:
        raise VjepaError(
            f"guard and lockstep are both true (lockstep of {nodes[0]}), but lockstep needs the stamp of a frame, "
            "which the guard's efforts do not have; leave out guard or lockstep"
        )


def _check_guard(guard: dict[str, Any], planner: dict[str, Any]) -> None:
    """Refuse a guard whose limit exceeds a joint's torque of an action of 1: one of the two is wrong."""
    names, stated = guard.get("joint_names", GuardParameters.joint_names), planner.get("effort_limit")
    arm = _trained_arm(planner) if stated is None else _limits_of(planner.get("joint_names", names), stated)
    guarded = _limits_of(names, guard.get("effort_limits", ()))
    if arm is None or guarded is None:
        return  # The nodes refuse these values.
    of_joint = dict(zip(arm.joint_names, arm.limits, strict=True))
    most = [of_joint.get(name, max(arm.limits)) for name in guarded.joint_names]
    if any(limit > allowed for limit, allowed in zip(guarded.limits, most, strict=True)):
        whose = "effort_limit of vjepa_planner" if stated is not None else "the effort limit of the planner's bundle"
        raise VjepaError(
            f"effort_limits of {GUARD} is {list(guarded.limits)}, but {whose}, the torque of an action of 1, "
            f"is {arm.limits_text}; lower effort_limits, or raise effort_limit if arm and policy allow it"
        )


def _trained_arm(planner: dict[str, Any]) -> EffortLimits | None:
    """Return the arm in the chosen planner's bundles; None if no bundle contains it."""
    for bundle in _acting_bundles(planner["planner"], planner):
        with contextlib.suppress(VjepaError):  # The planner's node refuses a bundle with another entry.
            if arm := bundle.arm:
                return arm
    return None


def trained_periods(planner: str, parameters: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the control periods, s, at which a planner's bundles were trained; empty if unknown.

    Args:
        planner: name of the planner.
        parameters: flat parameters of `vjepa_planner`.

    Raises:
        BundleError: a bundle's record of the rates is not valid.
    """
    recorded = (bundle.control_periods_s for bundle in _acting_bundles(planner, parameters))
    return next((periods_s for periods_s in recorded if periods_s), ())


def _acting_bundles(planner: str, parameters: Mapping[str, Any]) -> list[Bundle]:
    """Return the bundles of a planner that were trained for an arm, in the order of its options."""
    bundles = [read_bundle(value) for value in options_of(planner, parameters).values() if is_bundle(value)]
    return [bundle for bundle in bundles if bundle.config.get("kind") in ARM_KINDS]


def _expected_rate(planner: dict[str, Any]) -> dict[str, float]:
    """Return the camera's expected rate, if a parameter file contains the planner's control period."""
    period_s: Any = planner.get("control_period_s")
    return {"expected_rate_hz": 1.0 / period_s} if _is_positive(period_s) else {}


def _is_positive(value: Any) -> bool:
    """Return whether a parameter is a number above 0. Nodes refuse values that are not numbers."""
    return isinstance(value, int | float) and value > 0


def _provenance(source: str, merged: Parameters) -> dict[str, str]:
    sim, planner = merged["sim_bridge"], merged["vjepa_planner"]
    return {
        "task": str(sim.get("task", "")),
        "seed": str(sim.get("seed", 0)),
        "lockstep": str(bool(sim.get("lockstep", False))),
        "render": str(sim.get("render", "")),
        "look": str(sim.get("look", "")),
        **({"backgrounds": str(sim["backgrounds"])} if sim.get("backgrounds") else {}),
        **({"control_period_s": str(planner["control_period_s"])} if source == "sim" else {}),
        "planner_at_start": str(planner.get("planner", "")),
        "encoder": str(merged["vjepa_perception"]["encoder"]),
        **{f"version {name}": version for name, version in versions().items()},
    }


def versions() -> dict[str, str]:
    """Return the versions that results depend on, by distribution name."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        for distribution in (
            f"ros-{distribution_of_ros()}-{name}",
            name,
        ):  # The name of a ROS wheel.
            with contextlib.suppress(metadata.PackageNotFoundError):
                found[name] = metadata.version(distribution)
                break
        else:
            found[name] = "not installed"
    return found


def read_parameter_file(path: Path) -> Parameters:
    """Return the parameters in a ROS parameter file, by node name.

    Raises:
        VjepaError: the file does not exist, or has another form than `NODE: {ros__parameters: {...}}`. Or it contains
            a node or a parameter twice, in any notation or by a deprecated name.
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
            nodes[name] = current_names(PARAMETER, flatten(value["ros__parameters"]))
        except VjepaError as error:
            raise VjepaError(f"parameter file {path}, node '{name}': {error}") from error
    return nodes


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested parameters by ROS's dotted names.

    Raises:
        VjepaError: a parameter exists twice, nested and dotted.
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        found = flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        if twice := flat.keys() & found.keys():
            raise VjepaError(f"parameter '{min(twice)}' is given twice, nested and with dots; write it once")
        flat |= found
    return flat


def share(*parts: str) -> Path:
    """Return a path in this package's installed share folder."""
    return share_folder("vjepa_bringup").joinpath(*parts)


def option_names() -> list[str]:
    """Return the names of the launch arguments, in the order of `StackOptions`."""
    return [option.name for option in fields(StackOptions)]


def refuse_unknown_names(parameters: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse unknown tasks, looks, renderings, backgrounds, planners, devices and types before anything is started.

    Args:
        parameters: flat parameters by node name.

    Raises:
        VjepaError: a name is unknown; the message contains it and the valid names.
    """
    sim = parameters["sim_bridge"]
    task_named(sim["task"])
    Look.of(str(sim.get("look", SimConfig.look)))
    refuse_unknown_rendering(sim.get("render", SimConfig.render))
    Pictures(str(sim.get("backgrounds", "")))
    refuse_unknown_planners(parameters["vjepa_planner"])
    device, dtype = (parameters["vjepa_perception"].get(name, AUTO) for name in ("device", "dtype"))
    if isinstance(device, str) and isinstance(dtype, str):  # The encoder's configuration refuses other types.
        refuse_unknown_placement(device, dtype)
