"""Stamps as integer nanoseconds, and where an episode begins.

A message caused by a frame carries that frame's stamp; latents, commands and timesteps are joined by stamp equality.
"""

from typing import Any

EPISODE_GAP_NS = 500_000_000
"""A forward gap above this (half a second) begins an episode, as does any backward stamp."""

FIRST_STAMP_NS = 1_000_000_000
"""Simulated time starts at one second: a stamp of zero means `no frame`."""

RESET_ADVANCE_NS = 1_000_000_000
"""Simulated time advances by one second at a reset, so that every consumer sees the gap."""


def to_nanoseconds(stamp: Any) -> int:
    """Return the nanoseconds of a `builtin_interfaces/Time` (rclpy's or rosbags')."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def set_stamp(stamp: Any, nanoseconds: int) -> None:
    """Write integer `nanoseconds` (>= 0) into a `builtin_interfaces/Time` message."""
    stamp.sec, stamp.nanosec = divmod(int(nanoseconds), 1_000_000_000)


def begins_episode(previous_ns: int | None, stamp_ns: int) -> bool:
    """Return whether a message stamped `stamp_ns` begins an episode after one stamped `previous_ns`.

    It does if there was no message before, if time went backwards, or after a gap of more than `EPISODE_GAP_NS`.
    An equal stamp is a repetition, never a beginning.
    """
    if previous_ns is None or stamp_ns < previous_ns:
        return True
    return stamp_ns - previous_ns > EPISODE_GAP_NS
