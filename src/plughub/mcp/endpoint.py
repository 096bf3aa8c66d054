"""One POST in, one answer out: `/mcp` for everything a caller may see, `/servers/{uuid}/mcp` for one server, transparent.

Both eras on one address: a request that names a modern revision is stateless, all else is answered the handshake way. No session
is made for older clients, so an abandoned one costs nothing.
"""

from collections.abc import Awaitable, Callable

import msgspec

from plughub.door.request import NO_STORE, Request
from plughub.door.routes import AUTHENTICATED, Route
from plughub.door.shapes import RpcRequest, RpcResponse
from plughub.door.stream import streamed, unless_gone
from plughub.gateway.hub import Hub
from plughub.kit.errors import HeaderMismatch, HubError, MethodNotFound, ServerNotFound
from plughub.kit.ids import parse_uuid
from plughub.mcp.methods import METHODS, Method
from plughub.mcp.render import error_headers, error_object, http_status
from plughub.mcp.views import ONE_SERVER_PATH, Asking, Everything, OneServer, View
from plughub.protocol.envelope import Request as Message
from plughub.protocol.envelope import check_modern, classify, error_frame, object_of
from plughub.upstream.target import RawJson

_SPELLED = {name.lower().encode(): name for name in ("MCP-Protocol-Version", "Mcp-Method", "Mcp-Name")}
_MIRRORED = tuple(_SPELLED)


class McpDoor:
    """The handlers of the MCP routes."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._everything = Everything(hub)

    async def everything(self, request: Request) -> None:
        """POST /mcp"""
        await self._handle(request, self._everything)

    async def one_server(self, request: Request) -> None:
        """POST /servers/{uuid}/mcp"""
        server_id = parse_uuid(request.values[0])
        if server_id is None:
            raise ServerNotFound
        target = await self._hub.exchange.target(request.known_caller(), server_id)
        request.server_id = server_id
        await self._handle(request, OneServer(self._hub, target))

    async def _handle(self, request: Request, view: View) -> None:
        body = await request.json_body(self._hub.settings.max_body_bytes)
        message = classify(request.headers, body)
        if not isinstance(message, Message):
            # Nothing that a client tells us concerns us here: there is no session whose state it could change.
            await request.respond(202, b"")
            return
        status, extra = 200, None
        try:
            frame = await self._run(request, view, message)
        except HubError as error:
            request.error = error
            frame, status = error_frame(message.id, error_object(error, request.id)), http_status(error, modern=message.modern)
            extra = [NO_STORE, *error_headers(error, request, self._hub.settings.public_url)]
        if request.started:
            await request.write(sse_message(frame))
            await request.end_stream()
        else:
            await request.respond(status, frame, extra=extra)

    async def _run(self, request: Request, view: View, message: Message) -> bytes:
        if message.modern:
            doubled = request.repeated(_MIRRORED)
            if doubled is not None:
                raise HeaderMismatch(f"{_SPELLED[doubled]} header appears more than once")
            check_modern(request.headers, message)
        request.rpc = message.method
        method = METHODS.get(message.method)
        if method is None or (message.modern and message.method in ("initialize", "ping")):
            raise MethodNotFound(f"Method not found: {message.method[:100]}")
        caller = request.known_caller()
        request.needed = method.scope
        if method.scope != AUTHENTICATED:
            caller.require(method.scope)
        if method.cost:
            self._hub.admission.charge(request, caller, method.cost)
        return await self._answer(request, view, message, method)

    async def _answer(self, request: Request, view: View, message: Message, method: Method) -> bytes:
        caller = request.known_caller()
        if not (method.streams and "progressToken" in message.meta):
            work = method.handler(view, Asking(caller, message, request, None))
            # To older clients a broken connection is not a cancellation (MCP 2025-11-25 "Cancellation").
            return await unless_gone(request, work) if message.modern else await work
        feed = self._hub.streams.open(caller)

        def notify(name: str, params: dict[str, RawJson]) -> None:
            frame = b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (msgspec.json.encode(name), object_of(params))
            feed.push(sse_message(frame))

        work = method.handler(view, Asking(caller, message, request, notify))
        return await streamed(request, feed, work, cancel_on_disconnect=message.modern)  # type: ignore[arg-type]


def sse_message(frame: bytes) -> bytes:
    """A JSON-RPC message as a frame of an event stream. JSON of one line stays one line; others are split as SSE wants."""
    if b"\n" in frame or b"\r" in frame:
        frame = frame.replace(b"\r\n", b" ").replace(b"\n", b" ").replace(b"\r", b" ")
    return b"event: message\ndata: %b\n\n" % frame


def routes(hub: Hub) -> list[Route]:
    """The rows. Scope and cost of a message are its method's, so the row itself asks only for a key and counts nothing."""
    door = McpDoor(hub)
    return [
        _row("/mcp", door.everything, "MCP: every server the key may use"),
        _row(ONE_SERVER_PATH, door.one_server, "MCP: one server, transparent"),
    ]


def _row(path: str, handler: Callable[[Request], Awaitable[None]], summary: str) -> Route:
    return Route("POST", path, AUTHENTICATED, handler, summary, "MCP", "mcp", cost=0, hot=True, input=RpcRequest, output=RpcResponse)
