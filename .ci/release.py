"""One version for all packages: check that every file states the same one, or release the next.

    ./vjepa --exec python -P .ci/release.py --check
    make release VERSION=0.2.0

A release sets the version in each setup.py, each package.xml and CITATION.cff, moves what CHANGELOG.md has under
Unreleased into a section of its own, commits, and tags the commit. It pushes nothing.
"""

import argparse
import datetime
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEMANTIC = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
PLACES = {
    "ros2_ws/src/*/setup.py": re.compile(r'(?m)^(    version=")([^"\n]*)(",)$'),
    "ros2_ws/src/*/package.xml": re.compile(r"(?m)^(  <version>)([^<\n]*)(</version>)$"),
    "CITATION.cff": re.compile(r"(?m)^(version: )([^\n]*?)( *)$"),
}
"""Where a version is written: pattern of files, and of the one line that has it, as three groups around the version."""

UNRELEASED = "## [Unreleased]\n"
CHANGELOG = "CHANGELOG.md"


class ReleaseError(Exception):
    """What keeps a release from being made, and what to do about it."""


def version_lines(root: Path) -> dict[Path, re.Match[str]]:
    """Return, for each file with a version, the match of its line; group 2 is the version.

    Raises:
        ReleaseError: a file has no such line, or several.
    """
    found = {}
    for files, pattern in PLACES.items():
        for path in sorted(root.glob(files)):
            matches = list(pattern.finditer(path.read_text()))
            if len(matches) != 1:
                raise ReleaseError(f"{path.relative_to(root)} has {len(matches)} lines with a version; expected one")
            found[path] = matches[0]
    return found


def current_version(root: Path) -> str:
    """Return the version that all files state.

    Raises:
        ReleaseError: they state different ones, or one that is not MAJOR.MINOR.PATCH.
    """
    stated = {path: match[2] for path, match in version_lines(root).items()}
    if len(set(stated.values())) != 1:
        lines = "".join(f"\n  {version:10} {path.relative_to(root)}" for path, version in stated.items())
        raise ReleaseError(f"the files state different versions; make them equal:{lines}")
    (version,) = set(stated.values())
    numbers(version)
    return version


def numbers(version: str) -> tuple[int, ...]:
    """Return a version as numbers, which compare as versions do.

    Raises:
        ReleaseError: it is not MAJOR.MINOR.PATCH.
    """
    match = SEMANTIC.fullmatch(version)
    if match is None:
        raise ReleaseError(f"version is '{version}'; expected MAJOR.MINOR.PATCH, such as 0.2.0")
    return tuple(int(part) for part in match.groups())


def git(root: Path, *arguments: str) -> str:
    """Return what a git command prints.

    Raises:
        ReleaseError: it failed.
    """
    result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    if result.returncode:
        raise ReleaseError(f"git {arguments[0]} failed: {(result.stderr or result.stdout).strip()}")
    return result.stdout.strip()


def check_ready(root: Path, version: str) -> None:
    """Refuse a release that would not be whole: nothing has been changed yet.

    Raises:
        ReleaseError: the version is no next one, the tree is not clean, nothing is under Unreleased, or lint fails.
    """
    current = current_version(root)
    if numbers(version) < numbers(current):
        raise ReleaseError(f"version is {version}, but the files already state {current}; give a higher one")
    if git(root, "tag", "--list", f"v{version}"):
        raise ReleaseError(f"the tag v{version} exists already; give a higher version")
    changes = git(root, "status", "--porcelain")
    if changes:
        raise ReleaseError(f"the working tree is not clean; commit or stash these first:\n{changes}")
    log = (root / CHANGELOG).read_text()
    if log.count(UNRELEASED) != 1:
        raise ReleaseError(f"{CHANGELOG} has no single heading '{UNRELEASED.strip()}'; add it above the last release")
    if not re.search(r"(?m)^- ", log.partition(UNRELEASED)[2].partition("\n## ")[0]):
        raise ReleaseError(f"{CHANGELOG} has no entry under Unreleased; state what users will notice")
    if subprocess.run(["make", "lint"], cwd=root).returncode:
        raise ReleaseError("make lint failed; the lines above have the reason")


def set_version(root: Path, version: str, day: str) -> list[Path]:
    """Write the version, and the day as YYYY-MM-DD, into all files; return them."""
    for path, match in version_lines(root).items():
        text = path.read_text()
        path.write_text(text[: match.start(2)] + version + text[match.end(2) :])
    citation = root / "CITATION.cff"
    text = re.sub(r"(?m)^date-released: .*\n", "", citation.read_text())
    citation.write_text(re.sub(r"(?m)^(version: .*\n)", rf"\g<1>date-released: {day}\n", text))
    log = root / CHANGELOG
    log.write_text(log.read_text().replace(UNRELEASED, f"{UNRELEASED}\n## [{version}] - {day}\n"))
    return [*version_lines(root), log]


def release(root: Path, version: str, day: str) -> None:
    """Make the release, or leave everything as it was.

    Raises:
        ReleaseError: as `check_ready`, or git refused the commit or the tag.
    """
    check_ready(root, version)
    before = git(root, "rev-parse", "HEAD")
    files = [str(path.relative_to(root)) for path in [*version_lines(root), root / CHANGELOG]]
    try:
        set_version(root, version, day)
        git(root, "commit", "--quiet", "--message", f"release: {version}", "--only", "--", *files)
        git(root, "tag", "--annotate", "--message", f"Release {version}", f"v{version}")
    except BaseException:  # An interrupt too must leave neither half a release nor changed files.
        git(root, "reset", "--quiet", "--soft", before)
        git(root, "restore", "--staged", "--worktree", "--", *files)
        if git(root, "tag", "--list", f"v{version}"):
            git(root, "tag", "--delete", f"v{version}")
        raise


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="release.py", description="One version for all packages.")
    parser.add_argument("version", nargs="?", help="MAJOR.MINOR.PATCH of the release to make")
    parser.add_argument("--check", action="store_true", help="only check that all files state one version")
    given = parser.parse_args(arguments)
    if bool(given.version) == given.check:
        parser.error("give either a version, as in: make release VERSION=0.2.0, or --check")
    try:
        if given.check:
            print(current_version(root))
            return 0
        release(root, given.version, datetime.date.today().isoformat())
    except ReleaseError as error:
        print(f"release: error: {error}", file=sys.stderr)
        return 1
    print(f"released {given.version}; nothing is pushed yet. To publish it: git push --follow-tags")
    return 0


if __name__ == "__main__":
    sys.exit(main())
