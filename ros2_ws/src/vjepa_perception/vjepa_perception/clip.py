"""The sliding clip that an encoder sees: one buffer, used live and offline alike."""

from collections import deque
from typing import Any

from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.stamps import begins_episode


class ClipBuffer:
    """The last `length` frames of an episode, oldest first.

    At an episode's start (see `stamps.begins_episode`) the clip is the first frame repeated. So the first frame already
    has a latent, and no latent contains another episode. Frames may be any objects; the buffer only stores them.
    """

    def __init__(self, length: int):
        if length < 1:
            raise VjepaError(f"a clip of {length} frames is none; expected at least 1")
        self._length = length
        self._frames: deque[Any] = deque(maxlen=length)
        self._stamp_ns: int | None = None

    @property
    def frames(self) -> tuple[Any, ...]:
        """The clip, oldest frame first; empty before the first frame."""
        return tuple(self._frames)

    def push(self, stamp_ns: int, frame: Any) -> tuple[Any, ...]:
        """Add the `frame` stamped `stamp_ns` (nanoseconds) and return the clip that ends with it.

        A stamp equal to the last one is a repetition: the clip stays unchanged.
        """
        if begins_episode(self._stamp_ns, stamp_ns):
            self._frames.extend([frame] * self._length)
        elif stamp_ns != self._stamp_ns:
            self._frames.append(frame)
        self._stamp_ns = stamp_ns
        return self.frames
