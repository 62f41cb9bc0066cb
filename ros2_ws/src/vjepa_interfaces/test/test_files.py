"""Files that are there whole or not at all."""

import os
import stat
import threading

import pytest

from vjepa_interfaces.files import atomic_file, write_atomically


def test_a_file_is_written_with_its_folder_and_the_mode_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    file = tmp_path / "new" / "folder" / "file.json"
    write_atomically(file, "ü\n")
    assert file.read_bytes() == "ü\n".encode()
    assert file.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_file_before_it_and_nothing_else(tmp_path, kind):
    file = tmp_path / "file.npy"
    write_atomically(file, b"before")

    def write_half() -> None:
        with atomic_file(file) as temporary:
            temporary.write_bytes(b"half")
            raise kind

    with pytest.raises(kind):
        write_half()
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_in_the_way_leaves_no_temporary_file(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file"):
        write_atomically(tmp_path / "file", b"content")
    assert not list((tmp_path / "file").iterdir())


def test_two_writers_at_a_time_do_not_share_a_temporary_file(tmp_path):
    with atomic_file(tmp_path / "a.npy") as first, atomic_file(tmp_path / "a.npy") as second:
        assert first != second
        assert first.suffix == second.suffix == ".npy"
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_atomically(pipe, b"content")
    reader.join(10)
    assert read == [b"content"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_link_stays_one_and_its_target_is_written(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomically(tmp_path / "link", b"content")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"content"
