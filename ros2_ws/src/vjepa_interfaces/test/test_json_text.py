"""JSON files: of a name that stands twice none is dropped unread."""

import pytest

from vjepa_interfaces.bundle import BundleError, read_bundle
from vjepa_interfaces.json_text import parse_json


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
