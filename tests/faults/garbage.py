"""Servers that send what they must not: each call ends in a defined error for its caller alone, and the hub stays as it is."""

import asyncio
import itertools
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.fakes.http_servers import SSE_HEAD, HttpServer, Mcp, Seen, chunk, reply, text_message
from tests.faults.board import Board
from tests.faults.load import Call, Caller, Done
from tests.faults.upstreams import with_tools
from tests.flows.processes import resident_bytes
from tests.flows.running_hub import RunningHub

FAKE = str(Path(__file__).resolve().parents[1] / "fakes" / "bad_stdio.py")
TIMEOUT_MS, MIB = 700, 1024 * 1024
# What the neighbour's caller may wait while others get garbage.
NEIGHBOUR_S = 2.0
STDIO = ("wrong-id", "doubled-id", "huge-line", "invalid-utf8", "broken-json", "dies", "never-answers", "garbage", "endless-stderr")
AT_START = ("exits", "silent", "garbage-only")
# These misbehave beside their answers, which must come through.
ANSWERED = ("doubled-id", "garbage", "endless-stderr")
Answer = Callable[[Seen, asyncio.StreamWriter], Awaitable[bytes | None]]


def _plain(body: bytes, status: int = 200, kind: str = "application/json") -> Answer:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        return reply(status, body.replace(b"ID", json.dumps(seen.json["id"]).encode()), kind)

    return answer


def _raw(data: bytes) -> Answer:
    """Bytes as they are, and the end of the connection."""

    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        writer.write(data)
        await writer.drain()
        writer.close()
        return None

    return answer


async def _drip(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
    """A good answer at one byte a tenth of a second: never there in time."""
    loop, turn = asyncio.get_running_loop(), asyncio.Event()
    for byte in reply(200, json.dumps(text_message(seen, "late")).encode()):
        writer.write(bytes([byte]))
        await writer.drain()
        turn.clear()
        loop.call_later(0.1, turn.set)
        await turn.wait()
    return None


async def _endless(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
    """An event stream of comments and foreign messages without an end."""
    writer.write(SSE_HEAD)
    while not writer.is_closing():
        writer.write(chunk(b": nothing\n\n" * 500 + b'data: {"jsonrpc":"2.0","id":999999,"result":{}}\n\n' * 20))
        await writer.drain()
    return None


HTTP: dict[str, Answer] = {
    "not-json": _plain(b"<html>Welcome</html>", kind="text/html"),
    "cut-json": _plain(b'{"jsonrpc":"2.0","id":ID,"result":{'),
    "other-id": _plain(b'{"jsonrpc":"2.0","id":424242,"result":{"content":[]}}'),
    "no-result": _plain(b'{"jsonrpc":"2.0","id":ID}'),
    "array": _plain(b"[1,2,3]"),
    "not-utf8": _plain(b'{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"\xff\xfe"}]}}'),
    "deep": _plain(b'{"jsonrpc":"2.0","id":ID,"result":{"content":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"),
    "huge": _plain(b'{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"' + b"x" * 10_000_000 + b'"}]}}'),
    "status-500": _plain(b"oops", 500, "text/plain"),
    "status-204": _raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "redirect": _raw(b"HTTP/1.1 307 Temporary\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
    "no-http": _raw(b"220 mail.example.com ESMTP\r\n"),
    "hangs-up": _raw(b""),
    "cut-body": _raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"),
    "bad-chunk": _raw(SSE_HEAD + b"zz\r\nnothing\r\n"),
    "two-lengths": _raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    "huge-head": _raw(b"HTTP/1.1 200 OK\r\n" + b"X-Filler: " + b"y" * 2_000_000 + b"\r\n\r\n"),
    "stream-ends": _raw(SSE_HEAD + chunk(b'data: {"jsonrpc":"2.0","method":"notifications/x"}\n\n') + b"0\r\n\r\n"),
    "drip": _drip,
    "endless": _endless,
}


async def run(hub: RunningHub, board: Board, *, full: bool) -> None:
    """Every kind in turn, five at once, beside a neighbour that is asked all the time."""
    cases = 500 if full else 100
    demo = hub.demo()["uuid"]
    async with AsyncExitStack() as stack:
        servers = {mode: hub.register(f"bad {mode}", sys.executable, [FAKE, mode])["uuid"] for mode in (*STDIO, *AT_START)}
        for mode, answer in HTTP.items():
            servers[mode] = await stack.enter_async_context(_http_server(hub, mode, answer))
        caller = await stack.enter_async_context(Caller(hub))
        for uuid in servers.values():  # once round before the memory is looked at: pools and buffers exist from here on
            await caller.once(Call(uuid, "bad", {}, TIMEOUT_MS))
        before, pid = resident_bytes(hub.process.pid), hub.process.pid
        stop = asyncio.Event()
        neighbours = asyncio.create_task(_neighbour(caller, demo, stop))
        done = await _all(caller, servers, cases)
        stop.set()
        asked = await neighbours
    board.note("cases", f"{len(done)} of {len(servers)} kinds")
    board.none("calls without a defined end", [(mode, one) for mode, one in done if not _defined(mode, one)])
    board.none("neighbours that noticed", [one for one in asked if one.status != 200 or one.seconds > NEIGHBOUR_S])
    board.none("crashes", [] if hub.process.poll() is None and pid == hub.process.pid else [hub.output[-2000:]])
    board.at_most("memory more than before", (resident_bytes(pid) - before) / MIB, 64, " MB")
    for uuid in servers.values():
        hub.api("DELETE", f"/api/servers/{uuid}")


async def _all(caller: Caller, servers: dict[str, str], cases: int) -> list[tuple[str, Done]]:
    kinds = itertools.islice(itertools.cycle(servers.items()), cases)
    done: list[tuple[str, Done]] = []

    async def work() -> None:
        for mode, uuid in kinds:
            done.append((mode, await caller.once(Call(uuid, "bad", {}, TIMEOUT_MS))))

    await asyncio.gather(*(work() for _ in range(5)))
    return done


async def _neighbour(caller: Caller, demo: str, stop: asyncio.Event) -> list[Done]:
    found = []
    while not stop.is_set():
        found.append(await caller.once(Call(demo, "echo", {"text": "neighbour"})))
    return found


def _defined(mode: str, done: Done) -> bool:
    """An answer that came in time; else an error with a code, a remedy, and whether the tool may have run."""
    if done.seconds > TIMEOUT_MS / 1000 + 1:
        return False
    if done.status == 200:
        return mode in ANSWERED
    error = done.body.get("error", {})
    details = error.get("details", {}) if isinstance(error, dict) else {}
    return done.status in (502, 503, 504) and bool(details.get("hint")) and (done.status == 503 or "executed" in details)


@asynccontextmanager
async def _http_server(hub: RunningHub, mode: str, answer: Answer) -> AsyncIterator[str]:
    """A well-behaved server but for the tool `bad`."""
    async with HttpServer(with_tools(Mcp(tools={"bad": answer}))) as server:
        body = {"name": f"bad {mode}", "type": "STREAMABLE_HTTP", "config": {"url": server.url}}
        made = await asyncio.to_thread(hub.api, "POST", "/api/servers", body)
        assert made.status_code == 201, made.text
        yield str(made.json()["uuid"])
