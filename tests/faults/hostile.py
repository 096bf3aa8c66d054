"""Requests made to break the reader: each is a 4xx with a JSON error, at once, and costs no memory."""

import asyncio
import gzip
import itertools
import json
import time
from dataclasses import dataclass

from tests.faults.board import Board, percentile
from tests.flows.processes import resident_bytes
from tests.flows.running_hub import RunningHub

MIB = 1024 * 1024
SLOW_S = 1.0
JSON_TYPE = b"Content-Type: application/json\r\n"
END = b"0\r\n\r\n"


@dataclass(frozen=True)
class Hostile:
    """Headers and body of a request; the runner adds request line, host and key."""

    name: str
    headers: bytes
    body: bytes
    # Only where the whole body is read and understood as management JSON.
    management_only: bool = False


@dataclass(frozen=True)
class Met:
    """What came back. `status` 0: no answer; `more`: bytes after the one answer."""

    name: str
    seconds: float
    status: int
    body: bytes
    more: bytes = b""


def _sized(name: str, body: bytes, headers: bytes = b"", *, management_only: bool = False) -> Hostile:
    return Hostile(name, JSON_TYPE + headers + b"Content-Length: %d\r\n" % len(body), body, management_only)


def _chunked(name: str, body: bytes, size: int) -> Hostile:
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(body[at : at + size]), body[at : at + size]) for at in range(0, len(body), size))
    return Hostile(name, JSON_TYPE + b"Transfer-Encoding: chunked\r\n", pieces + END)


