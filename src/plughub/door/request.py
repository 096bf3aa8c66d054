"""One HTTP request as the doors see it: headers, body, caller, and the two ways to answer."""

from typing import Any, Protocol

from starlette.types import Receive, Scope, Send

from plughub.cluster.limits import Header, Lease, Meter, pairs
from plughub.db.unit_of_work import UnitOfWork
from plughub.door.routes import Route
from plughub.gateway.tracing import DoorSpan, Trace, passed_on
from plughub.kit.caller import Caller
from plughub.kit.errors import HubError, Malformed, PayloadTooLarge, UnsupportedMediaType
from plughub.kit.waits import Waits

# Where a server that has shorter ways for what is there, or is sent, at once puts them: a `Direct`.
DIRECT = "plughub.direct"
JSON: Header = (b"content-type", b"application/json")
EVENT_STREAM: Header = (b"content-type", b"text/event-stream; charset=utf-8")
NO_STORE: Header = (b"cache-control", b"no-store")
_BASE = b"x-request-id: %b\r\nx-api-version: 2\r\nx-content-type-options: nosniff\r\n%b"
_LINE = b"%b: %b\r\n"
_STREAM_HEADERS = [EVENT_STREAM, (b"cache-control", b"no-cache, no-transform"), (b"x-accel-buffering", b"no")]


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class Direct(Protocol):
    """A request at its server; see `http_protocol`."""

    def take(self) -> bytes | None:
        """The body when all of it has come; else None, and `receive` gives it."""

    async def whole(self, status: int, lines: bytes, body: bytes) -> None:
        """Send a whole answer at once. `lines` are its headers as they go over the wire, without content-length."""

    def write_now(self, body: bytes) -> bool:
        """Send a part of a stream that has begun, unless its client reads too slowly; whether it was sent."""

    def abort(self) -> None:
        """End the connection without waiting for the client to take what was sent."""


