"""What a contributor's tools read: the workflow, hooks, templates, the devcontainer, the citation, type information."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from catkin_pkg.package import parse_package

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = sorted(path.parent for path in ROOT.glob("ros2_ws/src/*/package.xml"))
FORMS = sorted(path for path in ROOT.glob(".github/ISSUE_TEMPLATE/*.yml") if path.stem != "config")


def read_yaml(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text())


@pytest.fixture
def hooks() -> dict[str, dict]:
    """The hooks of pre-commit by their id."""
    (repository,) = read_yaml(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local", "a hook of another repository would be downloaded"
    return {hook["id"]: hook for hook in repository["hooks"]}


def test_the_workflow_runs_the_script_of_every_continuous_integration():
    jobs = read_yaml(".github/workflows/ci.yml")["jobs"]
    commands = [step.get("run") for job in jobs.values() for step in job["steps"]]
    assert ".ci/run" in commands
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    assert all(job["timeout-minutes"] for job in jobs.values())


def test_dependabot_looks_where_versions_are_pinned():
    updates = {
        entry["package-ecosystem"]: entry["directory"] for entry in read_yaml(".github/dependabot.yml")["updates"]
    }
    assert set(updates) == {"pip", "github-actions", "docker"}
    assert list((ROOT / updates["pip"].strip("/")).glob("*.in"))
    assert (ROOT / updates["docker"].strip("/") / "Dockerfile").is_file()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_an_issue_form_has_what_github_requires(form):
    content = yaml.safe_load(form.read_text())
    assert {"name", "description", "body"} <= content.keys()
    identifiers = [part["id"] for part in content["body"] if part["type"] != "markdown"]
    assert len(set(identifiers)) == len(identifiers) > 0
    assert all(part["attributes"].get("label") for part in content["body"] if part["type"] != "markdown")


def test_the_templates_name_files_that_exist():
    for path in [*FORMS, ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md"]:
        for name in re.findall(r"docs/[\w-]+\.md|CHANGELOG\.md", path.read_text()):
            assert (ROOT / name).is_file(), f"{path.name}: {name}"


def test_every_hook_runs_a_tool_of_the_stack_and_nothing_that_pre_commit_installs(hooks):
    assert {"ruff", "ruff-format"} <= hooks.keys()
    for hook in hooks.values():
        assert hook["language"] == "system"
        assert hook["entry"].startswith(("./vjepa --exec ", "make "))


def test_the_hooks_of_ruff_find_and_repair_what_lint_would_refuse(hooks, tmp_path):
    """As `./vjepa --exec` would start them, on one file outside of the checkout."""
    file = tmp_path / "bad.py"
    file.write_text("import os\nx = {  'a':1 }\n")
    for name in ("ruff", "ruff-format"):
        words = shlex.split(hooks[name]["entry"].removeprefix("./vjepa --exec "))
        command = [*words, "--config", str(ROOT / "pyproject.toml"), "--no-cache", str(file)]
        subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert "import os" not in file.read_text()
    assert 'x = {"a": 1}' in file.read_text()


def test_the_files_of_hooks_match_what_they_are_for(hooks):
    tracked = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    for name in ("hadolint", "version"):
        assert any(re.search(hooks[name]["files"], file) for file in tracked)


def test_the_editor_keeps_the_line_length_of_the_linter():
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    assert f"max_line_length = {ruff['line-length']}" in (ROOT / ".editorconfig").read_text()


def test_the_devcontainer_is_the_image_and_sets_the_stack_up_in_a_sourced_ros():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    folder = ROOT / ".devcontainer"
    assert (folder / container["build"]["dockerfile"]).resolve() == ROOT / "docker" / "Dockerfile"
    assert (folder / container["build"]["context"]).resolve() == ROOT
    assert container["remoteUser"] == "ubuntu"
    assert container["postCreateCommand"].endswith("./vjepa --setup-only")
    assert container["postCreateCommand"].startswith("/ros_entrypoint.sh ")


def test_the_citation_has_what_its_format_requires_and_names_the_encoders_paper():
    """By the required fields of CFF 1.2.0: of the file, of a reference, of a person and of an entity."""
    citation = read_yaml("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == "Apache-2.0"
    assert [author["name"] for author in citation["authors"]] == ["The V-JEPA 2 robot stack developers"]
    (paper,) = citation["references"]
    assert {"authors", "title", "type"} <= paper.keys()
    assert paper["title"].startswith("V-JEPA 2: ")
    assert all(set(author) == {"family-names", "given-names"} for author in paper["authors"])


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_a_built_package_has_type_information_and_the_templates_beside_its_code(folder, tmp_path):
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    name = parse_package(folder).name
    assert (tmp_path / name / "py.typed").is_file()
    for template in folder.glob(f"{name}/**/*.md"):
        assert (tmp_path / template.relative_to(folder)).is_file()


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_no_package_names_an_address_that_somebody_else_might_have(folder):
    """There is no address: `.invalid` is reserved for names that never exist (RFC 2606), and colcon needs one."""
    (maintainer,) = parse_package(folder).maintainers
    assert maintainer.email.endswith(".invalid")
    assert "_email" not in (folder / "setup.py").read_text()


def test_every_bundle_states_its_licence_and_where_it_comes_from():
    cards = sorted(ROOT.glob("models/*/MODEL_CARD.md"))
    assert len(cards) == len(list(ROOT.glob("models/*/config.json")))
    for card in cards:
        section = card.read_text().partition("## Licence")[2]
        assert "Apache-2.0" in section, card
        assert "dm_control" in section, card


def test_what_the_readme_cites_is_what_the_citation_file_has():
    cited = (ROOT / "README.md").read_text().partition("@software")[2]
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    for value in (about["title"], about["license"], about["authors"][0]["name"]):
        assert f"{{{value}}}" in cited
