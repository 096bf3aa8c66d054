"""The proxy in front of the hub: one header more, and not a byte else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
import pytest

from tests.conformance.shim import Shim
from tests.fakes.http_servers import SSE_HEAD, Answerer, HttpServer, Seen, chunk, reply

pytestmark = pytest.mark.anyio

KEY = "sk_live_ph_x"
ODD = b"HTTP/1.1 418 Short and stout\r\nmcp-session-id: a b\r\nX-Twice: 1\r\nx-twice: 2\r\nContent-Length: 3\r\n\r\n\x00\xff\n"


@asynccontextmanager
async def between(answer: Answerer) -> AsyncIterator[tuple[HttpServer, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A server, and a client's connection to it through the shim."""
    async with HttpServer(answer) as server:
        shim = Shim(server.url, KEY)
        with anyio.fail_after(10):
            async with shim.listening():
                reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(shim.url).port)
                yield server, reader, writer
                writer.close()


async def whatever(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
    return reply(200, b"{}")


@pytest.mark.requirement("conformance.shim-is-transparent")
async def test_each_request_gets_the_key_and_arrives_otherwise_as_sent() -> None:
    evil = b"Host: evil.example.com\r\nOrigin: http://evil.example.com\r\nMcp-Name:   x  \r\n"
    chunks = b"3;x=y\r\nabc\r\n2\r\n\r\n\r\n0\r\n\r\n"
    requests = [
        b"POST /a HTTP/1.1\r\n" + evil + b"Content-Length: 5\r\n\r\nh\r\n\r\n",
        b"POST /b?c=d HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
        b"GET /e HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 7\r\n\r\n",
        b"DELETE /f HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ]
    async with between(whatever) as (server, reader, writer):
        for request in requests:
            writer.write(request)
            await reader.readuntil(b"{}")
    assert [(seen.method, seen.target, seen.body) for seen in server.seen] == [
        ("POST", "/a", b"h\r\n\r\n"),
        ("POST", "/b?c=d", b"abc\r\n"),
        ("GET", "/e", b""),
        ("DELETE", "/f", b""),
    ]
    assert {seen.header("authorization") for seen in server.seen} == {f"Bearer {KEY}"}
    assert server.seen[0].headers[:-1] == [
        ("host", "evil.example.com"),
        ("origin", "http://evil.example.com"),
        ("mcp-name", "x"),
        ("content-length", "5"),
    ]


@pytest.mark.requirement("conformance.shim-is-transparent")
async def test_answers_come_back_byte_for_byte() -> None:
    async def odd(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        return ODD

    async with between(odd) as (_, reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await reader.readexactly(len(ODD)) == ODD


@pytest.mark.requirement("conformance.shim-is-transparent")
async def test_a_frame_arrives_while_the_stream_goes_on_and_a_client_that_goes_is_gone_upstream() -> None:
    frame = chunk(b'event: message\ndata: {"jsonrpc":"2.0"}\n\n')

    async def stream(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        writer.write(SSE_HEAD + frame)
        await writer.drain()
        await asyncio.Event().wait()
        return None

    async with between(stream) as (server, reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
        assert (await reader.readuntil(frame)).startswith(b"HTTP/1.1 200 OK")
        assert server.closed == []
        writer.close()
        await server.until(lambda: server.closed == [1])


async def test_what_the_server_sent_before_it_hung_up_still_arrives() -> None:
    long = b"x" * 1_000_000

    async def last_words(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + long)
        await writer.drain()
        writer.close()
        return None

    async with between(last_words) as (_, reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.read()).endswith(long)


async def test_a_server_that_is_not_there_ends_the_connection() -> None:
    async with HttpServer(whatever) as gone:
        url = gone.url
    shim = Shim(url, KEY)
    with anyio.fail_after(10):
        async with shim.listening():
            reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(shim.url).port)
            assert await reader.read() == b""
            writer.close()