class Request:
    """Made by the dispatcher, one a request. `values` are the path's parameters in order; `door` names the error dialect; `waits` are
    those of all requests, for what must happen in time.
    """

    __slots__ = (
        "address",
        "caller",
        "cors",
        "direct",
        "door",
        "error",
        "headers",
        "id",
        "lease",
        "limit_headers",
        "meter",
        "needed",
        "receive",
        "recorded",
        "route",
        "rpc",
        "scope",
        "send",
        "server_id",
        "started",
        "status",
        "ticket",
        "tool",
        "trace",
        "values",
        "waits",
        "work",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, id_: str, waits: Waits[Any]) -> None:
        self.scope = scope
        self.waits = waits
        # Taken out: left inside it would tie scope and server's request into a ring that only the garbage collector opens.
        self.direct: Direct | None = scope.pop(DIRECT, None)
        self.receive = receive
        self.send = send
        self.id = id_
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.route: Route | None = None
        self.values: tuple[str, ...] = ()
        self.door = "plain"
        self.caller: Caller | None = None
        self.address = ""  # where the client is; admission finds it out
        self.meter: Meter | None = None
        self.lease: Lease | None = None
        self.limit_headers: list[Header] | None = None
        self.cors: list[Header] = []
        self.started = False
        self.status = 0
        # For the log of requests: what went wrong, the server when it is the caller's, the tool, the MCP method and the scope it
        # needs, and whether the row of a tool call tells it all.
        self.error: HubError | None = None
        # The span of the request, when the hub takes part in traces.
        self.trace: DoorSpan | None = None
        self.server_id: str | None = None
        self.tool: str | None = None
        self.rpc: str | None = None
        self.ticket: Any = None  # a gateway.tickets.Ticket that stands for a credential
        self.needed: str | None = None
        self.recorded = False
        # The transaction that this request shares with others; None: it opens its own.
        self.work: UnitOfWork | None = None

    def trace_on(self) -> Trace | None:
        """What goes on to a server of the trace that the request belongs to."""
        if self.trace is not None or b"traceparent" not in self.headers:
            return self.trace
        return passed_on(self.headers)

    def known_caller(self) -> Caller:
        """The caller of a route that is not public."""
        if self.caller is None:
            raise LookupError("a route without a caller asked for one")
        return self.caller

    def repeated(self, names: tuple[bytes, ...]) -> bytes | None:
        """The first of `names` that the client sent more than once, where `headers` keeps the last alone."""
        pairs = self.scope["headers"]
        if len(pairs) == len(self.headers):
            return None
        sent = [name for name, _ in pairs]
        return next((name for name in names if sent.count(name) > 1), None)

    async def body(self, limit_bytes: int) -> bytes:
        """The whole body. Raises PayloadTooLarge before it is read where its length is announced, ClientGone when it breaks off."""
        announced = self.headers.get(b"content-length")
        if announced is not None and len(announced) > 3 and int(announced) > limit_bytes:
            raise PayloadTooLarge(limit_bytes=limit_bytes)
        taken = None if self.direct is None else self.direct.take()
        if taken is not None:
            if len(taken) > limit_bytes:
                raise PayloadTooLarge(limit_bytes=limit_bytes)
            return taken
        message = await self.receive()
        body: bytes = message.get("body", b"")
        if len(body) > limit_bytes:
            raise PayloadTooLarge(limit_bytes=limit_bytes)
        if not message.get("more_body", False) and message["type"] == "http.request":
            return body
        parts, size = [body], len(body)
        while message.get("more_body", False):
            message = await self.receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit_bytes:
                raise PayloadTooLarge(limit_bytes=limit_bytes)
        if message["type"] != "http.request":
            raise ClientGone
        return b"".join(parts)

    async def json_body(self, limit_bytes: int) -> bytes:
        """The body of a request that must be JSON. Raises UnsupportedMediaType, Malformed for none, and what `body` raises."""
        body = await self.body(limit_bytes)
        if not body:
            raise Malformed("A JSON body is required")
        self.check_json_type()
        return body

    def check_json_type(self) -> None:
        """Raise UnsupportedMediaType unless the Content-Type says JSON."""
        kind = self.headers.get(b"content-type", b"")
        if kind != b"application/json" and kind.split(b";", 1)[0].strip().lower() != b"application/json":
            raise UnsupportedMediaType(content_type=kind.decode("latin-1")[:100])

    def base_url(self, public_url: str) -> str:
        """The hub's address as this client knows it, without a slash at the end."""
        host = self.headers.get(b"host", b"localhost").decode("latin-1")
        return public_url.rstrip("/") or f"{self.scope.get('scheme', 'http')}://{host}"

    def base_lines(self) -> bytes:
        """What every answer carries, as lines of headers: request id, version, limits, CORS."""
        lines = _BASE % (self.id.encode(), b"" if self.meter is None else self.meter.lines())
        more = self.cors if self.meter is not None or self.limit_headers is None else [*self.limit_headers, *self.cors]
        return lines + b"".join([_LINE % pair for pair in more]) if more else lines

    def base_headers(self) -> list[Header]:
        """The same in pairs."""
        return pairs(self.base_lines())

    async def respond(self, status: int, body: bytes, content_type: Header = JSON, extra: list[Header] | None = None) -> None:
        """A whole answer at once; an empty one is of no type."""
        lines = self.base_lines()
        if body:
            lines += _LINE % content_type
        if extra:
            lines += b"".join([_LINE % pair for pair in extra])
        self.started, self.status = True, status
        if self.direct is not None:
            await self.direct.whole(status, lines, body)
            return
        headers = [*pairs(lines), (b"content-length", b"%d" % len(body))]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def respond_events(self, frames: bytes, extra: list[Header] | None = None) -> None:
        """A whole event stream at once."""
        await self.respond(200, frames, EVENT_STREAM, [*_STREAM_HEADERS[1:], *(extra or [])])

    async def start_stream(self, extra: list[Header] | None = None) -> None:
        """Begin an event stream; `write` and `end_stream` follow."""
        self.started, self.status = True, 200
        headers = [*self.base_headers(), *_STREAM_HEADERS, *(extra or ())]
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})

    async def write(self, frame: bytes) -> None:
        """Send a part of the stream; waits while the client reads slowly."""
        await self.send({"type": "http.response.body", "body": frame, "more_body": True})

    async def end_stream(self) -> None:
        """The stream is complete."""
        await self.send({"type": "http.response.body", "body": b""})

    async def disconnected(self) -> None:
        """Return when the client is gone. Only after the body was read."""
        while True:
            message: Any = await self.receive()
            if message["type"] == "http.disconnect":
                return
