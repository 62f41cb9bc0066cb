"""Check the prose of pages and docstrings with proselint: plain words, and sentences of a bounded length.

    ./vjepa --exec python -P .ci/prose.py

Three checks of this project run beside proselint's own. They refuse the verb *to say*, words that the glossary of
docs/contributing.md replaces, and sentences of more than `LONGEST` words. Code, tables that commands write and link
targets are blanked before the checks, so a finding has the line and column of the file.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from proselint.checks import __register__ as checks_of_proselint
from proselint.config import DEFAULT, Config
from proselint.registry import CheckRegistry
from proselint.registry.checks import Check, CheckResult
from proselint.registry.checks.types import ExistenceSimple, PreferredForms
from proselint.tools import LintFile

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "CHANGELOG.md",
    "examples/README.md",
    "docs/*.md",
    "docs/decisions/*.md",
    "ros2_ws/src/training/vjepa_training/trainers/cards/*.md",
)
GENERATED = ("docs/results.md", "docs/performance.md")
"""Pages that commands write from the JSON files of results/."""

SOURCES = (
    "sim_bridge/sim_bridge",
    "training/vjepa_training",
    "vjepa_bags/vjepa_bags",
    "vjepa_bringup/launch",
    "vjepa_bringup/vjepa_bringup",
    "vjepa_cli/vjepa_cli",
    "vjepa_interfaces/vjepa_interfaces",
    "vjepa_perception/vjepa_perception",
    "vjepa_planner/vjepa_planner",
)
"""Folders of ros2_ws/src whose docstrings are checked."""

SCRIPTS = ("benchmarks", "examples")
"""Folders of scripts whose docstrings are checked."""

LONGEST = 25
GLOSSARY = {
    "doors": "dependency rule",
    "rooms": "package",
    "dream(?:s|t|ed)?": "imagined rollout",
    "proposals?": "policy-prior trajectories",
    "conditioning": "state projection",
    "lanes?": "vectorised environment",
}
"""The word to use in place of each pattern, as in docs/contributing.md."""

# Fenced blocks, tables that commands write, comments, and the targets of links.
BLOCK = re.compile(
    r"^ *```.*?^ *```$|<!-- (?:vjepa docs:|of ).*?<!-- end -->|<!--.*?-->|\]\([^)]*\)", re.MULTILINE | re.DOTALL
)
INLINE_CODE = re.compile(r"`[^`]+`")
BREAK = re.compile(
    r"\n\s*\n"  # Paragraphs.
    r"|\n(?=\s*(?:[-*>#|]|\d+\.) ?)"  # Items, headings, rows of a table.
    r"|\|"  # Cells.
    r"|\n(?=\s+[\w*]+(?: \([^)\n]*\))?: )"  # Entries of a docstring's section.
    r"|[.!?][\"')*]*(?=\s+[^\sa-z])"
)
ENTRY = re.compile(r"^( +\*{0,2})(\w+)(?=(?: \([^)\n]*\))?: )", re.MULTILINE)
"""The name of an entry in a docstring's section, which is code."""

CODE = "§"
WORD = re.compile(rf"[^\W_][^\s{CODE}]*|{CODE}(?:\n?{CODE})*")


class Finding(NamedTuple):
    """A fault and its place; lines and columns count from 1."""

    path: Path
    line: int
    column: int
    message: str


def check_length(text: str, check: Check) -> Iterator[CheckResult]:
    """Yield a result for each sentence of more than `LONGEST` words; a piece of code counts as one word."""
    ends = [*(match.start() for match in BREAK.finditer(text)), len(text)]
    for start, end in zip([0, *ends], ends, strict=False):
        words = list(WORD.finditer(text, start, end))
        if len(words) > LONGEST:
            message = check.message.format(len(words), LONGEST)
            yield CheckResult(check.path, message, (words[0].start(), end), None)


CHECKS = (
    Check(
        ExistenceSimple(r"\b(?:[Ss]ay|[Ss]ays|[Ss]aid|[Ss]aying)\b"),
        path="plain.say",
        message="'{}': name what is done: return, publish, log, report, contain, check, state.",
    ),
    Check(PreferredForms(GLOSSARY), path="plain.glossary", message="'{1}': the word here is '{0}'."),
    Check(check_length, path="plain.length", message="A sentence of {} words; at most {} are allowed."),
)
CONFIG = Config(
    max_errors=sys.maxsize,
    checks={**DEFAULT["checks"], "typography": False, "lexical_illusions": False, "plain": True},
)


def prose_of_page(text: str) -> str:
    """Return the text of a page with code, tables and link targets blanked; all other characters keep their place."""
    text = BLOCK.sub(lambda match: re.sub(r"\S", " ", match[0]), text)
    return INLINE_CODE.sub(lambda match: re.sub(r"[^\n]", CODE, match[0]), text)


def prose_of_source(text: str) -> str:
    """Return a module's source with everything blanked except its docstrings; names of a section's entries are code."""
    kept = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            kept |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = [line if number in kept else "" for number, line in enumerate(text.splitlines(), start=1)]
    docstrings = "\n".join(lines).replace('"""', "   ")
    return prose_of_page(ENTRY.sub(lambda match: match[1] + "x" * len(match[2]), docstrings))


def unreleased(text: str) -> str:
    """Return the changelog without the released versions."""
    return re.split(r"(?m)^## \[\d", text, maxsplit=1)[0]


def prose(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file that is checked, and its prose."""
    for pattern in PAGES:
        for path in sorted(root.glob(pattern)):
            if str(path.relative_to(root)) not in GENERATED:
                yield path, prose_of_page(unreleased(path.read_text()))
    for folder in (*(f"ros2_ws/src/{package}" for package in SOURCES), *SCRIPTS):
        for path in sorted((root / folder).rglob("*.py")):
            yield path, prose_of_source(path.read_text())


def findings(root: Path) -> Iterator[Finding]:
    """Yield the findings in the files below `root`, file by file."""
    for path, text in prose(root):
        for result in LintFile(path, text).lint(CONFIG):
            yield Finding(path.relative_to(root), *result.pos, result.check_result.message)


def main(root: Path = ROOT) -> int:
    """Print the findings; return the exit status."""
    found = list(findings(root))
    for finding in found:
        print(f"{finding.path}:{finding.line}:{finding.column}: {finding.message}")
    return 1 if found else 0


CheckRegistry().register_many((*checks_of_proselint, *CHECKS))

if __name__ == "__main__":
    sys.exit(main())
