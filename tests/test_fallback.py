"""A planner that fails in mid-run is replaced by the next in the list, says why, and comes back; no stamp is lost."""

import json
from pathlib import Path

import pytest
import yaml
from std_srvs.srv import SetBool

from vjepa_interfaces import topics
from vjepa_interfaces.managed_node import OK, WARN

pytestmark = pytest.mark.faults

FAILS_AT = 20
FAILURES = 3
FALLBACK_STEPS = 10
SIDELINED = 1 + 2 + 4
"""Latents that the next planner drives for while the chosen one fails so often."""
MOODY = '''
import time
from dataclasses import dataclass

import numpy as np

from vjepa_planner.contract import Plan, Planner


@dataclass(frozen=True)
class MoodyConfig:
    mood: str = ""
    at: int = 0
    until: int = 0


class MoodyPlanner(Planner):
    """Plans zeros, and from the `at`th plan since it was loaded to the `until`th as its mood is."""

    Config = MoodyConfig
    plans = 0

    def _act(self, observation, deadline_s):
        self.plans += 1
        disagreement = 0.0
        if self.config.at <= self.plans <= self.config.until:
            if self.config.mood == "raises":
                raise RuntimeError("no elite")
            if self.config.mood == "slow":
                time.sleep(3 * self.context.control_period_s)
            if self.config.mood == "disagrees":
                disagreement = 0.75
        return Plan(np.zeros(self.context.action_size), disagreement=disagreement)
'''


@pytest.fixture
def moody(tmp_path, monkeypatch):
    """Return a function that installs the planner `moody` beside the stack and writes the parameters that drive it."""
    folder = tmp_path / "plugins"
    metadata = folder / "moody-0.1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: moody\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text("[vjepa_planner.planners]\nmoody = moody:MoodyPlanner\n")
    (folder / "moody.py").write_text(MOODY)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")

    def parameters(mood: str, until: int = FAILS_AT, sim: dict | None = None) -> dict:
        planner = {
            "planners": ["moody", "expert", "random"],
            "fallbacks": ["bc", "expert"],
            "fallback_steps": FALLBACK_STEPS,
            "disagreement_limit": 0.5,
            "moody": {"mood": mood, "at": FAILS_AT, "until": until},
        }
        nodes = {"vjepa_planner": planner, "sim_bridge": sim or {}}
        file = tmp_path / "moody.yaml"
        file.write_text(yaml.safe_dump({name: {"ros__parameters": values} for name, values in nodes.items()}))
        return {"planner": "moody", "params_file": str(file)}

    return parameters


class Watch:
    """What a planner node says while it runs."""

    def __init__(self, stack):
        self._plans, self._drivers = stack.tap(topics.PLAN), stack.tap(topics.ACTIVE_PLANNER)
        self._diagnostics = stack.tap(topics.DIAGNOSTICS)

    @property
    def plans(self) -> list[dict]:
        """What was published of each plan, in the order of stamps, each stamp once."""
        plans = [json.loads(message.data) for message in self._plans.messages]
        return sorted({plan["stamp"]: plan for plan in plans}.values(), key=lambda plan: plan["stamp"])

    @property
    def drivers(self) -> list[str]:
        return [message.data for message in self._drivers.messages]

    @property
    def said(self) -> set[tuple[bytes, str]]:
        """Levels and messages of the node's diagnostics."""
        statuses = [status for message in self._diagnostics.messages for status in message.status]
        return {(status.level, status.message) for status in statuses if status.name == "/vjepa_planner"}


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        ("raises", "planner 'moody' raised RuntimeError: no elite"),
        ("disagrees", "planner 'moody': its ensemble disagrees by 0.75; the limit is 0.5"),
    ],
)
def test_in_lockstep_the_next_planner_answers_the_very_frame_that_the_chosen_one_failed_on(
    lockstep_stack, moody, mood, reason
):
    until = FAILS_AT + FAILURES - 1
    stack = lockstep_stack(**moody(mood, until), episodes=1, episode_steps=60)
    watch, frames, commands = Watch(stack), stack.tap(topics.IMAGE), stack.tap(topics.JOINT_COMMAND)
    stack.wait_finished()
    stack.wait_for(lambda: set(frames.stamps) <= set(commands.stamps), "an answer to every frame")
    stack.wait_for(lambda: len(watch.plans) == 61, "what was planned at every frame")
    assert stack.monitor.value("sim_bridge", "resent_frames") == 0, "no frame had to be sent again"
    planners = [plan["planner"] for plan in watch.plans]
    before, during = FAILS_AT - 1, SIDELINED
    assert planners == ["moody"] * before + ["expert"] * during + ["moody"] * (61 - before - during)
    fallbacks = [plan.get("fallback") for plan in watch.plans]
    assert fallbacks == [None] * before + [reason] * during + [None] * (61 - before - during)
    efforts = commands.by_stamp()
    assert any(efforts[watch.plans[before]["stamp"]].effort), "the expert's torque, where moody's is zero"
    assert watch.drivers == ["moody", "expert", "moody"]
    assert (WARN, f"{reason}: 'expert' drives") in watch.said
    stack.wait_for_value("vjepa_planner", "fallback_commands", lambda count: count == SIDELINED)
    level, message, values = stack.monitor.diagnostics["vjepa_planner"]
    assert (level, message) == (OK, "planning")
    assert (values["planner"], values["driving"]) == ("moody", "moody")
    assert (values["fallbacks"], values["refused_latents"], values["missed_deadlines"]) == (str(FAILURES), "0", "0")
    assert values["last_fallback"] == f"{reason}: 'expert' drives"


