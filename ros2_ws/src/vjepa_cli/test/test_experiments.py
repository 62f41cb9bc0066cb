"""Experiments by name: what is left of them, in which order, and with which commands."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

from vjepa_cli.actions import Command
from vjepa_cli.cli import main, parse
from vjepa_cli.commands import reproduce as reproduce_commands
from vjepa_cli.experiments.experiments import read_experiments, to_do, workspace_of
from vjepa_cli.experiments.stages import is_whole
from vjepa_interfaces.errors import VjepaError

LARGE = "facebook/vjepa2-vitl-fpc64-256"
COLLECT = {"kind": "collect", "config": {"episodes": 3, "out": "{data}/d"}}
EVAL = {"kind": "eval", "config": {"planner": "cem", "json": "{results}/s.json"}}
EXPERIMENTS = {
    "data": {"stages": [COLLECT]},
    "model": {
        "needs": ["data"],
        "stages": [
            {
                "kind": "train dynamics",
                "config": {"data": "{data}/d", "out": "{models}/m", "json": "{results}/m.json"},
            }
        ],
    },
    "score": {
        "needs": ["model"],
        "stages": [COLLECT, {**EVAL, "params": {"cem.dynamics": "{models}/m", "cem.samples": 7}}],
    },
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write():
    """Return a function that writes experiments, some of them changed, and reads them."""

    def run(**changed):
        folder = Path("experiments")
        folder.mkdir(exist_ok=True)
        for name, content in {**EXPERIMENTS, **changed}.items():
            (folder / f"{name}.yaml").write_text(yaml.safe_dump({"what": "of a test", "earlier": "none", **content}))
        return read_experiments(folder)

    return run


@pytest.fixture
def workspace():
    return workspace_of(None, "cpu")


def make(path: Path) -> None:
    """Make what a stage would: a JSON result or, as the file that is written last, a folder's description."""
    file = path if path.suffix == ".json" else path / ("info.json" if "datasets" in path.parts else "config.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")


def left(experiments, workspace, *wanted) -> list[str]:
    return [f"{each.name}: {Path(stage.makes[0]).name}" for each, stage in to_do(experiments, wanted, workspace)]


def test_what_an_experiment_needs_comes_first_and_what_several_make_is_made_once(write, workspace):
    assert left(write(), workspace, "score") == ["data: d", "model: m", "score: s.json"]
    assert left(write(), workspace, "score", "data", "model") == ["data: d", "model: m", "score: s.json"]


def test_a_stage_whose_makings_are_all_there_is_left_out(write, workspace):
    experiments = write()
    make(workspace.work / "datasets" / "d")
    make(workspace.work / "models" / "m")
    assert left(experiments, workspace, "score") == ["model: m", "score: s.json"], "its result is not there"
    make(workspace.results / "m.json")
    assert left(experiments, workspace, "score") == ["score: s.json"]


def test_an_experiment_whose_results_are_there_is_done_and_needs_nothing(write, workspace):
    experiments = write()
    make(workspace.results / "s.json")
    assert left(experiments, workspace, "score") == []
    assert workspace.is_done(experiments["score"])
    assert not workspace.is_done(experiments["data"])
    assert left(experiments, workspace, "score", "model") == ["data: d", "model: m"]


def test_what_is_not_whole_is_not_there(workspace):
    folder = workspace.work / "datasets" / "d"
    (folder / "parts").mkdir(parents=True)
    assert not is_whole(folder)
    make(folder)
    assert is_whole(folder)
    result = workspace.work / "result.json"
    assert not is_whole(result)
    result.write_text('{"mean_')
    assert not is_whole(result)


def test_the_result_of_an_evaluation_that_was_interrupted_is_not_whole(tmp_path):
    result = tmp_path / "result.json"
    result.write_text('{"mean_return": 3.0}')
    assert is_whole(result)
    result.write_text('{"mean_return": 3.0, "interrupted": true, "asked": 20}')
    assert not is_whole(result)


def test_a_command_has_paths_filled_in_and_the_settings_that_all_stages_share(write, workspace):
    score = write()["score"]
    command = workspace.command(score, score.stages[1])
    assert (command.kind, command.config) == (
        "eval",
        {
            "planner": "cem",
            "encoder": "encoder-small",
            "device": "cpu",
            "params_file": f"{workspace.work}/params/score-2.yaml",
            "json": "results/s.json",
            "through": "process",
            "batch_size": 20,
        },
    )
    planner = {"device": "cpu", "cem.dynamics": f"{workspace.work}/models/m", "cem.samples": 7}
    assert workspace.parameters(score.stages[1]) == {
        "sim_bridge": {"ros__parameters": {"image_size": [64, 64]}},
        "vjepa_planner": {"ros__parameters": planner},
    }


