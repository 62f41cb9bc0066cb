"""The colcon packages and the pinned requirements: complete, valid and in step with what the sources import."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from catkin_pkg.package import Package, parse_package

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "ros2_ws" / "src"
INPUTS = sorted(ROOT.glob("requirements/*.in"))
MODULES = {folder: folder.replace("training", "vjepa_training") for folder in sorted(p.name for p in SOURCE.iterdir())}

# Packages released into ROS 2 Jazzy, and keys of rosdep's python.yaml that Ubuntu 24.04 can install.
JAZZY_PACKAGES = {
    "ament_index_python",
    "builtin_interfaces",
    "cv_bridge",
    "diagnostic_msgs",
    "geometry_msgs",
    "launch",
    "launch_ros",
    "lifecycle_msgs",
    "rcl_interfaces",
    "rclpy",
    "rosbag2_storage_mcap",
    "rosgraph_msgs",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
}
ROSDEP_KEYS = {
    "cv2": "python3-opencv",
    "numpy": "python3-numpy",
    "pytest": "python3-pytest",
    "yaml": "python3-yaml",
}
# Imported modules that only pip brings, with the distribution that holds each. rosdep has no pinned key for any.
FROM_PIP = {
    "PIL": "pillow",
    "dm_control": "dm_control",
    "glfw": "glfw",
    "gymnasium": "gymnasium",
    "huggingface_hub": "huggingface_hub",
    "lz4": "lz4",
    "matplotlib": "matplotlib",
    "mcap": "mcap",
    "mujoco": "mujoco",
    "pyarrow": "pyarrow",
    "rerun": "rerun-sdk",
    "rich": "rich",
    "rosbags": "rosbags",
    "safetensors": "safetensors",
    "stable_baselines3": "stable-baselines3",
    "torch": "torch",
    "transformers": "transformers",
    "tyro": "tyro",
    "zstandard": "zstandard",
}
WITHOUT_WHEELS = {"cv_bridge", "launch", "launch_ros"}


def third_party_modules(folder: Path) -> set[str]:
    """Top-level modules that a package's sources import, without the standard library and the package itself."""
    found = set()
    for path in [*(folder / MODULES[folder.name]).rglob("*.py"), *(folder / "launch").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {MODULES[folder.name]}


def pins(path: Path) -> dict[str, str]:
    """The `name==version` lines of a file of requirements; extras and markers are dropped."""
    lines = [re.split("[#;]", line)[0].strip() for line in path.read_text().splitlines()]
    return dict(re.sub(r"\[.*?]", "", line).split("==") for line in lines if line)


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(params=MODULES)
def folder(request) -> Path:
    return SOURCE / request.param


@pytest.fixture
def manifest(folder) -> Package:
    package = parse_package(folder)
    package.validate()
    return package


def test_a_package_is_complete(folder, manifest):
    module = MODULES[folder.name]
    assert manifest.name == module
    assert manifest.package_format == 3
    assert manifest.get_build_type() == "ament_python"
    for file in ("setup.py", "setup.cfg", f"resource/{module}", f"{module}/__init__.py"):
        assert (folder / file).is_file(), file
    assert list((folder / "test").glob("test_*.py")), "no test"
    assert f"$base/lib/{module}" in (folder / "setup.cfg").read_text()


def test_setup_and_manifest_agree(folder, manifest):
    output = subprocess.run(
        [sys.executable, "setup.py", "--name", "--version", "--license", "--description"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert output[-4:] == [manifest.name, manifest.version, manifest.licenses[0], manifest.description]


def test_a_package_declares_what_it_imports(folder, manifest):
    declared = {dependency.name for dependency in [*manifest.exec_depends, *manifest.test_depends]}
    needed = {ROSDEP_KEYS.get(module, module) for module in third_party_modules(folder) - set(FROM_PIP)}
    assert needed - declared == set(), f"missing in {folder.name}/package.xml"


def test_rosdep_can_resolve_every_declared_dependency(manifest):
    known = JAZZY_PACKAGES | set(ROSDEP_KEYS.values()) | set(MODULES.values())
    assert {d.name for d in [*manifest.exec_depends, *manifest.test_depends]} <= known


def test_every_entry_point_names_a_module_that_exists(folder):
    targets = re.findall(r"[\"'][\w-]+ = ([\w.]+):\w+[\"']", (folder / "setup.py").read_text())
    missing = [t for t in targets if not (folder / t.replace(".", "/")).with_suffix(".py").is_file()]
    assert missing == []


def test_colcon_sees_every_ament_python_package():
    output = subprocess.run(
        [sys.executable, "-m", "colcon", "--log-base", "/dev/null", "list", "--base-paths", str(SOURCE)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    kinds = dict(line.split("\t")[0::2] for line in output.splitlines())
    assert kinds == dict.fromkeys(MODULES.values(), "(ros.ament_python)")
    assert len(kinds) == len(MODULES)


def test_every_imported_distribution_is_required_directly():
    imported = set().union(*(third_party_modules(SOURCE / folder) for folder in MODULES)) - set(MODULES.values())
    required = {normalized(name) for path in INPUTS for name in pins(path)}
    for module in sorted(imported - WITHOUT_WHEELS):
        distribution = FROM_PIP.get(module) or {"cv2": "opencv-python-headless", "yaml": "PyYAML"}.get(module, module)
        candidates = {normalized(f"{prefix}{distribution}") for prefix in ("", "ros-", "ros-jazzy-")}
        assert candidates & required, f"{module} is imported, but no requirements file pins it"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_colcon_test_runs_the_tests_of_a_package(tmp_path):
    folders = ["--test-result-base", str(tmp_path), "--packages-select", "sim_bridge"]
    tests = [sys.executable, "-m", "colcon", "test", *folders, "--pytest-args", "-k", "urdf"]
    done = subprocess.run(tests, cwd=SOURCE.parent, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counted = re.search(r'<testsuite [^>]*tests="(\d+)"', (tmp_path / "sim_bridge" / "pytest.xml").read_text())
    assert int(counted[1]) > 0
