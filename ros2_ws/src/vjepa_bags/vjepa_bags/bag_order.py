"""Merge the messages of all files of a bag in the order of their times."""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from vjepa_bags.bag_source import Source
from vjepa_interfaces.errors import VjepaError

Message = tuple[str, int, bytes]


def in_order_of_time(sources: Iterable[Source], wanted: Mapping[str, str], faults: Counter[str]) -> Iterator[Message]:
    """Yield topic, time (ns) and contents of the messages of all files, in the order of their times.

    A file is opened at the time of its first message, so only one of several consecutive files is open at a time.

    Args:
        sources: the files, in any order.
        wanted: type of the messages to read, by the absolute name of their topic in the bag.
        faults: counter of unreadable parts, in words; increased.
    """
    later = sorted(sources, key=lambda source: source.start_ns)[::-1]
    opened: list[tuple[int, int, Message, Iterator[Message]]] = []  # Time, number of the file, its next message.

    def push(number: int, messages: Iterator[Message]) -> None:
        message = next(messages, None)
        if message is not None:
            heapq.heappush(opened, (message[1], number, message, messages))

    number = 0
    while later or opened:
        while later and (not opened or later[-1].start_ns <= opened[0][0]):
            push(number, _read(later.pop(), wanted, faults))
            number += 1
        if opened:
            _, own, message, messages = heapq.heappop(opened)
            yield message
            push(own, messages)


def _read(source: Source, wanted: Mapping[str, str], faults: Counter[str]) -> Iterator[Message]:
    """Yield the messages of one file up to its end or to its first unreadable part."""
    try:
        yield from source.messages(wanted, faults)
    except (VjepaError, OSError) as error:
        faults[f"damaged: nothing read from there on ({str(error).splitlines()[0]})"] += 1
