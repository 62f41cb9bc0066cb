"""A command brings the groups of packages that its code imports: `./vjepa` is held to the sources."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_doors import FOLDERS, SOURCE, imported_modules
from vjepa_cli.cli import GROUP_OF, main

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "run": ["run", "eval"],
    "graph": ["status", "planner list", "record"],
    "looks": ["looks"],
    "goal": ["goal set now"],
    "camera": ["camera check"],
    "bag": ["bag repair"],
    "node": ["node sim_bridge"],
    "view": ["view"],
    "tour": ["tour"],
    "dataset": ["dataset info x", "collect x"],
    "train": ["train bc"],
    "probe": ["probe"],
    "improve": ["improve"],
    "reproduce": ["reproduce"],
    "report": ["report"],
    "docs": ["docs"],
    "security": ["security policy"],
}
"""The modules of commands, and commands of each."""
NODES = [path for path in SOURCE.glob("*/*/*.py") if path.stem.endswith("node")]


@functools.cache
def file_of(module: str) -> Path | None:
    """The file of a module of ours."""
    package, _, rest = module.partition(".")
    base = SOURCE / FOLDERS.get(package, package) / package / rest.replace(".", "/")
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if rest and path.is_file()), None)


@functools.cache
def imports_of(path: Path) -> frozenset[str]:
    """What a file imports, the lazy imports too, but not those for type checkers."""
    module = ".".join(path.relative_to(SOURCE).with_suffix("").parts[1:])
    found = {name for _, name in imported_modules(path, module)}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            found -= {statement.module for statement in node.body if isinstance(statement, ast.ImportFrom)}
    return frozenset(found)


def needed_by(*roots: Path) -> set[str]:
    """The groups whose modules are imported by files, or by what these import."""
    seen: set[Path] = set()
    groups = set()

    def walk(path: Path) -> Iterator[str]:
        if path in seen:
            return
        seen.add(path)
        for name in imports_of(path):
            yield name.partition(".")[0]
            if file := file_of(name):
                yield from walk(file)

    for root in roots:
        groups |= {GROUP_OF[name] for name in walk(root) if name in GROUP_OF}
    return groups


def brought_by(words: str) -> set[str]:
    """The groups that `./vjepa` brings for a command."""
    script = f'source "$1"; need_of_command {words}; echo "${{GROUPS_NEEDED[@]}}"'
    output = subprocess.run(
        ["bash", "-c", script, "_", ROOT / "vjepa"], capture_output=True, text=True, check=True
    ).stdout
    return set(output.split())


@pytest.mark.parametrize("module", COMMANDS)
def test_a_command_brings_what_its_code_imports(module):
    needed = needed_by(SOURCE / "vjepa_cli/vjepa_cli/commands" / f"{module}.py")
    if module == "view":
        assert needed == {"view", "plot"}
        assert brought_by("view") == {"view"}
        assert brought_by("view bag --gif a.gif") == brought_by("view bag --png=a.png") == {"plot"}
        return
    for command in COMMANDS[module]:
        assert needed <= brought_by(command), command


def test_the_scripts_of_lint_and_of_the_reference_bring_what_they_import():
    assert brought_by("--exec python -P .ci/prose.py") == {"lint"}
    assert brought_by("--exec python -P .ci/api.py api") == {"plot", "train", "view", "test", "lint", "api"}


def test_nodes_and_launch_files_need_no_group():
    assert len(NODES) >= 5
    assert needed_by(*NODES, *SOURCE.glob("*/launch/*.py")) == set()


def test_every_module_of_commands_is_held_to_this():
    listed = {path.stem for path in (SOURCE / "vjepa_cli/vjepa_cli/commands").glob("[a-z]*.py")}
    assert listed == set(COMMANDS)


def test_the_command_line_itself_needs_no_group():
    blocked = f"import sys; sys.modules.update(dict.fromkeys({sorted(GROUP_OF)}))"
    imports = f"for name in {sorted(COMMANDS)}:\n    importlib.import_module(f'vjepa_cli.commands.{{name}}')"
    code = f"{blocked}\nimport importlib\n{imports}"
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_missing_module_is_named_with_the_command_that_brings_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in [name for name in sys.modules if name.startswith("vjepa_training.data.dataset")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SystemExit) as ended:
        main(["dataset", "info", str(tmp_path)])
    assert ended.value.code == 1
    assert capsys.readouterr().err.strip().endswith("install it with: ./vjepa --with train --setup-only")
