"""The examples run as they are, in a small size that users can ask for too."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from tests.test_docs import FENCED, objection
from vjepa_planner.conformance import PlannerConformance, load_for_test
from vjepa_planner.registry import available

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py"))
README = EXAMPLES / "README.md"
LINES = {"demonstrate": 145, "six_joints": 125, "six_joints_drive": 120}
"""Controllers, a recorder, a model and a measurement; the others have at most 60."""


@pytest.fixture
def example(monkeypatch):
    """Return a function that imports an example as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield __import__
    for name in SCRIPTS:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def plugins(tmp_path_factory) -> Path:
    """The folder into which the command of the page has installed the planner `hold`, from a copy of the examples."""
    folder = tmp_path_factory.mktemp("plugins")
    for name in ("pyproject.toml", "write_planner.py"):
        (folder / name).write_bytes((EXAMPLES / name).read_bytes())
    command = next(line for line in README.read_text().splitlines() if "pip install" in line and "plugins" in line)
    words = shlex.split(command.removeprefix("./vjepa --exec python ").replace("./examples", "."))
    subprocess.run([sys.executable, *words], cwd=folder, check=True, capture_output=True)
    return folder / "plugins"


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_short_and_its_docstring_has_its_command(example, name):
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= LINES.get(name, 60)
    commands = [line.strip() for line in example(name).__doc__.splitlines() if f"examples/{name}.py" in line]
    assert commands[0].startswith("./vjepa ")
    assert "expected one argument" not in objection(commands[0])


def test_the_page_has_every_example_and_commands_that_vjepa_understands():
    text = README.read_text()
    listed = set(re.findall(r"^\| \[([\w.]+)\]", text, re.MULTILINE))
    assert listed == {path.name for pattern in ("*.py", "*.ipynb") for path in EXAMPLES.glob(pattern)}
    lines = [line for _, body in FENCED.findall(text) for line in body.splitlines()]
    for name in SCRIPTS:
        assert any(f"python examples/{name}.py" in line for line in lines), name
    for line in lines:
        if line.startswith("./vjepa "):
            assert objection(line) == "", line


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_options_that_the_page_gives_to_a_script_are_its_own(example, monkeypatch, name):
    page = README.read_text() + example(name).__doc__
    with pytest.raises(SystemExit, match="0"):
        example(name).main(["--help"])
    for line in re.findall(rf"examples/{name}\.py (.*)$", page, re.MULTILINE):
        with pytest.raises(SystemExit, match="0"):  # `--help` behind options that are refused would not end well.
            example(name).main([*shlex.split(line), "--help"])


def test_the_policy_drives_better_than_chance(example, capsys):
    example("drive_arm").main(["--episodes", "1", "--steps", "60"])
    found = re.findall(r"^(\w+) +episode 0: return ([\d.]+) of at most 60$", capsys.readouterr().out, re.MULTILINE)
    returns = {name: float(value) for name, value in found}
    assert returns["bc"] > returns["random"] + 10.0


def test_the_planner_holds_the_pose_that_it_is_asked_for(example, capsys):
    example("write_planner").main(["--shoulder", "1.0", "--wrist", "-0.7", "--steps", "200"])
    found = re.search(r"joints at \[ *([-\d.]+) +([-\d.]+)\] rad", capsys.readouterr().out)
    assert [float(angle) for angle in found.groups()] == pytest.approx([1.0, -0.7], abs=0.15)


class TestHold(PlannerConformance):
    """The planner, installed as the page does it, keeps the whole contract."""

    @pytest.fixture(autouse=True)
    def _installed(self, plugins, monkeypatch):
        monkeypatch.syspath_prepend(str(plugins))
        assert "hold" in available()

    def make_planner(self):
        return load_for_test("hold", shoulder=0.5, wrist=0.5)


@pytest.mark.slow
def test_a_policy_is_trained_and_drives_the_running_stack(example, start_stack, tmp_path, capsys):
    light = tmp_path / "light.yaml"  # So slow, and with so few planners, that a busy machine collects beside it.
    light.write_text(
        "sim_bridge: {ros__parameters: {playback_speed: 0.2}}\n"
        "vjepa_planner: {ros__parameters: {planners: [expert, bc]}}\n"
    )
    stack = start_stack(planner="expert", light=False, episode_steps=100_000, params_file=str(light))
    stack.wait_for_steps(1)
    small = ["--episodes", "24", "--episode-steps", "3", "--epochs", "1"]
    example("train_and_swap").main(["--out", str(tmp_path / "out"), *small, "--domain", str(stack.domain)])
    stack.wait_for(lambda: stack.driver == "bc", "the trained policy to drive")
    stack.wait_for_value("vjepa_planner", "swaps", lambda count: count == 1)
    stack.wait_for_steps(3)
    assert (tmp_path / "out" / "policy" / "model.safetensors").is_file()


def test_without_a_stack_nothing_is_collected_or_trained(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vjepa_cli.commands.graph.running_stacks", lambda: [])
    with pytest.raises(SystemExit, match="1"):
        example("train_and_swap").main(["--out", str(tmp_path / "out")])
    assert "no stack is running here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_notebook_runs_from_top_to_bottom_and_is_kept_without_output(monkeypatch, capsys):
    monkeypatch.setattr(plt, "show", lambda: None)
    plt.switch_backend("agg")
    notebook = json.loads((EXAMPLES / "look_inside.ipynb").read_text())
    namespace: dict = {"__name__": "__main__"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            assert cell["execution_count"] is None
            exec(compile("".join(cell["source"]), f"cell {cell['id']}", "exec"), namespace)
    assert len(plt.get_fignums()) == 2
    plt.close("all")
    assert float(re.search(r"return ([\d.]+)", capsys.readouterr().out)[1]) > 20.0
