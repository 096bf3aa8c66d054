"""Responses in any pieces, judged against another HTTP implementation."""

import asyncio
import itertools
from typing import Any

import anyio
import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plughub.kit.errors import UpstreamUnreachable
from plughub.upstream.http_connection import MAX_HEAD_BYTES, Exchange, HttpConnection

LIMIT = 100_000


class Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.paused = False

    def write(self, data: Any) -> None:
        pass

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_closing(self) -> bool:
        return self.closed


class FreeConnections:
    """Takes back what is free, and no more."""

    def __init__(self) -> None:
        self.free: list[HttpConnection] = []

    def time(self) -> float:
        return 0.0

    def spend(self, noise: int) -> float:
        return 0.0

    def give_back(self, connection: HttpConnection) -> None:
        self.free.append(connection)

    def lost(self, connection: HttpConnection) -> None:
        pass


def read(chunks: list[bytes], end: bool) -> tuple[Exchange, FreeConnections]:
    """Let a connection with one request under way receive the chunks, and then the end of the stream."""
    pool = FreeConnections()
    connection = HttpConnection(pool, LIMIT)
    connection.connection_made(Wire())
    loop = asyncio.new_event_loop()
    try:
        exchange = Exchange(loop.create_future(), lambda exchange, event: None)
        connection.send(exchange, b"")
        for chunk in chunks:
            if not connection.transport.is_closing():  # type: ignore[union-attr]
                connection.data_received(chunk)
        if end:
            connection.connection_lost(None)
    finally:
        loop.close()
    return exchange, pool


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(at) if start < end]


def oracle(data: bytes) -> tuple[int, bytes] | None:
    """Status and body as h11 reads them, the stream ended after the data; None when it refuses or wants more."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method="POST", target="/", headers=[("Host", "a"), ("Content-Length", "0")]))
    parser.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        parser.receive_data(data)
        parser.receive_data(b"")
        while True:
            event = parser.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return status, body
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None


HEADERS = st.lists(
    st.sampled_from([b"X-A: 1", b"Content-Type: application/json", b"x-empty:", b"Keep-Alive: timeout=5", b"Mcp-Session-Id: s"]), max_size=3
)


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    body = draw(st.binary(max_size=200))
    lines = [b"HTTP/1.1 %d OK" % draw(st.sampled_from([200, 201, 202, 400, 404, 500])), *draw(HEADERS)]
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    if framing == "length":
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        size = draw(st.integers(1, 50))
        parts = [body[start : start + size] for start in range(0, len(body), size)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    head = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"]))
    return head + b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.mark.requirement("upstream.http-parser-oracle")
@given(responses(), st.lists(st.integers(0, 400), max_size=6))
def test_a_good_response_reads_as_h11_reads_it_in_any_pieces(data: bytes, cuts: list[int]) -> None:
    expected = oracle(data)
    assert expected is not None
    exchange, _ = read(pieces(data, cuts), end=True)
    assert exchange.done.exception() is None
    assert (exchange.status, b"".join(exchange.body)) == expected


@pytest.mark.requirement("upstream.http-parser-oracle")
@given(
    responses(),
    st.integers(0, 400),
    st.sampled_from([b"", b"\0", b"\r", b"\n", b" ", b"x", b"999", b"\xff"]),
    st.lists(st.integers(0, 400), max_size=3),
)
def test_a_damaged_response_is_refused_or_reads_as_h11_reads_it(data: bytes, at: int, junk: bytes, cuts: list[int]) -> None:
    """Never another body than h11's: what we take further than h11 does must be nothing but an error."""
    damaged = data[:at] + junk + data[at + 1 :]
    exchange, _ = read(pieces(damaged, cuts), end=True)
    assert exchange.done.done()
    expected = oracle(damaged)
    if exchange.done.exception() is None and expected is not None:
        assert (exchange.status, b"".join(exchange.body)) == expected
    if exchange.done.exception() is not None:
        assert isinstance(exchange.done.exception(), UpstreamUnreachable)


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_any_bytes_are_an_answer_or_an_error(chunks: list[bytes]) -> None:
    exchange, _ = read(chunks, end=True)
    assert exchange.done.done()
    exchange.done.exception()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", "compressed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * (LIMIT + 1), "larger than 100000 bytes"),
        (b"HTTP/1.1 200 OK\r\nX-A: " + b"x" * MAX_HEAD_BYTES + b"\r\n", "headers are larger"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: " + b"x" * LIMIT, "an event is larger"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nPRI", "cannot be read"),
    ],
)
def test_what_is_no_usable_response_says_why(data: bytes, words: str) -> None:
    exchange, pool = read(pieces(data, list(range(0, len(data), 10_000))), end=False)
    error = exchange.done.exception()
    assert isinstance(error, UpstreamUnreachable) and words in error.reason
    assert error.executed == "unknown"
    assert pool.free == []


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
    ],
)
def test_a_connection_is_kept_when_the_response_allows_it(data: bytes, kept: bool) -> None:
    exchange, pool = read([data], end=False)
    assert exchange.done.done() and bool(pool.free) == kept


def test_bytes_after_the_response_never_become_the_next_answer() -> None:
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    _, pool = read([response, response], end=False)
    assert pool.free[0].transport is not None and pool.free[0].transport.is_closing()
    _, pool = read([response + response], end=False)
    assert not pool.free or (pool.free[0].transport is not None and pool.free[0].transport.is_closing())


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + b"".join(b"data: %d\n\n" % number for number in range(2000))


def streaming() -> tuple[HttpConnection, Wire, Exchange, list[bytes]]:
    """A connection that has received a whole stream at once."""
    heard: list[bytes] = []
    connection, wire = HttpConnection(FreeConnections(), LIMIT), Wire()
    connection.connection_made(wire)
    exchange = Exchange(asyncio.get_running_loop().create_future(), lambda exchange, event: heard.append(event.data))
    connection.send(exchange, b"")
    connection.data_received(STREAM)
    return connection, wire, exchange, heard


@pytest.mark.anyio
async def test_a_long_stream_is_read_in_turns_and_in_order() -> None:
    connection, wire, _, heard = streaming()
    assert wire.paused and len(heard) < 1000
    connection.data_received(b"data: late\n\n")  # as TLS may do after it was paused
    turns = 0
    while wire.paused:
        before = len(heard)
        await anyio.lowlevel.checkpoint()
        assert len(heard) - before < 1000
        turns += 1
    assert heard == [*(b"%d" % number for number in range(2000)), b"late"] and turns > 3


@pytest.mark.anyio
async def test_a_connection_that_ends_between_two_turns_loses_nothing() -> None:
    connection, _, exchange, heard = streaming()
    connection.connection_lost(None)
    assert len(heard) == 2000 and exchange.done.done() and exchange.done.exception() is None
    await anyio.lowlevel.checkpoint()
    assert len(heard) == 2000


@pytest.mark.anyio
async def test_a_stream_that_is_given_up_between_two_turns_is_not_read_on() -> None:
    _, wire, exchange, heard = streaming()
    exchange.release()
    before = len(heard)
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
    assert len(heard) == before and wire.closed
