"""Make the lock files: `python requirements/lock.py`, in the environment of `./vjepa --exec`, with uv on PATH.

One resolution by uv serves Python 3.11 to 3.14 on Linux. It is cut into one lock for each group of packages, so that a
group's lock has what the group needs beyond the groups below it. A lock lists every package with a version, a marker
and the hashes of its wheels; the installers get it with `--require-hashes --no-deps`. `sizes.tsv` has the megabytes of
each lock's wheels. Versions stay as they are where the inputs allow it; `--upgrade` renews them.
"""

import argparse
import functools
import hashlib
import os
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging import tags
from packaging.markers import Marker
from packaging.utils import parse_wheel_filename

HERE = Path(__file__).resolve().parent
PYTHONS = ((3, 11), (3, 12), (3, 13), (3, 14))
ARCHITECTURES = ("x86_64", "aarch64")
MANYLINUX = (*(f"manylinux_2_{minor}" for minor in range(39, 4, -1)), "manylinux2014", "manylinux2010", "manylinux1")

# What a run needs comes from two locks: `run`, and the one of the way in which ROS is there.
WAYS = ("jazzy", "kilted", "system")
# Group -> the groups that are installed with it; all lie in the virtual environment.
GROUPS: dict[str, tuple[str, ...]] = {
    "plot": (),
    "train": ("plot",),
    "view": (),
    "test": ("plot", "train"),
    "lint": (),
    "api": (),
}
# Installed each into a folder of its own, alone, since what they declare is other than what the stack pins.
APART = ("torchvision", "lerobot", "atheris", "mppi", "runtimes", "ray", "installer")
# In a sourced ROS these are the system's: cv_bridge and the system's OpenCV are compiled for the system's numpy.
OF_THE_SYSTEM = ("numpy", "opencv-python-headless")
SYSTEM_NUMPY = "numpy==1.26.4 ; python_version < '3.13'"
# No wheel of it exists. Its build needs setuptools alone, which is in the lock `run`, and no network.
FROM_SOURCE = ("empy",)
NEVER = "sys_platform == 'never'"
CPU_BYTES = 191_800_000
CUDA = re.compile(r"torch|triton|nvidia-.*|cuda-.*")


@dataclass(frozen=True)
class Package:
    """One pinned package: version, marker ("" for always) and its Linux wheels, as {file name: (sha256, bytes)}.

    A package of `FROM_SOURCE` has the source distribution instead.
    """

    name: str
    version: str
    marker: str
    files: dict[str, tuple[str, int]]

    def is_for(self, python: tuple[int, int], machine: str = "x86_64") -> bool:
        """Return whether the marker holds for CPython `python` on Linux."""
        return _holds(self.marker, python, machine)

    def wheel_for(self, python: tuple[int, int], machine: str = "x86_64") -> str | None:
        """Return the file name of the wheel that an installer takes, or None where there is none."""
        if self.name in FROM_SOURCE:
            return next(iter(self.files))
        order = _tags(python, machine)
        ranked = [
            (min(order[tag] for tag in found & order.keys()), file)
            for file in self.files
            if (found := parse_wheel_filename(file)[3]) & order.keys()
        ]
        return min(ranked)[1] if ranked else None

    @property
    def pin(self) -> str:
        """The package as one line of a requirements file, without hashes."""
        return f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")

    def text(self) -> str:
        """Return the lines of a requirements file."""
        return (
            " \\\n".join([self.pin, *sorted({f"    --hash=sha256:{digest}" for digest, _ in self.files.values()})])
            + "\n"
        )


