"""Whatever is done to a bag, the messages read and those named as lost are the messages written."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.bag_recipes import READERS, account, entries
from tests.foreign_bags import COMMAND, write_mcap

QUICK = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("reader", READERS)
@QUICK
@given(recipe=st.binary(min_size=0, max_size=48))
def test_every_message_is_read_or_named(reader, recipe, tmp_path_factory):
    READERS[reader](tmp_path_factory.mktemp("bag"), recipe)


def test_the_account_finds_a_message_that_nobody_names(tmp_path):
    from collections import Counter

    found = entries()
    written = Counter(topic for topic, _, _ in found)
    file = write_mcap(tmp_path / "b.mcap", found[:-1])
    with pytest.raises(AssertionError, match=f"1 messages on {COMMAND} lost without a word"):
        account(file, written)
