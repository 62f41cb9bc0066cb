"""Options made from a dataclass: names, help, defaults, bounds, and refusals of one line."""

import dataclasses
import importlib
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
import tyro
from tyro.conf import Positional, create_mutex_group

from vjepa_cli.actions import Command, command_of
from vjepa_cli.cli import parse
from vjepa_cli.command_line import option, parsed_by, read, value_of
from vjepa_cli.commands import COMMANDS
from vjepa_interfaces.parameters import Range, as_base, check_ranges
from vjepa_training.evaluation.score import PROTOCOLS

HEAVY = {"numpy", "rclpy", "torch", "transformers", "tyro", "yaml"}
"""Modules that take tens of milliseconds to import, or more."""


def imported(code: str) -> set[str]:
    """Return the modules of `HEAVY` that a new Python has imported after the code, which prints no errors."""
    code += f"\nprint(*(sys.modules.keys() & {HEAVY}), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys\n{code}"], capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


def test_the_help_of_all_commands_imports_none_of_the_libraries():
    asks = "from vjepa_cli.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    assert imported(asks) == set()


def test_a_run_starts_its_processes_without_an_import_of_torch():
    assert "torch" not in imported("import vjepa_cli.commands.run, vjepa_bringup.run_graph, vjepa_cli.dashboard")


@dataclass(frozen=True)
class Settings:
    """How something is done.

    Attributes:
        batch_size: frames a step.
        kind: which way.
        joint_state: read joint positions too.
    """

    batch_size: Annotated[int, Range(low=1)] = 8
    kind: Literal["fast", "slow"] = "fast"
    joint_state: bool = True

    def __post_init__(self) -> None:
        check_ranges(self)


ONE = create_mutex_group(required=True)