def requests() -> list[Hostile]:
    """Every kind."""
    big = b'{"a":"' + b"x" * 10_000_000 + b'"}'
    keys = b"{" + b",".join(b'"k%d":0' % number for number in range(1_000_000)) + b"}"
    some_keys = b"{" + b",".join(b'"k%d":0' % number for number in range(300_000)) + b"}"
    smuggled = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    return [
        _sized("10 MB", big),
        _chunked("10 MB in chunks", big, 65_536),
        _chunked("5 MB in chunks of 64 bytes", big[:5_000_000], 64),
        _sized("a bomb of 100 MB, gzipped", gzip.compress(b"0" * 100_000_000, 9), b"Content-Encoding: gzip\r\n"),
        _sized("arrays 100,000 deep", b"[" * 100_000 + b"]" * 100_000),
        _sized("objects 100,000 deep", b'{"a":' * 100_000 + b"0" + b"}" * 100_000),
        _sized("arrays 2,000,000 deep and open", b"[" * 2_000_000),
        _sized("1,000,000 keys", keys),
        _sized("300,000 keys", some_keys),
        _sized("NUL in a string", b'{"name":"a\\u0000b","mcp_id":"\\u0000"}', management_only=True),
        _sized("NUL as a byte", b'{"name":"a\0b"}'),
        _sized("a lone surrogate", b'{"name":"\\ud800"}', management_only=True),
        _sized("a surrogate as bytes", b'{"name":"\xed\xa0\x80"}'),
        _sized("NaN", b'{"name":NaN}'),
        _sized("Infinity", b'{"name":-Infinity}'),
        _sized("a number without an end", b'{"name":' + b"9" * 1_000_000 + b"}"),
        _sized("a doubled key", b'{"name":"a","name":"b"}'),
        _sized("a doubled key, escaped", b'{"name":"a","n\\u0061me":"b"}'),
        _sized("UTF-16", '{"name":"a"}'.encode("utf-16")),
        _sized("UTF-32", '{"name":"a"}'.encode("utf-32")),
        _sized("a byte order mark", b'\xef\xbb\xbf{"name":"a"}'),
        _sized("not UTF-8", b'{"name":"\xff\xfe"}'),
        _sized("a string without an end", b'{"a":"' + b"\\" * 2_000_001),
        _sized("100,000 open quotes", b'{"a":' + b'"' * 100_000),
        Hostile("a head of 70 KB", JSON_TYPE + b"X-Filler: " + b"y" * 70_000 + b"\r\nContent-Length: 2\r\n", b"{}"),
        Hostile("200 headers", JSON_TYPE + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + b"Content-Length: 2\r\n", b"{}"),
        Hostile("a length and chunks", JSON_TYPE + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", END + smuggled),
        Hostile("chunks and a length", JSON_TYPE + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", END + smuggled),
        Hostile("two lengths", JSON_TYPE + b"Content-Length: 0\r\nContent-Length: 44\r\n", smuggled),
        Hostile("two lengths in one", JSON_TYPE + b"Content-Length: 2, 44\r\n", b"{}" + smuggled),
        Hostile("a length below zero", JSON_TYPE + b"Content-Length: -1\r\n", smuggled),
        Hostile("a length with a sign", JSON_TYPE + b"Content-Length: +2\r\n", b"{}" + smuggled),
        Hostile("a length of letters", JSON_TYPE + b"Content-Length: two\r\n", b"{}"),
        Hostile("a length of 30 digits", JSON_TYPE + b"Content-Length: " + b"9" * 30 + b"\r\n", b"{}"),
        Hostile("a coding of no name", JSON_TYPE + b"Transfer-Encoding: xchunked\r\n", END + smuggled),
        Hostile("chunked and more", JSON_TYPE + b"Transfer-Encoding: chunked, identity\r\n", END + smuggled),
        Hostile("a chunk of no size", JSON_TYPE + b"Transfer-Encoding: chunked\r\n", b"zz\r\n{}\r\n" + END),
        Hostile("a chunk without an end", JSON_TYPE + b"Transfer-Encoding: chunked\r\n", b"f" * 20 + b"\r\n{}"),
        Hostile("a header without a name", JSON_TYPE + b": x\r\nContent-Length: 2\r\n", b"{}"),
        Hostile("NUL in a header", JSON_TYPE + b"X-A: a\0b\r\nContent-Length: 2\r\n", b"{}"),
        Hostile("a header with a space", JSON_TYPE + b"Content-Length : 44\r\n", smuggled),
    ]


async def run(hub: RunningHub, board: Board, *, full: bool) -> None:
    """Every kind at every door, eight at once."""
    cases = 2000 if full else 320
    demo = hub.demo()["uuid"]
    doors = ["/api/servers", f"/api/servers/{demo}/tools/echo/execute", "/v1/mcp/invoke", "/mcp"]
    pairs = [(door, one) for door in doors for one in requests() if not one.management_only or door == doors[0]]
    host, port = hub.url.removeprefix("http://").split(":")
    for door, one in pairs[::7]:  # pools and buffers exist from here on
        await _send(host, int(port), door, hub.key, one)
    before = resident_bytes(hub.process.pid)
    queue, met = itertools.islice(itertools.cycle(pairs), cases), []

    async def work() -> None:
        for door, one in queue:
            met.append(await _send(host, int(port), door, hub.key, one))

    await asyncio.gather(*(work() for _ in range(8)))
    board.note("cases", f"{len(met)} of {len(pairs)}, p99 {percentile([one.seconds for one in met], 0.99) * 1000:.0f} ms")
    board.none("answers of 500 and above", [one for one in met if one.status >= 500])
    board.none("answers that were no 4xx with a JSON error", [one for one in met if not _refused(one)])
    board.none("requests smuggled behind another", [one for one in met if b"HTTP/1.1" in one.more])
    board.none(f"answers after more than {SLOW_S:g} s", [(one.name, one.seconds) for one in met if one.seconds > SLOW_S])
    board.at_most("memory more than before", (resident_bytes(hub.process.pid) - before) / MIB, 64, " MB")
    board.none("calls that fail afterwards", [] if hub.execute(hub.demo(), "echo", {"text": "a"}).status_code == 200 else ["echo"])


def _refused(met: Met) -> bool:
    if not 400 <= met.status < 500:
        return False
    try:
        return "error" in json.loads(met.body)
    except ValueError:
        return False


async def _send(host: str, port: int, path: str, key: str, one: Hostile) -> Met:
    """Send it and read until the hub closes, or has said one whole answer and then nothing for a moment."""
    reader, writer = await asyncio.open_connection(host, port, limit=MIB)
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n" % (path.encode(), key.encode())
    began = time.monotonic()
    sending = asyncio.create_task(_write(writer, head + one.headers + b"\r\n" + one.body))
    try:
        status, body = await asyncio.wait_for(_answer(reader), 10)
        seconds, more = time.monotonic() - began, b""
        try:
            more = await asyncio.wait_for(reader.read(4096), 0.05)
        except TimeoutError:
            pass
        return Met(f"{one.name} at {path}", seconds, status, body, more)
    except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError) as error:
        return Met(f"{one.name} at {path}", time.monotonic() - began, 0, repr(error).encode())
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    try:
        writer.write(data)
        await writer.drain()
    except OSError:
        pass  # the hub has answered and closed before it had read everything


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    return int(head.split(b" ", 2)[1]), await reader.readexactly(length)
