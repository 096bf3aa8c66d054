"""Half of the servers hang: eight take the call and forget it, over STDIO and HTTP, two take the connection and say nothing."""

import asyncio
import os
import sys
from pathlib import Path

from tests.fakes.http_servers import Answerer, HttpServer, Mcp, Seen
from tests.faults.board import Board, percentile
from tests.faults.load import Call, Caller, Done
from tests.faults.upstreams import with_tools
from tests.flows.running_hub import RunningHub
from tests.flows.waiting import until

FAKE = str(Path(__file__).resolve().parents[1] / "fakes" / "bad_stdio.py")
HALF, RATE = 10, 100.0
TIMEOUT_MS = 2000
# A p99 of a few milliseconds moves by more than a fifth from one window to the next, on a shared machine by far more. What hanging
# servers cost would show in every window, so the best of each kind are compared, with this much allowed for the rest.
NOISE_S = 0.025
DEAF = "deaf"


async def run(hub: RunningHub, board: Board, *, full: bool) -> None:
    """Windows without and with the hanging half, taken in turn."""
    windows, seconds = (6, 10.0) if full else (3, 3.0)
    healthy = [hub.register(f"well {n}", sys.executable, [FAKE, "garbage"])["uuid"] for n in range(HALF)]
    deaf = await asyncio.start_server(_hold, "127.0.0.1", 0)
    deaf_url = f"http://127.0.0.1:{deaf.sockets[0].getsockname()[1]}/mcp"
    async with HttpServer(_forgetful()) as forgetful:
        hung = {hub.register(f"forgets {n}", sys.executable, [FAKE, "never-answers"])["uuid"]: "" for n in range(4)}
        for n in range(4):
            hung[await _register_url(hub, f"forgets over HTTP {n}", forgetful.url)] = ""
        for n in range(2):
            hung[await _register_url(hub, f"deaf {n}", deaf_url)] = DEAF
        async with Caller(hub) as caller:  # once round: connections that a server keeps exist from here on
            await asyncio.gather(*(caller.once(Call(uuid, "echo", {"text": "awake"})) for uuid in healthy))
            await asyncio.gather(*(caller.once(Call(uuid, "bad", {}, TIMEOUT_MS)) for uuid in hung))
        before = _held(hub)
        alone, beside, late = [], [], []
        async with Caller(hub) as caller:
            for _ in range(windows):
                alone.append(await caller.steadily(RATE / 2, seconds, lambda n: Call(healthy[n % HALF], "echo", {"text": "a"})))
                both = await caller.steadily(RATE, seconds, lambda n: _either(n, healthy, list(hung)))
                beside.append(both[::2])
                late += [(hung[list(hung)[number % HALF]], one) for number, one in enumerate(both[1::2])]
        _judge(board, alone, beside, late)
        board.none("places still held", _places(hub))
        until(lambda: _held(hub) <= before + HALF, "the file descriptors of the hanging calls", 15)
        board.at_most("file descriptors more than before", _held(hub) - before, HALF)
        board.none("calls still waiting for a server", _in_flight(hub))
    deaf.close()


def _judge(board: Board, alone: list[list[Done]], beside: list[list[Done]], late: list[tuple[str, Done]]) -> None:
    board.note("calls", f"{sum(map(len, alone))} alone, {sum(map(len, beside))} beside, {len(late)} to hanging servers")
    board.none("healthy calls that failed", [one for window in alone + beside for one in window if one.status != 200])
    base, p99 = (min(percentile([one.seconds for one in window], 0.99) for window in windows) for windows in (alone, beside))
    board.note("healthy p99 alone", f"{base * 1000:.1f} ms")
    board.at_most("healthy p99 beside them", p99 * 1000, max(1.2 * base, base + NOISE_S) * 1000, " ms")
    forgotten = [one for kind, one in late if kind != DEAF and not _timed_out(one)]
    board.none("forgotten calls that were no 504 at their timeout ± 0.5 s", forgotten)
    # A start is shared, and after it failed calls are refused at once for a while: earlier than their timeout, never later.
    board.none(
        "calls to the deaf that did not fail by then, or may have run", [one for kind, one in late if kind == DEAF and not _refused(one)]
    )


def _either(number: int, healthy: list[str], hung: list[str]) -> Call:
    half = number // 2 % HALF
    return Call(hung[half], "bad", {}, TIMEOUT_MS) if number % 2 else Call(healthy[half], "echo", {"text": "b"})


def _timed_out(done: Done) -> bool:
    return done.status == 504 and abs(done.seconds - TIMEOUT_MS / 1000) <= 0.5


def _refused(done: Done) -> bool:
    in_time = done.seconds <= TIMEOUT_MS / 1000 + 0.5
    return in_time and done.status in (502, 503, 504) and done.body["error"]["details"].get("executed", "no") == "no"


def _forgetful() -> Answerer:
    """A server over HTTP whose tool `bad` never answers."""

    async def forget(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        await asyncio.Event().wait()
        return None

    return with_tools(Mcp(tools={"bad": forget}))


async def _hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.read(65536):
            pass
    finally:
        writer.close()


async def _register_url(hub: RunningHub, name: str, url: str) -> str:
    body = {"name": name, "type": "STREAMABLE_HTTP", "config": {"url": url}}
    answer = await asyncio.to_thread(hub.api, "POST", "/api/servers", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["uuid"])


def _held(hub: RunningHub) -> int:
    """File descriptors of the hub."""
    return len(os.listdir(f"/proc/{hub.process.pid}/fd"))


def _in_flight(hub: RunningHub) -> list[str]:
    lines = hub.api("GET", "/metrics", key="").text.splitlines()
    return [line for line in lines if line.startswith("plughub_calls_in_flight") and float(line.split()[1])]


def _places(hub: RunningHub) -> list[str]:
    """Concurrency leases that no call holds any more."""
    left = hub.api("GET", "/api/rate-limit").json()["concurrency"]
    held = left["limit"] - left["remaining"]
    return [f"{held} of {left['limit']}"] if held else []
