"""The first code of ours that a request meets: finds its row, admits its caller, runs it, renders what went wrong.

Hot rows are answered here in raw ASGI; the others go on to FastAPI with the caller already known. A path without a row is a 404
before anything else runs, and a row cannot be made without a scope: that is the default deny.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from urllib.parse import quote, urlsplit

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plughub.cluster.limits import Header
from plughub.db.outage import find_outage
from plughub.door.once import DOORS, HEADER, Once
from plughub.door.query_token import take_token
from plughub.door.record import RequestLog
from plughub.door.request import NO_STORE, ClientGone, Request
from plughub.door.routes import PUBLIC, Route, RouteTable
from plughub.door.stats import DoorStats
from plughub.gateway.hub import Hub
from plughub.gateway.tracing import DoorSpan, Traces
from plughub.kit.errors import HubError, Internal, MethodNotAllowed, MisdirectedHost, NotFound, PayloadTooLarge, RouteNotFound, Unavailable
from plughub.kit.waits import Waits
from plughub.settings import Settings

log = structlog.get_logger("plughub.door")

# The framework's handlers find the request here in the ASGI scope.
SCOPE_KEY = "plughub.request"
STOPPING = "The hub is stopping"
_CORS_DOORS = ("/api", "/v1", "/mcp", "/sse", "/servers/", "/.well-known", "/oauth/token", "/oauth/register", "/oauth/revoke")
_EXPOSED = (
    b"Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, RateLimit, RateLimit-Policy, "
    b"X-Request-Id, Mcp-Session-Id, WWW-Authenticate"
)
# The documents' other names of the same API.
_V1, _V2 = b"/api/v1/", b"/api/v2/"
_NUMBERED = (_V1, _V2)
# Every spelling of yes that the framework takes.
_FOLLOW = frozenset(b"follow=" + yes for yes in (b"1", b"true", b"yes", b"on", b"t", b"y"))
# The X-API-Key header and `/api/v1` are the documents' older way; in the form of RFC 9745, deprecated since 2026.
_DEPRECATED: Header = (b"deprecation", b"@1767225600")
_PREFLIGHT: list[Header] = [
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE, OPTIONS"),
    (b"access-control-max-age", b"86400"),
    (b"content-length", b"0"),
]


@dataclass(frozen=True, slots=True)
class Rendered:
    """An error in a door's dialect."""

    status: int
    body: bytes
    headers: list[Header]


Renderer = Callable[[HubError, Request], Rendered]