def test_what_a_stage_states_itself_stands_above_what_all_share(write, workspace):
    stated = {"through": "ros", "encoder": None, "params_file": "{models}/mine.yaml", "device": "cuda"}
    mine = write(data={"stages": [{**EVAL, "config": {**EVAL["config"], **stated}}]})["data"]
    config = workspace.command(mine, mine.stages[0]).config
    assert config == {
        "planner": "cem",
        "device": "cuda",
        "params_file": f"{workspace.work}/models/mine.yaml",
        "json": "results/s.json",
    }


def test_encoders_do_not_share_a_folder_and_only_the_stacks_own_has_results_itself():
    own, large, other = (workspace_of(name, "cpu") for name in (None, LARGE, "mine/encoder-small"))
    assert own == workspace_of("encoder-small", "cpu")
    assert own.results == Path("results")
    assert len({own.work, large.work, other.work}) == len({own.results, large.results, other.results}) == 3
    assert large.settings["image_size"] == [256, 256]
    assert workspace_of(LARGE, "cpu", "mine/results").results == Path("mine/results")


def stage(kind="collect", **config) -> dict:
    """Return the experiment `data` with a second stage."""
    return {"data": {"stages": [COLLECT, {"kind": kind, "config": config}]}}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"score": {"needs": ["nope"], "stages": []}}, "score needs another: unknown .*'nope'"),
        ({"data": {"needs": ["score"], "stages": []}}, "in a cycle: data needs score needs model needs data"),
        (
            {"data": {"stages": [], "colour": "red"}},
            "unknown field of experiments/data.yaml: 'colour'; valid are: earlier, name, ",
        ),
        (
            {"data": {"stages": {}}},
            "experiments/data.yaml is not an experiment; expected the fields what, earlier",
        ),
        ({"data": {"stages": ["collect"]}}, "data.yaml, stage 1: it has 'collect'; expected names with values"),
        ({"data": {"stages": [{"config": {}}]}}, "data.yaml, stage 1: field 'kind' is missing"),
        (stage("collects", out="x"), "data.yaml, stage 2: unknown kind 'collects'; valid are: bag, camera, collect, "),
        (stage("train bcc", out="x"), "stage 2: unknown kind 'train bcc'; valid are: train bc, train dreamer, "),
        (stage(out="x", epoch=3), "stage 2: unknown option of collect: 'epoch'; valid are: .*episodes"),
        (stage("train bc", data="d", out="x", task="t"), "stage 2: unknown option of train bc: 'task'; valid are: "),
        (stage(out="x", episodes="3"), "stage 2: option 'episodes' of collect is '3'; expected a value of type int"),
        (stage(out="x", episodes=0), "stage 2: option 'episodes' of collect is 0; expected at least 1"),
        (
            stage("eval", json="x", protocol="long"),
            "stage 2: option 'protocol' of eval is 'long'; expected short or full",
        ),
        (stage("train bc", out="x"), "stage 2: option of train bc 'data' is missing"),
        (
            stage("train bc", data="d", out="x", baseline="yes"),
            "stage 2: option 'baseline' of train bc is 'yes'; expected .* bool",
        ),
        (stage("train bc", data="d", out="x", labels="recorded", dagger=1), "stage 2: DAgger needs an expert"),
        (stage(out="{folder}/x"), "stage 2: unknown name in braces 'folder'; valid are: data, models, policy, results"),
        (stage("eval", planner="bc"), "stage 2: it names no output; expected out or json in its config"),
    ],
)
def test_what_is_no_experiment_is_refused_with_file_stage_and_field(write, changed, message):
    with pytest.raises(VjepaError, match=message):
        write(**changed)


@pytest.mark.parametrize("encoder", [None, LARGE])
def test_every_stage_of_the_project_reads_what_one_makes_and_its_line_is_its_command(encoder):
    experiments = read_experiments()
    workspace = workspace_of(encoder, "cpu")
    stages = [stage for experiment in experiments.values() for stage in experiment.stages]
    makings = {path for stage in stages for path in workspace.made_by(stage)}
    for experiment in experiments.values():
        for stage in experiment.stages:
            command = workspace.command(experiment, stage)
            assert parse(shlex.split(command.line)[1:]) == command
            for value in read_by(command, stage, workspace):
                assert makings & {Path(value), *Path(value).parents}, f"{experiment.name} reads {value}, made by none"


def read_by(command, stage, workspace) -> set[str]:
    """The paths of the workspace that a stage names."""
    planner = workspace.parameters(stage).get("vjepa_planner", {"ros__parameters": {}})["ros__parameters"]
    named = map(str, [*command.config.values(), *planner.values()])
    return {value for value in named if value.startswith(str(workspace.work)) and "/params/" not in value}


