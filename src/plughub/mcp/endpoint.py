"""One POST in, one answer out: `/mcp` for everything a caller may see, `/servers/{uuid}/mcp` for one server, transparent.

Both eras on one address: a request that names a modern revision is stateless, all else is answered the handshake way. A client of
the handshake revisions gets a session from `initialize`; one that does not send its id back is answered all the same, as far as that
goes without one.
"""

import asyncio
from collections.abc import Awaitable, Callable

from plughub.door.request import NO_STORE, Request
from plughub.door.routes import AUTHENTICATED, Route
from plughub.door.shapes import RpcRequest, RpcResponse
from plughub.door.stream import Outlet
from plughub.gateway.hub import Hub
from plughub.kit.errors import HeaderMismatch, HubError, Malformed, MethodNotAllowed, MethodNotFound, RequestCancelled, ServerNotFound
from plughub.kit.ids import parse_uuid
from plughub.mcp.conversation import Conversation
from plughub.mcp.everything import Everything
from plughub.mcp.methods import FORWARD, METHODS, Method
from plughub.mcp.render import error_headers, error_object, http_status
from plughub.mcp.sessions import Session, Sessions, Stream
from plughub.mcp.views import ONE_SERVER_PATH, OneServer, View
from plughub.protocol import versions
from plughub.protocol.envelope import Notification, check_modern, classify, error_frame
from plughub.protocol.envelope import Request as Message
from plughub.protocol.envelope import Response as Reply
from plughub.upstream.target import Answer

_SPELLED = {name.lower().encode(): name for name in ("MCP-Protocol-Version", "Mcp-Method", "Mcp-Name")}
_MIRRORED = tuple(_SPELLED)
SESSION_ID = b"mcp-session-id"
_NO_SESSION = "GET and DELETE are for clients of the handshake revisions, and name their session"


class McpDoor:
    """The handlers of the MCP routes."""

    def __init__(self, hub: Hub, sessions: Sessions) -> None:
        self._hub = hub
        self._sessions = sessions
        self._everything = Everything(hub)

    async def everything(self, request: Request) -> None:
        """POST /mcp"""
        await self._handle(request, self._everything)

    async def one_server(self, request: Request) -> None:
        """POST /servers/{uuid}/mcp"""
        await self._handle(request, await self._server(request))

    async def listen_to_everything(self, request: Request) -> None:
        """GET /mcp"""
        await self._listen(request, self._everything)

    async def listen_to_one_server(self, request: Request) -> None:
        """GET /servers/{uuid}/mcp"""
        await self._listen(request, await self._server(request))

    async def leave_everything(self, request: Request) -> None:
        """DELETE /mcp"""
        await self._leave(request, self._everything)

    async def leave_one_server(self, request: Request) -> None:
        """DELETE /servers/{uuid}/mcp"""
        await self._leave(request, await self._server(request))

    async def _server(self, request: Request) -> OneServer:
        server_id = parse_uuid(request.values[0])
        if server_id is None:
            raise ServerNotFound
        caller = request.known_caller()
        target = self._hub.servers.find(caller, server_id) or await self._hub.exchange.target(caller, server_id)
        request.server_id = server_id
        return OneServer(self._hub, target)

    # ---- POST

    async def _handle(self, request: Request, view: View) -> None:
        body = await request.json_body(self._hub.settings.max_body_bytes)
        message = classify(request.headers, body)
        modern = isinstance(message, Message) and message.modern
        session_id = None if modern else request.headers.get(SESSION_ID)
        session = None if session_id is None else self._sessions.get(request.known_caller(), session_id, view.door)
        if isinstance(message, Message):
            await self._ask(request, view, message, session)
            return
        if session is not None:
            _tell(session, message)
        await request.respond(202, b"")

    async def _ask(self, request: Request, view: View, message: Message, session: Session | None) -> None:
        outlet = Outlet(request, self._hub.streams)
        talk = Conversation(request, message, outlet, self._sessions, session)
        try:
            await self._answer(request, view, talk, outlet)
        finally:  # also when the client has left, or the server gives up the task
            talk.close()
            outlet.close()

    async def _answer(self, request: Request, view: View, talk: Conversation, outlet: Outlet) -> None:
        message, status, extra = talk.message, 200, None
        try:
            frame = await self._run(request, view, talk, outlet)
            if talk.opened is not None:
                extra = [(SESSION_ID, talk.opened.id.encode())]
        except HubError as error:
            request.error = error
            frame, status = error_frame(message.id, error_object(error, request.id)), http_status(error, modern=message.modern)
            extra = [NO_STORE, *error_headers(error, request, self._hub.settings.public_url)]
        if outlet.open:
            await outlet.end(talk.last(frame))
        else:
            await request.respond(status, frame, extra=extra)

    async def _run(self, request: Request, view: View, talk: Conversation, outlet: Outlet) -> bytes:
        message = talk.message
        if message.modern:
            doubled = request.repeated(_MIRRORED)
            if doubled is not None:
                raise HeaderMismatch(f"{_SPELLED[doubled]} header appears more than once")
            check_modern(request.headers, message)
        request.rpc = message.method
        method = _method_of(view, message)
        request.needed = method.scope
        if method.scope != AUTHENTICATED:
            talk.caller.require(method.scope)
        if method.cost:
            self._hub.admission.charge(request, talk.caller, method.cost)
        # To older clients a broken connection is not a cancellation (MCP 2025-11-25 "Cancellation"): a notification is.
        work = outlet.run(method.handler(view, talk), leaving_cancels=message.modern)
        return await work if talk.session is None else await _cancellable(talk.session, message.id, work)

    # ---- GET and DELETE

    async def _listen(self, request: Request, view: View) -> None:
        session_id = request.headers.get(SESSION_ID)
        if session_id is None or request.headers.get(b"mcp-protocol-version", b"").decode("latin-1") in versions.MODERN:
            raise MethodNotAllowed(_NO_SESSION, headers={"allow": "POST"})
        if b"text/event-stream" not in request.headers.get(b"accept", b""):
            raise Malformed("A stream of messages is asked for with Accept: text/event-stream")
        caller = request.known_caller()
        caller.require("execute:tools")
        session = self._sessions.get(caller, session_id, view.door)
        stream, after = _stream_of(session, request.headers.get(b"last-event-id", b"").decode("latin-1"))
        outlet = Outlet(request, self._hub.streams)
        try:
            outlet.push(_priming(session, stream, after))
            stream.read_by(outlet, after)
            await outlet.run(stream.over.wait(), leaving_cancels=True)
            await outlet.end(b"")
        except HubError:
            if not request.started:
                raise
            await request.end_stream()  # the session or the key has ended: a client that asks again is told so
        finally:
            if stream.outlet is outlet:
                stream.outlet = None
            outlet.close()

    async def _leave(self, request: Request, view: View) -> None:
        session_id = request.headers.get(SESSION_ID)
        if session_id is None:
            raise MethodNotAllowed(_NO_SESSION, headers={"allow": "POST"})
        self._sessions.end(request.known_caller(), session_id, view.door)
        await request.respond(204, b"")