class Dispatcher:
    """The ASGI application in front of FastAPI."""

    def __init__(
        self,
        table: RouteTable,
        framework: ASGIApp,
        hub: Hub,
        renderers: Mapping[str, Renderer],
        stats: DoorStats,
        requests: RequestLog,
        once: Once,
    ) -> None:
        self._table = table
        self._framework = framework
        self._admission = hub.admission
        self._renderers = renderers
        self._limit_bytes = hub.settings.max_body_bytes
        self._stats = stats
        self._requests = requests
        self._once = once
        self._new_id = requests.ids.new
        self._hosts = HostRule(hub.settings)
        self._waits: Waits[Any] = Waits()
        # Set by whoever starts them: spans are made when the operator has named a collector.
        self.traces: Traces | None = None
        self._fault: dict[str, Any] = {"support_url": hub.settings.support_url} if hub.settings.support_url else {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._framework(scope, receive, send)
            return
        began = time.perf_counter()
        request = Request(scope, receive, send, self._new_id(), self._waits)
        if self.traces is not None:
            request.trace = self.traces.door(scope["method"], request.headers)
        try:
            await self._serve(request)
        except HubError as error:
            await self._fail(request, error)
        except ClientGone:
            request.status, request.error = 499, None
        except asyncio.CancelledError:
            # The server cancels what outlasts the grace of its stop, and writes a trace of what comes out of here. A client that
            # leaves is a ClientGone.
            await self._fail(request, Unavailable(STOPPING))
        except Exception as error:  # the error middleware: one of the four places that may catch everything
            await self._fail(request, self._fault_of(error, request))
        finally:
            if request.lease is not None:
                request.lease.release()
            self.record(request, began)

    def close(self) -> None:
        """No request is under way any more."""
        self._waits.close()

    def part(self, parent: Request, scope: Scope) -> Request:
        """An operation of a request, as a request of its own from the same client; whoever makes it says where it comes from and goes."""
        part = Request(scope, parent.receive, parent.send, self._new_id(), self._waits)
        part.address = parent.address
        return part

    def route(self, request: Request) -> Route:
        """The row of where the request goes now. Raises RouteNotFound, MethodNotAllowed."""
        return self._route(request, request.scope["raw_path"], request.scope["method"])

    async def admit_part(self, part: Request, parent: Request) -> None:
        """Admit an operation as any request, but for its place among those at once, which is the parent's. One after the other.

        Raises what a request of its own would be refused with.
        """
        route = self.route(part)
        if route.scope == PUBLIC:
            if route.cost:
                self._admission.count_address(part)
            return
        caller = await self._admission.admit(part, route.scope, 0)
        if route.cost:
            await self._admission.charge_more(parent, caller, route.cost)

    async def answer(self, part: Request, steps: Awaitable[None]) -> None:
        """Let an operation be answered by `steps`, or by the error that they raise, even when an answer had begun: nobody has seen it."""
        try:
            await steps
        except HubError as error:
            part.started = False
            await self._fail(part, error)
        except (ClientGone, asyncio.CancelledError):
            part.status, part.error = 499, None
            raise
        except Exception as error:  # the error middleware of operations
            part.started = False
            await self._fail(part, self._fault_of(error, part))

    def record(self, request: Request, began: float) -> None:
        """The request has ended. `began`: `time.perf_counter()` at its first byte."""
        if not request.recorded:
            self._requests.keep(request, began)
        self._stats.record(request.route, request.status, time.perf_counter() - began)
        if request.trace is not None:
            _end_span(request, request.trace)
        request.error = None  # a ring otherwise: its trace leads to this request, and to the whole body

    async def _serve(self, request: Request) -> None:
        scope = request.scope
        path, older = _path_of(scope)
        origin = request.headers.get(b"origin")
        if origin is not None:
            request.cors = self._hosts.cors(scope["path"], origin)
        if older or (b"x-api-key" in request.headers and b"authorization" not in request.headers):
            request.cors = [*request.cors, _DEPRECATED, *([_successor(path)] if older else ())]
        self._hosts.check(request.headers.get(b"host", b""), origin, scope["path"])
        method = scope["method"]
        if method == "OPTIONS" and origin is not None:
            await self._preflight(request)
            return
        route = self._route(request, path, method)
        if route.event_source:
            take_token(request)
        if route.scope == PUBLIC:
            request.address = self._admission.address_of(request)
            if route.cost:
                self._admission.count_address(request)
        else:
            if route.stream is not None and method == "GET" and (route.event_source or wants_stream(request)):
                caller = await self._admission.admit(request, route.scope, 0)
                await self._admission.admit_stream(request, caller, route.cost)
                await route.stream(request)
                return
            await self._admission.admit(request, route.scope, route.cost)
        if method == "POST" and HEADER in request.headers:
            await self.run(request, route)
        elif route.hot:
            await route.handler(request)
        else:
            await self._to_framework(request)

    async def run(self, request: Request, route: Route) -> None:
        """Have an admitted request answered by its row; with an Idempotency-Key, once."""
        keyed = HEADER in request.headers and request.scope["method"] == "POST" and route.door in DOORS
        if keyed and request.caller is not None:
            await self._once.run(request, route, self._answered_by_row)
        else:
            await self._answered_by_row(request)

    async def _answered_by_row(self, request: Request) -> None:
        if request.route is not None and request.route.hot:
            await request.route.handler(request)
        else:
            await self._to_framework(request)

    def _route(self, request: Request, path: bytes, method: str) -> Route:
        match = self._table.find(path)
        if match is None:
            raise RouteNotFound
        rows, request.values = match
        found = rows.get(method) or (rows.get("GET") if method == "HEAD" else None)
        if found is None:
            raise MethodNotAllowed(headers={"allow": ", ".join(sorted(rows))})
        request.route = found[0]
        request.door = found[0].door
        return found[0]

    async def _preflight(self, request: Request) -> None:
        asked = request.headers.get(b"access-control-request-headers", b"authorization, content-type")
        request.started, request.status = True, 204
        headers = [*request.base_headers(), *_PREFLIGHT, (b"access-control-allow-headers", asked)]
        await request.send({"type": "http.response.start", "status": 204, "headers": headers})
        await request.send({"type": "http.response.body", "body": b""})

    async def _to_framework(self, request: Request) -> None:
        scope, size = request.scope, 0
        if any("/" in value for value in request.values):
            # FastAPI reads the decoded path, where this would be another path, and maybe another row.
            if request.route is None or not request.route.slashes:
                raise NotFound
            scope["path"] = request.route.filled(request.values)
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        scope[SCOPE_KEY] = request
        announced = request.headers.get(b"content-length", b"0")
        if int(announced) > self._limit_bytes:
            raise PayloadTooLarge(limit_bytes=self._limit_bytes)
        if int(announced) > 0 or b"transfer-encoding" in request.headers:
            request.check_json_type()
        else:
            # A Content-Type on a request without a body is ignored.
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"content-type"]

        async def receive() -> Message:
            nonlocal size
            message = await request.receive()
            size += len(message.get("body", b""))
            if size > self._limit_bytes:
                raise PayloadTooLarge(limit_bytes=self._limit_bytes)
            return message

        answer = _Answer(request)
        try:
            await self._framework(scope, receive, answer.send)
        finally:
            del scope[SCOPE_KEY]  # a ring otherwise
        log.info(
            "request", request_id=request.id, method=scope["method"], route=request.route and request.route.path, status=request.status
        )

    def _fault_of(self, error: Exception, request: Request) -> HubError:
        """What to answer to an error that is none of ours; it is in the log."""
        outage = note_outage(error, request)
        if outage is None:
            method, route = request.scope["method"], request.route and request.route.path
            log.error("request failed", request_id=request.id, method=method, route=route, exc_info=error)
        return outage or Internal(**self._fault)

    async def _fail(self, request: Request, error: HubError) -> None:
        request.error = error
        if request.started:  # the answer has begun: all that is left is to break it off
            return
        if request.route is None:
            request.door = door_of(request.scope["path"])
        rendered = self.render(error, request)
        kept = [pair for pair in request.base_headers() if pair[0] not in {name for name, _ in rendered.headers}]
        headers = [*kept, *rendered.headers, NO_STORE, (b"content-length", b"%d" % len(rendered.body))]
        request.started, request.status = True, rendered.status
        await request.send({"type": "http.response.start", "status": rendered.status, "headers": headers})
        await request.send({"type": "http.response.body", "body": rendered.body})

    def render(self, error: HubError, request: Request) -> Rendered:
        """The error in the dialect of the request's door."""
        return self._renderers[request.door](error, request)