@dataclass(frozen=True, kw_only=True)
class Given(Settings):
    """Do something.

    Attributes:
        out: folder of what it makes.
        rate: how often.
        image: a picture.
        live: what is seen now.
    """

    out: Annotated[Positional[str], option(metavar="OUT")]
    rate: Annotated[float | None, Range(above=0), option(default="the task's")] = None
    crop: tuple[int, int] | None = None
    half: Annotated[int, parsed_by(lambda text: int(text) // 2, "N")] = 1
    image: Annotated[str | None, ONE, option(default="")] = None
    live: Annotated[bool, ONE] = False


def given(words: str, default: Given | None = None) -> Given:
    return read(Given, words.split(), "vjepa do", default)


def test_what_is_not_stated_keeps_its_default():
    assert given("x --live") == Given(out="x", live=True)


def test_every_kind_of_option_is_read():
    words = "x --batch-size 3 --kind slow --no-joint-state --rate=0.5 --crop 4 5 --half 6 --image None"
    expected = Given(out="x", batch_size=3, kind="slow", joint_state=False, rate=0.5, crop=(4, 5), half=3, image="None")
    assert given(words) == expected
    assert as_base(Settings, expected) == Settings(3, "slow", False)


def test_other_defaults_hold_where_nothing_is_stated():
    default = Given(out=tyro.MISSING, batch_size=2, joint_state=False)
    assert given("x --live --no-joint-state", default) == dataclasses.replace(default, out="x", live=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--live", "the following arguments are required: out"),
        ("x", "one of the arguments --image or --live is required"),
        ("x --live --image y", "argument --image: not allowed with argument --live"),
        ("x --live --batch-size", "argument --batch-size: expected one argument"),
        ("x --live --batch-size many", "argument --batch-size: 'many' is not a whole number"),
        ("x --live --batch-size 0", "--batch-size is 0; expected at least 1, and finite"),
        ("x --live --rate fast", "argument --rate: 'fast' is not a number"),
        ("x --live --rate nan", "--rate is nan; expected more than 0, and finite"),
        ("x --live --crop 4", "argument --crop: expected 2 arguments"),
        ("x --live --kind loud", "argument --kind: invalid choice: 'loud' (choose from fast, slow)"),
        ("x --live --bach-size 3", "unrecognized arguments: --bach-size 3"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_one_line(capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        given(words)
    assert ended.value.code == 2
    said, complained = capsys.readouterr()
    assert (said, complained) == ("", f"vjepa do: error: {message}; see: vjepa do --help\n")


def test_help_has_each_option_with_its_text_choices_and_default(capsys):
    with pytest.raises(SystemExit) as ended:
        given("--help")
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Do something." in text
    assert "--batch-size INT frames a step. (default: 8)" in text
    assert "--kind {fast,slow} which way. (default: fast)" in text
    assert "--joint-state, --no-joint-state read joint positions too. (default: True)" in text
    assert "--rate FLOAT how often. (default: the task's)" in text
    assert "OUT folder of what it makes. (required)" in text


def test_the_value_of_an_option_is_found_among_words():
    words = ["--preset", "old", "--x", "--preset=new"]
    assert value_of("--preset", words) == "new"
    assert value_of("--preset", words[:3]) == "old"
    assert value_of("--other", words) is None
    assert value_of("--preset", []) is None


MODULES = {importlib.import_module(f"vjepa_cli.commands.{module}") for module, _ in COMMANDS.values()}
ACTIONS = sorted(name for module in MODULES for name in module.ACTIONS)


@pytest.mark.parametrize("name", ACTIONS)
def test_every_command_has_a_help_in_which_every_option_is_explained(capsys, name):
    with pytest.raises(SystemExit) as ended:
        parse([*name.split(), "--help"])
    assert ended.value.code == 0
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith(f"usage: vjepa {name}")
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if re.match("--[a-z]", line):
            words = line.partition("  ")[2].strip() or following
            assert words, line
            assert not words.startswith(("--", "(")), line


def test_the_protocols_in_the_help_are_those_there_are(capsys):
    with pytest.raises(SystemExit):
        parse(["eval", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    steps = ", ".join(f"{name} {protocol.episode_steps}" for name, protocol in PROTOCOLS.items())
    assert f"control steps of an episode: {steps}." in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("bc", {"epochs": 60, "rows": "all"}),
        ("bc --baseline --epochs 60 --no-joint-state", {"epochs": 60, "rows": "mean", "joint_state": False}),
        ("dynamics --baseline", {"horizon": 1, "components": 0}),
        (
            "dreamer --dynamics d --preset baseline-dreamer --imagined-rollouts 256",
            {"imagined_rollouts": 256, "horizon": 15},
        ),
        ("dreamer --dynamics d --preset=dreamer-hybrid", {"objective": "hybrid"}),
    ],
)
def test_a_preset_sets_the_defaults_and_an_option_stands_above_it(words, expected):
    arguments = parse(["train", *words.split(), "--data", "x", "--out", "y"]).arguments
    assert {name: getattr(arguments, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("line", "config"),
    [
        ("train bc --data x --out y", {"data": ["x"], "out": "y"}),
        ("train bc --data x z --out y", {"data": ["x", "z"], "out": "y"}),
        (
            "train bc --data x --out y --baseline --no-joint-state --epochs 100 --rows all --episodes 0-2,5",
            {"data": ["x"], "out": "y", "baseline": True, "rows": "all", "episodes": [0, 1, 2, 5]},
        ),
        (
            "train bc --data x --out y --no-joint-state --hidden 3 4 --noise 0",
            {"data": ["x"], "out": "y", "joint_state": False, "hidden": [3, 4], "noise": 0.0},
        ),
        (
            "train dreamer --dynamics d --data x --out y --preset baseline-dreamer --lambda 0.5 --horizon 15",
            {"dynamics": "d", "data": "x", "out": "y", "preset": "baseline-dreamer", "lambda_": 0.5},
        ),
        (
            "train encoder --data x z --out y --model tubelet_size=4 --model depth=0.5",
            {"data": ["x", "z"], "out": "y", "model_fields": [["tubelet_size", 4], ["depth", 0.5]]},
        ),
        ("dataset merge a 'b c' --out y", {"datasets": ["a", "b c"], "out": "y"}),
        (
            "dataset build bag --out y --joints shoulder,wrist",
            {"bags": ["bag"], "out": "y", "joint_names": ["shoulder", "wrist"]},
        ),
        ("dataset build bag --out y --effort-limit 2.0", {"bags": ["bag"], "out": "y", "effort_limit": 2.0}),
        (
            "dataset build bag --out y --effort-limit 2,0.5",
            {"bags": ["bag"], "out": "y", "effort_limit": [2.0, 0.5]},
        ),
        ("eval --looks nominal colour --planner bc", {"looks": ["nominal", "colour"], "planner": "bc"}),
        ("dataset reward d --out y --goal goal.png", {"dataset": "d", "out": "y", "goal": "goal.png"}),
    ],
)
def test_a_config_states_what_a_command_line_does_and_each_can_be_made_of_the_other(line, config):
    command = parse(shlex.split(line))
    assert command.config == config
    assert command_of(command.kind, config) == command
    assert parse(shlex.split(command.line)[1:]) == command
    assert Command.of(command.arguments) == command
