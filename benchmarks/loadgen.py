"""A closed-loop load generator for tool calls: one process, one keep-alive connection per client, one call at a time each.

Reads one job (JSON, see Job) on stdin. Prints `start` and `end` around the measured phase, so that the reader can take the
processes' CPU times, then one line of JSON (see Report). Every call carries a token of its own, and an answer counts only when its
status is 200 and its body holds that token and no mark of an error; everything else is an error.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop

VERSION = "2025-11-25"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "loadgen", "version": "1"}},
}
INITIALIZED = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
ERROR_MARKS = (b'"isError":true', b'"isError": true', b'"error":', b'"is_error":true')


@dataclass
class Job:
    """What to do. `@ID@` and `@TOKEN@` in the body are replaced; `handshake`: each client initialises an MCP session first."""

    url: str
    body: str
    concurrency: int
    duration_s: float
    warmup_s: float = 0.3
    timeout_s: float = 10
    handshake: bool = False
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Report:
    """What came of it. Latencies are of good calls only; `loadgen_cpu` is the share of one core that the generator itself used."""

    calls: int = 0
    errors: int = 0
    first_error: str = ""
    wall_s: float = 0
    calls_per_s: float = 0
    p50_us: float = 0
    p95_us: float = 0
    p99_us: float = 0
    loadgen_cpu: float = 0

    def wrong(self, what: str) -> None:
        self.errors += 1
        self.first_error = self.first_error or what


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection with one request at a time; `send` gives a future of (status, body, headers)."""

    closed = False
    waiting: asyncio.Future[tuple[int, bytes, dict[bytes, bytes]]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.transport.close()
            self.fail(ConnectionError(f"not HTTP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.fail(exc or ConnectionResetError("closed"))

    def fail(self, error: Exception) -> None:
        if self.waiting and not self.waiting.done():
            self.waiting.set_exception(error)

    def on_message_begin(self) -> None:
        self.parts: list[bytes] = []
        self.headers: dict[bytes, bytes] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        if self.waiting and not self.waiting.done():
            self.waiting.set_result((self.parser.get_status_code(), b"".join(self.parts), self.headers))
        if not self.parser.should_keep_alive():
            self.closed = True
            self.transport.close()
        self.parser = httptools.HttpResponseParser(self)

    def send(self, raw: bytes) -> asyncio.Future[tuple[int, bytes, dict[bytes, bytes]]]:
        if self.closed:
            raise ConnectionResetError("closed between two calls")
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(raw)
        return self.waiting


class Client:
    """One virtual client: its connection, its MCP session, its request head."""

    def __init__(self, job: Job, number: int, report: Report) -> None:
        self.job, self.number, self.report, self.sent = job, number, report, 0
        self.url = urlsplit(job.url)
        self.host, self.port = self.url.hostname or "", self.url.port or 80
        self.headers = {
            "Host": self.url.netloc,
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream" if job.handshake else "application/json",
            **job.headers,
        }

    async def start(self) -> None:
        """Connects, and shakes hands where the job says so."""
        await self.connect()
        if self.job.handshake:
            status, body, headers = await self.post(json.dumps(INITIALIZE).encode())
            if status != 200:
                raise ConnectionError(f"initialize: {status} {body[:300]!r}")
            if session := headers.get(b"mcp-session-id"):
                self.headers["Mcp-Session-Id"] = session.decode()
            self.headers["MCP-Protocol-Version"] = VERSION
            await self.post(INITIALIZED)
        self.head = self.request_head()

    async def connect(self) -> None:
        _, self.connection = await asyncio.get_running_loop().create_connection(Connection, self.host, self.port)

    def request_head(self) -> bytes:
        lines = [f"POST {self.url.path} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers.items())]
        return "\r\n".join(lines).encode()

    async def post(self, body: bytes) -> tuple[int, bytes, dict[bytes, bytes]]:
        raw = b"%b\r\nContent-Length: %d\r\n\r\n%b" % (self.request_head(), len(body), body)
        return await asyncio.wait_for(self.connection.send(raw), self.job.timeout_s)

    async def run(self, until: float, latencies: list[float]) -> None:
        """Calls one after another until the monotonic time `until`; appends the seconds of each good call."""
        clock, template, head, number, report = time.perf_counter, self.job.body, self.head, self.number, self.report
        while (began := clock()) < until:
            self.sent += 1
            token = f"tok-{number}-{self.sent}-zq"
            body = template.replace("@ID@", str(self.sent)).replace("@TOKEN@", token).encode()
            try:
                # No timeout per call: a stuck one is caught by the deadline of the phase.
                status, reply, _ = await self.connection.send(b"%b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
            except OSError as error:
                report.wrong(repr(error))
                await self.connect()
                continue
            if status == 200 and token.encode() in reply and not any(mark in reply for mark in ERROR_MARKS):
                latencies.append(clock() - began)
            else:
                report.wrong(f"{status} {reply[:300]!r}")


async def phase(job: Job, clients: list[Client], seconds: float, report: Report) -> tuple[list[float], float]:
    """All clients at once for so long; the latencies and the wall time, both in seconds."""
    latencies: list[float] = []
    began = time.perf_counter()
    tasks = [asyncio.create_task(client.run(began + seconds, latencies)) for client in clients]
    done, stuck = await asyncio.wait(tasks, timeout=seconds + job.timeout_s)
    for task in stuck:
        task.cancel()
        report.wrong("stuck past the timeout")
    for task in done:
        if error := task.exception():
            report.wrong(repr(error))
    return latencies, time.perf_counter() - began


def percentile_us(sorted_s: list[float], share: float) -> float:
    """Microseconds; 0 without any call."""
    return round(sorted_s[min(len(sorted_s) - 1, int(len(sorted_s) * share))] * 1e6, 1) if sorted_s else 0


async def measure(job: Job) -> Report:
    """Warm up, then the measured phase; errors of the warm-up count too."""
    report = Report()
    clients = [Client(job, number, report) for number in range(job.concurrency)]
    for client in clients:
        await client.start()
    await phase(job, clients, job.warmup_s, report)
    print("start", flush=True)
    cpu = time.process_time()
    latencies, wall_s = await phase(job, clients, job.duration_s, report)
    cpu = time.process_time() - cpu
    print("end", flush=True)
    for client in clients:
        client.connection.transport.close()
    latencies.sort()
    report.calls, report.wall_s, report.loadgen_cpu = len(latencies), round(wall_s, 3), round(cpu / wall_s, 3)
    report.calls_per_s = round(len(latencies) / wall_s, 1)
    report.p50_us, report.p95_us, report.p99_us = (percentile_us(latencies, share) for share in (0.5, 0.95, 0.99))
    return report


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(measure(Job(**json.load(sys.stdin)))))), flush=True)
