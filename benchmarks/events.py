"""`make bench-events`: how long an event takes from the hub to the clients of its stream.

A hub is pinned to one CPU, the clients and whoever publishes to the other. So many streams are open; calls of a tool come at a steady
rate, or changes of a server. Measured is the time from the event's own `timestamp` (taken when the call ended, before anything is
written) to its arrival at each client, writing to the disk included. Every client must have every event.

Exits 1 when p99 is worse than twice its target, or with any event missing.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import cast
from urllib.parse import urlsplit

import uvloop

from benchmarks import processes
from benchmarks.fleet import percentile
from benchmarks.hub import LOAD_CPU, Hub, Target, running_hub

P99 = Target("p99 from publishing to a client of the stream", 50, "ms")
_ID = b'"id":"'
_SETTLE_S = 2.0
# So many connections at once while they are opened.
_OPENING = 50


class Listener(asyncio.Protocol):
    """One client. It notes what came when, and looks at it later: it shares its CPU with a thousand others."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.open = asyncio.get_running_loop().create_future()
        self.arrivals: list[tuple[bytes, float]] = []
        self.events = 0
        self.bodies: list[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note the first event of what came, and how many there are."""
        now = time.time()
        if not self.open.done():
            self.open.set_result(data.startswith(b"HTTP/1.1 200"))
        begin = data.find(_ID)
        if begin >= 0:
            begin += len(_ID)
            self.arrivals.append((data[begin : data.index(b'"', begin)], now))
            self.events += data.count(b"\nevent: ")
            if self.bodies is not None:
                self.bodies.append(data)


async def listen(hub: Hub, count: int) -> list[Listener]:
    """So many open streams."""
    url = urlsplit(hub.url)
    head = f"GET /api/events?type=tool.*,server.updated HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {hub.key}\r\n\r\n"
    loop, found = asyncio.get_running_loop(), list[Listener]()
    gate = asyncio.Semaphore(_OPENING)

    async def one() -> None:
        async with gate:
            _, listener = await loop.create_connection(lambda: Listener(head.encode()), url.hostname or "", url.port or 0)
            if not await listener.open:
                raise RuntimeError("a stream was refused")
            found.append(listener)

    await asyncio.gather(*(one() for _ in range(count)))
    return found


async def publish(hub: Hub, path: str, method: str, body: object, rate: float, duration_s: float) -> int:
    """Requests at a steady rate over one connection; how many."""
    url, content = urlsplit(hub.url), json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    lines = [f"{method} {path} HTTP/1.1", f"Host: {url.netloc}", f"Authorization: Bearer {hub.key}", "Content-Type: application/json"]
    request = "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content
    begin, sent = time.perf_counter(), 0
    while (due := sent / rate) < duration_s:
        await asyncio.sleep(max(0.0, begin + due - time.perf_counter()))
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode(errors="replace"))
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        sent += 1
    writer.close()
    return sent


def latencies(listeners: Sequence[Listener]) -> list[float]:
    """Milliseconds from each event's timestamp to each arrival, sorted."""
    [witness] = [listener for listener in listeners if listener.bodies is not None]
    at: dict[bytes, float] = {}
    for line in b"".join(witness.bodies or ()).split(b"\n"):
        if line.startswith(b"data: "):
            body = json.loads(line[len(b"data: ") :])
            at[body["id"].encode()] = datetime.fromisoformat(body["timestamp"]).timestamp()
    return sorted((now - at[id_]) * 1000 for listener in listeners for id_, now in listener.arrivals if id_ in at)


async def measure(hub: Hub, clients: int, rate: float, duration_s: float) -> bool:
    """Both kinds of events; whether every figure is good enough."""
    demo = hub.call("GET", "/api/servers")["servers"][0]["uuid"]
    hub.call("POST", f"/api/servers/{demo}/tools/echo/execute", {"parameters": {"text": "x"}})
    before = processes.rss_mb(hub.process.pid)
    listeners = await listen(hub, clients)
    held = processes.rss_mb(hub.process.pid) - before
    print(f"{clients} streams are open; each holds {held / clients * 1024:.0f} KiB of the hub's memory")
    await asyncio.sleep(1)
    good = True
    ways = (
        ("tool calls", f"/api/servers/{demo}/tools/echo/execute", "POST", {"parameters": {"text": "x"}}),
        ("changes", f"/api/servers/{demo}", "PATCH", None),
    )
    for name, path, method, body in ways:
        listeners[0].bodies = []
        for listener in listeners:
            listener.arrivals, listener.events = [], 0
        before_s = processes.cpu_s([hub.process.pid])
        if body is None:
            sent = await _changes(hub, path, method, rate, duration_s)
        else:
            sent = await publish(hub, path, method, body, rate, duration_s)
        await asyncio.sleep(_SETTLE_S)
        cpu = (processes.cpu_s([hub.process.pid]) - before_s) / (duration_s + _SETTLE_S)
        found = latencies(listeners)
        missing = sum(sent - listener.events for listener in listeners)
        p50, p99, worst = percentile(found, 0.5), percentile(found, 0.99), found[-1]
        print(f"{name} at {rate:g}/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms, worst {worst:.1f} ms, missing {missing}, hub {cpu:.0%} of a CPU")
        print(f"  {'met' if P99.met(p99) else 'MISSED'}: {P99.name} {p99:.1f} {P99.unit} (target {P99.value:g})")
        good = good and not missing and P99.half_met(p99, 1.0)
        listeners[0].bodies = None
    for listener in listeners:
        listener.transport.close()
    return good


async def _changes(hub: Hub, path: str, method: str, rate: float, duration_s: float) -> int:
    """A server that gets another description each time: what changes nothing is no event."""
    begin, sent = time.perf_counter(), 0
    loop = asyncio.get_running_loop()
    while (due := sent / rate) < duration_s:
        await asyncio.sleep(max(0.0, begin + due - time.perf_counter()))
        await loop.run_in_executor(None, hub.call, method, path, {"description": str(sent)})
        sent += 1
    return sent


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.events", description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    processes.pin(0, LOAD_CPU)
    with running_hub({"PLUGHUB_LOG_LEVEL": "warning"}) as hub:
        good = uvloop.run(measure(hub, given.clients, given.rate, given.seconds))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
