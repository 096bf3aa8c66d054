"""uvicorn's HTTP/1.1 with bounds, and with a short way for whole answers.

Bounds: uvicorn waits for ever for the rest of a request and keeps a head of any size. Here a head must be complete within
`HEAD_TIMEOUT_S` of its first byte, a body within `request_timeout_s` of its head (and so much more as a slow line needs for a length
that is announced), and what is kept before a request is known is limited. Between requests the server's keep-alive time counts, on the
same timer: one set and cancelled for every request cost 3 us.

The short ways: uvicorn checks every header of every answer by two regular expressions and writes head and body apart; a hot answer
has eleven headers, all written by the hub. `Cycle.whole` writes such an answer at once: some 8 of 75 us. `Cycle.take` gives a body
that is there without waiting for it. `Cycle.write_now` sends a part of a stream without a turn of the loop: what a thousand clients hear
takes a tenth of the time.
"""

import asyncio
from typing import Any, ClassVar, cast

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from plughub.door.request import DIRECT
from plughub.kit.clock import SystemClock
from plughub.kit.ids import RequestIds

HEAD_TIMEOUT_S = 15.0
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
_SLOW_BYTES_PER_S = 128 * 1024
# A refused client may still be sending; it reads the refusal only when it is not cut off at once.
_LINGER_S = 2.0
_LINGER_BYTES = 4 * 1024 * 1024
_TICK_S = 5.0
_UNSET, _NEVER = 0.0, float("inf")
_IDLE, _HEAD, _BODY = 0, 1, 2
_ids = RequestIds(SystemClock())
_UNREADABLE = "Invalid HTTP request received"
_TOO_LARGE = "Request headers are too large"
_HINTS = {
    400: "Send well-formed HTTP/1.1",
    431: f"Send at most {MAX_HEADERS} headers, and with the address at most {MAX_HEAD_BYTES} bytes",
}


class _Written:
    """The server's own headers as lines; uvicorn makes a new list of them each second."""

    headers: ClassVar[list[tuple[bytes, bytes]] | None] = None
    lines: ClassVar[bytes] = b""


def _written(headers: list[tuple[bytes, bytes]]) -> bytes:
    if headers is not _Written.headers:
        _Written.headers, _Written.lines = headers, b"".join([b"%b: %b\r\n" % pair for pair in headers])
    return _Written.lines


class HeadTooLarge(ValueError):
    """The request line and the headers are over the limit."""


