"""Deprecated names work as the present ones do, and one line on standard error names the present one."""

import dataclasses
import shlex
from pathlib import Path

import pytest
import yaml

from vjepa_cli.actions import action_of, command_of
from vjepa_cli.cli import main, parse
from vjepa_cli.commands import COMMANDS
from vjepa_cli.experiments.experiments import read_experiments
from vjepa_interfaces.deprecated import EXPERIMENT, PARAMETER, RENAMED
from vjepa_interfaces.errors import VjepaError
from vjepa_planner.registry import load_class


@pytest.mark.parametrize(
    ("deprecated", "present", "line"),
    [
        (
            "train bc --data x --out y --old",
            "train bc --data x --out y --baseline",
            "train bc: --old {}; use --baseline",
        ),
        (
            "train bc --no-old --data x --out y",
            "train bc --no-baseline --data x --out y",
            "train bc: --old {}; use --baseline",
        ),
        ("run --policy a", "run --bc-bundle a", "run: --policy {}; use --bc-bundle"),
        ("eval --policy=a", "eval --bc-bundle=a", "eval: --policy {}; use --bc-bundle"),
        ("collect --out y --policy mix", "collect --out y --behaviour mix", "collect: --policy {}; use --behaviour"),
        ("improve --policy a", "improve --prior a", "improve: --policy {}; use --prior"),
        (
            "train dreamer --policy a --dynamics d --data x --out y",
            "train dreamer --prior a --dynamics d --data x --out y",
            "train dreamer: --policy {}; use --prior",
        ),
        (
            "train bc --data x --out y --batch-lanes 3",
            "train bc --data x --out y --num-envs 3",
            "train bc: --batch-lanes {}; use --num-envs",
        ),
        (
            "train dynamics --data x --out y --conditioning=pca",
            "train dynamics --data x --out y --state-projection=pca",
            "train dynamics: --conditioning {}; use --state-projection",
        ),
        (
            "train dreamer --dreams 7 --dynamics d --data x --out y",
            "train dreamer --imagined-rollouts 7 --dynamics d --data x --out y",
            "train dreamer: --dreams {}; use --imagined-rollouts",
        ),
        ("eval --protocol old", "eval --protocol baseline", "--protocol: 'old' {}; use 'baseline'"),
        ("improve --protocol=old", "improve --protocol=baseline", "--protocol: 'old' {}; use 'baseline'"),
        (
            "train dreamer --preset=dreamer-old --dynamics d --data x --out y",
            "train dreamer --preset=baseline-dreamer --dynamics d --data x --out y",
            "--preset: 'dreamer-old' {}; use 'baseline-dreamer'",
        ),
    ],
)
def test_a_deprecated_option_or_value_is_read_as_the_present_one(capsys, deprecated, present, line):
    required = " --planner cem --rounds 1 --data x --out y" if deprecated.startswith("improve") else ""
    command = parse(shlex.split(deprecated + required))
    assert capsys.readouterr().err == f"vjepa: {line.format('is deprecated')}\n"
    assert command == parse(shlex.split(present + required))
    assert capsys.readouterr().err == "", "the present name is not reported"


def test_a_deprecated_option_of_a_config_is_read_as_the_present_one(capsys):
    paths = {"data": "x", "out": "y"}
    command = command_of("train dynamics", {"old": True, **paths})
    assert capsys.readouterr().err == "vjepa: train dynamics: 'old' is deprecated; use 'baseline'\n"
    assert command == command_of("train dynamics", {"baseline": True, **paths})
    assert command.arguments.components == 0, "the defaults are those of the baseline"
    assert command_of("eval", {"protocol": "old"}) == command_of("eval", {"protocol": "baseline"})


def test_a_config_with_both_names_of_an_option_is_refused():
    with pytest.raises(VjepaError, match="train bc: 'old' is the deprecated name of 'baseline'; give the latter alone"):
        command_of("train bc", {"old": True, "baseline": True, "data": "x", "out": "y"})


def test_a_deprecated_experiment_is_the_present_one(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "cem-old", "--dry-run", "--device", "cpu"])
    said, complained = capsys.readouterr()
    assert ended.value.code == 0
    assert "baseline-cem" in said
    assert complained == "vjepa: experiment: 'cem-old' is deprecated; use 'baseline-cem'\n"


def test_an_experiment_of_ones_own_keeps_its_name_and_its_deprecated_field(capsys, tmp_path):
    stages = [{"kind": "collect", "config": {"episodes": 3, "out": "{data}/d"}}]
    Path(tmp_path, "cem-old.yaml").write_text(yaml.safe_dump({"what": "mine", "old": "12 %", "stages": stages}))
    assert read_experiments(tmp_path)["cem-old"].earlier == "12 %"
    assert capsys.readouterr().err == "vjepa: field of an experiment: 'old' is deprecated; use 'earlier'\n"
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "cem-old", "--dry-run", "--device", "cpu", "--experiments", str(tmp_path)])
    assert ended.value.code == 0
    assert "vjepa: experiment" not in capsys.readouterr().err


@pytest.mark.parametrize("kind", [kind for kind in RENAMED if kind.split()[0] in COMMANDS])
def test_every_present_name_is_an_option_and_no_deprecated_one_is(kind):
    options = action_of(kind).options
    assert set(RENAMED[kind].values()) <= set(options)
    assert not RENAMED[kind].keys() & set(options)


def test_every_present_name_of_a_parameter_is_an_option_of_its_planner_and_no_deprecated_one_is():
    for deprecated, present in RENAMED[PARAMETER].items():
        planner, _, option = present.partition(".")
        options = {field.name for field in dataclasses.fields(load_class(planner).Config)}
        assert option in options
        assert deprecated.partition(".")[2] not in options


def test_every_present_name_of_an_experiment_is_one_and_no_deprecated_one_is():
    experiments = read_experiments()
    assert set(RENAMED[EXPERIMENT].values()) <= experiments.keys()
    assert not RENAMED[EXPERIMENT].keys() & experiments.keys()
