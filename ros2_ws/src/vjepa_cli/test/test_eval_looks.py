"""Several looks are measured in turn, and their table and JSON are those of the results."""

import json
import re

import pytest

from sim_bridge.score import Episode
from vjepa_cli.actions import command_of
from vjepa_cli.eval_looks import looks_table, measure_looks
from vjepa_cli.scoreboard import result_json
from vjepa_training.evaluation.score import PROTOCOLS, summarise

COMMAND = command_of("eval", {"planner": "bc", "looks": ["nominal", "colour:hard"]})


def result(returns, look, **more):
    episodes = [Episode(value, 200, False, value > 100, True) for value in returns]
    return result_json(
        planner="bc",
        encoder={"model": "small", "fingerprint": "abcd"},
        through="process",
        seed=7,
        summary=summarise(episodes, PROTOCOLS["short"]),
        latency_ms={"p50": 1.0, "p99": 2.0},
        versions={"python": "3"},
        command=COMMAND,
        look=look,
        **more,
    )


NOMINAL = result([160.0, 180.0], "nominal")
COLOUR = result([150.0, 110.0], "colour:hard")


def test_the_table_has_means_intervals_and_what_they_are_less_the_first_look():
    lines = looks_table({"nominal": NOMINAL, "colour:hard": COLOUR}).splitlines()
    assert lines[1] == "  planner bc, encoder small: 2 episodes of 200 steps each, seeds 7 to 8"
    cells = [re.split("  +", line.strip()) for line in lines[3:]]
    assert cells == [
        ["look", "mean return (95 % interval)", "less nominal, paired", "success"],
        ["nominal", "170.0 (160.0 to 180.0)", "2 of 2"],
        ["colour:hard", "130.0 (110.0 to 150.0)", "-40.0 (-70.0 to -10.0)", "0 of 2"],
    ]
    assert len({line.index(last) for line, last in zip(lines[3:], ("success", "2 of 2", "0 of 2"), strict=True)}) == 1


def test_where_the_planner_knows_novelty_the_table_tells_how_well_it_tells_looks_apart():
    nominal = {**NOMINAL, "novel_share": 0.001, "novelty_quantiles": [0.1, 0.2, 0.3, 0.4]}
    colour = {**COLOUR, "novel_share": 0.5, "novelty_quantiles": [0.35, 0.5, 1.5, 2.0]}
    lines = looks_table({"nominal": nominal, "colour:hard": colour}).splitlines()
    cells = [re.split("  +", line.strip()) for line in lines[3:]]
    assert [line[-2:] for line in cells] == [["novel", "AUROC to nominal"], ["2 of 2", "0.1 %"], ["50.0 %", "0.938"]]


def test_the_json_holds_the_result_of_each_look_by_its_name(tmp_path, capsys):
    file = tmp_path / "looks.json"
    assert measure_looks(["nominal", "colour:hard"], [lambda: NOMINAL, lambda: COLOUR], str(file), COMMAND) == 0
    read = json.loads(file.read_text())
    assert set(read) == {"looks", "kind", "config", "command", "wall_s"}
    assert command_of(read["kind"], read["config"]) == COMMAND
    assert read["looks"] == {"nominal": NOMINAL, "colour:hard": COLOUR}
    assert capsys.readouterr().out.startswith("# nominal, 1 of 2 looks\n# colour:hard, 2 of 2 looks\n")


def raising():
    raise KeyboardInterrupt


@pytest.mark.parametrize("second", [raising, lambda: {**result([150.0], "colour:hard"), "interrupted": True}])
def test_an_interruption_leaves_the_looks_that_were_measured(tmp_path, capsys, second):
    file = tmp_path / "looks.json"
    with pytest.raises(KeyboardInterrupt):
        measure_looks(["nominal", "colour:hard", "noise"], [lambda: NOMINAL, second, raising], str(file), COMMAND)
    read = json.loads(file.read_text())
    assert (read["interrupted"], read["asked"]) == (True, 3)
    assert read["looks"]["nominal"] == NOMINAL
    assert "noise" not in read["looks"]
    said = capsys.readouterr().out
    assert "170.0 (160.0 to 180.0)" in said
    assert re.search("INTERRUPTED: [12] of 3 looks", said)


def test_an_interruption_before_anything_was_measured_writes_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        measure_looks(["nominal", "noise"], [raising, raising], str(tmp_path / "looks.json"), COMMAND)
    assert not list(tmp_path.iterdir())
