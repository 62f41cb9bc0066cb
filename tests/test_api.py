"""The API reference: pages of packages from their docstrings, and a warning of pdoc is an error.

`.ci/run` builds that of all packages.
"""

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = runpy.run_path(str(ROOT / ".ci" / "api.py"))
build, packages = SCRIPT["build"], SCRIPT["PACKAGES"]


def test_every_package_is_in_the_reference():
    folders = {path.parent.name for path in (ROOT / "ros2_ws" / "src").glob("*/*/__init__.py")}
    assert set(packages) == folders - {"test"}


def test_a_page_has_the_docstrings_with_arguments_and_errors(tmp_path):
    build(tmp_path, ("vjepa_interfaces.stamps", "vjepa_interfaces.effort"))
    page = (tmp_path / "vjepa_interfaces" / "effort.html").read_text()
    assert "Actions, efforts, and the checks of a command" in page
    assert set(re.findall(r"<h6[^>]*>(\w+):", page)) == {"Attributes", "Arguments", "Raises"}
    assert (tmp_path / "index.html").is_file()


def test_a_module_that_does_not_import_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "broken_package").mkdir()
    (tmp_path / "broken_package" / "__init__.py").write_text("")
    (tmp_path / "broken_package" / "module.py").write_text("import a_module_that_is_nowhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises((UserWarning, RuntimeError)):
        build(tmp_path / "api", ("broken_package",))
    assert "broken_package.module" not in sys.modules