class Cycle(RequestResponseCycle):
    """A request and its answer; `door.request.Direct`."""

    def take(self) -> bytes | None:
        """The body when all of it has come; else None, and `receive` gives it."""
        if self.more_body or self.disconnected or self.response_complete or self.waiting_for_100_continue:
            return None
        self.flow.resume_reading()
        self.message_event.clear()
        body, self.body = bytes(self.body), bytearray()
        return body

    async def whole(self, status: int, lines: bytes, body: bytes) -> None:
        """Send a complete answer. `lines` are the application's own headers, without content-length; their values hold no line breaks."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        self.response_started = True
        self.waiting_for_100_continue = False
        head = _written(self.default_headers) + lines
        if not self.keep_alive:
            head += b"connection: close\r\n"
        content = b"" if self.scope["method"] == "HEAD" else body
        self.transport.write(b"%b%bcontent-length: %d\r\n\r\n%b" % (STATUS_LINE[status], head, len(body), content))
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def write_now(self, body: bytes) -> bool:
        """Send a part of a stream that has begun, unless its client reads too slowly; whether it was sent."""
        if self.flow.write_paused or self.disconnected or self.response_complete or not self.chunked_encoding:
            return False
        self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        return True

    def abort(self) -> None:
        """End the connection without waiting for the client to take what was sent."""
        self.transport.abort()


class Protocol(HttpToolsProtocol):
    """A connection. Gives the application the short way, in the ASGI scope under `DIRECT`.

    One coarse timer a connection looks at `_due`; a request that comes in one piece only resets it.
    """

    request_timeout_s = 30.0
    head_timeout_s = HEAD_TIMEOUT_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there, and has its first time to send something."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._phase = _IDLE
        self._due = self.loop.time() + self.head_timeout_s
        self._loose = 0  # bytes since the last ones that somebody else counts
        self._piece = 0
        self._refused = self._oversized = False
        self._watch = self.loop.call_later(min(_TICK_S, self.head_timeout_s, self.timeout_keep_alive), self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came in: parse them, then see what they left unfinished."""
        self._piece = len(data)
        if self._refused:
            self._drop()
            return
        if self._phase != _IDLE:
            self._loose += self._piece
        super().data_received(data)
        phase = self._phase
        if phase == _IDLE:
            self._rest()
            return
        if self._due == _UNSET:
            self._due = self.loop.time() + (self._body_time_s() if phase == _BODY else self.head_timeout_s)
        if (self._loose > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS) and not self._refused:
            self._refuse(431, _TOO_LARGE)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._phase, self._due, self._loose = _HEAD, _UNSET, 0

    def on_headers_complete(self) -> None:
        """A request's head is there: uvicorn makes its cycle, whose task begins later. Raises HeadTooLarge through the parser."""
        if len(self.headers) > MAX_HEADERS or (self._loose + self._piece > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES):
            self._oversized = True
            raise HeadTooLarge
        super().on_headers_complete()
        self._phase, self._due, self._loose = _BODY, _UNSET, 0
        cycle = self.cycle
        if type(cycle) is RequestResponseCycle:
            cycle.__class__ = Cycle
            cast(dict[str, object], self.scope)[DIRECT] = cycle

    def on_body(self, body: bytes) -> None:
        """A piece of a body, which the application bounds."""
        super().on_body(body)
        self._loose = 0

    def on_message_complete(self) -> None:
        """A request is there."""
        super().on_message_complete()
        self._phase, self._due = _IDLE, _NEVER

    def on_response_complete(self) -> None:
        """An answer is sent: the next request of the pipeline begins, or the time until one must come."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._phase == _IDLE:
            self._due = self.loop.time() + self.timeout_keep_alive
        elif self._phase == _BODY:  # it was answered before it was sent: nobody waits for a large one
            self._due = min(self._due, self.loop.time() + self.request_timeout_s)

    def send_400_response(self, msg: str) -> None:
        """The parser gave up; by itself, or because a head is too large."""
        if self._oversized:
            self._refuse(431, _TOO_LARGE)
        else:
            self._refuse(400, _UNREADABLE)

    def _body_time_s(self) -> float:
        """How long the body may take: a large one, whose length is announced, as long as a slow line needs for it."""
        announced = next((value for name, value in self.headers if name == b"content-length"), b"0")
        return self.request_timeout_s + (int(announced) / _SLOW_BYTES_PER_S if announced.isdigit() else 0)

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _rest(self) -> None:
        """A request is complete whose answer was sent before."""
        cycle = self.cycle
        if self._due == _NEVER and cycle is not None and cycle.response_complete and not self._refused:
            self._due = self.loop.time() + self.timeout_keep_alive

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        now = self.loop.time()
        if self._due <= now:
            if not self.flow.read_paused:
                self._end()
                return
            self._due = now + self.request_timeout_s  # it is we who do not read
        self._watch = self.loop.call_later(min(_TICK_S, self.head_timeout_s, self._due - now), self._look)

    def _end(self) -> None:
        if self.flow.write_paused:
            self.transport.abort()
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Answer what cannot be served, then wait a little for the client to read it. Into another answer nothing is written."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        busy = cycle is not None and not cycle.response_complete
        if busy and (self._phase != _BODY or cycle.response_started or self.pipeline):
            self.transport.close()
            return
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        self._refused = True
        self._phase, self._loose = _IDLE, 0
        self._due = self.loop.time() + _LINGER_S
        self.flow.resume_reading()
        self._watch.cancel()
        self._watch = self.loop.call_later(_LINGER_S, self._look)
        self.transport.write(refusal(status, message, self.server_state.default_headers))
        self.transport.write_eof()

    def _drop(self) -> None:
        self._loose += self._piece
        if self._loose > _LINGER_BYTES:
            self.transport.abort()


def protocol_of(request_timeout_s: float) -> type[Protocol]:
    """The protocol with that much time for the body of a request, and half of it, but at most `HEAD_TIMEOUT_S`, for the head."""
    times = {"request_timeout_s": request_timeout_s, "head_timeout_s": min(HEAD_TIMEOUT_S, request_timeout_s / 2)}
    return type("TimedProtocol", (Protocol,), times)


def refusal(status: int, message: str, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    """A whole answer to what is no request, in the form of the API's errors: whose door it was meant for is not known."""
    id_ = _ids.new()
    error: dict[str, Any] = {"code": "INVALID_PARAMETER", "message": message, "details": {"hint": _HINTS[status]}}
    body = msgspec.json.encode({"error": error, "message": message, "request_id": id_})
    lines = [*default_headers, (b"x-request-id", id_.encode()), (b"content-type", b"application/json")]
    head = b"".join(b"%b: %b\r\n" % pair for pair in lines)
    return b"%b%bcontent-length: %d\r\nconnection: close\r\n\r\n%b" % (STATUS_LINE[status], head, len(body), body)
