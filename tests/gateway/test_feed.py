"""Frames on their way to a client that reads slowly."""

from plughub.gateway.streams import MAX_WAITING, MAX_WAITING_BYTES, Feed, OpenStreams
from plughub.kit.clock import SystemClock


def test_a_slow_reader_misses_advice_and_never_a_question() -> None:
    feed = Feed("key", OpenStreams(SystemClock()), resting=False)
    for _ in range(MAX_WAITING + 5):
        feed.push(b"progress ")
    feed.push(b"question", needed=True)
    assert feed.take() == b"progress " * MAX_WAITING + b"question"
    assert feed.dropped == 5
    feed.push(b"x" * (MAX_WAITING_BYTES + 1))
    assert feed.take() == b""
    feed.push(b"x" * (MAX_WAITING_BYTES + 1), needed=True)
    assert len(feed.take()) == MAX_WAITING_BYTES + 1