def _holds(marker: str, python: tuple[int, int], machine: str) -> bool:
    version = f"{python[0]}.{python[1]}"
    environment = {
        "python_version": version,
        "python_full_version": f"{version}.1",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    return not marker or Marker(marker).evaluate(environment)


def _plain(marker: str) -> str:
    """Return the shortest marker that means the same on Linux; uv words one condition in several ways."""
    held = {(python, machine) for python in PYTHONS for machine in ARCHITECTURES if _holds(marker, python, machine)}
    pythons, machines = sorted({python for python, _ in held}), sorted({machine for _, machine in held})
    if not held:
        return NEVER
    if len(held) != len(pythons) * len(machines) or pythons != [p for p in PYTHONS if pythons[0] <= p <= pythons[-1]]:
        raise SystemExit(f"no plain marker for {marker}")
    parts = [f"platform_machine == '{machines[0]}'"] if len(machines) < len(ARCHITECTURES) else []
    if pythons[0] != PYTHONS[0]:
        parts.append(f"python_version >= '{pythons[0][0]}.{pythons[0][1]}'")
    if pythons[-1] != PYTHONS[-1]:
        parts.append(f"python_version < '{pythons[-1][0]}.{pythons[-1][1] + 1}'")
    return " and ".join(parts)


@functools.cache
def _tags(python: tuple[int, int], machine: str) -> dict[tags.Tag, int]:
    platforms = [*(f"{name}_{machine}" for name in MANYLINUX), f"linux_{machine}"]
    interpreter = f"cp{python[0]}{python[1]}"
    order = [*tags.cpython_tags(python, platforms=platforms), *tags.compatible_tags(python, interpreter, platforms)]
    return {tag: rank for rank, tag in reversed(list(enumerate(order)))}


def _fits(wheel: str) -> bool:
    fit = parse_wheel_filename(wheel)[3]
    return any(fit & _tags(python, machine).keys() for python in PYTHONS for machine in ARCHITECTURES)


def read_pins(lock: Path) -> list[str]:
    """Return the `name==version ; marker` lines of a lock."""
    return [line.removesuffix("\\").strip() for line in lock.read_text().splitlines() if re.match(r"[a-z0-9]", line)]


def resolve(
    inputs: Sequence[str],
    preferences: Iterable[str] = (),
    *,
    constraints: Iterable[str] = (),
    excluded: Iterable[str] = (),
    deps: bool = True,
) -> dict[str, Package]:
    """Return what the `.in` files `inputs` pull in, by pin; `preferences` are pins to keep where they fit.

    Raises:
        SystemExit: uv finds no resolution, or a package has no wheel for one of the Pythons.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        output, pins = work / "pylock.toml", work / "constraints.txt"
        # uv takes its preferences from an output of the same kind only, so a text output is made first.
        text = work / "preferred.txt"
        text.write_text("\n".join(preferences) + "\n")
        pins.write_text("\n".join(constraints) + "\n")
        without = work / "excluded.txt"
        # colcon-core declares pytest, for `colcon test`.
        further = [*excluded, *([] if "test" in inputs else ["pytest"])]
        without.write_text((HERE / "excluded.txt").read_text() + "\n".join(further) + "\n")
        common = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--no-annotate"]
        common += ["--fork-strategy", "fewest"]  # One version of a package for all Pythons, where there is one.
        common += ["--no-config", "--no-header", "--excludes", str(without), *([] if deps else ["--no-deps"])]
        files = [str(HERE / f"{name}.in") for name in inputs]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
        for step in (
            [*common, *files, "--constraints", str(pins), "--output-file", str(text)],
            [*common, *files, "--constraints", str(text), "--format", "pylock.toml", "--output-file", str(output)],
        ):
            subprocess.run(step, check=True, env=environment)
        packages = [_package(entry) for entry in tomllib.loads(output.read_text())["packages"]]
        return {package.pin: package for package in packages if package.marker != NEVER}


def _package(entry: dict) -> Package:
    marker = _plain(entry.get("marker", ""))
    package = Package(entry["name"], entry["version"], marker, {})
    offered = [entry["sdist"]] if package.name in FROM_SOURCE else entry.get("wheels", ())
    for file, wheel in ((wheel["url"].rsplit("/", 1)[1].replace("%2B", "+"), wheel) for wheel in offered):
        if package.name in FROM_SOURCE or _fits(file):
            package.files[file] = (wheel["hashes"]["sha256"], wheel.get("size", 0))
    return package


def cut(preferences: Sequence[str]) -> dict[str, list[Package]]:
    """Return every lock that uv can make, by name."""
    everything = resolve(["run", "jazzy", *GROUPS], preferences)
    pins = list(everything)
    closures = {way: resolve(["run", *([] if way == "system" else [way])], pins, **_limits(way)) for way in WAYS}
    alike = [
        package for pin, package in closures["jazzy"].items() if all(pin in closure for closure in closures.values())
    ]
    locks = {"run": [package for package in alike if not CUDA.fullmatch(package.name)]}
    locks["torch-cuda"] = [package for package in alike if CUDA.fullmatch(package.name) and package.name != "triton"]
    locks["triton"] = [package for package in alike if package.name == "triton"]
    for way, closure in closures.items():
        locks[way] = [package for package in closure.values() if package not in alike]
    if other := locks.pop("system"):
        raise SystemExit(f"a sourced ROS wants a lock of its own: {[package.pin for package in other]}")
    for group, below in GROUPS.items():
        with_it = resolve(["run", "jazzy", *below, group], constraints=pins)
        without = resolve(["run", "jazzy", *below], constraints=pins) if below else closures["jazzy"]
        locks[group] = [package for pin, package in with_it.items() if pin not in without]
    # The groups must fit into a sourced ROS too; the viewer alone is not tried there: it wants numpy 2.
    limits = _limits("system")
    limits["constraints"] = [*(pin for pin in pins if not pin.startswith(OF_THE_SYSTEM)), SYSTEM_NUMPY]
    resolve(["run", *(group for group in GROUPS if group != "view")], **limits)
    locks["torch-cpu"] = [cpu_build()]
    for name in APART:
        locks[name] = list(resolve([name], deps=False).values())
    return locks


def cpu_build() -> Package:
    """Return torch's CPU build, which PyTorch's own index has and no registry: its hashes are kept in a file.

    Raises:
        SystemExit: the file has hashes of another version than `run.in` names.
    """
    files = dict(reversed(line.split()) for line in (HERE / "torch-cpu.sha256").read_text().splitlines())
    (version,) = {str(parse_wheel_filename(file)[1]) for file in files}
    if f"torch=={version.removesuffix('+cpu')}" not in without_comments(HERE / "run.in"):
        raise SystemExit(f"torch-cpu.sha256 is of torch {version}, run.in has another: see docs/dependencies.md")
    return Package("torch", version, "", {file: (digest, CPU_BYTES) for file, digest in files.items()})


def _limits(way: str) -> dict:
    if way != "system":
        return {}
    return {"constraints": [SYSTEM_NUMPY], "excluded": OF_THE_SYSTEM}


def inputs_of(lock: str) -> list[Path]:
    """Return the files that a lock is made from."""
    names = {"run": ["run"], "torch-cuda": ["run"], "torch-cpu": ["run"], "triton": ["run"]}.get(lock, ["run", lock])
    names = [lock] if lock in APART else names
    further = ["torch-cpu.sha256"] if lock == "torch-cpu" else []
    return [HERE / name for name in (*(f"{name}.in" for name in names), "excluded.txt", *further)]


def without_comments(path: Path) -> list[str]:
    """Return the lines of an input that hold something, without the reasons that stand behind them."""
    lines = [re.split(r"(?:^|\s+)#", line)[0] for line in path.read_text().splitlines()]
    return [line for line in lines if line]


def inputs_hash(lock: str) -> str:
    """Return the hash of what a lock is made from; its first line holds it, so that a stale lock is seen offline."""
    lines = [line for path in inputs_of(lock) for line in without_comments(path)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write(name: str, packages: Iterable[Package]) -> None:
    """Write one lock.

    Raises:
        SystemExit: a package has no wheel for a Python that its marker names.
    """
    ordered = sorted(packages, key=lambda package: package.name)
    for package in ordered:
        for python in PYTHONS:
            if package.is_for(python) and package.wheel_for(python) is None:
                raise SystemExit(f"{package.name} {package.version} has no wheel for Python {python[0]}.{python[1]}")
    head = f"# Made by requirements/lock.py from inputs with this hash: {inputs_hash(name)}\n"
    (HERE / f"{name}.lock").write_text(head + "".join(package.text() for package in ordered))


def sizes(locks: dict[str, list[Package]]) -> str:
    """Return the table of megabytes that each lock's wheels have, for each Python, on x86-64."""
    lines = ["# lock\tPython\tmegabytes of wheels on x86-64; made by requirements/lock.py"]
    for name, packages in sorted(locks.items()):
        for python in PYTHONS:
            chosen = [(p, p.wheel_for(python)) for p in packages if p.is_for(python)]
            total = sum(package.files[file][1] for package, file in chosen if file)
            lines.append(f"{name}\t{python[0]}.{python[1]}\t{max(1, round(total / 1e6))}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make all locks anew."""
    parser = argparse.ArgumentParser(description="make the lock files of requirements/")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that the inputs allow")
    kept = [] if parser.parse_args().upgrade else [pin for lock in HERE.glob("*.lock") for pin in read_pins(lock)]
    kept = sorted({pin for pin in kept if "+" not in pin and not pin.startswith(("ros-", "numpy"))})
    locks = cut(kept)
    for name, packages in locks.items():
        write(name, packages)
    (HERE / "sizes.tsv").write_text(sizes(locks))


if __name__ == "__main__":
    main()
