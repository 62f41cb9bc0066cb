"""`vjepa goal set`: a picture, or what the stack sees, reaches the planner that seeks a goal; a bad one does not."""

import json

import cv2
import numpy as np
import pytest
import yaml
from sensor_msgs.msg import Image

from vjepa_cli.cli import main
from vjepa_interfaces import topics
from vjepa_interfaces.bundle import find_bundle
from vjepa_interfaces.image_codec import image_to_rgb
from vjepa_interfaces.messages import fill_goal, latent_of
from vjepa_training.evaluation.goals import picture_latent, read_picture

SEEKER = {"planner": "cem", "planners": ["cem"], "fallbacks": [], "cem.objective": "goal"}
TINY_ENCODER = {
    "kind": "encoder",
    "architecture": "vjepa2",
    "clip_frames": 8,
    "init_seed": 0,
    "model": {
        "crop_size": 32,
        "patch_size": 8,
        "tubelet_size": 2,
        "frames_per_clip": 8,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_ratio": 2.0,
    },
    "preprocessing": {"resize": 36, "crop": 32},
}


class Seeker:
    """A stack whose planner seeks a goal, what it plans, and `vjepa goal set` beside it."""

    def __init__(self, stack, commands):
        self.stack, self.commands = stack, commands
        self.images, self.latents, self.torques, self._plans = (
            stack.tap(topic) for topic in (topics.IMAGE, topics.LATENT, topics.JOINT_COMMAND, topics.PLAN)
        )
        stack.wait_for(lambda: self._plans.messages and stack.monitor.encoder_info, "the first latent")

    @property
    def plans(self) -> list[dict]:
        return [json.loads(message.data) for message in self._plans.messages]

    @property
    def values(self) -> dict[str, str]:
        return self.stack.monitor.diagnostics.get("vjepa_planner", (b"", "", {}))[2]

    def set_goal(self, *arguments) -> tuple[int, str]:
        """The exit status of `vjepa goal set`, and what it said."""
        heard = len(self.commands.said) if (self.commands.folder / "said").exists() else 0
        process = self.commands.start("goal", "set", *arguments, "--domain", str(self.stack.domain))
        self.stack.wait_for(lambda: process.poll() is not None, "the command to end")
        return process.returncode, self.commands.said[heard:]

    def wait_for_plan_of_goal(self):
        """Wait for the plan of a latent that comes from now on, and return the stamp of the goal that it seeks."""
        count = len(self.plans)
        self.stack.wait_for(lambda: len(self.plans) > count + 1, "another plan")
        return self.plans[-1].get("goal")


@pytest.fixture
def seeker(start_stack, commands, tmp_path):
    file = tmp_path / "goal.yaml"
    file.write_text(yaml.safe_dump({"vjepa_planner": {"ros__parameters": SEEKER}}))
    return Seeker(start_stack(params_file=str(file), lockstep=True, episode_steps=100_000), commands)


def first_frame(seeker, path):
    """Write the first frame of the episode as a picture, and return its latent: of a clip in which it stands still."""
    stamp = seeker.latents.stamps[0]
    seeker.stack.wait_for(lambda: stamp in seeker.images.stamps, "the first frame")
    cv2.imwrite(str(path), cv2.cvtColor(image_to_rgb(seeker.images.by_stamp()[stamp]), cv2.COLOR_RGB2BGR))
    return latent_of(seeker.latents.messages[0])


def test_goals_reach_the_planner_and_one_that_is_refused_changes_nothing(seeker, tmp_path):
    fingerprint = seeker.stack.monitor.encoder_info["fingerprint"]
    seeker.stack.wait_for(lambda: seeker.values.get("goal") == "none", "the planner to have no goal")
    assert "goal is missing" in seeker.plans[-1]["refused"]
    assert {tuple(message.effort) for message in seeker.torques.messages} == {(0.0, 0.0)}, "no goal, no torque"

    status, said = seeker.set_goal("--live")
    assert status == 0, said
    assert f"goal: 17 x 128 latent of encoder {fingerprint}" in said
    live = seeker.wait_for_plan_of_goal()
    assert live is not None
    assert seeker.plans[-1]["planner"] == "cem"
    seeker.stack.wait_for(lambda: any(seeker.torques.messages[-1].effort), "torque towards the goal")

    expected = first_frame(seeker, tmp_path / "goal.png")
    status, said = seeker.set_goal("--image", str(tmp_path / "goal.png"))
    assert status == 0, said
    pictured = seeker.wait_for_plan_of_goal()
    assert pictured > live
    given, _ = picture_latent(read_picture(tmp_path / "goal.png"), {"encoder": find_bundle("encoder-small")})
    np.testing.assert_allclose(given, expected, rtol=1e-3, atol=1e-4)

    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(TINY_ENCODER))
    status, said = seeker.set_goal("--image", str(tmp_path / "goal.png"), "--encoder", str(tmp_path / "tiny"))
    assert status == 1
    assert f"expected the fingerprint of the one that runs, '{fingerprint}'" in said
    assert seeker.wait_for_plan_of_goal() == pictured, "the goal stays"

    publisher = seeker.stack.publisher(topics.GOAL)
    bad = {"expected that of the latents, [17, 128]": expected[:1], "not finite": np.full_like(expected, np.nan)}
    for number, (reason, goal) in enumerate(bad.items(), 1):
        message = seeker.stack.stamped(Image(), number)
        fill_goal(message, goal, fingerprint)
        publisher.publish(message)
        seeker.stack.wait_for(lambda reason=reason: reason in seeker.values["refused_goal"], f"'{reason}'")
        assert seeker.wait_for_plan_of_goal() == pictured
    assert seeker.values["refused_goals"] == "3"
    assert "refused" not in seeker.plans[-1], "it drives on towards the goal it had"


def test_a_goal_for_a_planner_that_seeks_none_says_so(start_stack, commands):
    seeker = Seeker(start_stack(planner="bc", lockstep=True, episode_steps=100_000), commands)
    status, said = seeker.set_goal("--live")
    assert status == 0, said
    assert "planner 'bc' drives and seeks no goal" in said
    assert "goal" not in seeker.plans[-1]


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), (b"no picture", "that are no picture")])
def test_what_is_no_picture_is_refused_before_a_stack_is_looked_for(capsys, tmp_path, content, reason):
    if content is not None:
        (tmp_path / "goal.png").write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        main(["goal", "set", "--image", str(tmp_path / "goal.png")])
    complained = capsys.readouterr().err
    assert ended.value.code == 1
    assert f"picture {tmp_path}/goal.png cannot be read" in complained
    assert reason in complained
