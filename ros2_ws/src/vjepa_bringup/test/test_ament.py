"""The linters of ROS over all packages of the workspace, where they are installed; there are no wheels of them.

They are here so that `colcon test` runs them too.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2]
XML = sorted([*SOURCE.glob("*/package.xml"), *SOURCE.glob("*/urdf/*.urdf"), *SOURCE.glob("*/config/*.xml")])


def test_ament_flake8_finds_nothing_with_the_projects_configuration(capfd):
    ament_flake8 = pytest.importorskip("ament_flake8.main", reason="ament_flake8 comes with an installed ROS 2")
    found = ament_flake8.main(["--config", str(SOURCE.parent / "flake8.ini"), str(SOURCE)])
    assert found == 0, capfd.readouterr().out


def test_ament_pep257_finds_nothing_by_googles_convention(capfd):
    ament_pep257 = pytest.importorskip("ament_pep257.main", reason="ament_pep257 comes with an installed ROS 2")
    named_by_behaviour = [*SOURCE.glob("*/test/*.py"), *SOURCE.glob("*/setup.py"), *SOURCE.glob("*/*/conformance.py")]
    arguments = ["--convention", "google", "--add-ignore", "D105", "D107", "D402"]
    assert ament_pep257.main([*arguments, "--exclude", *map(str, named_by_behaviour), "--", str(SOURCE)]) == 0, (
        capfd.readouterr().out
    )


@pytest.mark.parametrize("file", XML, ids=lambda path: str(path.relative_to(SOURCE)))
def test_xmllint_finds_every_xml_file_well_formed(file):
    if shutil.which("xmllint") is None:
        pytest.skip("xmllint is in the package libxml2-utils")
    done = subprocess.run(["xmllint", "--noout", "--nonet", str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
