"""Event streams in any pieces."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plughub.protocol.sse import KEPT, SseEvent, SseOverlong, SseParser, SseTooLarge

LIMIT = 10_000


def parse(*chunks: bytes) -> list[SseEvent]:
    parser = SseParser(LIMIT)
    return [event for part in chunks for event in parser.feed(part)]


def test_a_message_of_an_mcp_server() -> None:
    assert parse(b'id: 461\nevent: message\ndata: {"id":0}\n\n') == [SseEvent(b"message", b'{"id":0}', b"461")]


def test_a_priming_event_has_an_id_and_no_text() -> None:
    parser = SseParser(LIMIT)
    assert parser.feed(b"id: 460\ndata:\nretry: 100\n\n") == [SseEvent(b"message", b"", b"460")]
    assert (parser.last_id, parser.retry_ms) == (b"460", 100)


def test_several_data_lines_become_one_text() -> None:
    assert parse(b"data: a\ndata:\ndata:  b\n\n")[0].data == b"a\n\n b"


def test_comments_and_unknown_fields_are_left_out() -> None:
    assert parse(b": keep-alive\n\nfoo: bar\nid: 1\n\ndata: x\n\n") == [SseEvent(b"message", b"x", None)]


def test_lines_without_data_are_counted() -> None:
    parser = SseParser(LIMIT)
    parser.feed(b": a\n\nevent: e\ndata: x\ndata: y\nid: 1\n\n")
    assert parser.idle_lines == 5


def test_a_byte_order_mark_counts_for_nothing() -> None:
    assert parse(b"\xef", b"\xbb\xbfdata: x\n\n")[0].data == b"x"


def test_an_id_with_a_nul_and_a_retry_with_letters_are_ignored() -> None:
    parser = SseParser(LIMIT)
    assert parser.feed(b"id: a\0b\nretry: 1s\ndata: x\n\n")[0].id is None
    assert (parser.last_id, parser.retry_ms) == (b"", None)


def test_a_carriage_return_and_its_line_feed_in_two_pieces_end_one_line() -> None:
    assert [event.data for event in parse(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n")] == [b"a\nb"]


def test_an_unfinished_event_is_not_given_out() -> None:
    assert parse(b"data: a\n") == []


def test_an_event_over_the_bound_is_refused_however_it_comes() -> None:
    for chunks in ([b"data: " + b"x" * LIMIT], [b"x"] * (LIMIT + 1), [b"data: y\n"] * LIMIT):
        with pytest.raises(SseTooLarge):
            parse(*chunks)


def test_the_bound_is_for_one_event_not_for_the_stream() -> None:
    assert len(parse(*[b"data: " + b"x" * 1000 + b"\n\n"] * 50)) == 50


def test_comments_between_events_add_up_to_nothing() -> None:
    assert parse(*[b": keep-alive\n"] * LIMIT, b"data: x\n\n") == [SseEvent(b"message", b"x", None)]


@pytest.mark.parametrize(
    "long",
    [
        [b"data: " + b"x" * LIMIT, b"yz\n", b"\n"],
        [b"data: x\n"] * LIMIT + [b"data: yz\r\n", b"\r\n"],
        [b"data: ", *[b"x"] * (2 * LIMIT), b"yz\r", b"\n\r", b"\n"],
        [b"data: " + b"x" * (LIMIT - 7) + b"\n\n"],
        [b"data: " + b"x" * (LIMIT - 9) + b"yz\n" + b"\n"],
    ],
)
def test_an_event_over_the_bound_is_skipped_where_that_is_asked_for(long: list[bytes]) -> None:
    parser = SseParser(LIMIT, skip=True)
    chunks = [b"data: a\n\nevent: e\nid: 7\n", *long, b"data: b\n\n"]
    first, skipped, last = [event for part in chunks for event in parser.feed(part)]
    assert (first.data, last) == (b"a", SseEvent(b"message", b"b", None))
    if isinstance(skipped, SseOverlong):
        assert (skipped.event, skipped.id) == (b"e", b"7")
        assert skipped.size > LIMIT
        assert len(skipped.data) <= KEPT and len(skipped.tail) <= KEPT
        assert skipped.tail.endswith((b"yz", b"x"))
    else:
        assert len(skipped.data) <= LIMIT


def oracle(stream: bytes) -> list[tuple[bytes, bytes, bytes | None]]:
    """The specification's algorithm on the whole stream at once."""
    events = []
    name, data, id_ = b"", b"", None
    lines = re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))[:-1]
    for line in lines:
        if line == b"":
            if data:
                events.append((name or b"message", data[:-1], id_))
            name, data, id_ = b"", b"", None
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value
        elif field == b"data":
            data += value + b"\n"
        elif field == b"id" and b"\0" not in value:
            id_ = value
    return events


PIECES = st.sampled_from(
    [b"data", b"event", b"id", b":", b" ", b"\r", b"\n", b"\r\n", b"x", b"\xc3\xa9", b"\0", b"\xef\xbb\xbf", b"data: y\n"]
)


@given(st.lists(PIECES, max_size=40).map(b"".join), st.lists(st.integers(0, 200), max_size=8))
def test_the_pieces_never_matter(stream: bytes, cuts: list[int]) -> None:
    at = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[start:end] for start, end in itertools.pairwise(at)]
    assert [(event.event, event.data, event.id) for event in parse(*chunks)] == oracle(stream)


@given(st.lists(PIECES.filter(lambda piece: b"\r" not in piece), max_size=40).map(b"".join), st.lists(st.integers(0, 200), max_size=8))
def test_the_pieces_never_matter_to_what_is_skipped(stream: bytes, cuts: list[int]) -> None:
    def heard(chunks: list[bytes]) -> list[tuple[bytes, bytes | None, bytes | None]]:
        parser = SseParser(16, skip=True)
        events = [event for part in chunks for event in parser.feed(part)]
        return [(event.event, None if isinstance(event, SseOverlong) else event.data, event.id) for event in events]

    at = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert heard([stream[start:end] for start, end in itertools.pairwise(at)]) == heard([stream])
