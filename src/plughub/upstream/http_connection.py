"""HTTP/1.1 on the way out: one connection, one exchange at a time."""

import asyncio
import re
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from plughub.kit.errors import UpstreamUnreachable
from plughub.protocol.sse import SseEvent, SseParser, SseTooLarge
from plughub.upstream.noise import MESSAGE_PRICE

MAX_HEAD_BYTES = 64 * 1024
# Servers commonly close after 5 s without a request; a connection must not be reused just then.
KEPT_S = 4.0
# How long a stream may take to end after its answer, before the connection is given up.
LINGER_S = 1.0
# How much of a stream is read before it is looked at, and how many lines of it before everybody else has a turn.
SLICE_BYTES = 4096
TURN_LINES = 256
_TIMEOUT = re.compile(rb"timeout=(\d{1,6})")


class Exchange:
    """One request and its response. `done` is settled when the response is complete, or by `on_event` before that."""

    __slots__ = (
        "body",
        "connection",
        "content_type",
        "done",
        "location",
        "noise",
        "on_event",
        "retry_after",
        "session",
        "size",
        "skips",
        "sse",
        "status",
        "touched",
    )

    def __init__(self, done: asyncio.Future[None], on_event: Callable[["Exchange", SseEvent], None]) -> None:
        self.done = done
        self.on_event = on_event
        self.status = 0
        self.content_type = b""
        self.session: bytes | None = None
        self.location = b""
        self.retry_after = b""
        self.body: list[bytes] = []
        self.size = 0
        self.sse: SseParser | None = None
        self.skips = False  # an event over the bound is skipped; without this it ends the exchange
        self.noise = 0  # what of the stream is not yet paid, see `noise.Budget`
        self.touched = False  # any byte of the response was seen
        self.connection: HttpConnection | None = None

    def fail(self, error: Exception) -> None:
        """End it with an error, unless it has ended."""
        if not self.done.done():
            self.done.set_exception(error)
            # The error leads to whoever awaits it, and from there back to here: a ring, which need not hold megabytes.
            self.body = []
            if self.sse is not None:
                self.sse.drop()

    def begun(self) -> None:
        """The head of the response is read."""

    def complete(self) -> None:
        """End it, unless it has ended."""
        if not self.done.done():
            self.done.set_result(None)

    def release(self) -> None:
        """Nobody waits for it any more: its connection ends with it. Nothing, when the response is complete."""
        connection, self.connection = self.connection, None
        if connection is not None and connection.exchange is self:
            connection.abort()


class Owner(Protocol):
    """Whose a connection is."""

    def time(self) -> float:
        """The loop's."""

    def spend(self, noise: int) -> float:
        """Count noise; the seconds that whoever brought it has to wait."""

    def give_back(self, connection: "HttpConnection") -> None:
        """The connection is free again."""

    def lost(self, connection: "HttpConnection") -> None:
        """The connection is closed."""


