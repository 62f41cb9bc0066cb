"""What `./vjepa` does in bad surroundings: one clear message each, and the next start goes on.

With stand-ins for its tools (see setup_checkout.py), so that nothing waits for a real network or disk.
"""

import signal

import pytest

from tests.setup_checkout import PYTHON, Checkout
from tests.test_setup import WHOLE, wait_until

NO_NETWORK = "error: Request failed after 3 retries\n  cause: dns error\n"
FULL = "error: failed to copy: No space left on device (os error 28)\n"
PROXY = "Cannot connect to proxy.', OSError('Tunnel connection failed: 407 Proxy Authentication Required'))\n"
OTHER_FILE = "Hash mismatch for `torch==2.13.0+cpu`\n"


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    made = Checkout(tmp_path)
    made.has_uv()
    return made


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (NO_NETWORK, "uv failed: the package index cannot be reached\n"),
        (PROXY, "uv failed: the proxy http://***@proxy.test:8080 refuses\n"),
        (FULL, "uv failed: the disk is full ("),
        (
            OTHER_FILE,
            "uv failed: a downloaded file is not the one that the lock names, so nothing of it was installed\n",
        ),
        ("something that nobody has seen yet\n", "error: uv failed\n"),
    ],
)
def test_a_failed_installation_has_one_message_and_the_next_start_goes_on(checkout, failure, message):
    checkout.set("failure", failure)
    proxy = {"HTTPS_PROXY": "http://me:secret@proxy.test:8080"} if failure == PROXY else {}
    result = checkout.run("run", **proxy)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("error: uv failed") == 1
    assert failure.strip() in result.stderr
    assert "secret" not in result.stderr
    checkout.clear("failure")
    checkout.steps()
    assert checkout.run("run").stdout == "command line: run\n"
    assert checkout.steps() == WHOLE


def test_without_a_network_fetching_uv_is_not_followed_by_a_try_with_pip(checkout):
    (checkout.bin / "uv").unlink()
    checkout.set("failure", "WARNING: Retrying after connection broken by 'NewConnectionError'\n")
    result = checkout.run("run")
    assert result.returncode == 1
    assert "fetching uv failed: the package index cannot be reached" in result.stderr
    assert checkout.steps() == ["installer"]


def test_a_disk_that_is_too_full_is_told_before_anything_is_downloaded(checkout):
    checkout.stand_in("df", "#!/bin/bash\nprintf 'Filesystem 1M Used Available\\n/dev/x 100 40 60 40%% /\\n'\n")
    result = checkout.run("run")
    assert result.returncode == 1
    assert "the disk is full: " in result.stderr
    assert "and 60 MB are free there" in result.stderr
    assert checkout.steps() == ["venv"]
    (checkout.bin / "df").unlink()
    assert checkout.run("run").returncode == 0


def test_a_home_that_cannot_be_written_needs_none(checkout):
    checkout.home.rmdir()
    checkout.home.write_text("a file in the place of the folder: even root cannot make a folder in it")
    result = checkout.run("run")
    assert result.returncode == 0, result.stderr
    assert "your cache folder cannot be written; downloads are kept in .vjepa/cache" in result.stderr


def test_a_checkout_that_cannot_be_written_is_told_in_one_message(checkout):
    (checkout.root / ".vjepa").write_text("a file in the place of the folder")
    result = checkout.run("run")
    assert result.returncode == 1
    assert f"{checkout.root}/.vjepa cannot be written" in result.stderr
    assert result.stderr.count("error:") == 1
    assert checkout.steps() == []


def test_an_environment_that_cannot_be_made_is_told_in_one_message(checkout, tmp_path):
    (tmp_path / "file").touch()
    result = checkout.run("run", VJEPA_VENV=str(tmp_path / "file" / "venv"))
    assert result.returncode == 1
    assert "cannot be written" in result.stderr
    assert result.stderr.count("error:") == 1


