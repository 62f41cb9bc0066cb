"""The planners that setup.py declares, findable as if the package were installed, with no build needed."""

import runpy
from pathlib import Path

import pytest
import setuptools

SETUP = Path(__file__).resolve().parent.parent / "setup.py"


def write_distribution(folder: Path, name: str, entry_points: list[str]) -> None:
    """Write the metadata of an installed package `name` whose planners are `entry_points` into `folder`."""
    metadata = folder / f"{name}-0.1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text("\n".join(["[vjepa_planner.planners]", *entry_points]) + "\n")


@pytest.fixture(scope="session")
def declared_planners() -> list[str]:
    """The entry points of planners in setup.py, as `name = module:class`."""
    declared = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **arguments: declared.update(arguments))
        patch.chdir(SETUP.parent)
        runpy.run_path(str(SETUP))
    return declared["entry_points"]["vjepa_planner.planners"]


@pytest.fixture(scope="session")
def planner_metadata(declared_planners, tmp_path_factory) -> Path:
    """A folder that, on the module path, makes the declared planners installed."""
    folder = tmp_path_factory.mktemp("metadata")
    write_distribution(folder, "vjepa_planner", declared_planners)
    return folder


@pytest.fixture(autouse=True)
def _planners_installed(planner_metadata, monkeypatch):
    monkeypatch.syspath_prepend(str(planner_metadata))


@pytest.fixture
def install_planners(tmp_path, monkeypatch):
    """A function that installs a third party's package: its name, entry points, and modules by name."""

    def install(name: str, entry_points: list[str], modules: dict[str, str] | None = None) -> None:
        folder = tmp_path / name
        write_distribution(folder, name, entry_points)
        for module, text in (modules or {}).items():
            (folder / f"{module}.py").write_text(text)
        monkeypatch.syspath_prepend(str(folder))

    return install