def test_every_experiment_makes_all_it_reads_before_it_reads_it():
    experiments = read_experiments()
    workspace = workspace_of(LARGE, "cpu")
    for name in experiments:
        made: set[str] = set()
        for experiment, stage in to_do(experiments, [name], workspace):
            made |= set(map(str, workspace.made_by(stage)))
            read = read_by(workspace.command(experiment, stage), stage, workspace)
            unmade = {value for value in read if not {value, *map(str, Path(value).parents)} & made}
            assert not unmade, f"{name}: {experiment.name}"


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", *arguments])
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


def test_a_dry_run_prints_commands_that_can_be_pasted_and_writes_nothing(capsys, tmp_path):
    status, said, _ = run(capsys, "baseline-cem", "--dry-run", "--device", "cuda", "--encoder", LARGE)
    assert status == 0
    commands = [line for line in said.splitlines() if not line.startswith("#")]
    assert [line.split()[1] for line in commands] == ["collect", "train", "eval", "eval"]
    assert all(f"--encoder {LARGE}" in line for line in commands if "train" not in line)
    assert all("--device cuda" in line for line in commands)
    assert "cem.samples: 500" in said
    assert list(tmp_path.iterdir()) == []


def test_all_leaves_out_what_takes_very_long(capsys):
    _, said, _ = run(capsys, "all", "--dry-run", "--device", "cpu")
    assert "--json results/baseline-cem-same.json" in said
    assert "1m" not in said
    _, said, _ = run(capsys, "baseline-cem-1m", "--dry-run", "--device", "cpu")
    assert "--episodes 5000" in said


def test_the_list_says_what_is_done(capsys):
    make(Path("results/expert-short.json"))
    for protocol in ("short", "full"):
        make(Path(f"results/random-{protocol}.json"))
    status, said, _ = run(capsys, "--list")
    state = {line.split()[0]: " ".join(line.split()[1:4]) for line in said.splitlines()}
    assert status == 0
    assert state.keys() == read_experiments().keys()
    assert state["expert"] == "1 of 2"
    assert state["random"].startswith("done")


def test_an_unknown_experiment_is_refused_with_those_there_are(capsys):
    status, _, complained = run(capsys, "bcc", "--device", "cpu")
    assert status == 1
    assert complained.startswith("vjepa: unknown experiment 'bcc'; valid are: all, baseline-cem, baseline-cem-1m, ")
    status, _, complained = run(capsys, "--device", "cpu")
    assert (status, "give names, or all" in complained) == (1, True)


def test_experiments_of_ones_own_are_those_of_a_folder(write, capsys):
    write()
    status, said, _ = run(capsys, "score", "--dry-run", "--device", "cpu", "--experiments", "experiments")
    commands = [line for line in said.splitlines() if line.startswith("vjepa ")]
    assert status == 0
    assert [command.split()[1] for command in commands] == ["collect", "train", "eval"]
    status, said, _ = run(capsys, "--list", "--experiments", "experiments")
    assert [line.split()[0] for line in said.splitlines()] == list(EXPERIMENTS)


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_without_experiments_is_refused_by_name(capsys, name):
    status, _, complained = run(capsys, "--list", "--experiments", name)
    assert (status, complained) == (
        1,
        f"vjepa: no experiments in '{name}'; expected a folder of files NAME.yaml, an experiment each\n",
    )


def test_a_stage_that_fails_ends_it_and_one_that_makes_something_else_does_too(write, workspace, monkeypatch):
    def refuse(_):
        raise VjepaError("no such thing")

    data = write()["data"]
    monkeypatch.setattr(Command, "run", refuse)
    ended = "experiment data failed at this command: vjepa collect .*: no such thing; without the cause, the same vjepa"
    with pytest.raises(VjepaError, match=ended):
        reproduce_commands.run(data, data.stages[0], workspace)
    monkeypatch.setattr(Command, "run", lambda _: 0)
    with pytest.raises(VjepaError, match=r"experiment data: this command did not make .*datasets/d: vjepa collect"):
        reproduce_commands.run(data, data.stages[0], workspace)


def test_a_stage_leaves_the_threads_of_torch_as_they_were(write, workspace, monkeypatch):
    torch = pytest.importorskip("torch")
    data, before = write()["data"], torch.get_num_threads()
    make(workspace.work / "datasets" / "d")
    monkeypatch.setattr(Command, "run", lambda _: torch.set_num_threads(before + 1))
    reproduce_commands.run(data, data.stages[0], workspace)
    assert torch.get_num_threads() == before


def test_the_parameter_file_is_written_for_the_command_that_names_it(write, workspace, monkeypatch):
    score = write()["score"]
    make(workspace.results / "s.json")
    monkeypatch.setattr(Command, "run", lambda _: 0)
    reproduce_commands.run(score, score.stages[1], workspace)
    written = yaml.safe_load(workspace.params_file(score, score.stages[1]).read_text())
    assert json.dumps(written) == json.dumps(workspace.parameters(score.stages[1]), sort_keys=True)
