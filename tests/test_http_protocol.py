"""The bounds of a connection below HTTP: what it may cost before anybody is known, and how long it may take."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from plughub.http_protocol import MAX_HEAD_BYTES, MAX_HEADERS, Protocol, protocol_of
from plughub.settings import Settings

pytestmark = pytest.mark.anyio
HEAD = b"POST /x HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Echo:
    """Answers with the length of the body; notes how each request ended, and waits for `go` when the path is /wait."""

    def __init__(self) -> None:
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, more = 0, scope["path"] != "/early"
        self.begun.set()
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.ended.put_nowait("gone")
                return
            size, more = size + len(message["body"]), message["more_body"]
        if scope["path"] == "/wait":
            await self.go.wait()
        body = b"%d" % size
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
        self.ended.put_nowait("answered")


Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def listening(app: Echo, timeout_s: float = 20.0) -> AsyncIterator[Callable[[], "asyncio.Future[Client]"]]:
    config, state = uvicorn.Config(app, ws="none", log_config=None, timeout_keep_alive=20), ServerState()
    made = protocol_of(timeout_s)
    loop = asyncio.get_running_loop()
    writers: list[asyncio.StreamWriter] = []
    server = await loop.create_server(lambda: made(config=config, server_state=state, app_state={}), "127.0.0.1", 0)

    async def connect() -> Client:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writers.append(writer)
        return reader, writer

    try:
        with anyio.fail_after(15):
            yield lambda: asyncio.ensure_future(connect())
    finally:
        for writer in writers:
            writer.close()
        for connection in list(state.connections):
            connection.transport.abort()
        server.close()
        await server.wait_closed()


async def rest(client: Client) -> bytes:
    """All that comes until the connection is closed."""
    try:
        return await client[0].read()
    except ConnectionResetError:
        return b""


def error_of(answer: bytes, status: bytes) -> dict[str, object]:
    """The error object of a refusal, after a look at its form."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status), answer[:200]
    assert b"content-type: application/json\r\n" in head + b"\r\n" and b"connection: close" in head
    parsed = json.loads(body)
    assert parsed["message"] == parsed["error"]["message"]
    assert parsed["error"]["details"]["hint"]
    error: dict[str, object] = parsed["error"]
    return error


@pytest.mark.requirement("http.slow-requests-end")
@pytest.mark.parametrize("sent", [b"", b"GET /x HT", HEAD, HEAD + b"Content-Length: 5\r\n\r\n", b"\r\n\r\n"])
async def test_a_request_that_is_never_complete_ends_its_connection(sent: bytes) -> None:
    app = Echo()
    async with listening(app, timeout_s=0.2) as connect:
        client = await connect()
        client[1].write(sent)
        assert await rest(client) == b""
        if sent.endswith(b"5\r\n\r\n"):
            assert await app.ended.get() == "gone"


@pytest.mark.requirement("http.slow-requests-end")
async def test_bytes_that_trickle_in_buy_no_time() -> None:
    app = Echo()
    async with listening(app, timeout_s=0.2) as connect:
        client = await connect()
        client[1].write(HEAD + b"Content-Length: 1000000\r\n\r\n")
        while True:
            with anyio.move_on_after(0.02):
                assert await app.ended.get() == "gone"
                break
            client[1].write(b"x")


@pytest.mark.requirement("documents.upload")
async def test_a_large_body_has_the_time_of_a_slow_line_unless_it_was_answered_before() -> None:
    app = Echo()
    async with listening(app, timeout_s=0.2) as connect:
        large, early, small = await connect(), await connect(), await connect()
        large[1].write(HEAD + b"Content-Length: 10000000\r\n\r\n" + bytes(10))
        early[1].write(HEAD.replace(b"/x", b"/early") + b"Content-Length: 10000000\r\n\r\n" + bytes(10))
        small[1].write(HEAD + b"Content-Length: 100\r\n\r\n" + bytes(10))
        assert await rest(small) == b""
        assert (await rest(early)).endswith(b"\r\n\r\n0")
        large[1].write(bytes(10_000_000 - 10))
        assert (await large[0].readuntil(b"10000000")).startswith(b"HTTP/1.1 200")


