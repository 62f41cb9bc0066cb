"""A folder counts only if it is this user's alone, and a file in it only if it is a regular one of this user's.

Another user is played by giving the functions another user id than that of the files, so that no second user is needed.
"""

import os
import re
import stat
import tempfile
from pathlib import Path

import pytest

from vjepa_bringup import private_folder
from vjepa_bringup.domains import hold_domain, running_stacks
from vjepa_bringup.private_folder import PrivateFolder, own_folder, own_folders
from vjepa_interfaces.errors import VjepaError

ME = os.getuid()
SOMEBODY = ME + 4711


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """The temporary folder, without a session."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    monkeypatch.setattr(private_folder, "SESSIONS", tmp_path / "no-sessions")
    return folder


@pytest.fixture
def session(temporary, tmp_path, monkeypatch) -> Path:
    """A session's runtime folder, beside the temporary one."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def found(uid: int = ME) -> list[Path]:
    return [folder.path for folder in own_folders(uid)]


# Which folder.


def test_the_sessions_folder_is_taken_and_made_for_this_user_alone(session):
    with own_folder() as folder:
        assert folder.path == session / "vjepa"
    assert mode(session / "vjepa") == 0o700


def test_without_a_session_it_is_in_the_temporary_folder_and_for_this_user_alone(temporary):
    with own_folder() as folder:
        assert folder.path == temporary / f"vjepa-{ME}"
    assert mode(temporary / f"vjepa-{ME}") == 0o700


def test_the_session_is_that_of_the_user_where_no_variable_names_it(temporary, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    (tmp_path / "no-sessions" / str(ME)).mkdir(parents=True, mode=0o700)
    with own_folder() as folder:
        assert folder.path == tmp_path / "no-sessions" / str(ME) / "vjepa"


@pytest.mark.parametrize("permissions", [0o755, 0o770, 0o701])
def test_a_sessions_folder_that_others_may_enter_is_not_taken(session, temporary, permissions):
    session.chmod(permissions)
    with own_folder() as folder:
        assert folder.path == temporary / f"vjepa-{ME}"
    assert mode(session) == permissions, "it is not ours to change"


def test_a_session_of_another_user_or_a_relative_path_is_not_taken(session, temporary, monkeypatch):
    with pytest.raises(VjepaError, match=re.escape(str(temporary))):  # `su` keeps the variable: not even tried.
        own_folder(SOMEBODY)
    monkeypatch.chdir(session.parent)
    monkeypatch.setenv("XDG_RUNTIME_DIR", session.name)
    with own_folder() as folder:
        assert folder.path == temporary / f"vjepa-{ME}"


def test_looking_makes_no_folder(session, temporary):
    assert found() == []
    assert [*session.iterdir(), *temporary.iterdir()] == []


def test_a_folder_that_is_not_there_can_be_looked_for_where_nothing_can_be_written(temporary, monkeypatch):
    def nowhere() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with pytest.raises(VjepaError, match="name one in TMPDIR, or a folder of your own in XDG_RUNTIME_DIR"):
        own_folder()


# Folders that are not ours.


@pytest.mark.parametrize("join", [running_stacks, lambda uid: hold_domain(None, {}, uid).__enter__()])
def test_a_folder_of_another_user_is_refused_with_its_owner_and_what_to_do(temporary, join):
    folder = temporary / f"vjepa-{SOMEBODY}"
    folder.mkdir(mode=0o700)
    (folder / "domain-90.json").write_text("theirs")
    words = rf"{folder} belongs to (user \w+ \(id {ME}\)|the user with id {ME}), not to you; have it removed, or name a"
    with pytest.raises(VjepaError, match=f"{words} folder of your own .* in XDG_RUNTIME_DIR"):
        join(SOMEBODY)
    assert (folder / "domain-90.json").read_text() == "theirs"


def test_a_folder_of_another_user_does_no_harm_where_there_is_a_session(session, temporary, monkeypatch):
    checked = PrivateFolder._check
    theirs = temporary / f"vjepa-{ME}"
    theirs.mkdir()

    def check(folder: PrivateFolder) -> None:
        folder._uid = SOMEBODY if folder.path == theirs else ME
        checked(folder)

    monkeypatch.setattr(PrivateFolder, "_check", check)
    with hold_domain(None, {}) as domain:
        assert [stack.domain for stack in running_stacks()] == [domain]
    assert list(theirs.iterdir()) == []


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_a_link_to_a_folder_is_refused_even_to_one_of_ours(temporary, tmp_path, target):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    link = temporary / f"vjepa-{ME}"
    link.symlink_to(tmp_path / target)
    for join in (own_folder, lambda: found()):
        with pytest.raises(VjepaError, match=f"{link} is a symbolic link and belongs to .*; have it removed"):
            join()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_file_in_the_folders_place_is_refused(temporary):
    (temporary / f"vjepa-{ME}").write_text("")
    with pytest.raises(VjepaError, match="is no folder and belongs to"):
        own_folder()


def test_a_folder_of_ours_that_was_open_to_others_is_closed_with_a_message(temporary, capsys):
    folder = temporary / f"vjepa-{ME}"
    folder.mkdir()
    folder.chmod(0o777)
    own_folder().close()
    assert mode(folder) == 0o700
    assert capsys.readouterr().err == (
        f"vjepa: {folder} was open to other users (mode 777); now only you can open it\n"
    )
    own_folder().close()
    assert capsys.readouterr().err == ""


def test_a_folder_that_cannot_be_closed_to_others_is_refused(temporary, monkeypatch):
    (temporary / f"vjepa-{ME}").mkdir()
    (temporary / f"vjepa-{ME}").chmod(0o750)

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refuse)
    with pytest.raises(VjepaError, match=r"open to other users \(mode 750\) and cannot be closed to them: Operation"):
        own_folder()


def test_what_is_opened_lies_in_the_folder_that_was_checked_whatever_takes_its_place(temporary, tmp_path):
    with own_folder() as folder:
        folder.path.rename(tmp_path / "moved")
        folder.path.symlink_to(tmp_path)
        folder.open("domain-1.json", create=True).close()
    assert (tmp_path / "moved" / "domain-1.json").exists()
    assert not (tmp_path / "domain-1.json").exists()


# Files in it.


def test_a_file_is_for_this_user_alone(temporary):
    with own_folder() as folder:
        folder.open("a", create=True).close()
        assert mode(folder.path / "a") == 0o600
        with pytest.raises(FileNotFoundError):
            folder.open("b")


@pytest.mark.parametrize("create", [True, False])
def test_a_file_that_is_not_plainly_ours_is_refused_and_left_as_it_is(temporary, tmp_path, create):
    with own_folder() as folder:
        (tmp_path / "mine").write_text("precious")
        os.link(tmp_path / "mine", folder.path / "linked")
        (folder.path / "symbolic").symlink_to(tmp_path / "mine")
        os.mkfifo(folder.path / "fifo")
        (folder.path / "folder").mkdir()
        for name, words in (
            ("linked", "has 2 names, of which one was expected; remove it"),
            ("symbolic", "is a symbolic link and belongs to .*; expected a file of yours; remove it"),
            ("fifo", "is no regular file; remove it"),
            ("folder", "cannot be opened: Is a directory; remove it"),
        ):
            with pytest.raises(VjepaError, match=f"{folder.path / name} {words}"):
                folder.open(name, create)
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_file_of_another_user_is_refused(temporary):
    with own_folder() as folder:
        folder.open("a", create=True).close()
        folder._uid = SOMEBODY
        with pytest.raises(VjepaError, match=f"a belongs to .*id {ME}.*, not to you; remove it"):
            folder.open("a")