def _path_of(scope: Scope) -> tuple[bytes, bool]:
    """The path as it was sent, the documents' other names of it put right in the scope too; and whether it was the oldest of these."""
    path: bytes = scope["raw_path"] if scope.get("raw_path") else scope["path"].encode()
    if not path.startswith(_NUMBERED):
        return path, False
    older = path.startswith(_V1)
    path = b"/api/" + path[len(_V2) :]
    scope["raw_path"], scope["path"] = path, "/api/" + scope["path"][len(_V2) :]
    return path, older


def _end_span(request: Request, span: DoorSpan) -> None:
    method, route = request.scope["method"], request.route
    span.end(f"{method} {route.path}" if route is not None else method, request.status, request.id, request.error)


def wants_stream(request: Request) -> bool:
    """Whether the request is for an event stream: by its Accept header, or by `follow` where a header cannot be set."""
    query: bytes = request.scope["query_string"]
    return b"text/event-stream" in request.headers.get(b"accept", b"") or not _FOLLOW.isdisjoint(query.lower().split(b"&"))


def note_outage(error: Exception, request: Request) -> HubError | None:
    """What to answer when the database is the reason, and a line in the log; None for any other error."""
    outage = find_outage(error)
    if outage is not None:
        # The driver's own words alone: around them there are the statement and its values.
        log.error("database unavailable", request_id=request.id, kind=type(error).__name__, error=str(getattr(error, "orig", error)))
    return outage


