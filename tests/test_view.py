"""`vjepa view`: what is published is what is drawn, live and from a bag, and the animation is one.

rerun is in the group `view`, which `make test` installs (see requirements/view.in).
"""

import importlib
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from vjepa_cli import cli
from vjepa_cli.commands import view as view_commands
from vjepa_cli.views.latent_picture import Projection, latent_picture
from vjepa_interfaces import topics
from vjepa_interfaces.messages import latent_of, timestep_of
from vjepa_interfaces.stamps import to_nanoseconds

ROOT = Path(__file__).parents[1]
STEPS = 25
"""Steps of the simulation that are seen live at least, with all that belongs to them."""


@pytest.fixture
def rerun():
    """rerun's reader of its files."""
    if importlib.util.find_spec("rerun") is None and not os.environ.get("CI"):
        pytest.skip("rerun is not there; run `make test`")
    return importlib.import_module("rerun.chunk")


def drawn(rerun, path: Path) -> dict[str, dict[int, dict]]:
    """What a file for rerun holds: by entity and stamp, the components by name."""
    rows: dict[str, dict[int, dict]] = {}
    for chunk in rerun.RrdReader(path).stream():
        batch = chunk.to_record_batch()
        if "stamp" not in batch.schema.names:
            continue
        components = batch.select([name for name in batch.schema.names if ":" in name]).to_pylist()
        for stamp, row in zip(batch["stamp"].cast("int64").to_pylist(), components, strict=True):
            named = {name.partition(":")[2]: value for name, value in row.items()}
            rows.setdefault(chunk.entity_path.lstrip("/"), {})[stamp] = named
    return rows


def drawn_so_far(rerun, path: Path) -> dict[str, dict[int, dict]]:
    """The same of a file that is being written, nothing where its end is half a record."""
    try:
        return drawn(rerun, path)
    except RuntimeError:
        return {}


