"""JSON files: of a name that stands twice none is dropped unread."""

import pytest

from vjepa_interfaces.bundle import BundleError, read_bundle
from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.json_text import MAX_BYTES, parse_json, read_json, write_json


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '[{"b": {"x": 0, "a": 1, "a": 2}}]', '{"a": 1, "\\u0061": 2}'])
def test_a_name_that_stands_twice_in_an_object_is_refused(text):
    with pytest.raises(ValueError, match="'a' stands twice in the same object"):
        parse_json(text)


def test_the_same_name_in_different_objects_is_no_repetition():
    assert parse_json('{"a": {"a": [{"a": 1}, {"a": 2}]}, "b": null}') == {"a": {"a": [{"a": 1}, {"a": 2}]}, "b": None}


def test_a_bundle_whose_config_has_a_name_twice_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text('{"kind": "encoder", "clip_frames": 8, "clip_frames": 16}')
    with pytest.raises(BundleError, match=r"config\.json is not readable JSON: 'clip_frames' stands twice"):
        read_bundle(tmp_path, "encoder")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "Expecting value"),
        (b"[1]", "it holds a list; expected a JSON object"),
        (b'{"a": "\xff"}', "can't decode byte 0xff"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b"{}" + b" " * MAX_BYTES, f"expected at most {MAX_BYTES} bytes"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused_with_the_cause_and_what_to_do(tmp_path, content, found):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(BundleError, match=rf"{tmp_path}/file\.json is not readable JSON: .*{found}.*; remove it$"):
        read_json(tmp_path / "file.json", BundleError, "remove it")


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(VjepaError, match=r"No such file or directory: .*file\.json'$"):
        read_json(tmp_path / "file.json")


def test_what_was_written_is_read(tmp_path):
    write_json(tmp_path / "new" / "file.json", {"b": [1.5, None], "a": "ü"})
    assert read_json(tmp_path / "new" / "file.json") == {"a": "ü", "b": [1.5, None]}
