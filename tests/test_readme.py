"""The documentation is true: its commands run, and its tables name what the code has.

Each page's `bash` blocks run in order in one shell, as a reader would paste them, in a folder that looks like the
checkout, so that nothing is left in it. Commands that take long run on less. What cannot run is a block `sh REASON`.
"""

import contextlib
import fcntl
import hashlib
import importlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from vjepa_bringup import domains
from vjepa_bringup.graph import GUARD, LIFECYCLE_ORDER
from vjepa_interfaces import topics

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    "README.md",
    "docs/tasks.md",
    "docs/datasets.md",
    "docs/tutorial.md",
    "docs/another-arm.md",
    "docs/world-models.md",
    "docs/looks.md",
    "docs/reproduce.md",
    "docs/real-camera.md",
    "docs/real-arm.md",
    "docs/planners.md",
    "docs/contributing.md",
    "docs/demonstrations.md",
]
SLOW = {
    "docs/tasks.md",
    "docs/datasets.md",
    "docs/tutorial.md",
    "docs/another-arm.md",
    "docs/world-models.md",
    "docs/looks.md",
    "docs/real-camera.md",
    "docs/real-arm.md",
    "docs/planners.md",
    "docs/demonstrations.md",
}
"""Pages that train or evaluate much, and those whose ways other tests go as well: `make test-all` runs their commands,
and test_docs.py holds each of them to the command line."""

REAL_TIME = {"docs/real-arm.md"}
LESS = {
    "collect": {"--episodes": 12},
    "probe": {"--episodes": 6},
    "eval": {"--episodes": 4},
    "train encoder": {"--steps": 12, "--warmup-steps": 4, "--batch-size": 16},
    "train bc": {"--epochs": 2, "--dagger-episodes": 4, "--dagger-steps": 20},
    "train dynamics": {"--epochs": 2},
    "train reward": {"--epochs": 2},
    "train dreamer": {"--steps": 12},
    "train sac": {"--steps": 80, "--episode-steps": 12},
    "improve": {"--epochs": 1},
}
"""The largest values of options that a test has time for: of an option given twice the last one counts."""

FEWER = {
    "examples/demonstrate.py --out bags --episodes 50": "examples/demonstrate.py --out bags --episodes 12",
    "examples/six_joints.py --out jaco --episodes 50": "examples/six_joints.py --out jaco --episodes 4",
    " --through process --episodes 20": " --through process --episodes 1 --protocol baseline",
    "examples/six_joints_drive.py ": "examples/six_joints_drive.py --poses 2 ",
}
"""Options that a test has no time for; test_demonstrations.py and test_six_joints.py run more of the scripts."""

OF_MAKE = {"ARGS", "JOBS", "MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS"}
"""What `make test ARGS=...` hands on to the tests, and a reader's shell does not have."""

BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HAS_RERUN = importlib.util.find_spec("rerun") is not None
REASONS = {
    "ros": "needs a sourced ROS 2",
    "network": "downloads much",
    "docker": "needs Docker",
    "screen": "opens a window",
    "camera": "needs a camera",
    "root": "installs packages of the system",
    "stack": "needs a running stack; docs/tasks.md has the same with one",
    "long": "takes minutes",
    "python": "is a piece of a program; the tests of what it shows run the like of it",
    "rerun": "needs rerun; run where `make test` has installed it",
}
NOT_RUN = {"make test": "it runs every test, this one included"}
RUN_TIMEOUT_S = 1200.0


@dataclass
class Session:
    """What a page's commands did: the folder they ran in, their exit status and output, and what they left running."""

    page: str
    folder: Path
    status: int
    output: str
    left_running: list[str]