class _Answer:
    """The framework's answer on its way out: our headers are added, and a GET gets its weak ETag."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._start: Message | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        request = self._request
        if message["type"] == "http.response.start":
            request.status = message["status"]
            message["headers"] = [*message["headers"], *request.base_headers()]
            if request.route is not None and request.route.secret and request.status < 400:  # errors say it themselves
                message["headers"].append(NO_STORE)
            # What is sent piece by piece, without a length, may be more than memory holds: it has no tag.
            whole = any(name == b"content-length" for name, _ in message["headers"])
            if request.scope["method"] in ("GET", "HEAD") and message["status"] == 200 and whole:
                self._start = message
                return
            request.started = True
        elif self._start is not None:
            self._body += message.get("body", b"")
            if message.get("more_body", False):
                return
            await self._tagged(self._start)
            return
        elif request.scope["method"] == "HEAD":
            message["body"] = b""
        await request.send(message)

    async def _tagged(self, start: Message) -> None:
        request = self._request
        tag = b'W/"' + blake2b(self._body, digest_size=12).hexdigest().encode() + b'"'
        start["headers"].append((b"etag", tag))
        body = self._body
        # Weak comparison (RFC 9110 section 13.1.2): `"x"` and `W/"x"` are one.
        wanted = [part.strip().removeprefix(b"W/") for part in request.headers.get(b"if-none-match", b"").split(b",")]
        if tag.removeprefix(b"W/") in wanted or wanted == [b"*"]:
            start["status"] = request.status = 304
            start["headers"] = [pair for pair in start["headers"] if pair[0] not in (b"content-length", b"content-type")]
            body = b""
        request.started = True
        await request.send(start)
        await request.send({"type": "http.response.body", "body": b"" if request.scope["method"] == "HEAD" else body})


class HostRule:
    """Which Host and Origin are ours (DNS rebinding; MCP "Security Warning" of Streamable HTTP).

    A host that is an address, or localhost, or the public URL's is ours. On the MCP doors an Origin must be loopback, ours, or
    listed; on the REST doors any origin may read answers (a key is needed anyway) unless a list is given.
    """

    def __init__(self, settings: Settings) -> None:
        public = urlsplit(settings.public_url).hostname if settings.public_url else None
        self._names = {name for name in ("localhost", settings.host.lower(), public) if name}
        self._origins = {origin.lower().rstrip("/").encode() for origin in settings.allowed_origins}
        self._judged: dict[bytes, bool] = {}

    def check(self, host: bytes, origin: bytes | None, path: str) -> None:
        """Raise MisdirectedHost for a foreign Host, or on the MCP doors a foreign Origin."""
        if not (self._judged.get(host) or self._ours(host)):
            raise MisdirectedHost("Host not allowed")
        if origin is not None and door_of(path) == "mcp" and origin.lower() not in self._origins and not self._ours_origin(origin):
            raise MisdirectedHost("Origin not allowed")

    def cors(self, path: str, origin: bytes) -> list[Header]:
        """The CORS headers of an answer to a browser; never with credentials."""
        if not path.startswith(_CORS_DOORS):
            return []
        if not self._origins:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", _EXPOSED)]
        if origin.lower() not in self._origins:
            return [(b"vary", b"Origin")]
        return [(b"access-control-allow-origin", origin), (b"vary", b"Origin"), (b"access-control-expose-headers", _EXPOSED)]

    def _ours(self, host: bytes) -> bool:
        judged = self._judged.get(host)
        if judged is None:
            if len(self._judged) > 256:
                self._judged.clear()
            judged = self._judged[host] = self._is_ours(host)
        return judged

    def _is_ours(self, host: bytes) -> bool:
        try:
            name = (urlsplit("//" + host.decode("ascii")).hostname or "").rstrip(".")
        except (UnicodeDecodeError, ValueError):
            return False
        return name in self._names or ":" in name or name.replace(".", "").isdigit()

    def _ours_origin(self, origin: bytes) -> bool:
        try:
            name = urlsplit(origin.decode("ascii")).hostname or ""
        except (UnicodeDecodeError, ValueError):
            return False
        return name in self._names or name in ("127.0.0.1", "::1")


def _successor(path: bytes) -> Header:
    """Where the same is found under its newer name (RFC 8288, relation of RFC 5829)."""
    return b"link", b'<%b>; rel="successor-version"' % quote(path.partition(b"?")[0], safe="/%").encode()


def door_of(path: str) -> str:
    """Whose error dialect a path without a row speaks."""
    if path.startswith("/v1"):
        return "v1"
    if path.startswith(("/mcp", "/sse")) or (path.startswith("/servers/") and path.endswith(("/mcp", "/sse"))):
        return "mcp"
    return "oauth" if path.startswith("/oauth/") else "api"