def recorded(bag: Path) -> dict[str, list]:
    """The messages of a bag by topic, as rosbags reads them."""
    messages: dict[str, list] = {}
    with AnyReader([bag], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        for connection, _, data in reader.messages():
            messages.setdefault(connection.topic.lstrip("/"), []).append(reader.deserialize(data, connection.msgtype))
    return messages


def expected(messages: dict[str, list]) -> dict[str, dict[int, list[float]]]:
    """What should be drawn of a bag, as numbers: by entity and stamp."""
    found: dict[str, dict[int, list[float]]] = {}

    def add(entity: str, stamp_ns: int, values) -> None:
        if stamp_ns:  # The zeros of a planner that is switched off have none.
            found.setdefault(entity, {})[stamp_ns] = np.ravel(values).tolist()

    def of(topic):
        return ((to_nanoseconds(message.header.stamp), message) for message in messages[topic.name])

    projection = Projection()
    for stamp, image in of(topics.IMAGE):
        add("camera", stamp, image.data)
    for entity, topic in (("plane/target", topics.TARGET), ("plane/fingertip", topics.FINGERTIP)):
        for stamp, message in of(topic):
            add(entity, stamp, np.float32([message.point.x, message.point.y, message.point.z]))
    for stamp, state in of(topics.JOINT_STATES):
        for name, position, effort in zip(state.name, state.position, state.effort, strict=True):
            add(f"position/{name}", stamp, position)
            add(f"torque/applied/{name}", stamp, effort)
    for stamp, command in of(topics.JOINT_COMMAND):
        for name, effort in zip(command.name, command.effort, strict=True):
            add(f"torque/command/{name}", stamp, effort)
    for stamp, message in of(topics.TIMESTEP):
        add("reward", stamp, timestep_of(message).reward)
    for stamp, message in of(topics.LATENT):
        add("latent", stamp, latent_picture(latent_of(message)))
        add("projection", stamp, np.float32(projection.point(latent_of(message))))
    for plan in (json.loads(message.data) for message in messages[topics.PLAN.name]):
        for name in ("cost", "disagreement", "novelty", "planning_time_s"):
            add(f"plan/{name}", plan["stamp"], plan[name])
        add("imagined", plan["stamp"], plan["imagined"]["distance"])
    return found


VALUES = {"camera": "buffer", "latent": "buffer", "imagined": "values"}
VALUES |= {"plane": "positions", "projection": "positions"}


def numbers(entity: str, row: dict) -> list[float]:
    value = row[VALUES.get(entity.split("/")[0], "scalars")]
    value = value[0]["buffer"] if entity == "imagined" else value
    return np.ravel(next(iter(value[0].values())) if isinstance(value[0], dict) else value).tolist()


def test_a_running_stack_and_its_bag_show_what_was_published(rerun, lockstep_stack, commands, tmp_path):
    (tmp_path / "cem.yaml").write_text("vjepa_planner: {ros__parameters: {cem.imagine: true}}")
    stack = lockstep_stack(
        planner="cem",
        params_file=str(tmp_path / "cem.yaml"),
        episode_steps=1000,
        record=True,
        bag_dir=str(tmp_path / "bags"),
    )
    stack.wait_for_steps(1)
    live = commands.start("view", "--save", "live.rrd", "--domain", str(stack.domain))
    commands.wait_for(lambda: "showing the running stack" in commands.said, "the view to listen")

    def all_drawn() -> bool:
        entities = drawn_so_far(rerun, tmp_path / "live.rrd")
        return {"log", "reward", "imagined"} <= entities.keys() and len(entities["imagined"]) >= STEPS

    commands.wait_for(all_drawn, "everything to be drawn")
    live.send_signal(signal.SIGINT)
    commands.finish(live)
    stack.supervisor.stop()
    (bag,) = (tmp_path / "bags").iterdir()
    commands.finish(commands.start("view", str(bag), "--save", "bag.rrd"))

    of_bag, of_live = drawn(rerun, tmp_path / "bag.rrd"), drawn(rerun, tmp_path / "live.rrd")
    published = expected(recorded(bag))
    assert of_bag.keys() == published.keys() | {"log"}
    last = max(published["camera"])
    for entity, values in published.items():
        assert of_bag[entity].keys() >= values.keys()
        for stamp, value in values.items():
            if stamp != last:  # There the command without a stamp is drawn over that of the frame.
                np.testing.assert_array_equal(numbers(entity, of_bag[entity][stamp]), value, entity)
    assert "planner 'cem' drives" in [row["text"][0] for row in of_bag["log"].values()]

    assert of_live.keys() == of_bag.keys()
    for entity in published:
        assert len(of_live[entity]) >= STEPS - 5, f"{entity}: of nearly every step"
        for stamp in of_live[entity].keys() - {last}:
            assert of_live[entity][stamp] == of_bag[entity][stamp], (
                f"{entity} at {stamp}: the same live and from the bag"
            )


def refusal(capsys, *arguments: object) -> str:
    """What `vjepa` says of arguments that it refuses."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    assert ended.value.code == 1
    return capsys.readouterr().err


def test_without_rerun_one_line_has_the_command_that_brings_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    message = refusal(capsys, "view")
    assert message.count("\n") == 1
    assert message.strip().endswith("install it with: ./vjepa --with view --setup-only")


def test_without_a_screen_a_file_is_advised(rerun, capsys, monkeypatch, tmp_path):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(view_commands, "_messages", lambda bag, namespace, wanted: iter(()))
    assert "no screen here" in refusal(capsys, "view", tmp_path)


def test_what_cannot_be_shown_is_refused(rerun, capsys, tmp_path):
    assert "--gif is made from a bag" in refusal(capsys, "view", "--gif", tmp_path / "a.gif")
    assert "--png is made from a bag" in refusal(capsys, "view", "--png", tmp_path / "a.png")
    assert "--seconds is for a running stack" in refusal(capsys, "view", tmp_path, "--seconds", 1)
    missing = refusal(capsys, "view", tmp_path / "none", "--save", tmp_path / "a.rrd")
    assert missing.startswith("vjepa: no bag at ")
    assert not (tmp_path / "a.rrd").exists()


def test_the_animation_in_the_readme_is_small_and_moves():
    picture = ROOT / "docs/arm.gif"
    assert "(docs/arm.gif)" in (ROOT / "README.md").read_text()
    assert picture.stat().st_size < 1.5e6
    image = importlib.import_module("PIL.Image").open(picture)
    assert image.n_frames > 50