def _method_of(view: View, message: Message) -> Method:
    method = METHODS.get(message.method, FORWARD)
    if (method.era is not None and (method.era == "modern") != message.modern) or (method is FORWARD and not view.forwards(message.method)):
        raise MethodNotFound(f"Method not found: {message.method[:100]}")
    return method


async def _cancellable(session: Session, id_: bytes, work: Awaitable[bytes]) -> bytes:
    """Await `work`; the client may cancel it by the id of its request. Raises RequestCancelled."""
    task = asyncio.current_task()
    assert task is not None
    session.calls[id_] = task
    try:
        return await work
    except asyncio.CancelledError:
        if session.calls.get(id_) is task:
            raise
        task.uncancel()
        raise RequestCancelled from None
    finally:
        session.calls.pop(id_, None)


def _tell(session: Session, message: Notification | Reply) -> None:
    """What a client says without asking."""
    if isinstance(message, Reply):
        session.answered(message.id, Answer(message.result, message.error))
    elif message.method == "notifications/cancelled":
        session.cancel(message.params.get("requestId", b""))


def _stream_of(session: Session, event_id: str) -> tuple[Stream, int]:
    """The stream to read: that of the event which the client saw last, else the session's own."""
    if event_id:
        found = session.find_stream(event_id)
        if found is not None:
            return found
    if session.listening is None:
        session.listening = session.stream()
    return session.listening, session.listening.sent


def _priming(session: Session, stream: Stream, after: int) -> bytes:
    """What begins the stream of GET: an event with an id and no data, to be taken up from (MCP 2025-11-25); a comment before that."""
    return b"id: %d-%d\ndata: \n\n" % (stream.number, after) if session.version >= "2025-11-25" else b": listening\n\n"


def routes(hub: Hub, sessions: Sessions) -> list[Route]:
    """The rows. Scope and cost of a message are its method's, so the row itself asks only for a key and counts nothing."""
    door = McpDoor(hub, sessions)
    one = ONE_SERVER_PATH
    return [
        _post("/mcp", door.everything, "MCP: every server the key may use"),
        _post(one, door.one_server, "MCP: one server, transparent"),
        _row("GET", "/mcp", door.listen_to_everything, "MCP: the stream of a session"),
        _row("GET", one, door.listen_to_one_server, "MCP: the stream of a session with one server"),
        _row("DELETE", "/mcp", door.leave_everything, "MCP: end a session"),
        _row("DELETE", one, door.leave_one_server, "MCP: end a session with one server"),
    ]


def _post(path: str, handler: Callable[[Request], Awaitable[None]], summary: str) -> Route:
    return Route("POST", path, AUTHENTICATED, handler, summary, "MCP", "mcp", cost=0, hot=True, input=RpcRequest, output=RpcResponse)


def _row(method: str, path: str, handler: Callable[[Request], Awaitable[None]], summary: str) -> Route:
    status, kind = (200, "text/event-stream") if method == "GET" else (204, "application/json")
    output = str if method == "GET" else None
    return Route(method, path, AUTHENTICATED, handler, summary, "MCP", "mcp", status, cost=0, hot=True, output=output, output_kind=kind)
