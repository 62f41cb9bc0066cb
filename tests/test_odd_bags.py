"""Bags that are odd in one place: that place is named with its count, and it costs no more than itself."""

import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from mcap.opcode import Opcode

from tests.bag_recipes import records
from tests.foreign_bags import (
    CAMERA,
    COMMAND,
    JOINTS,
    MS,
    SECOND,
    STORE,
    T0,
    arm,
    build,
    commands,
    frames,
    header,
    image,
    in_order,
    joint_state,
    refused,
    run,
    write_mcap,
    write_metadata,
    write_sqlite,
)
from vjepa_interfaces.errors import VjepaError
from vjepa_training.bag_reader import Bag, BagError, topic_names

ROWS = 90


def folder_of(path: Path, entries=None, **metadata) -> Path:
    """Write a bag of one file with metadata.yaml."""
    path.mkdir()
    entries = run() if entries is None else entries
    write_mcap(path / "b_0.mcap", entries)
    write_metadata(path, ["b_0.mcap"], entries, **metadata)
    return path


# ------------------------------------------------------------------------------------------------------ metadata.yaml


def test_the_count_of_each_file_in_metadata_is_compared(tmp_path):
    stated = [{"path": "b_0.mcap", "message_count": len(run()) + 7}]
    bag = folder_of(tmp_path / "b", files=stated)
    dataset, faults = build(bag)
    assert len(dataset) == ROWS
    assert faults == {f"{len(run())} messages in file 'b_0.mcap', {len(run()) + 7} stated by metadata.yaml": 7}
    assert refused(bag)


def test_a_name_that_stands_twice_in_metadata_is_named_and_the_files_are_read(tmp_path):
    bag = folder_of(tmp_path / "b")
    text = (bag / "metadata.yaml").read_text()
    (bag / "metadata.yaml").write_text(text + "  topics_with_message_count: []\n")
    dataset, faults = build(bag)
    assert len(dataset) == ROWS
    (fault,) = faults
    assert fault.startswith("metadata.yaml cannot be read ('topics_with_message_count' stands twice, in lines ")


@pytest.mark.parametrize("closed", [False, "false"])
def test_a_bag_that_was_not_closed_is_named_however_its_metadata_writes_it(closed, tmp_path):
    _, faults = build(folder_of(tmp_path / "b", custom_data={"closed": closed}))
    assert faults == {"recorder killed before it closed the bag": 1}


@pytest.mark.parametrize("what", ["total", "channel"])
def test_the_statistics_of_a_file_are_compared_in_all_and_by_channel(what, tmp_path):
    bag = write_mcap(tmp_path / "b.mcap", run())
    data = bytearray(bag.read_bytes())
    ((place, length),) = records(data, Opcode.STATISTICS)
    count = place if what == "total" else place + length - 8
    struct.pack_into("<Q", data, count, struct.unpack_from("<Q", data, count)[0] + 9)
    bag.write_bytes(data)
    dataset, faults = build(bag)
    assert len(dataset) == ROWS
    (fault,) = faults
    topic = "all topics" if what == "total" else COMMAND
    assert fault.startswith(f"fewer messages on {topic} than the statistics of b.mcap states (")
    assert faults[fault] == 9
    assert refused(bag)