def test_in_lockstep_a_slow_planner_drives_on(lockstep_stack, moody):
    stack = lockstep_stack(**moody("slow"), episodes=1, episode_steps=40)
    watch = Watch(stack)
    stack.wait_finished()
    stack.wait_for(lambda: len(watch.plans) == 41, "what was planned at every frame")
    assert max(plan["planning_time_s"] for plan in watch.plans) > 0.05
    assert {plan["planner"] for plan in watch.plans} == {"moody"}


@pytest.mark.real_time
def test_in_real_time_a_late_plan_is_sent_and_the_next_planner_drives_once(start_stack, moody):
    period_s = 0.1  # Slow, so that on a busy machine no other plan is late.
    stack = start_stack(**moody("slow", sim={"rate_hz": 1 / period_s}), episode_steps=10_000)
    watch, commands = Watch(stack), stack.tap(topics.JOINT_COMMAND)
    stack.wait_for(lambda: watch.drivers[-3:] == ["moody", "expert", "moody"], "moody to come back")
    stack.wait_for(lambda: watch.plans[-1]["planner"] == "moody", "its plans")
    late = next(i for i, plan in enumerate(watch.plans) if plan["planning_time_s"] > period_s)
    assert watch.plans[late]["planner"] == "moody"
    assert "fallback" not in watch.plans[late]
    assert watch.plans[late]["stamp"] in commands.stamps
    stood_in = watch.plans[late + 1]
    assert stood_in["planner"] == "expert"
    assert f"with {1e3 * period_s:.1f} ms to plan in" in stood_in["fallback"]
    assert watch.plans[late + 2]["planner"] == "moody"
    stack.wait_for(lambda: any(m.endswith(": 'expert' drives") for level, m in watch.said if level == WARN), "warning")
    stack.wait_for_value("vjepa_planner", "missed_deadlines", lambda count: count >= 1)


def test_an_empty_list_has_nobody_stand_by(lockstep_stack, moody, tmp_path):
    options = moody("raises")
    file = Path(options["params_file"])
    parameters = yaml.safe_load(file.read_text())
    parameters["vjepa_planner"]["ros__parameters"]["fallbacks"] = []
    file.write_text(yaml.safe_dump(parameters))
    stack = lockstep_stack(**options, episodes=1, episode_steps=40)
    watch = Watch(stack)
    stack.wait_finished()
    stack.wait_for(lambda: len(watch.plans) == 41, "what was planned at every frame")
    refused = [plan.get("refused") for plan in watch.plans]
    assert refused == [None] * 19 + ["planner 'moody' raised RuntimeError: no elite"] + [None] * 21
    assert {plan["planner"] for plan in watch.plans} == {"moody"}


def test_a_swap_ends_a_fallback_and_the_bag_names_each_who_drove_once(lockstep_stack, moody, tmp_path):
    options = {**moody("raises", until=1_000_000), "record": True, "bag_dir": str(tmp_path / "bags")}
    stack = lockstep_stack(**options, episode_steps=1000)
    frames, commands = stack.tap(topics.IMAGE), stack.tap(topics.JOINT_COMMAND)
    stack.wait_for(lambda: stack.driver == "expert", "the fallback to drive")
    stack.wait_for_value("vjepa_planner", "fallbacks", lambda count: count >= 3)
    assert stack.driver == "expert", "as long as the chosen one goes on failing"
    assert stack.set_planner("random").successful
    stack.wait_for(lambda: stack.driver == "random", "random to drive")
    stack.wait_for(lambda: stack.monitor.diagnostics["vjepa_planner"][:2] == (OK, "planning"), "no more warning")
    assert stack.set_planner("moody").successful
    stack.wait_for(lambda: stack.driver == "expert", "the fallback to drive again")
    stack.wait_for(lambda: stack.monitor.diagnostics["vjepa_planner"][2]["planner"] == "moody", "the chosen one's name")
    stack.wait_for(lambda: set(frames.stamps[:200]) <= set(commands.stamps), "an answer to every frame")
    assert stack.monitor.value("sim_bridge", "resent_frames") == 0, "no frame had to be sent again"
    assert stack.call(SetBool, "episode_recorder/record", SetBool.Request(data=False)).success
    (bag,) = Path(options["bag_dir"]).iterdir()
    about = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]["custom_data"]
    assert about["planners"] == "moody, expert, random"
