"""All packages have one version, and a release is made whole or not at all. Releases here are of a copy."""

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = runpy.run_path(str(ROOT / ".ci" / "release.py"))
main, current_version, version_lines = (SCRIPT[name] for name in ("main", "current_version", "version_lines"))


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A repository with the files that a release touches, whose lint passes."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "A test")
        monkeypatch.setenv(f"{name}_EMAIL", "test@localhost")
    for path in version_lines(ROOT):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n### Added\n\n- a new thing\n")
    (tmp_path / "Makefile").write_text("lint:\n\t@echo linted\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "start")
    return tmp_path


def state(root: Path) -> tuple[str, ...]:
    """All that a refused release must leave as it was."""
    texts = [path.read_text() for path in [*version_lines(root), root / "CHANGELOG.md"]]
    return git(root, "rev-parse", "HEAD"), git(root, "tag"), git(root, "status", "--porcelain"), *texts


def test_setup_manifest_and_citation_of_this_repository_state_one_version():
    packages = [path.parent.name for path in ROOT.glob("ros2_ws/src/*/package.xml")]
    assert len(version_lines(ROOT)) == 2 * len(packages) + 1
    assert current_version(ROOT) == version_lines(ROOT)[ROOT / "CITATION.cff"][2]


def test_the_changelog_has_the_form_that_a_release_needs():
    text = (ROOT / "CHANGELOG.md").read_text()
    sections = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert sections[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", section) for section in sections[1:])
    kinds = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_a_release_sets_the_version_everywhere_commits_and_tags(checkout):
    (checkout / "CHANGELOG.md").write_text((checkout / "CHANGELOG.md").read_text() + "- another\n")
    git(checkout, "commit", "--all", "--quiet", "--message", "another")
    assert main(["7.1.0"], checkout) == 0
    assert current_version(checkout) == "7.1.0"
    assert git(checkout, "log", "-1", "--format=%s") == "release: 7.1.0"
    assert git(checkout, "rev-parse", "v7.1.0^{commit}") == git(checkout, "rev-parse", "HEAD")
    assert git(checkout, "status", "--porcelain") == ""
    log = (checkout / "CHANGELOG.md").read_text()
    assert re.search(
        r"## \[Unreleased\]\n\n## \[7\.1\.0\] - \d{4}-\d\d-\d\d\n\n### Added\n\n- a new thing\n- another\n", log
    )
    assert len(re.findall(r"^date-released: \d{4}-\d\d-\d\d$", (checkout / "CITATION.cff").read_text(), re.M)) == 1


def test_a_second_release_needs_news_and_a_higher_version(checkout, capsys):
    assert main(["7.1.0"], checkout) == 0
    before = state(checkout)
    for version, reason in (("7.1.0", "v7.1.0 exists"), ("7.0.9", "already state 7.1.0"), ("7.2.0", "no entry under")):
        assert main([version], checkout) == 1
        assert reason in capsys.readouterr().err
    assert state(checkout) == before
    log = checkout / "CHANGELOG.md"
    log.write_text(log.read_text().replace("## [Unreleased]\n", "## [Unreleased]\n\n### Fixed\n\n- a fault\n"))
    git(checkout, "commit", "--all", "--quiet", "--message", "fix")
    assert main(["7.2.0"], checkout) == 0
    assert (checkout / "CITATION.cff").read_text().count("date-released") == 1


@pytest.mark.parametrize("version", ["7", "7.1", "v7.1.0", "7.1.0rc1", "07.1.0", "7.1.0\n"])
def test_a_version_of_another_form_is_refused(checkout, capsys, version):
    before = state(checkout)
    assert main([version], checkout) == 1
    assert "expected MAJOR.MINOR.PATCH" in capsys.readouterr().err
    assert state(checkout) == before


def test_a_tree_with_changes_is_refused_by_their_names(checkout, capsys):
    (checkout / "notes.txt").write_text("mine")
    assert main(["7.1.0"], checkout) == 1
    assert "notes.txt" in capsys.readouterr().err
    assert (checkout / "notes.txt").read_text() == "mine"


def test_a_red_lint_is_refused(checkout, capfd):
    (checkout / "Makefile").write_text("lint:\n\t@echo a long line >&2; false\n")
    git(checkout, "commit", "--all", "--quiet", "--message", "red")
    before = state(checkout)
    assert main(["7.1.0"], checkout) == 1
    assert "a long line" in (said := capfd.readouterr().err)
    assert "make lint failed" in said
    assert state(checkout) == before


@pytest.mark.parametrize("hook", ["pre-commit", "reference-transaction"])
def test_what_git_refuses_leaves_everything_as_it_was(checkout, capsys, hook):
    """The commit by one hook, the tag by the other."""
    before = state(checkout)
    script = checkout / ".git" / "hooks" / hook
    script.parent.mkdir(exist_ok=True)
    refuses = "grep -q refs/tags && exit 1; exit 0" if hook == "reference-transaction" else "exit 1"
    script.write_text(f"#!/bin/sh\n{refuses}\n")
    script.chmod(0o755)
    assert main(["7.1.0"], checkout) == 1
    assert "failed" in capsys.readouterr().err
    assert state(checkout) == before


def test_files_that_state_different_versions_are_named(checkout, capsys):
    path = checkout / "CITATION.cff"
    path.write_text(re.sub(r"(?m)^version: .*$", "version: 9.9.9", path.read_text()))
    assert main(["--check"], checkout) == 1
    said = capsys.readouterr().err
    assert "9.9.9" in said
    assert "CITATION.cff" in said
    assert "ros2_ws/src/sim_bridge/setup.py" in said
