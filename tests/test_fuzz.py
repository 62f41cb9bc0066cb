"""What reads files holds when a fuzzer changes them; and the fuzzer finds what does not.

atheris is what `make test` installs apart (see requirements/atheris.in).
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import ATHERIS

ROOT = Path(__file__).parents[1]
RUNS = 200
pytestmark = pytest.mark.slow
BROKEN = """
from pathlib import Path
from tests import fuzz
from tests.faults import test_hostile_files as files

def load(path):
    content = (path / "file.yaml").read_bytes()
    assert content.startswith(b"camera/"), "read in another way than it should be"

files.LOADERS["broken"] = files.Loader(files.LOADERS["a mapping of topics"].make, load, "file.yaml")
fuzz.fuzz("broken", Path("found"), ["-runs=1000", "-seed=1"])
"""


@pytest.fixture
def python(tmp_path):
    """Return a function that runs Python at the project's root, in a folder of the test's own."""
    if not ATHERIS.is_dir() and not os.environ.get("CI"):
        pytest.skip("atheris is not there; run `make test`")
    assert ATHERIS.is_dir(), "no atheris in .vjepa; run `make test`, which installs it there"

    def run(*arguments: str) -> subprocess.CompletedProcess:
        path = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
        command, environment = [sys.executable, *arguments], {**os.environ, "PYTHONPATH": path}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(
    "name", ["a bag's messages", "messages of a bag to repair", "weights of a policy", "a dataset's rows", "parameters"]
)
def test_a_loader_reads_or_refuses_whatever_the_fuzzer_makes_of_its_file(python, tmp_path, name):
    done = python("-m", "tests.fuzz", name, f"-runs={RUNS}", "-seed=1", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Done {RUNS} runs" in done.stderr
    assert done.stdout.endswith("fuzzed 1 loaders; failed: none\n")


def test_a_loader_that_raises_another_error_ends_the_fuzzing_with_the_file_that_did_it(python, tmp_path):
    done = python("-c", BROKEN)
    assert done.returncode != 0
    assert "read in another way than it should be" in done.stdout + done.stderr
    (file,) = (tmp_path / "found" / "failures").iterdir()
    assert not file.read_bytes().startswith(b"camera/")
