"""The planners that setup.py declares, findable as if the package were installed, with no build needed; and worlds."""

import runpy
from pathlib import Path

import pytest
import setuptools
import torch

from vjepa_planner.models.conditioning import ConditioningConfig
from vjepa_planner.models.dynamics import Dynamics, DynamicsConfig, save_dynamics
from vjepa_planner.models.policy import Policy, PolicyConfig, save_policy
from vjepa_planner.models.reward import RewardConfig, RewardModel, save_reward

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


ENCODER = "an-encoder"


def save_world(folder: Path, dynamics: Dynamics, heads: RewardModel, encoder: str = ENCODER) -> dict[str, str]:
    """Write both bundles under `folder` and return the options that name them."""
    paths = {name: str(folder / name) for name in ("dynamics", "reward")}
    bundle = save_dynamics(paths["dynamics"], dynamics, encoder, "# Of a test")
    facts = {"encoder_fingerprint": encoder, "dynamics_sha256": bundle.weights_sha256}
    save_reward(paths["reward"], heads, dynamics.conditioning.config, facts, "# Of a test")
    return paths


def untrained_world(folder: Path, members: int = 1, joint_state: bool = False) -> dict[str, str]:
    """Write an untrained world of latents of 3 rows x 8, and a policy, and return the options that name the world."""
    torch.manual_seed(0)
    conditioning = ConditioningConfig(latent_dim=8, latent_rows=(0, 1, 2), joint_state=joint_state)
    dynamics = Dynamics(DynamicsConfig(hidden=16, layers=2, members=members, action_repeat=2), conditioning)
    heads = RewardModel(RewardConfig(conditioning.state_size, action_values=4, hidden=16, distance=True))
    policy = Policy(PolicyConfig(latent_dim=8, latent_rows=(0, 2), joint_state=joint_state, hidden=(8, 8)))
    save_policy(folder / "policy", policy, ENCODER, "# Of a test")
    return save_world(folder, dynamics, heads)


@pytest.fixture(scope="session")
def make_world():
    """Return `untrained_world`, a function that writes bundles and returns the options that name them."""
    return untrained_world


@pytest.fixture
def write_world():
    """Return `save_world`, a function that writes bundles of given dynamics and heads."""
    return save_world
