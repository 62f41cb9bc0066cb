"""The pages say what the code has: planners, messages and commands; every page is in the index, every link leads on.

That the commands of their `bash` blocks run is tested in `test_readme.py`.
"""

import contextlib
import dataclasses
import io
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from vjepa_cli.cli import parse
from vjepa_planner import registry
from vjepa_planner.contract import Observation, Plan, PlannerContext

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted(ROOT.glob("docs/*.md"))
DECISIONS = sorted(ROOT.glob("docs/decisions/*.md"))
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "examples/README.md", *DOCS, *DECISIONS]
FENCED = re.compile(r"^ *```([^\n]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SETUP_OPTIONS = ("--setup-only", "--exec", "ARGS...", "COMMAND", "--with")
"""First words after `./vjepa` that are not the command line's."""

VARIABLE = r"\bX\b"


def without_blocks(page: Path) -> str:
    return FENCED.sub("", page.read_text())


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.*)$", without_blocks(page), re.MULTILINE)


def inline_code(page: Path) -> list[str]:
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", without_blocks(page))]


def test_every_page_is_in_the_index_and_the_readme_leads_to_it():
    index = (ROOT / "docs/README.md").read_text()
    linked = re.findall(r"^- \[[^\]]+\]\(([\w.-]+\.md)\)", index, re.MULTILINE)
    assert sorted(linked) == sorted(page.name for page in DOCS if page.name != "README.md")
    assert "](docs/README.md)" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", without_blocks(page)):
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), target
        if anchor:
            anchors = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings(file)]
            assert anchor in anchors, target


def objection(command: str) -> str:
    """What the command line has against a command, or nothing."""
    words = shlex.split(command.removesuffix("&"), comments=True)[1:]
    if not words or words[0] in SETUP_OPTIONS or "..." in words:
        return ""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            parse(words)
    except SystemExit:
        return said.getvalue()
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_one_that_vjepa_understands(page):
    """Those in blocks, and those in the text, which may leave out what does not matter there."""
    for info, body in FENCED.findall(page.read_text()):
        for line in body.splitlines() if info == "bash" or info.startswith("sh ") else []:
            if line.strip().startswith("./vjepa "):
                assert objection(line.partition(" &")[0]) == "", line
    for code in inline_code(page):
        if re.match(r"(\./)?vjepa [a-z-]", code):
            against = objection(code)
            shortened = re.search("(is|are) required|expected one argument", against)
            assert not against or shortened, f"{code}: {against}"


def test_every_planner_has_a_section_and_a_row_in_the_list_of_planners():
    page = ROOT / "docs/planners.md"
    listed = re.findall(r"^\| \[`([\w-]+)`\]", page.read_text().partition("\n## ")[0], re.MULTILINE)
    assert sorted(listed) == registry.available()
    assert {f"`{name}`" for name in listed} <= set(headings(page))


def test_every_message_in_troubleshooting_is_in_the_source():
    """Its fixed parts occur in one source file, in order and close together."""
    page = ROOT / "docs/troubleshooting.md"
    parts = ["vjepa", "setup", "ros2_ws/src/*.py"]
    listed = subprocess.check_output(["git", "ls-files", *parts], cwd=ROOT, text=True).split()
    # Adjacent string literals are one message, and of a format string two braces are one.
    sources = {
        name: re.sub(r"[\"']\s*\n\s*f?[\"']", "", (ROOT / name).read_text()).replace("{{", "{").replace("}}", "}")
        for name in listed
        if "/test/" not in name
    }
    messages = [heading.strip("`") for heading in headings(page) if heading.startswith("`")]
    assert len(messages) >= 25
    assert len(set(messages)) == len(messages)
    quoted = [code for code in inline_code(page) if re.search(VARIABLE, code) and code != "X"]
    for message in [*messages, *quoted]:
        fragments = re.split(VARIABLE, message)
        assert max(map(len, fragments)) >= 8, f"too little of it is fixed: {message}"
        pattern = re.compile(r"[^\n]{0,150}?".join(map(re.escape, fragments)))
        having = [source for source in sources.values() if max(fragments, key=len) in source]
        assert any(pattern.search(source) for source in having), message


@pytest.mark.parametrize("record", [Observation, Plan, PlannerContext])
def test_the_tables_of_the_planner_contract_have_every_field(record):
    section = (ROOT / "docs/planners.md").read_text().partition("## What a planner gets and gives")[2]
    table = section.partition(f"\n`{record.__name__}`, ")[2].partition("| --- |")[2].partition("\n\n")[0]
    named = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert named == [field.name for field in dataclasses.fields(record)]
