"""The share folder of a package is found where colcon installed it, and where pip did."""

import sys
from pathlib import Path

import pytest

from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.share import share_folder


def test_a_package_of_the_workspace_is_found_there():
    assert (share_folder("vjepa_interfaces") / "package.xml").is_file()


@pytest.mark.parametrize("prefixes", [None, "/usr"])
def test_a_package_that_pip_installed_is_found_in_its_environment(prefixes, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.delenv("AMENT_PREFIX_PATH")
    if prefixes:
        monkeypatch.setenv("AMENT_PREFIX_PATH", prefixes)
    with pytest.raises(
        VjepaError, match=r"^package 'an_arm' is not installed; build the workspace with: \./vjepa --setup-only$"
    ):
        share_folder("an_arm")
    folder = Path(tmp_path, "share", "an_arm")
    folder.mkdir(parents=True)
    assert share_folder("an_arm") == folder