def test_a_folder_of_somebody_else_is_never_removed(checkout, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.tex").write_text("")
    result = checkout.run("run", VJEPA_VENV=str(tmp_path / "theirs"))
    assert result.returncode == 1
    assert "was not made by this script" in result.stderr
    assert (tmp_path / "theirs" / "thesis.tex").exists()


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_set_up_killed_while_it_installs_recovers(checkout, installer):
    checkout.set("kill_setup")
    assert checkout.run("run", VJEPA_INSTALLER=installer).returncode == -signal.SIGKILL
    checkout.clear("kill_setup")
    checkout.steps()
    again = checkout.run("run", VJEPA_INSTALLER=installer)
    assert again.stdout == "command line: run\n", again.stderr
    assert checkout.steps() == WHOLE


@pytest.mark.parametrize("call", range(1, 12))
def test_a_set_up_killed_at_any_call_of_a_tool_recovers(checkout, call):
    """Every tool that the set-up calls becomes the moment of its death once."""
    count = checkout.fakes / "count"
    text = f"""#!/bin/bash
echo . >>"{count}"
if [[ $(wc -l <"{count}") == {call} ]]; then
  script=$PPID
  parent() {{ awk '{{ print $4 }}' "/proc/$1/stat"; }}
  while grep -q /vjepa "/proc/$(parent "$script")/cmdline"; do script=$(parent "$script"); done
  kill -KILL "$script"
fi
exec "{checkout.fakes}/$(basename "$0")" "$@"
"""
    for name in ("uv", "python3"):
        checkout.stand_in(name, text)
    checkout.stand_in("python3", PYTHON, checkout.fakes)
    checkout.stand_in("python", text.replace("$(basename", "real-$(basename"), checkout.fakes)
    checkout.stand_in("real-python", PYTHON, checkout.fakes)
    first = checkout.run("run")
    assert first.returncode == -signal.SIGKILL, f"a set-up calls fewer than {call} tools: lower the range of this test"
    count.write_text("\n" * 1000)
    again = checkout.run("run")
    assert again.stdout == "command line: run\n", again.stderr


def test_an_interrupted_set_up_says_so_and_recovers(checkout):
    checkout.set("hold_install")
    process = checkout.start("run")
    wait_until(lambda: "run.lock" in checkout.calls())
    process.send_signal(signal.SIGINT)
    checkout.set("failure", NO_NETWORK)
    checkout.clear("hold_install")
    assert "set-up interrupted; the next start takes it up again" in process.communicate(timeout=30)[1]
    assert process.returncode == 1
    checkout.clear("failure")
    assert checkout.run("run").stdout == "command line: run\n"


def test_two_at_once_set_up_once(checkout):
    checkout.set("hold_install")
    first = checkout.start("run", "first")
    wait_until(lambda: "run.lock" in checkout.calls())
    second = checkout.start("run", "second")
    assert "another ./vjepa is setting up" in second.stderr.readline()
    checkout.clear("hold_install")
    assert first.communicate(timeout=30)[0] == "command line: run first\n"
    assert second.communicate(timeout=30)[0] == "command line: run second\n"
    assert checkout.steps() == WHOLE


def test_two_checkouts_with_one_environment_set_it_up_once(tmp_path):
    checkouts = [Checkout(tmp_path / name) for name in ("one", "two")]
    shared = {"VJEPA_VENV": str(tmp_path / "shared")}
    for made in checkouts:
        made.has_uv()
    one, two = checkouts
    one.set("hold_install")
    first = one.start("run", "first", **shared)
    wait_until(lambda: "run.lock" in one.calls())
    second = two.start("run", "second", **shared)
    assert "another ./vjepa is setting up" in second.stderr.readline()
    one.clear("hold_install")
    assert first.communicate(timeout=30)[0] == "command line: run first\n"
    assert second.communicate(timeout=30)[0] == "command line: run second\n"
    assert one.steps() == WHOLE
    assert two.steps() == ["colcon"]


def test_a_python_without_venv_needs_none_where_there_is_uv(checkout):
    checkout.set("no_ensurepip")
    checkout.set("no_pip")
    assert checkout.run("run").returncode == 0


def test_a_python_without_pip_lends_one_to_fetch_uv(checkout):
    (checkout.bin / "uv").unlink()
    checkout.set("no_pip")
    result = checkout.run("run")
    assert result.returncode == 0, result.stderr
    assert f"python -m venv {checkout.root}/.vjepa/pip" in checkout.calls()


def test_a_python_without_venv_and_pip_gets_the_command_to_run(checkout):
    (checkout.bin / "uv").unlink()
    for flag in ("no_ensurepip", "no_pip"):
        checkout.set(flag)
    result = checkout.run("run")
    assert result.returncode == 1
    assert result.stderr.count("error:") == 1
    assert "Run: sudo apt-get install -y python3-venv" in result.stderr
    assert checkout.steps() == []
    checkout.clear("no_ensurepip")
    assert checkout.run("run").returncode == 0


def test_a_uv_that_does_not_start_is_fetched_again(checkout):
    (checkout.bin / "uv").unlink()
    assert checkout.run("run").returncode == 0
    (checkout.root / ".vjepa/uv/bin/uv").write_text("cut sh")
    checkout.steps()
    assert checkout.run("--with", "plot", "--setup-only").returncode == 0
    assert checkout.steps() == ["installer", "plot"]


def test_on_a_terminal_a_long_step_counts_its_seconds(checkout):
    checkout.set("slow")
    status, shown = checkout.run_on_a_terminal("", "--setup-only")
    assert status == 0, shown
    assert "vjepa:   1 s" in shown
