"""Who may import whom: the lines of the architecture, read from the syntax tree, so a lazy import counts as well."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "ros2_ws" / "src"
FOLDERS = {"vjepa_training": "training"}

# Package -> the packages of this repository that it may import besides itself.
DOORS = {
    "vjepa_interfaces": set(),
    "sim_bridge": {"vjepa_interfaces"},
    "vjepa_perception": {"vjepa_interfaces"},
    "vjepa_planner": {"vjepa_interfaces"},
    "vjepa_bags": {"vjepa_interfaces"},
    "vjepa_training": {"vjepa_interfaces", "sim_bridge", "vjepa_perception", "vjepa_planner", "vjepa_bags"},
    "vjepa_bringup": {"vjepa_interfaces", "sim_bridge", "vjepa_perception", "vjepa_planner"},
    "vjepa_cli": {
        *("vjepa_interfaces", "sim_bridge", "vjepa_perception", "vjepa_planner", "vjepa_bags"),
        *("vjepa_training", "vjepa_bringup"),
    },
}
WITHOUT_TORCH = {"vjepa_interfaces", "sim_bridge", "vjepa_bags"}
SPEAK_ROS = {"vjepa_bringup", "vjepa_cli"}
TORCH = {"torch", "torchvision", "transformers"}


def imported_modules(path: Path, module: str) -> Iterator[tuple[int, str]]:
    """Yields (line, absolute name) of each import in a file, at any depth, by statement or by `import_module`.

    `from a import b` yields `a` and `a.b`, since b may be a module.
    """
    parents = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=target, names=names, level=level):
                base = parents[: len(parents) - level + 1] if level else []
                base = ".".join([*base, *([target] if target else [])])
                yield node.lineno, base
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def is_node(module: str) -> bool:
    """Whether a dotted name is, or lies in, a module whose file is `*node.py`, or `ros_*.py` for what nodes share."""
    return any(part.endswith("node") or part.startswith("ros_") for part in module.split(".")[1:])


def objection(package: str, module: str, target: str) -> str | None:
    """Says why `module` of `package` may not import `target`, or returns None."""
    top = target.split(".")[0]
    if top in DOORS and top != package and top not in DOORS[package]:
        return f"{package} may import {sorted(DOORS[package]) or 'no package of this repository'}"
    if package in WITHOUT_TORCH and top in TORCH:
        return f"{package} runs without torch"
    speaks_ros = package in SPEAK_ROS or is_node(module)
    if top == "rclpy" and not speaks_ros:
        return "rclpy belongs in *node.py and ros_*.py files, vjepa_bringup and vjepa_cli"
    if top in DOORS and is_node(target) and not speaks_ros:
        return "a node's module brings rclpy with it; only nodes, vjepa_bringup and vjepa_cli may import one"
    return None


def violations(source: Path) -> list[str]:
    """Every forbidden import under a colcon source folder, as `file:line: what: why`."""
    found = []
    for package in DOORS:
        folder = source / FOLDERS.get(package, package)
        for path in sorted([*(folder / package).rglob("*.py"), *(folder / "launch").glob("*.py")]):
            module = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
            for line, target in imported_modules(path, module):
                if reason := objection(package, module, target):
                    found.append(f"{path.relative_to(source)}:{line}: imports {target}: {reason}")
    return found


def test_every_import_goes_through_a_door():
    assert violations(SOURCE) == []


def test_the_doors_name_every_package_of_the_workspace():
    packages = {init.parent.name for init in SOURCE.glob("*/*/__init__.py") if init.parent.name != "test"}
    assert packages == set(DOORS)


@pytest.mark.parametrize(
    ("file", "code", "reason"),
    [
        ("vjepa_interfaces/vjepa_interfaces/a.py", "import sim_bridge.env", "no package of this repository"),
        ("vjepa_interfaces/vjepa_interfaces/a.py", "def f():\n    import torch.nn", "without torch"),
        ("vjepa_interfaces/vjepa_interfaces/a.py", "import rclpy", "rclpy belongs"),
        ("sim_bridge/sim_bridge/sim_node.py", "from transformers import AutoModel", "without torch"),
        ("sim_bridge/sim_bridge/env.py", "from vjepa_planner import contract", "sim_bridge may import"),
        ("vjepa_perception/vjepa_perception/sub/a.py", "import vjepa_planner", "vjepa_perception may import"),
        (
            "vjepa_planner/vjepa_planner/a.py",
            "import importlib\nimportlib.import_module('vjepa_perception.clip')",
            "may",
        ),
        ("vjepa_planner/vjepa_planner/planners/a.py", "from rclpy.node import Node", "rclpy belongs"),
        ("vjepa_planner/vjepa_planner/planners/a.py", "from ..planner_node import main", "a node's module"),
        ("vjepa_planner/vjepa_planner/a.py", "from . import planner_node", "a node's module"),
        ("training/vjepa_training/a.py", "from sim_bridge import sim_node", "a node's module"),
        ("training/vjepa_training/a.py", "from vjepa_interfaces.managed_node import run", "a node's module"),
        ("training/vjepa_training/a.py", "import vjepa_bringup", "vjepa_training may import"),
        ("vjepa_bringup/vjepa_bringup/a.py", "import vjepa_cli", "vjepa_bringup may import"),
        ("vjepa_bringup/launch/a.launch.py", "import vjepa_cli", "vjepa_bringup may import"),
        ("vjepa_bags/vjepa_bags/a.py", "import torch", "without torch"),
    ],
)
def test_a_forbidden_import_is_caught(tmp_path, file, code, reason):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(f'"""A module."""\n\n{code}\n')
    (found, *_) = violations(tmp_path)
    assert found.startswith(f"{file}:")
    assert reason in found


@pytest.mark.parametrize(
    ("file", "code"),
    [
        (
            "sim_bridge/sim_bridge/sim_node.py",
            "import rclpy\nfrom vjepa_interfaces.managed_node import run\nfrom . import env",
        ),
        (
            "vjepa_planner/vjepa_planner/models/a.py",
            "import torch\nfrom ..contract import Plan\nfrom vjepa_interfaces import stamps",
        ),
        (
            "training/vjepa_training/a.py",
            "import torch\nfrom sim_bridge.env import make\nfrom vjepa_planner import registry",
        ),
        (
            "vjepa_cli/vjepa_cli/a.py",
            "import rclpy\nfrom vjepa_training import runs\nfrom vjepa_bags import recorder_node",
        ),
    ],
)
def test_an_allowed_import_is_left_alone(tmp_path, file, code):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(f"{code}\n")
    assert violations(tmp_path) == []
