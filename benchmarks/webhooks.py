"""`make bench-webhooks`: events at a steady rate with three webhooks each, against the targets, on SQLite and on PostgreSQL.

- 500 tool events and 100 management writes a second for 60 s: every one reaches every webhook.
- 1,000 tool events a second for 10 s: absorbed; nothing lost.
- 200 events a second: the p99 between an event's own time and its first arrival.

Exits 1 when something is lost or a figure is worse than twice its target: the machine may have other tenants.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks import processes
from benchmarks.fleet import postgres
from benchmarks.hub import HUB_CPU, ROOT, Hub, Target, request, running_hub
from benchmarks.loadgen import Connection
from benchmarks.webhook_receiver import SECRET

LOAD_CPU = 1 - HUB_CPU
WEBHOOKS = 3
_CONNECTIONS = 64
_DRAIN_S = 60.0
LATE = Target("p99 from the event to its first arrival", 500, "ms")
LOST = Target("deliveries lost", 0, "")
BEHIND = Target("all delivered so long after the last event", 5, "s")
Verdict = tuple[str, Target, float]


@dataclass
class Load:
    """`calls` of a tool and `writes` of a key a second, for so many seconds."""

    name: str
    calls: int
    writes: int
    seconds: float


class Asker:
    """Requests at a steady rate over a bounded number of connections."""

    def __init__(self, hub: Hub, key_ids: list[str], demo: str) -> None:
        self._hub, self._keys, self._demo = hub, key_ids, demo
        self._free: list[Connection] = []
        self.done = {"calls": 0, "writes": 0}
        self.failed: list[str] = []

    async def run(self, load: Load) -> None:
        """The whole load; who finds no free connection is late, not left out."""
        loop, port = asyncio.get_running_loop(), int(self._hub.url.rpartition(":")[2])
        self._free = [(await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(_CONNECTIONS)]
        gate = asyncio.Semaphore(_CONNECTIONS)
        began, tasks = loop.time(), set[asyncio.Task[None]]()
        for number, (at, kind) in enumerate(_times(load)):
            if (wait_s := began + at - loop.time()) > 0.002:
                await asyncio.sleep(wait_s)
            await gate.acquire()
            task = loop.create_task(self._one(kind, number, gate))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        while tasks:
            await asyncio.wait(tasks)
        for connection in self._free:
            connection.transport.close()

    async def _one(self, kind: str, number: int, gate: asyncio.Semaphore) -> None:
        connection = self._free.pop()
        path, method, body = f"/api/servers/{self._demo}/tools/echo/execute", "POST", '{"parameters":{"text":"x"}}'
        if kind == "writes":
            path, method, body = f"/api/auth/keys/{self._keys[number % len(self._keys)]}", "PATCH", f'{{"name":"n{number}"}}'
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self._hub.key}\r\nContent-Type: application/json\r\n"
        status, answer, _ = await connection.send(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        if status == 200:
            self.done[kind] += 1
        else:
            self.failed.append(f"{status} {answer[:200]!r}")
        self._free.append(connection)
        gate.release()


def _times(load: Load) -> Iterator[tuple[float, str]]:
    """When which request is sent."""
    both = [(number / load.calls, "calls") for number in range(int(load.calls * load.seconds))]
    both += [(number / load.writes, "writes") for number in range(int(load.writes * load.seconds))]
    return iter(sorted(both))


@contextmanager
def receiver() -> Iterator[str]:
    """The URL of a receiver of our own."""
    process = processes.start(LOAD_CPU, "-m", "benchmarks.webhook_receiver", cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        processes.stop(process)


def measure(name: str, hub: Hub, receiver_url: str, load: Load) -> Iterator[Verdict]:
    """One load, and what reached the receiver of it."""
    key_ids = [hub.call("POST", "/api/auth/keys", {"name": "written"})["id"] for _ in range(10)]
    demo = next(row["uuid"] for row in hub.call("GET", "/api/servers")["servers"])
    hub.call("POST", f"/api/servers/{demo}/tools/echo/execute", {"parameters": {"text": "warm"}})
    hooks = [
        hub.call("POST", "/api/webhooks", {"url": f"{receiver_url}/{n}", "events": ["tool.*", "key.updated"], "secret": SECRET})["id"]
        for n in range(WEBHOOKS)
    ]
    time.sleep(0.5)
    request("GET", f"{receiver_url}/reset")
    asker, cpu_s, began = Asker(hub, key_ids, demo), processes.cpu_s([hub.process.pid]), time.monotonic()
    asyncio.run(asker.run(load))
    took_s = time.monotonic() - began
    if asker.failed:
        raise RuntimeError(f"{len(asker.failed)} requests failed: {asker.failed[0]}")
    wanted = sum(asker.done.values())
    drained_s, report = _drain(receiver_url, wanted)
    cpu = (processes.cpu_s([hub.process.pid]) - cpu_s) / (took_s + drained_s)
    for hook in hooks:
        hub.call("DELETE", f"/api/webhooks/{hook}")
    sent = f"{asker.done} in {took_s:.1f} s, the hub at {cpu:.2f} of a core, {processes.rss_mb(hub.process.pid):.0f} MB"
    print(f"{name}: {load.name}: {sent}\n  " + "\n  ".join(f"{path}: {json.dumps(row)}" for path, row in report.items()), flush=True)
    label = f"{name}: {load.name}"
    yield label, LOST, sum(wanted - row["unique"] for row in report.values()) + wanted * (WEBHOOKS - len(report))
    if load.calls + load.writes <= 200:
        yield label, LATE, max((row["p99_ms"] for row in report.values()), default=float("inf"))
    else:
        yield label, BEHIND, drained_s
    if any(row["bad"] for row in report.values()):
        raise RuntimeError("bad signatures")


def _drain(receiver_url: str, wanted: int) -> tuple[float, dict[str, Any]]:
    """Wait for the rest; how long that was."""
    began = time.monotonic()
    while True:
        report: dict[str, Any] = request("GET", f"{receiver_url}/report")
        waited_s = time.monotonic() - began
        if waited_s > _DRAIN_S or (len(report) == WEBHOOKS and all(row["unique"] >= wanted for row in report.values())):
            return waited_s, report
        time.sleep(0.1)


def main() -> int:
    """Measures, prints, judges."""
    parser = argparse.ArgumentParser(prog="benchmarks.webhooks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a sixth of the time")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], help="on this one alone")
    options = parser.parse_args()
    share = 1 / 6 if options.quick else 1
    loads = [
        Load("200 events/s", 150, 50, 30 * share),
        Load("500 tool events/s and 100 writes/s", 500, 100, 60 * share),
        Load("1,000 tool events/s", 1000, 1, max(10 * share, 5)),
    ]
    settings = {"PLUGHUB_ALLOW_PRIVATE_ADDRESSES": "127.0.0.0/8", "PLUGHUB_LOG_LEVEL": "warning"}
    found: list[Verdict] = []
    # Started before this process keeps to one CPU: the database takes of both.
    with postgres() as url, receiver() as receiver_url:
        processes.pin(0, LOAD_CPU)
        for name, more in (("sqlite", {}), ("postgresql", {"PLUGHUB_DATABASE_URL": url})):
            if options.database in (None, name):
                with running_hub(settings | more) as hub:
                    for load in loads:
                        found += measure(name, hub, receiver_url, load)
    for label, target, measured in found:
        print(f"{'ok ' if target.met(measured) else 'NO '} {label}: {target.name}: {measured:,.1f} {target.unit} (target {target.value})")
    return 1 if any(not target.half_met(measured, 1) for _, target, measured in found) else 0


if __name__ == "__main__":
    sys.exit(main())
