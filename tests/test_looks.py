"""A look is the same through ROS as in one process, and on record."""

import json
import re

import numpy as np
import pytest
import yaml

from vjepa_bags.bag_reader import Bag, topic_names
from vjepa_bringup.graph import StackOptions, merged_parameters
from vjepa_cli.cli import main
from vjepa_interfaces import topics
from vjepa_training.data.build import BuildConfig, build_dataset
from vjepa_training.evaluation import rollout
from vjepa_training.evaluation.evaluate import evaluate
from vjepa_training.evaluation.score import Protocol

EPISODES, STEPS, SEED = 2, 20, 7
APPEARANCE = {"look": "all:medium:moving", "render": "dm_control"}


def test_an_episode_looks_and_scores_the_same_through_ros_and_in_one_process(lockstep_stack, monkeypatch, tmp_path):
    stack = lockstep_stack(
        **APPEARANCE,
        planner="bc",
        device="cpu",
        episodes=EPISODES,
        episode_steps=STEPS,
        seed=SEED,
        record=True,
        bag_dir=str(tmp_path / "bags"),
    )
    images, joints = taps = stack.tap(topics.IMAGE), stack.tap(topics.JOINT_STATES)
    stack.wait_for_episodes(EPISODES)
    steps = EPISODES * (STEPS + 1)
    stack.wait_for(lambda: all(len(tap.by_stamp()) == steps for tap in taps), "every picture and joint state")
    stack.wait_finished()
    stack.supervisor.stop()

    frames, positions = [], []
    env_class = rollout.SimEnv

    class Seeing(env_class):
        def render(self):
            frames.append(super().render())
            return frames[-1]

    monkeypatch.setattr(rollout, "SimEnv", Seeing)
    scores, _, _ = evaluate(
        merged_parameters(StackOptions(planner="bc", device="cpu", **APPEARANCE)),
        Protocol("test", STEPS, None),
        EPISODES,
        SEED,
        on_step=lambda _, step: positions.append(step.joint_position.tolist()),
    )
    seen = [
        np.frombuffer(bytes(message.data), np.uint8).reshape(message.height, message.width, 3)
        for _, message in sorted(images.by_stamp().items())
    ]
    np.testing.assert_array_equal(seen, frames)
    assert [list(message.position) for _, message in sorted(joints.by_stamp().items())] == positions
    assert [episode.episode_return for episode in stack.scores.episodes] == [score.episode_return for score in scores]

    (path,) = (tmp_path / "bags").iterdir()
    bag = Bag(path, topic_names())
    built, _, _ = build_dataset(tmp_path / "built", [bag], BuildConfig(names=topic_names(), frames=True), None, {})
    for about in (bag.about, built.info.sources[0]["recorded_with"]):
        assert {name: about[name] for name in APPEARANCE} == APPEARANCE


@pytest.fixture
def vjepa(capfd, monkeypatch, tmp_path):
    """Return a function that runs a command in this process: it returns the status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return ended.value.code, *capfd.readouterr()

    return run


IN_PROCESS = (
    "eval",
    "--through",
    "process",
    "--planner",
    "random",
    "--episodes",
    1,
    "--protocol",
    "baseline",
    "--seed",
    5,
)


def test_one_look_is_named_in_the_scoreboard_and_in_a_json_of_the_usual_shape(vjepa, tmp_path):
    status, said, complained = vjepa(*IN_PROCESS, "--looks", "jpeg:hard", "--json", "one.json")
    assert status == 0, complained
    assert "look               jpeg:hard, rendered as dm_control\n" in said
    one = json.loads((tmp_path / "one.json").read_text())
    assert (one["look"], one["render"], one["seed"]) == ("jpeg:hard", "dm_control", 5)
    assert len(one["returns"]) == 1


def test_several_looks_are_a_table_and_one_json(vjepa, tmp_path):
    status, said, complained = vjepa(*IN_PROCESS, "--looks", "plain", "noise:easy", "--render", "exact", "--json", "r")
    assert status == 0, complained
    assert "  plain       " in said
    assert "  noise:easy  " in said
    results = json.loads((tmp_path / "r").read_text())["looks"]
    found = [(name, each["look"], each["render"]) for name, each in results.items()]
    assert found == [("plain", "nominal", "plain"), ("noise:easy", "noise:easy", "exact")]
    assert results["plain"]["returns"] == results["noise:easy"]["returns"], "random actions see nothing"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "--looks", "fog"], "unknown look 'fog'; valid are: .*colour, dm_control, exact, .*plain"),
        (["eval", "--looks", "light:dim"], "the look is 'light:dim'; expected a name, then a level of easy, medium"),
        (["eval", "--looks", "light", "light"], "the look light:medium is named twice"),
        (["eval", "--looks", "light", "--render", "pretty"], "unknown render 'pretty'"),
        (["eval", "--render", "pretty"], "unknown render 'pretty'"),
        (["eval", "--looks", "light", "noise", "--backgrounds", "."], "has no backgrounds; expected a folder"),
        (["run", "--look", "background", "--backgrounds", "nowhere"], "nowhere has no backgrounds"),
        (["looks", "--png", "looks.jpeg"], "looks.jpeg is not a picture; expected a name that ends in .png"),
        (["run", "--look", "fog"], "unknown look 'fog'"),
        (["run", "--camera", "0", "--look", "light"], "--look is for the simulation: leave it out"),
    ],
)
def test_looks_that_make_no_sense_are_refused_before_anything_starts(vjepa, arguments, message):
    status, said, complained = vjepa(*arguments)
    assert (status, said) == (1, "")
    assert re.search(f"vjepa: .*{message}", complained), complained


def test_a_policy_that_cannot_see_gives_the_arm_to_a_fallback(lockstep_stack, tmp_path):
    file = tmp_path / "limit.yaml"
    # No look blinds this policy. Under the nominal look its novelty is about 0.3, under this one about 0.5.
    planner = {"planners": ["bc", "expert"], "fallbacks": ["expert"], "novelty_limit": 0.4}
    file.write_text(yaml.safe_dump({"vjepa_planner": {"ros__parameters": planner}}))
    stack = lockstep_stack(planner="bc", light=False, params_file=str(file), look="all:hard", device="cpu")
    plans = stack.tap(topics.PLAN)
    stack.wait_for(lambda: len(plans.messages) > 30, "thirty plans")
    thoughts = [json.loads(message.data) for message in plans.messages]
    blind = [thought for thought in thoughts if thought["planner"] == "expert"]
    assert len(blind) > 25
    assert "the novelty of the latent is" in blind[-1]["fallback"]
    assert stack.monitor.value("vjepa_planner", "refused_latents") == 0
