"""docs/results.md is what `vjepa report` writes from the results in the repository."""

import re
import subprocess
from pathlib import Path

import pytest

from vjepa_cli.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"


@pytest.fixture
def written(tmp_path) -> Path:
    """The page written anew from the committed results alone, whatever else lies in the folder."""
    names = subprocess.check_output(["git", "ls-files", "results/*.json"], cwd=ROOT, text=True).split()
    assert names
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    page = tmp_path / "docs" / "results.md"
    with pytest.raises(SystemExit) as ended:
        main(["report", "--results", str(tmp_path / "results"), "--out", str(page)])
    assert ended.value.code == 0
    return page


def test_the_page_is_the_one_of_the_committed_results(written):
    assert PAGE.read_text() == written.read_text(), "docs/results.md is out of date; run: ./vjepa report"


def test_the_pages_links_and_pictures_lead_somewhere(written):
    targets = re.findall(r"\]\(([^)]+)\)", PAGE.read_text())
    assert any(target.startswith("../results/") for target in targets)
    for target in targets:
        assert (PAGE.parent / target.partition("#")[0]).is_file(), target
    assert sorted(path.name for path in written.parent.glob("*.png")) == sorted(
        path.name for path in PAGE.parent.glob("results-*.png")
    )
