"""Of an address scheme and host are shown, whatever its maker put where; sources are read from where nobody looks."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vjepa_interfaces.address import MAX_LENGTH, read_source, shown, without_address
from vjepa_interfaces.errors import VjepaError

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("rtsp://10.0.0.7", "rtsp://10.0.0.7"),
        ("rtsp://10.0.0.7:554/live", "rtsp://10.0.0.7"),
        ("rtsp://me:hunter2@arm-cam.lab:554/live", "rtsp://arm-cam.lab"),
        ("rtsp://arm-cam/cam?user=me&pwd=hunter2", "rtsp://arm-cam"),
        ("rtsp://arm-cam/user=me_password=hunter2_channel=1", "rtsp://arm-cam"),
        ("http://arm-cam?token=hunter2", "http://arm-cam"),
        ("http://arm-cam#hunter2", "http://arm-cam"),
        ("http://[fe80::1]:80/hunter2", "http://[fe80::1]"),
        ("rtsp://me:p@hunter2@arm-cam/a", "rtsp://arm-cam"),
        ("rtsp://me:pa/hunter2@arm-cam/a", "rtsp://***"),
        ("rtsp://hunter2?x@arm-cam/a", "rtsp://***"),
        ("rtsp://me:hunter2@arm-cam:hunter2/a", "rtsp://***"),
        ("rtsp://me:hunter2", "rtsp://***"),
        ("rtsp://me hunter2/a", "rtsp://***"),
        ("rtsp://arm-cam\\hunter2", "rtsp://arm-cam"),
        ("rtsp://", "rtsp://***"),
        ("hunter2 rtsp://arm-cam/a", "***"),
        ("rtsp:/me:hunter2@arm-cam/a", "***"),
        ("rtsp:hunter2", "rtsp***"),
        ("arm-cam/user=me_password=hunter2", "arm-cam/user***"),
        ("arm-cam/cgi?pwd=hunter2", "arm-cam/cgi***"),
        ("me:hunter2@arm-cam", "***"),
        ("hunter2@arm-cam", "***"),
    ],
)
def test_of_an_address_or_what_looks_like_one_scheme_and_host_are_shown(source, expected):
    assert shown(source) == expected
    assert SECRET not in shown(source)


@pytest.mark.parametrize(
    "source",
    ["0", "/dev/video0", "/dev/v4l/by-path/pci-0000:00:14.0-usb-0:1:1.0-video-index0", "clip.mp4", "~/a b.avi"],
)
def test_devices_and_paths_are_shown_as_they_are(source):
    assert shown(source) == source


def test_a_file_that_is_there_is_no_address_whatever_its_name(tmp_path):
    path = tmp_path / "take=3@noon?.avi"
    path.touch()
    assert shown(str(path)) == str(path)


@given(
    st.sampled_from(
        ["rtsp://{}@h/a", "rtsp://me:{}@h/a", "rtsp://h/{}", "rtsp://h/?t={}", "rtsp://h/a&{}", "rtsp://h#{}"]
    ),
    st.text(min_size=1),
)
def test_no_secret_in_any_place_is_shown(form, secret):
    marked = f"<{secret}>"
    assert marked not in shown(form.format(marked))


# Messages of others.


@pytest.mark.parametrize("part", ["rtsp://me:hunter%32@h:554/live?t=a1", "hunter%32", "hunter2", "me", "live", "a1"])
def test_a_message_of_somebody_else_is_left_out_where_it_repeats_a_part_of_the_address(part):
    source = "rtsp://me:hunter%32@h:554/live?t=a1"
    assert without_address(f"cannot open {part}!", source) == "its message repeats the address and is left out"


@pytest.mark.parametrize("source", ["rtsp://h", "clip.mp4", "/dev/video0", "rtsp://me:hunter2@h/live"])
def test_a_message_that_repeats_nothing_hidden_is_kept(source):
    assert without_address(f"division by zero in {shown(source)}", source) == f"division by zero in {shown(source)}"


# References.


@pytest.mark.parametrize("source", ["0", "clip.mp4", "rtsp://me:hunter2@h/a"])
def test_what_is_no_reference_is_the_source_itself(source):
    assert read_source(source) == source


def test_a_source_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("ARM_CAMERA", " rtsp://me:hunter2@h/a\n")
    assert read_source("env:ARM_CAMERA") == "rtsp://me:hunter2@h/a"
    assert shown("env:ARM_CAMERA") == "env:ARM_CAMERA"


def test_a_source_is_read_from_a_file_anew_each_time_and_through_a_link(tmp_path, monkeypatch):
    """As secrets are mounted into containers, and exchanged."""
    (tmp_path / "version1").write_text("rtsp://me:hunter2@h/a\n")
    (tmp_path / "camera").symlink_to(tmp_path / "version1")
    source = f"@{tmp_path}/camera"
    assert read_source(source) == "rtsp://me:hunter2@h/a"
    (tmp_path / "version1").write_text("/dev/video0")
    assert read_source(source) == "/dev/video0"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_source("@~/camera") == "/dev/video0"
    assert shown(source) == source


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "env:ARM_CAMERA",
            "environment variable ARM_CAMERA, .* is not set where the node `camera` was started; export",
        ),
        ("env:", "'env:' names nothing; expected env:NAME or @PATH"),
        ("env:a b", r"'env:\*\*\*' names no environment variable; expected env:NAME"),
        ("env:rtsp://me:hunter2@h/a", r"'env:\*\*\*' names no environment variable"),
        ("@", "'@' names nothing; expected env:NAME or @PATH"),
        ("@/nowhere/camera", "file /nowhere/camera, .* cannot be read: No such file or directory; expected a file"),
        ("@rtsp://me:hunter2@h/a", r"file \*\*\*, .* cannot be read"),
        ("@a\0b", "cannot be read"),
    ],
)
def test_a_reference_to_nothing_is_refused_with_what_to_do_and_without_a_secret(source, words, monkeypatch):
    monkeypatch.delenv("ARM_CAMERA", raising=False)
    with pytest.raises(VjepaError, match=words) as refused:
        read_source(source)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("content", ["", "\n", "hunter2\nhunter2", "hunter2\x1b[0m", "hunter2" * 1000])
def test_what_is_no_single_line_is_refused_without_being_shown(content, tmp_path, monkeypatch):
    (tmp_path / "camera").write_text(content)
    monkeypatch.setenv("ARM_CAMERA", content)
    for source in (f"@{tmp_path}/camera", "env:ARM_CAMERA"):
        with pytest.raises(VjepaError, match=f"one line of at most {MAX_LENGTH}|is not set") as refused:
            read_source(source)
        assert SECRET not in str(refused.value)


def test_a_fifo_or_a_folder_in_the_place_of_a_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "."):
        with pytest.raises(VjepaError, match="is no regular file"):
            read_source(f"@{tmp_path / name}")
