"""The prose linter: what it finds in pages and docstrings, and where; this repository passes it."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = runpy.run_path(str(ROOT / ".ci" / "prose.py"))
findings, longest = SCRIPT["findings"], SCRIPT["LONGEST"]
SOURCE = "ros2_ws/src/vjepa_interfaces/vjepa_interfaces/module.py"


def found(root: Path, name: str, text: str) -> list[tuple[int, str]]:
    """The line and the message of each finding in a file of that name."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return [(finding.line, finding.message) for finding in findings(root)]


def sentence(words: int) -> str:
    return " ".join(["Word", *["word"] * (words - 1)]) + "."


def test_this_repository_passes():
    assert list(findings(ROOT)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("The file says more.", "'says': name what is done"),
        ("The planner reads a dream.", "'dream': the word here is 'imagined rollout'"),
        ("The package is very small.", "very"),
    ],
)
def test_a_word_is_found_with_its_line(tmp_path, text, message):
    (line, shown), *others = found(tmp_path, "docs/page.md", f"# Page\n\nThis line passes.\n{text}\n")
    assert line == 4
    assert message in shown
    assert others == []


def test_a_sentence_may_have_so_many_words_and_no_more(tmp_path):
    assert found(tmp_path, "README.md", f"{sentence(longest)} {sentence(longest)}\n") == []
    (line, shown), *others = found(tmp_path, "README.md", f"{sentence(3)}\n\n{sentence(longest + 1)}\n")
    assert line == 3
    assert shown == f"A sentence of {longest + 1} words; at most {longest} are allowed."
    assert others == []


def test_items_cells_and_headings_are_sentences_of_their_own(tmp_path):
    part = sentence(longest).removesuffix(".")
    page = f"# {part}\n\n{part}\n\n- {part}\n- {part}\n1. {part}\n\n| {part} | {part} |\n| --- | --- |\n"
    assert found(tmp_path, "docs/page.md", page) == []


def test_code_tables_of_commands_and_targets_of_links_are_no_prose(tmp_path):
    page = (
        "The message `it says more` is [here](says.md).\n\n```text\nit says more\n```\n\n"
        "<!-- vjepa docs: commands -->\n| status | what it says |\n<!-- end -->\n"
        "<!-- of results/says.json -->\nwhat it says\n<!-- end -->\n"
    )
    assert found(tmp_path, "docs/page.md", page) == []


def test_code_in_a_sentence_counts_as_one_word(tmp_path):
    code = "`./vjepa run --planner cem --episodes 1`"
    assert found(tmp_path, "docs/page.md", f"{sentence(longest - 1).removesuffix('.')} {code}.\n") == []
    assert len(found(tmp_path, "docs/page.md", f"{sentence(longest).removesuffix('.')} {code}.\n")) == 1


def test_docstrings_are_checked_and_the_code_around_them_is_not(tmp_path):
    source = '"""The module says more."""\n\nSAYS = "it says more"  # It says more.\n"""What it says."""\n'
    assert [line for line, _ in found(tmp_path, SOURCE, source)] == [1, 4]


def test_the_entries_of_a_docstring_are_sentences_of_their_own(tmp_path):
    part = sentence(longest - 1).removesuffix(".")
    source = f'"""Return it.\n\nArgs:\n    first: {part}\n    second: {part}\n"""\n'
    assert found(tmp_path, SOURCE, source) == []


def test_the_names_of_entries_are_code(tmp_path):
    source = '"""Return it.\n\nArgs:\n    say: it reports.\n    other: it says.\n"""\n'
    assert [line for line, _ in found(tmp_path, SOURCE, source)] == [5]


def test_what_was_released_is_not_checked(tmp_path):
    page = "# Changelog\n\n## [Unreleased]\n\n- A command.\n\n## [0.1.0] - 2026-01-01\n\n- A command that says more.\n"
    assert found(tmp_path, "CHANGELOG.md", page) == []


def test_findings_are_printed_and_make_the_exit_status(tmp_path, capsys):
    (tmp_path / "README.md").write_text("It says more.\n")
    assert SCRIPT["main"](tmp_path) == 1
    assert capsys.readouterr().out.startswith("README.md:1:4: 'says'")
    (tmp_path / "README.md").write_text("It contains more.\n")
    assert SCRIPT["main"](tmp_path) == 0
