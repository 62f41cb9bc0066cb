"""The SROS 2 policy lets every node do what it does, and nobody else command torques."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from vjepa_bringup.graph import StackOptions, share
from vjepa_bringup.monitor import Monitor
from vjepa_bringup.run_graph import running_graph

OPERATOR = "vjepa_cli"
ACTIVE_S = 120.0


def allowed() -> dict[str, dict[str, set[str]]]:
    """Return what the policy allows each node, by what it does: publish, subscribe, reply and request."""
    found: dict[str, dict[str, set[str]]] = {}
    for profile in ElementTree.parse(share("config") / "sros2_policy.xml").getroot().iter("profile"):
        node = found.setdefault(profile.attrib["node"], {})
        assert profile.attrib["ns"] == "/"
        for block in profile:
            ((what, rule),) = block.attrib.items()
            assert rule == "ALLOW"
            node[what] = {f"/{expression.text}" for expression in block}
    return found


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict[str, dict[str, set[str]]]:
    """What the nodes of a running stack do, with a guard and a recorder at work."""
    bags = str(tmp_path_factory.mktemp("bags"))
    options = StackOptions(planner="expert-p", guard=True, record=True, bag_dir=bags)
    found = {}
    with running_graph(options, None, {"planner": "expert-p"}) as (_, domain), Monitor(domain) as monitor:
        node = monitor.node

        def names(kind: str, name: str, namespace: str) -> set[str]:
            return {topic for topic, _ in getattr(node, f"get_{kind}_names_and_types_by_node")(name, namespace)}

        def complete() -> bool:
            return monitor.is_active() and "/joint_command" in names("subscriber", "episode_recorder", "/")

        assert monitor.wait_until(complete, ACTIVE_S)
        for name, namespace in node.get_node_names_and_namespaces():
            kinds = {"publish": "publisher", "subscribe": "subscriber", "reply": "service", "request": "client"}
            found[name] = {what: names(kind, name, namespace) for what, kind in kinds.items()}
    assert {"sim_bridge", "vjepa_planner", "effort_guard", "episode_recorder"} <= set(found)
    return found


def test_every_node_may_do_all_that_it_does(seen):
    policy = allowed()
    for name, does in seen.items():
        for what, names in does.items():
            assert names <= policy[name].get(what, set()), f"{name} would not be let {what}"


def test_torques_are_commanded_by_the_planner_and_reach_an_arm_through_the_guard_alone():
    publishers = {
        topic: {name for name, may in allowed().items() if topic in may.get("publish", ())}
        for topic in ("/joint_command", "/effort_controller/commands", "/effort_guard/enable", "/vjepa_planner/goal")
    }
    assert publishers == {
        "/joint_command": {"vjepa_planner"},
        "/effort_controller/commands": {"effort_guard"},
        "/effort_guard/enable": {OPERATOR},
        "/vjepa_planner/goal": {OPERATOR},
    }


def test_the_documented_policy_is_where_it_is_said_to_be():
    page = (Path(__file__).parents[1] / "docs" / "security.md").read_text(encoding="utf-8")
    assert "config/sros2_policy.xml" in page
    assert (share("config") / "sros2_policy.xml").is_file()