async def test_a_body_that_goes_on_after_its_answer_ends_as_well() -> None:
    async with listening(Echo(), timeout_s=0.2) as connect:
        client = await connect()
        client[1].write(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        assert (await rest(client)).startswith(b"HTTP/1.1 200")


async def test_running_and_resting_connections_are_left_alone() -> None:
    app = Echo()
    async with listening(app, timeout_s=0.1) as connect:
        client, late = await connect(), await connect()
        client[1].write(b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na")
        await app.begun.wait()
        assert await rest(late) == b""  # the time is over for a connection that came later
        again = await connect()
        assert await rest(again) == b""
        app.go.set()
        assert (await client[0].readuntil(b"\r\n\r\n1")).startswith(b"HTTP/1.1 200")
        third = await connect()
        assert await rest(third) == b""  # between requests uvicorn's keep-alive counts
        client[1].write(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await rest(client)).endswith(b"\r\n\r\n0")


@pytest.mark.requirement("http.heads-are-bounded")
@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        HEAD + b"X: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n",
        HEAD + b"X: " + b"a" * 3_000_000,
        HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(MAX_HEADERS)) + b"\r\n",
        HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(100_000)),
    ],
    ids=["path", "value", "endless value", "many", "endlessly many"],
)
async def test_a_head_over_the_limit_is_a_431(head: bytes) -> None:
    app = Echo()
    async with listening(app) as connect:
        client = await connect()
        client[1].write(head)
        error = error_of(await rest(client), b"431 ")
        assert error["code"] == "INVALID_PARAMETER" and not app.begun.is_set()


@pytest.mark.requirement("http.heads-are-bounded")
async def test_a_flood_ends_when_nobody_reads_the_refusal() -> None:
    async with listening(Echo()) as connect:
        _, writer = await connect()
        writer.write(HEAD)
        sent = 0
        with pytest.raises(ConnectionError):
            while True:
                writer.write(b"X: " + b"a" * 60_000)
                await writer.drain()
                sent += 60_000
        assert sent < 20_000_000


async def test_a_head_within_the_limit_may_come_in_pieces() -> None:
    async with listening(Echo()) as connect:
        reader, writer = await connect()
        head = HEAD + b"".join(b"X-%d: %b\r\n" % (n, b"a" * 500) for n in range(MAX_HEADERS - 2)) + b"Content-Length: 3\r\n\r\n"
        for begin in range(0, len(head), 7000):
            writer.write(head[begin : begin + 7000])
            await writer.drain()
            await anyio.lowlevel.checkpoint()
        writer.write(b"abc" + HEAD + b"Content-Length: 200000\r\nConnection: close\r\n\r\n" + b"b" * 200_000)
        answers = await rest((reader, writer))
        assert answers.count(b"HTTP/1.1 200") == 2 and answers.endswith(b"\r\n\r\n200000")


@pytest.mark.requirement("http.heads-are-bounded")
async def test_endless_trailers_are_refused() -> None:
    async with listening(Echo()) as connect:
        client = await connect()
        client[1].write(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(100_000))
        )
        error_of(await rest(client), b"431 ")


@pytest.mark.requirement("http.parser-errors-are-json")
@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        HEAD + b"X: a\0b\r\n\r\n",
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        HEAD + b"Content-Length: -2\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_400_in_json(sent: bytes) -> None:
    async with listening(Echo()) as connect:
        client = await connect()
        client[1].write(sent)
        error = error_of(await rest(client), b"400 ")
        assert error["code"] == "INVALID_PARAMETER" and error["message"] == "Invalid HTTP request received"


async def test_garbage_behind_a_running_request_does_not_get_into_its_answer() -> None:
    app = Echo()
    async with listening(app) as connect:
        client = await connect()
        client[1].write(b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na")
        await app.begun.wait()
        client[1].write(b"GARBAGE\r\n\r\n")
        assert await rest(client) == b""
        app.go.set()


def test_the_time_of_a_connection_is_a_setting() -> None:
    assert (protocol_of(7.0).request_timeout_s, protocol_of(7.0).head_timeout_s) == (7.0, 3.5)
    assert (protocol_of(300.0).request_timeout_s, protocol_of(300.0).head_timeout_s) == (300.0, 15.0)
    assert Protocol.request_timeout_s == Settings().request_timeout_s == 30.0