class HttpConnection(asyncio.Protocol):
    """A connection of a pool."""

    __slots__ = (
        "_complete",
        "_connections",
        "_head_bytes",
        "_held",
        "_keep_s",
        "_max_bytes",
        "_parser",
        "_paused",
        "_sized",
        "_spoiled",
        "encoding",
        "exchange",
        "fresh",
        "idle_since",
        "in_body",
        "transport",
    )

    def __init__(self, connections: Owner, max_bytes: int) -> None:
        self._connections = connections
        self._max_bytes = max_bytes
        self._parser = httptools.HttpResponseParser(self)
        self._head_bytes = 0
        self._keep_s = KEPT_S
        self._sized = False
        self._complete: Exchange | None = None
        self._spoiled = False
        self._held = b""  # came, and waits for the next turn
        self._paused = False
        self.encoding = b""
        self.in_body = False
        self.exchange: Exchange | None = None
        self.fresh = True
        self.idle_since = 0.0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses

    def send(self, exchange: Exchange, data: bytes) -> None:
        """Begin an exchange."""
        self.exchange = exchange
        exchange.connection = self
        assert self.transport is not None
        self.transport.write(data)

    def abort(self) -> None:
        """Close at once; the exchange, if any, is not told."""
        self.exchange = None
        self._held = b""
        if self.transport is not None:
            self.transport.abort()

    @property
    def reusable(self) -> bool:
        """Open, and not so long idle that the server may be closing it."""
        transport = self.transport
        return transport is not None and not transport.is_closing() and self._connections.time() - self.idle_since < self._keep_s

    # ---- the transport's side

    def data_received(self, data: bytes) -> None:
        if self._paused:  # some transports deliver once more
            self._held += data
        elif self.exchange is None:
            self._give_up(None)  # nothing was asked: whatever this is, it must not become the next answer
        else:
            self.exchange.touched = True
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Read what came; of a stream only so much that nobody else has to wait, the rest a turn or its own noise later."""
        at = lines = 0
        while at < len(data):
            exchange = self.exchange
            part = data[at : at + SLICE_BYTES] if exchange is None or exchange.sse is not None or not self.in_body else data[at:]
            at += len(part)
            if not self._feed(part):
                break
            if exchange is not None and exchange.sse is not None and self.exchange is not None:
                lines += part.count(b"\n") + part.count(b"\r")
                wait_s = self._pay(exchange)
                if wait_s or (lines >= TURN_LINES and at < len(data)):
                    self._pause(data[at:], wait_s)
                    break
        if self._complete is not None:
            self._settle()

    def _pay(self, exchange: Exchange) -> float:
        """The seconds that the stream has to wait for what it brought unasked."""
        assert exchange.sse is not None
        noise = exchange.noise + exchange.sse.idle_lines * MESSAGE_PRICE // 2
        exchange.noise = exchange.sse.idle_lines = 0
        return self._connections.spend(noise) if noise else 0.0

    def _pause(self, rest: bytes, wait_s: float) -> None:
        transport = self.transport
        if transport is not None and not transport.is_closing():
            self._held = rest
            self._paused = True
            transport.pause_reading()
            asyncio.get_running_loop().call_later(wait_s, self._resume)

    def _resume(self) -> None:
        self._paused = False
        held, self._held = self._held, b""
        if held:
            self._read(held)
        if not self._paused and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _feed(self, data: bytes) -> bool:
        """Parse; False when nothing more of the response is wanted."""
        if not self.in_body:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            reason = f"it is not valid HTTP ({error})"
            if isinstance(error.__context__, _Refused):  # the parser wraps what its callbacks raise
                reason = str(error.__context__)
            self._spoiled = True
            self._give_up(f"its answer cannot be read: {reason}")
            return False
        if self._complete is None and not self.in_body and self._head_bytes > MAX_HEAD_BYTES:
            self._give_up(f"its answer cannot be read: the headers are larger than {MAX_HEAD_BYTES} bytes")
            return False
        return self.exchange is not None or self._complete is not None

    def connection_lost(self, exc: Exception | None) -> None:
        held, self._held = self._held, b""
        if held and self._feed(held) and self._complete is not None:
            self._settle()
        exchange, self.exchange = self.exchange, None
        self._connections.lost(self)
        if exchange is None or exchange.done.done():
            return
        if self.in_body and not self._sized and exc is None:
            exchange.complete()  # a body without a length ends with the connection
        else:
            exchange.fail(UpstreamUnreachable("the connection was closed before the answer was complete", executed="unknown"))

    def _give_up(self, reason: str | None) -> None:
        exchange = self.exchange
        self.abort()
        if exchange is not None and reason is not None:
            exchange.fail(UpstreamUnreachable(reason, executed="unknown"))

    def _settle(self) -> None:
        """The response is complete; only now, with all that came read, is the connection known to be clean."""
        exchange, self._complete = self._complete, None
        assert exchange is not None
        if self._spoiled:
            self.abort()
        else:
            self._connections.give_back(self)
        exchange.complete()

    # ---- the parser's side

    def on_message_begin(self) -> None:
        if self._complete is not None:
            self._spoiled = True  # a second response that nobody asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        name = name.lower()
        if name == b"content-type":
            exchange.content_type = value.partition(b";")[0].strip()
        elif name in (b"content-length", b"transfer-encoding"):
            self._sized = True
        elif name == b"mcp-session-id":
            exchange.session = value.strip()
        elif name == b"content-encoding":
            self.encoding = value.strip().lower()
        elif name == b"location":
            exchange.location = value
        elif name == b"retry-after":
            exchange.retry_after = value
        elif name == b"keep-alive" and (found := _TIMEOUT.search(value)):
            self._keep_s = min(KEPT_S * 15, max(0.0, int(found[1]) - 1.0))

    def on_headers_complete(self) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        exchange.status = self._parser.get_status_code()
        self.in_body = exchange.status >= 200
        if self.encoding not in (b"", b"identity"):
            raise _Refused("it is compressed, which was not asked for")
        if exchange.content_type.lower() == b"text/event-stream" and exchange.status == 200:
            exchange.sse = SseParser(self._max_bytes, skip=exchange.skips)
        if exchange.status >= 200:
            exchange.begun()

    def on_body(self, body: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        if exchange.sse is None:
            exchange.size += len(body)
            if exchange.size > self._max_bytes:
                raise _Refused(f"it is larger than {self._max_bytes} bytes")
            exchange.body.append(body)
            return
        try:
            events = exchange.sse.feed(body)
        except SseTooLarge as error:
            raise _Refused(str(error)) from error
        for event in events:
            exchange.on_event(exchange, event)

    def on_message_complete(self) -> None:
        exchange = self.exchange
        if exchange is None or exchange.status < 200:
            self._head_bytes = 0
            return
        exchange.connection = None
        self.exchange = None
        self.in_body = self._sized = self.fresh = False
        self._head_bytes = 0
        self._complete = exchange
        if not self._parser.should_keep_alive():
            self._spoiled = True


class _Refused(Exception):
    """Raised inside a parser callback to stop reading a response."""
