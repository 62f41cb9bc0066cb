"""Planners are found by entry point, loaded by name, and a broken one harms no other."""

import os
import subprocess
import sys

import pytest

from vjepa_interfaces.effort import EffortLimits
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.contract import PlannerContext
from vjepa_planner.registry import available, load_planner

CONTEXT = PlannerContext(action_size=2, control_period_s=0.02)

STILL = """
import numpy as np
from dataclasses import dataclass
from vjepa_planner.contract import Plan, Planner

@dataclass(frozen=True)
class Options:
    size: int = 1
    name: str = "a"
    loud: bool = False
    gain: float = 1.0

class Still(Planner):
    Config = Options
    def _act(self, observation, deadline_s):
        return Plan(np.zeros(self.context.action_size))
"""


MUTE = """
class Mute(Exception):
    def __str__(self):
        raise RuntimeError
"""


def test_the_declared_planners_are_available_sorted():
    ours = [name for name in available() if name in {"random", "expert-p", "expert", "bc"}]
    assert ours == ["bc", "expert", "expert-p", "random"]


def test_a_third_partys_planner_is_found_and_takes_options(install_planners):
    install_planners("still_arm", ["still = still_arm_module:Still"], {"still_arm_module": STILL})
    planner = load_planner("still", {"gain": 2, "size": 3, "name": "b", "loud": True}, CONTEXT)
    assert (planner.config.gain, planner.config.size, planner.config.name, planner.config.loud) == (2.0, 3, "b", True)
    assert type(planner.config.gain) is float


def test_an_unknown_planner_is_refused_with_the_valid_names():
    with pytest.raises(VjepaError, match=r"unknown planner 'expart'.*expert, expert-p, .*random"):
        load_planner("expart", {}, CONTEXT)


def test_an_unknown_option_is_refused_with_the_valid_ones():
    with pytest.raises(VjepaError, match=r"option of planner 'expert'.*'kq'.*damping, "):
        load_planner("expert", {"kq": 1.0}, CONTEXT)


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("gain", "2", "float"),
        ("gain", True, "float"),
        ("size", 1.0, "int"),
        ("size", True, "int"),
        ("name", 3, "str"),
        ("loud", 1, "bool"),
    ],
)
def test_an_option_of_a_wrong_type_is_refused_naming_it(install_planners, option, value, kind):
    install_planners("typed_arm", ["typed = typed_arm_module:Still"], {"typed_arm_module": STILL})
    with pytest.raises(VjepaError, match=f"option '{option}' of planner 'typed'.*type {kind}"):
        load_planner("typed", {option: value}, CONTEXT)


@pytest.mark.parametrize(
    ("planner", "option", "value"),
    [
        ("expert", "time_constant_s", 0.0),
        ("expert", "damping", -1.0),
        ("expert", "upper_length", 0.0),
        ("expert", "wrist_limit", 4.0),
        ("expert-p", "gain", 1e9),
    ],
)
def test_an_option_out_of_range_is_refused_naming_it(planner, option, value):
    with pytest.raises(VjepaError, match=f"option .{option}. of planner .{planner}. is"):
        load_planner(planner, {option: value}, CONTEXT)


@pytest.mark.parametrize("planner", ["expert", "expert-p", "expert-xy"])
def test_an_arm_of_other_joints_than_the_experts_is_refused(planner):
    with pytest.raises(VjepaError, match=r"2 joints.*has 7"):
        load_planner(planner, {}, PlannerContext(action_size=7, control_period_s=0.02))
    other = PlannerContext.of(EffortLimits.of(("proximal", "distal"), 30.0), 0.02)
    with pytest.raises(VjepaError, match=f"planner '{planner}' is for an arm with the joints .*has proximal, distal"):
        load_planner(planner, {}, other)


def test_the_expert_drives_another_arm_of_two_links_whose_joints_it_is_told():
    arm = PlannerContext.of(EffortLimits.of(("base", "elbow"), 0.2), 0.02)
    load_planner("expert", {"joint_names": ["base", "elbow"], "upper_length": 0.3}, arm)


