"""`vjepa docs` writes the tables of the pages, and `--check` names a page on which one is not as the code gives it."""

import shutil
from dataclasses import fields
from pathlib import Path

import pytest

from vjepa_bringup.graph import default_parameters
from vjepa_cli.cli import main
from vjepa_cli.commands.docs import PAGES, PARAMETERS

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def docs(tmp_path, monkeypatch, capsys):
    """A function that runs the command in a copy of the pages, and returns its status and what it complained of."""
    (tmp_path / "docs").mkdir()
    for page in PAGES:
        shutil.copy(ROOT / page, tmp_path / page)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    monkeypatch.chdir(tmp_path)

    def run(*options: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["docs", *options])
        return ended.value.code or 0, capsys.readouterr().err

    return run


def replace(file: str, old: str, new: str) -> None:
    text = Path(file).read_text()
    assert text.count(old) == 1
    Path(file).write_text(text.replace(old, new))


def test_a_table_that_was_changed_by_hand_is_named_and_written_anew(docs):
    before = Path("docs/interface.md").read_text()
    assert docs("--check") == (0, "")
    replace("docs/interface.md", "| `episode_steps` | int | `1000` |", "| `episode_steps` | int | `100` |")
    assert docs("--check") == (
        1,
        "vjepa: docs/interface.md: a table differs from the code; write it with: ./vjepa docs\n",
    )
    assert docs() == (0, "")
    assert Path("docs/interface.md").read_text() == before


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("docs/interface.md", "docs: parameters camera", "docs: parameters camra", "unknown table of vjepa docs: "),
        ("docs/dependencies.md", "packages train plot", "packages train", "no page has the table 'packages plot'"),
        ("requirements/test.in", "  # runs every test", "", "write it behind the pin: pytest=="),
    ],
)
def test_a_table_that_cannot_be_written_is_refused_with_what_to_do(docs, file, old, new, message):
    replace(file, old, new)
    status, complaint = docs()
    assert status == 1
    assert message in complaint


def test_elsewhere_than_in_a_checkout_it_says_where_to_run(docs, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert docs("--check")[1] == "vjepa: docs/interface.md is not here; run this in the folder of the checkout\n"


THE_STACKS_OWN = {
    "vjepa_perception.encoder",
    "vjepa_perception.threads",
    "vjepa_planner.planners",
    "vjepa_planner.planner",
    "vjepa_planner.fallbacks",
}
"""Parameters that `config/stack.yaml` sets to other values than a node has by itself."""


def test_the_parameter_file_of_the_stack_has_the_defaults_of_the_code_but_for_its_own():
    code = {node: {field.name: field.default for field in fields(PARAMETERS[node])} for node in default_parameters()}
    own = {
        f"{node}.{name}"
        for node, values in default_parameters().items()
        for name, value in values.items()
        if name in code[node] and (tuple(value) if isinstance(value, list) else value) != code[node][name]
    }
    assert own == THE_STACKS_OWN
