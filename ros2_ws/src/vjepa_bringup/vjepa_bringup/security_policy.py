"""The SROS 2 policy of a stack, from its options and from the access of each node (`vjepa_interfaces.access`).

Each process has an enclave: `/vjepa/NODE`, or `/vjepa/NAMESPACE/NODE`. All names in it are absolute, after namespace
and remappings. The format is version 0.2.0 of SROS 2's policy.xsd.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from vjepa_bringup.graph import GUARD, OPERATOR, NodeSpec, StackOptions, arm_stand_in, build_graph, enclave
from vjepa_interfaces import access
from vjepa_interfaces.access import Access
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.topics import Topic

VERSION = "0.2.0"
OPERATOR_NODES = ("vjepa_cli", "/_ros2cli_*")
"""The node of `vjepa`, and the nodes of `ros2` commands, whose names end with a number."""


@dataclass(frozen=True)
class Outside:
    """The nodes outside the stack. Names are relative to the stack's namespace, or absolute with a leading `/`.

    Attributes:
        camera_driver: nodes of a camera driver, if no node of the stack publishes frames.
        arm_controller: nodes of a real arm's controller, with `source:=camera`.
        button: node of the dead-man's switch, with `guard:=true`.
        rehearsal: whether `arm_stand_in` replaces arm and camera driver.
    """

    camera_driver: tuple[str, ...] = ("camera_driver",)
    arm_controller: tuple[str, ...] = ("arm_controller",)
    button: tuple[str, ...] = ("button",)
    rehearsal: bool = False


@dataclass(frozen=True)
class _Enclave:
    """One process: the name of its enclave, the names of its nodes and their access."""

    name: str
    nodes: tuple[str, ...]
    access: Access


class _Names:
    """Absolute names in a stack, by the namespace and the remappings of its options."""

    def __init__(self, options: StackOptions):
        self._namespace = f"/{options.namespace.strip('/')}" if options.namespace.strip("/") else ""
        self._remappings = arm_stand_in(options).remappings

    def of(self, name: str) -> str:
        """Return the absolute name of a topic, a service or a node."""
        return name if name.startswith("/") else f"{self._namespace}/{name}"

    def topic(self, topic: Topic) -> str:
        """Return the absolute name of a topic after remapping."""
        return self.of(self._remappings.get(topic.name, topic.name))


def policy(options: StackOptions, outside: Outside | None = None) -> str:
    """Return the policy of the stack of `options` as XML.

    Args:
        options: the launch arguments.
        outside: the nodes outside the stack; None for the defaults.

    Raises:
        VjepaError: `build_graph` refuses the options, or two nodes have the same name.
    """
    nodes = build_graph(options)
    enclaves = list(_enclaves(nodes, options, outside or Outside()))
    names = _Names(options)
    offered = {name: each.access.all_offered() for each in enclaves[: len(nodes)] for name in each.nodes}
    _refuse_shared_names(enclaves, names)
    root = ElementTree.Element("policy", version=VERSION)
    listed = ElementTree.SubElement(root, "enclaves")
    for each in enclaves:
        entry = ElementTree.SubElement(listed, "enclave", path=enclave(each.name, options.namespace))
        profiles = ElementTree.SubElement(entry, "profiles")
        for node in each.nodes:
            rules = _rules(node, each.access, names, offered)
            if each.name == OPERATOR:  # Its nodes are not remapped, so they may use both names of a topic.
                rules["subscribe"] |= {names.of(topic.name) for topic in each.access.subscribes}
            _add_profile(profiles, names.of(node), rules)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _enclaves(nodes: list[NodeSpec], options: StackOptions, outside: Outside) -> Iterator[_Enclave]:
    """Yield the enclaves of the stack's own nodes, in the order of the graph, then of the nodes outside."""
    for node in nodes:
        yield _Enclave(node.name, (node.name,), access.NODES[node.name])
    parameters = {node.name: node.parameters for node in nodes}
    compressed = parameters["vjepa_perception"].get("input_transport") == "compressed"
    if options.source == "camera" and outside.rehearsal:
        name = arm_stand_in(options).name
        yield _Enclave(name, (name,), access.ARM_STAND_IN)
    elif options.source == "camera":
        yield _Enclave("arm_controller", outside.arm_controller, access.ARM_CONTROLLER)
    if options.source == "camera" and (compressed or not (options.camera or outside.rehearsal)):
        yield _Enclave("camera_driver", outside.camera_driver, access.CAMERA_DRIVER)
    if GUARD in parameters:
        yield _Enclave("button", outside.button, access.BUTTON)
    yield _Enclave(OPERATOR, OPERATOR_NODES, access.OPERATOR)


def _refuse_shared_names(enclaves: list[_Enclave], names: _Names) -> None:
    """Raise VjepaError if two enclaves have nodes of the same name: each could answer in place of the other."""
    owners: dict[str, str] = {}
    for each in enclaves:
        for node in map(names.of, each.nodes):
            if node in owners:
                raise VjepaError(f"node {node} is in two enclaves, {owners[node]} and {each.name}; expected two names")
            owners[node] = each.name


def _rules(node: str, row: Access, names: _Names, offered: dict[str, tuple[str, ...]]) -> dict[str, set[str]]:
    """Return the absolute names that one node may publish, subscribe to, reply to and request."""
    own = {f"{node}/{access.TRANSITION_EVENT}"} if row.managed else set()
    watched = [
        other for other, services in offered.items() if "change_state" in services and "change_state" in row.asks
    ]
    return {
        "publish": {names.topic(topic) for topic in row.all_published()} | set(map(names.of, own)),
        "subscribe": {names.topic(topic) for topic in row.all_subscribed()}
        | {names.of(f"{other}/{access.TRANSITION_EVENT}") for other in watched},
        "reply": {names.of(f"{node}/{service}") for service in row.all_offered()},
        "request": {
            names.of(f"{other}/{service}")
            for other, services in offered.items()
            for service in services
            if service in row.asks
        },
    }


def _add_profile(profiles: ElementTree.Element, node: str, rules: dict[str, set[str]]) -> None:
    namespace, _, name = node.rpartition("/")
    profile = ElementTree.SubElement(profiles, "profile", ns=namespace or "/", node=name)
    for verb, names in rules.items():
        if names:
            kind = "topic" if verb in ("publish", "subscribe") else "service"
            rule = ElementTree.SubElement(profile, f"{kind}s", {verb: "ALLOW"})
            for expression in sorted(names):
                ElementTree.SubElement(rule, kind).text = expression
