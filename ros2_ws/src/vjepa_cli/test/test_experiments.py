"""Experiments by name: what is left of them, in which order, and with which commands."""

import json
from pathlib import Path

import pytest
import yaml

from vjepa_cli.cli import main, parse
from vjepa_cli.commands import reproduce as reproduce_commands
from vjepa_cli.experiments import steps
from vjepa_cli.experiments.experiments import place_of, read_rows, to_do
from vjepa_cli.experiments.steps import is_whole
from vjepa_interfaces.errors import VjepaError

LARGE = "facebook/vjepa2-vitl-fpc64-256"
ROWS = {
    "data": {"steps": [{"makes": "{data}/d", "run": "collect --out {makes}"}]},
    "model": {
        "needs": ["data"],
        "steps": [{"makes": ["{models}/m", "{results}/m.json"], "run": "train dynamics --out {makes}"}],
    },
    "score": {
        "needs": ["model"],
        "steps": [
            {"makes": "{data}/d", "run": "collect --out {makes}"},
            {
                "makes": "{results}/s.json",
                "run": "eval --params-file {params} --json {makes}",
                "params": {"cem.dynamics": "{models}/m", "cem.samples": 7},
            },
        ],
    },
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write_rows(tmp_path):
    """Return a function that writes rows, some of them changed, and reads them."""

    def write(**changed):
        folder = tmp_path / "experiments"
        folder.mkdir(exist_ok=True)
        for name, content in {**ROWS, **changed}.items():
            (folder / f"{name}.yaml").write_text(yaml.safe_dump({"what": "of a test", "old": "none", **content}))
        return read_rows(folder)

    return write


@pytest.fixture
def place():
    return place_of(None, "cpu")


def make(path: Path) -> None:
    """Make what a step would: a JSON result or, as the file that is written last, a folder's description."""
    file = path if path.suffix == ".json" else path / ("info.json" if "datasets" in path.parts else "config.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")


def left(rows, place, *wanted) -> list[str]:
    return [f"{row.name}: {Path(step.makes[0]).name}" for row, step in to_do(rows, wanted, place)]


def test_what_a_row_needs_comes_first_and_what_several_make_is_made_once(write_rows, place):
    assert left(write_rows(), place, "score") == ["data: d", "model: m", "score: s.json"]
    assert left(write_rows(), place, "score", "data", "model") == ["data: d", "model: m", "score: s.json"]


def test_a_step_whose_makings_are_all_there_is_left_out(write_rows, place):
    rows = write_rows()
    make(place.work / "datasets" / "d")
    make(place.work / "models" / "m")
    assert left(rows, place, "score") == ["model: m", "score: s.json"], "its result is not there"
    make(place.results / "m.json")
    assert left(rows, place, "score") == ["score: s.json"]


def test_a_row_whose_results_are_there_is_done_and_needs_nothing(write_rows, place):
    rows = write_rows()
    make(place.results / "s.json")
    assert left(rows, place, "score") == []
    assert place.is_done(rows["score"])
    assert not place.is_done(rows["data"])
    assert left(rows, place, "score", "model") == ["data: d", "model: m"]


def test_what_is_not_whole_is_not_there(place):
    folder = place.work / "datasets" / "d"
    (folder / "parts").mkdir(parents=True)
    assert not is_whole(folder)
    make(folder)
    assert is_whole(folder)
    result = place.work / "result.json"
    assert not is_whole(result)
    result.write_text('{"mean_')
    assert not is_whole(result)


def test_a_command_has_paths_and_parameters_filled_in(write_rows, place):
    row = write_rows()["score"]
    arguments = place.arguments(row, row.steps[1])
    assert arguments == ["eval", "--params-file", f"{place.work}/params/score-2.yaml", "--json", "results/s.json"]
    assert place.parameters(row.steps[1]) == {
        "sim_bridge": {"ros__parameters": {"image_size": [64, 64]}},
        "vjepa_planner": {"ros__parameters": {"cem.dynamics": f"{place.work}/models/m", "cem.samples": 7}},
    }


def test_encoders_do_not_share_a_folder_and_only_the_stacks_own_has_results_itself():
    own, large, other = (place_of(name, "cpu") for name in (None, LARGE, "mine/encoder-small"))
    assert own == place_of("encoder-small", "cpu")
    assert own.results == Path("results")
    assert len({own.work, large.work, other.work}) == len({own.results, large.results, other.results}) == 3
    assert large.settings["image_size"] == [256, 256]
    assert place_of(LARGE, "cpu", "mine/results").results == Path("mine/results")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": {"steps": []}, "score": {"needs": ["nope"], "steps": []}}, "score needs another: unknown .*'nope'"),
        ({"data": {"needs": ["score"], "steps": []}}, "in a circle: data needs score needs model needs data"),
        ({"data": {"steps": [{"run": "collect"}]}}, r"data.yaml is no experiment \(KeyError: 'makes'\); expected what"),
        ({"data": {"steps": [], "colour": "red"}}, r"data.yaml is no experiment .*colour"),
    ],
)
def test_what_is_no_row_is_refused_by_name(write_rows, changed, message):
    with pytest.raises(VjepaError, match=message):
        write_rows(**changed)


def test_an_unknown_name_in_braces_is_refused_with_the_valid_ones(write_rows, place):
    row = write_rows(data={"steps": [{"makes": "{data}/d", "run": "collect --out {folder}"}]})["data"]
    with pytest.raises(VjepaError, match=r"braces in experiment data: 'folder'; valid are: .*makes, models, params"):
        place.arguments(row, row.steps[0])