def blocks(page: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page: (info string, content)."""
    return BLOCK.findall((ROOT / page).read_text())


def script(page: str) -> str:
    run = ("bash", "sh rerun") if HAS_RERUN else ("bash",)
    lines = "\n".join(content for info, content in blocks(page) if info in run).splitlines()
    return "\n".join(f": {line}" if line in NOT_RUN else on_less(line) for line in lines) + "\n"


def on_less(line: str) -> str:
    """Return a line of a page with what makes its command quick, where it is one that takes long."""
    for many, few in FEWER.items():
        line = line.replace(many, few)
    for command, most in LESS.items():
        if line.startswith(f"./vjepa {command} "):
            typed = {option: re.search(rf" {option} (\d+)", line) for option in most}
            less = [
                f" {option} {most[option]}" for option in most if not (t := typed[option]) or int(t[1]) > most[option]
            ]
            command, background, rest = line.partition(" &")
            return command + "".join(less) + background + rest
    return line


def page_param(page: str):
    """Return a page as a parameter of `session`, with the marks of its tests."""
    marks = [pytest.mark.real_time] if page in REAL_TIME else []
    return pytest.param(page, marks=[*marks, pytest.mark.slow] if page in SLOW else marks)


def looks_like_the_checkout(folder: Path) -> Path:
    """Fill `folder` with links to the checkout's files; `./vjepa` there runs the checkout's own."""
    folder.mkdir()
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.check_output(listed, cwd=ROOT, text=True).splitlines()
    # Pages write into results/, also over its files: a link would hand that on to the checkout.
    shutil.copytree(ROOT / "results", folder / "results")
    for name in {line.split("/")[0] for line in files} - {"vjepa", "results"}:
        (folder / name).symlink_to(ROOT / name)
    (folder / "vjepa").write_text(f'#!/bin/sh\nexec "{ROOT}/vjepa" "$@"\n')
    (folder / "vjepa").chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def own_domain(tmp_path_factory):
    """Environment of a shell in which one ROS domain is free, and that one is nobody else's.

    Commands find running stacks by locked files in the runtime or temporary folder, so the shell gets one of its
    own. In there all domains are locked but the one that is held outside.
    """
    temporary = tmp_path_factory.mktemp("t")
    private = temporary / "vjepa"
    private.mkdir(mode=0o700)
    with contextlib.ExitStack() as stack:
        held = stack.enter_context(domains.hold_domain(None, {}))
        for domain in {*range(domains.FIRST_DOMAIN, domains.LAST_DOMAIN + 1)} - {held}:
            file = stack.enter_context(open(private / f"domain-{domain}.json", "w"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        own = {"TMPDIR": str(temporary), "XDG_RUNTIME_DIR": str(temporary), "ROS_DOMAIN_ID": str(held)}
        yield {name: value for name, value in os.environ.items() if name not in OF_MAKE} | own


def processes_of(environment: dict[str, str]) -> dict[int, str]:
    """The processes, by id, that inherited the temporary folder of a session."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"TMPDIR={environment['TMPDIR']}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


@pytest.fixture(scope="module", params=map(page_param, PAGES))
def session(request, own_domain, tmp_path_factory) -> Session:
    folder = looks_like_the_checkout(tmp_path_factory.mktemp("readme") / "checkout")
    output = folder.parent / "output"
    with output.open("w") as file:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-xc", script(request.param)],
            cwd=folder,
            env=own_domain,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = shell.wait(RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            status = -1
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    deadline = time.monotonic() + 10.0  # multiprocessing's resource tracker ends behind its command.
    while (left := processes_of(own_domain)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10.0
    while processes_of(own_domain) and time.monotonic() < deadline:
        pass
    return Session(request.param, folder, status, output.read_text(), list(left.values()))


@pytest.mark.timeout(RUN_TIMEOUT_S + 60)
def test_every_command_of_a_page_runs_and_leaves_nothing_running(session):
    assert session.status == 0, session.output[-4000:]
    assert session.left_running == []


@pytest.fixture(scope="module")
def interface() -> dict[str, str]:
    """The sections of docs/interface.md by heading."""
    parts = re.split(r"^##+ (.*)$", (ROOT / "docs/interface.md").read_text(), flags=re.MULTILINE)
    return dict(zip((heading.strip("`") for heading in parts[1::2]), parts[2::2], strict=True))


def rows(section: str, columns: int) -> list[list[str]]:
    """The rows of the tables of a section that have so many columns, headings left out."""
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return [row for row in table if len(row) == columns and row[0].startswith("`")]


def test_results_and_status_have_the_fields_that_are_documented(session, interface):
    """From what the commands of the pages wrote, so that a new field is not forgotten."""
    sections = interface["The JSON of a result"] + interface["The JSON of a training"]
    documented = set(re.findall(r"`(\w+)`", sections))
    for name in set(re.findall(r"--json results/(\S+)", script(session.page))):
        assert set(json.loads((session.folder / "results" / name).read_text())) <= documented, name
    shown = re.findall(r"^(\w+): [^\n]*\n((?:    [^\n]+\n)+)", session.output, re.MULTILINE)
    assert bool(shown) == ("status" in script(session.page))
    for node, values in shown:
        for key in re.findall(r"^    ([^:]+): ", values, re.MULTILINE):
            if not key.startswith((*LIFECYCLE_ORDER, GUARD)):
                assert f"`{key}`" in interface[node], f"diagnostics key {key} of {node}"


@pytest.mark.parametrize("session", [page_param("README.md")], indirect=True)
def test_the_example_in_the_readme_has_the_form_of_the_scoreboard(session):
    example = next(content for info, content in blocks("README.md") if info == "text")
    form = [line[:20] for line in example.splitlines()]
    assert [line[:20] for line in session.output.splitlines() if line[:20] in form][: len(form)] == form


@pytest.mark.parametrize("session", [page_param("docs/real-arm.md")], indirect=True)
def test_in_the_rehearsal_only_a_planner_without_a_dry_run_moves_the_arm(session):
    held = re.findall(r"^largest torque ([\d.]+) N·m, last torque ([\d.]+) N·m$", session.output, re.MULTILINE)
    (dry, _), (driven, _), (_, without_planner) = [(float(largest), float(last)) for largest, last in held]
    assert dry == 0.0
    assert 0.0 < driven <= 0.03
    assert without_planner < 0.001


def test_every_block_is_run_or_says_why_not():
    for page in ["README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md"))]:
        for info, content in blocks(page):
            assert info != "bash" or page in PAGES, f"{page}: {content}"
            language, _, reason = info.partition(" ")
            assert info in ("bash", "text", "mermaid") or (language == "sh" and reason in REASONS), f"{page}: {content}"
    commands = script("README.md").splitlines()
    for command in NOT_RUN:
        assert f": {command}" in commands, f"{command} is excepted for nothing"


def test_every_message_in_the_troubleshooting_table_exists():
    source = "".join(path.read_text() for path in [ROOT / "vjepa", *ROOT.glob("ros2_ws/src/*/*/**/*.py")])
    table = (ROOT / "README.md").read_text().partition("## When something is wrong")[2]
    messages = [message for row in rows(table, 2) for message in re.findall(r"`([^`]+)`", row[0])]
    assert messages
    for message in messages:
        for fragment in message.split("…"):
            assert fragment.strip() in source, message


def test_the_results_are_those_of_the_files_they_name():
    table = [line for line in (ROOT / "README.md").read_text().splitlines() if "](results/" in line]
    assert table
    for line in table:
        result = json.loads((ROOT / re.search(r"\((results/[\w-]+\.json)\)", line)[1]).read_text())
        low, high = result["interval_95"]
        ended = 100 * sum(result["in_target_at_end"]) / len(result["in_target_at_end"])
        assert f"| {result['mean_return']:.1f} ({low:.1f} to {high:.1f}) | {ended:.0f} % |" in line
        assert f"| {result['episodes']} of {result['episode_steps']} steps |" in line


def test_the_licence_is_the_whole_text_that_apache_publishes():
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def test_every_topic_is_documented_as_it_is(interface):
    known = [topic for topic in vars(topics).values() if isinstance(topic, topics.Topic)]
    expected = {(f"`{t.name}`", f"`{t.type}`", f"{t.depth}, latched" if t.latched else str(t.depth)) for t in known}
    assert {tuple(row[:3]) for row in rows(interface["Topics"], 5)} == expected