@pytest.mark.parametrize(
    ("entry", "text", "message"),
    [
        ("broken_arm_missing:Planner", None, "ModuleNotFoundError"),
        ("broken_arm_module:Planner", "raise ValueError('bad table')", "bad table"),
        ("broken_arm_module:Planner", "x = 1", "AttributeError"),
        ("broken_arm_module:Planner", "Planner = 3", "not a subclass"),
        ("broken_arm_module:Planner", "import sys; sys.exit(3)", "SystemExit: 3"),
        ("broken_arm_module:Planner", "import argparse; argparse.ArgumentParser().parse_args(['--no'])", "SystemExit"),
        ("broken_arm_module:Planner", "def broken(:", "SyntaxError"),
        ("broken_arm_module:Planner", "class Stop(BaseException): ...\nraise Stop('cancelled')", "Stop: cancelled"),
        ("broken_arm_module:Planner", MUTE + "raise Mute", "Mute: (its text cannot be read)"),
        ("broken arm", "x = 1", "could not be imported"),
    ],
)
def test_a_package_that_cannot_be_imported_is_named_and_harms_no_other(
    install_planners, monkeypatch, entry, text, message
):
    monkeypatch.delitem(sys.modules, "broken_arm_module", raising=False)
    install_planners("broken_arm", [f"broken = {entry}"], {"broken_arm_module": text} if text else None)
    assert "broken" in available()
    with pytest.raises(VjepaError, match=r"package 'broken_arm' 0\.1\.0") as refusal:
        load_planner("broken", {}, CONTEXT)
    assert message in str(refusal.value)
    load_planner("expert", {}, CONTEXT)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    def __init__(self, config, context): raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("    def __init__(self, config, context): raise SystemExit('no licence')", "SystemExit: no licence"),
        ("    Config = None", "could not be made"),
        ("    needs = None", "cannot be used: TypeError"),
        ("    needs = frozenset({'odometry'})", "needs the inputs odometry; valid are: goal, "),
        ("    encoder_fingerprint = 3", "has encoder_fingerprint 3; expected a text or None"),
        ("    trained_periods_s = '20 ms'", "has trained_periods_s '20 ms'; expected a tuple of seconds"),
        ("    trained_periods_s = 0.02", "has trained_periods_s 0.02; expected a tuple of seconds"),
    ],
)
def test_a_planner_that_fails_while_it_is_made_is_named(install_planners, monkeypatch, body, message):
    monkeypatch.delitem(sys.modules, "failing_arm_module", raising=False)
    text = f"{STILL}\nclass Failing(Still):\n{body}\n"
    install_planners("failing_arm", ["failing = failing_arm_module:Failing"], {"failing_arm_module": text})
    with pytest.raises(VjepaError, match=f"'failing'.*{message}"):
        load_planner("failing", {}, CONTEXT)


def test_an_interruption_by_the_user_is_no_failure_of_a_planner(install_planners, monkeypatch):
    monkeypatch.delitem(sys.modules, "slow_arm_module", raising=False)
    install_planners("slow_arm", ["slow = slow_arm_module:Slow"], {"slow_arm_module": "raise KeyboardInterrupt"})
    with pytest.raises(KeyboardInterrupt):
        load_planner("slow", {}, CONTEXT)


def test_damaged_entry_points_of_one_package_hide_no_other(install_planners):
    install_planners("damaged_arm", ["no equals sign"])
    assert {"random", "expert"} <= set(available())
    load_planner("expert", {}, CONTEXT)
    with pytest.raises(
        VjepaError, match=r"unknown planner 'own'.*the entry points of package 'damaged_arm' are damaged"
    ):
        load_planner("own", {}, CONTEXT)


def test_a_name_that_two_packages_declare_is_refused_naming_both(install_planners):
    install_planners("usurper", ["expert = usurper_module:Still"], {"usurper_module": STILL})
    assert available().count("expert") == 1
    with pytest.raises(VjepaError, match=r"'usurper'.*'vjepa_planner'|'vjepa_planner'.*'usurper'"):
        load_planner("expert", {}, CONTEXT)


def test_planners_without_networks_load_without_torch(planner_metadata):
    code = (
        "import sys; from vjepa_planner.contract import PlannerContext; from vjepa_planner.registry import *\n"
        "assert 'bc' in available()\n"
        "for name in ('random', 'expert-p', 'expert'): load_planner(name, {}, PlannerContext(2, 0.02))\n"
        "assert 'torch' not in sys.modules and 'rclpy' not in sys.modules"
    )
    path = os.pathsep.join([str(planner_metadata), *filter(None, sys.path)])
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": path}, timeout=120)


@pytest.mark.parametrize(("planners", "imported"), [("[random]", False), ("[random,bc,no_such]", True)])
def test_a_node_imports_what_its_planners_need_before_it_is_configured(planner_metadata, planners, imported):
    code = (
        "import sys, rclpy; from vjepa_planner.planner_node import PlannerNode; "
        f"rclpy.init(args=['--ros-args', '-p', 'planners:={planners}', '-p', 'planner:=random']); "
        "node = PlannerNode(); node.begin_preloading(); node.end_preloading(); print('torch' in sys.modules)"
    )
    path = os.pathsep.join([str(planner_metadata), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": path, "ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.stdout == f"{imported}\n", result.stderr


def test_a_listed_planner_that_exits_at_import_is_named_and_the_others_drive(
    planner_metadata, install_planners, tmp_path
):
    install_planners("quitting_arm", ["quits = quitting_arm_module:Quits"], {"quitting_arm_module": "exit(3)"})
    code = (
        "import rclpy; from vjepa_planner.planner_node import PlannerNode; "
        "rclpy.init(args=['--ros-args', '-p', 'planners:=[random,quits]', '-p', 'planner:=random']); "
        "node = PlannerNode(); node.begin_preloading(); node.trigger_configure(); print(node.diagnose()[2])"
    )
    path = os.pathsep.join([str(tmp_path / "quitting_arm"), str(planner_metadata), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": path, "ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "'ready': 'random'" in result.stdout
    assert "'not ready: quits'" in result.stdout
    assert "quitting_arm_module:Quits: SystemExit: 3" in result.stdout
    assert "planner 'quits' is not ready: planner 'quits' of package 'quitting_arm' 0.1.0" in result.stderr