@pytest.mark.parametrize("encoder", [None, LARGE])
def test_every_command_of_the_projects_rows_is_one_that_vjepa_understands(encoder):
    rows = read_rows()
    place = place_of(encoder, "cpu")
    makings = {path for row in rows.values() for step in row.steps for path in place.made_by(step)}
    for row in rows.values():
        for step in row.steps:
            arguments = place.arguments(row, step)
            parse(arguments)
            for path in place.made_by(step):
                assert str(path) in arguments, f"{row.name}: its command does not name {path}"
            for value in [*arguments, *map(str, step.params.values())]:
                if value.startswith(str(place.work)) and "/params/" not in value:
                    found = makings & {Path(value), *Path(value).parents}
                    assert found, f"{row.name} reads {value}, which no row makes"


def test_every_row_makes_all_it_reads_before_it_reads_it():
    rows = read_rows()
    place = place_of(LARGE, "cpu")
    for name in rows:
        made: set[str] = set()
        for row, step in to_do(rows, [name], place):
            own = set(map(str, place.made_by(step)))
            planner = place.parameters(step).get("vjepa_planner", {"ros__parameters": {}})["ros__parameters"]
            read = [*place.arguments(row, step), *map(str, planner.values())]
            read = {value for value in read if value.startswith(str(place.work)) and "/params/" not in value}
            unmade = {value for value in read if not {value, *map(str, Path(value).parents)} & (made | own)}
            assert not unmade, f"{name}: {row.name}"
            made |= own


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", *arguments])
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


def test_a_dry_run_prints_commands_that_can_be_pasted_and_writes_nothing(capsys, tmp_path):
    status, said, _ = run(capsys, "cem-old", "--dry-run", "--device", "cuda", "--encoder", LARGE)
    assert status == 0
    commands = [line for line in said.splitlines() if not line.startswith("#")]
    assert [line.split()[1] for line in commands] == ["collect", "train", "eval", "eval"]
    assert all(f"--encoder {LARGE}" in line for line in commands if "train" not in line)
    assert all("--device cuda" in line for line in commands)
    assert "cem.samples: 500" in said
    assert list(tmp_path.iterdir()) == []


def test_all_leaves_out_what_takes_very_long(capsys):
    _, said, _ = run(capsys, "all", "--dry-run", "--device", "cpu")
    assert "--json results/cem-old-same.json" in said
    assert "1m" not in said
    _, said, _ = run(capsys, "cem-old-1m", "--dry-run", "--device", "cpu")
    assert "--episodes 5000" in said


def test_the_list_says_what_is_done(capsys):
    make(Path("results/expert-short.json"))
    for protocol in ("short", "full"):
        make(Path(f"results/random-{protocol}.json"))
    status, said, _ = run(capsys, "--list")
    state = {line.split()[0]: " ".join(line.split()[1:4]) for line in said.splitlines()}
    assert status == 0
    assert state.keys() == read_rows().keys()
    assert state["expert"] == "1 of 2"
    assert state["random"].startswith("done")


def test_an_unknown_row_is_refused_with_those_there_are(capsys):
    status, _, complained = run(capsys, "bcc", "--device", "cpu")
    assert status == 1
    assert complained.startswith("vjepa: unknown experiment 'bcc'; valid are: all, bc, bc-bfloat16, bc-grid, ")
    status, _, complained = run(capsys, "--device", "cpu")
    assert (status, "give names, or all" in complained) == (1, True)


def test_experiments_of_ones_own_are_those_of_a_folder(write_rows, capsys):
    write_rows()
    status, said, _ = run(capsys, "score", "--dry-run", "--device", "cpu", "--experiments", "experiments")
    commands = [line for line in said.splitlines() if line.startswith("vjepa ")]
    assert status == 0
    assert [command.split()[1] for command in commands] == ["collect", "train", "eval"]
    status, said, _ = run(capsys, "--list", "--experiments", "experiments")
    assert [line.split()[0] for line in said.splitlines()] == list(ROWS)


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_without_experiments_is_refused_by_name(capsys, name):
    status, _, complained = run(capsys, "--list", "--experiments", name)
    assert (status, complained) == (
        1,
        f"vjepa: no experiments in '{name}'; expected a folder of files NAME.yaml, an experiment each\n",
    )


def test_a_step_that_fails_ends_it_and_one_that_makes_something_else_does_too(write_rows, place, monkeypatch, capfd):
    row = write_rows()["data"]
    monkeypatch.setattr(place.__class__, "arguments", lambda *_: ["dataset", "info", "nowhere"])
    with pytest.raises(
        VjepaError, match=r"experiment data ended at this command, with status 1; .*: vjepa dataset info"
    ):
        reproduce_commands.take(row, row.steps[0], place)
    assert "no dataset at 'nowhere'" in capfd.readouterr().err
    monkeypatch.setattr(place.__class__, "arguments", lambda *_: ["--help"])
    with pytest.raises(VjepaError, match=r"experiment data says that this command makes .*datasets/d: vjepa --help"):
        reproduce_commands.take(row, row.steps[0], place)


def test_the_parameter_file_is_written_for_the_command_that_names_it(write_rows, place, monkeypatch):
    row = write_rows()["score"]
    make(place.results / "s.json")
    monkeypatch.setattr(steps, "run_command", lambda command: 0)
    reproduce_commands.take(row, row.steps[1], place)
    written = yaml.safe_load(place.params_file(row, row.steps[1]).read_text())
    assert json.dumps(written) == json.dumps(place.parameters(row.steps[1]), sort_keys=True)
