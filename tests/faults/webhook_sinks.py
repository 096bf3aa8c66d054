"""Receivers of webhooks that behave as their path says, and note what came."""

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
import time
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self, cast

import httptools

SECRET = "a secret for faults"
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_ANSWERS = {
    "good": _OK,
    "error": b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n",
    "gone": b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n",
    "tls": _OK,
}
_FLOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
_DRIP = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
_PIECE = b"x" * 65536


@dataclass(frozen=True)
class Got:
    """One request: whether its signature was good, how old its event was, which attempt it was by its own count, and when it came."""

    path: str
    id: str
    data: dict[str, Any]
    good: bool
    late_s: float
    attempt: int
    at: float


class Sinks:
    """A server over HTTP, and one over TLS with a certificate that nobody trusts; use as an async context manager."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.got: list[Got] = []
        self.redirected = 0
        self._context = context
        self._feeding: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._servers = [await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)]
        if self._context is not None:
            self._servers.append(await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, ssl=self._context))
        self.ports = [server.sockets[0].getsockname()[1] for server in self._servers]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for server in self._servers:
            server.close()
        for task in self._feeding:
            task.cancel()
        if self._feeding:
            await asyncio.wait(self._feeding)

    def url(self, behaviour: str, number: int = 0) -> str:
        """Of a receiver of that behaviour."""
        scheme, port = ("https", self.ports[1]) if behaviour == "tls" else ("http", self.ports[0])
        return f"{scheme}://127.0.0.1:{port}/{behaviour}/{number}"

    def of(self, behaviour: str) -> list[Got]:
        """What those of a behaviour got."""
        return [got for got in self.got if got.path.startswith(f"/{behaviour}/")]

    def take(self, path: str, headers: dict[bytes, bytes], body: bytes) -> None:
        """Note a request."""
        told, now = json.loads(body), time.time()
        signed = b"%b.%b.%b" % (headers[b"webhook-id"], headers[b"webhook-timestamp"], body)
        wanted = b"v1," + base64.b64encode(hmac.digest(SECRET.encode(), signed, hashlib.sha256))
        good = wanted in headers[b"webhook-signature"].split(b" ")
        good = good and headers[b"x-pluggedin-signature"].decode() == hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        late_s = now - datetime.fromisoformat(told["timestamp"]).timestamp()
        self.got.append(Got(path, headers[b"webhook-id"].decode(), told["data"], good, late_s, told["retry_count"], now))

    def answer(self, path: str, transport: asyncio.Transport) -> None:
        """As the path says."""
        behaviour = path.split("/")[1]
        if behaviour in _ANSWERS:
            transport.write(_ANSWERS[behaviour])
        elif behaviour == "reset":
            transport.abort()
        elif behaviour == "redirect":
            where = f"http://127.0.0.1:{self.ports[0]}/canary/0" if path.endswith("/1") else "http://169.254.169.254/latest/"
            transport.write(f"HTTP/1.1 307 Elsewhere\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode())
        elif behaviour == "canary":
            self.redirected += 1
            transport.write(_OK)
        elif behaviour in ("flood", "drip"):
            task = asyncio.get_running_loop().create_task(_feed(transport, behaviour))
            self._feeding.add(task)
            task.add_done_callback(self._feeding.discard)
        # "hang": nothing, ever.


async def _feed(transport: asyncio.Transport, behaviour: str) -> None:
    """A body that is too large, or one that comes a byte at a time."""
    transport.write(_FLOOD if behaviour == "flood" else _DRIP)
    while not transport.is_closing():
        if transport.get_write_buffer_size() < 1_000_000:
            transport.write(_PIECE if behaviour == "flood" else b"x")
        turn = asyncio.Event()
        asyncio.get_running_loop().call_later(0.001 if behaviour == "flood" else 0.5, turn.set)
        await turn.wait()


class _Connection(asyncio.Protocol):
    """One connection of the hub's."""

    def __init__(self, sinks: Sinks) -> None:
        self._sinks = sinks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url, self._headers, self._parts = b"", dict[bytes, bytes](), list[bytes]()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        path = self._url.decode()
        self._sinks.take(path, self._headers, b"".join(self._parts))
        self._sinks.answer(path, self._transport)
