"""The base class of nodes: what its processes print."""

import warnings

from vjepa_interfaces.managed_node import ignore_lost_responses

LOST = "failed to send response (timeout): client will not receive response, at rmw_response.cpp:153"


def test_a_response_that_nobody_waits_for_any_more_is_no_warning():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn(LOST, RuntimeWarning, stacklevel=1)
        ignore_lost_responses()
        warnings.warn(LOST, RuntimeWarning, stacklevel=1)
        warnings.warn("another one", RuntimeWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == [LOST, "another one"]
