"""One POST in, one answer out: `/mcp` for everything a caller may see, `/mcp/{profile_slug}` for one profile, `/servers/{uuid}/mcp` for
one server, transparent.

Both eras on one address: a request that names a modern revision is stateless, all else is answered the handshake way. A client of
the handshake revisions gets a session from `initialize`; one that does not send its id back is answered all the same, as far as that
goes without one.
"""

from collections.abc import Awaitable, Callable

from plughub.cluster.limits import Header
from plughub.door.request import NO_STORE, Request
from plughub.door.routes import AUTHENTICATED, Route
from plughub.door.shapes import RpcAnswer, RpcPost
from plughub.door.stream import Outlet
from plughub.gateway.hub import Hub
from plughub.kit.errors import HeaderMismatch, HubError, MethodNotAllowed
from plughub.mcp.batches import Batches, is_batch
from plughub.mcp.conversation import Conversation
from plughub.mcp.everything import Everything
from plughub.mcp.listen import attend, farewell
from plughub.mcp.methods import Method
from plughub.mcp.profile import OneProfile
from plughub.mcp.render import error_headers, error_object, http_status
from plughub.mcp.running import cancellable, method_of, require_event_stream, tell
from plughub.mcp.sessions import SESSION_ID, Session, Sessions, Stream
from plughub.mcp.views import ONE_PROFILE_PATH, ONE_SERVER_PATH, OneServer, View, known_server, one_server
from plughub.protocol import versions
from plughub.protocol.envelope import Request as Message
from plughub.protocol.envelope import check_modern, classify, error_frame

_SPELLED = {name.lower().encode(): name for name in ("MCP-Protocol-Version", "Mcp-Method", "Mcp-Name")}
_MIRRORED = tuple(_SPELLED)
_NO_SESSION = "GET and DELETE are for clients of the handshake revisions, and name their session"


class McpDoor:
    """The handlers of the MCP routes."""

    def __init__(self, hub: Hub, sessions: Sessions) -> None:
        self._hub = hub
        self._sessions = sessions
        self._everything = Everything(hub)
        self._batches = Batches(hub, sessions)

    async def everything(self, request: Request) -> None:
        """POST /mcp"""
        await self._handle(request, self._everything)

    async def one_server(self, request: Request) -> None:
        """POST /servers/{uuid}/mcp"""
        await self._handle(request, known_server(self._hub, request) or await self._server(request))

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

    async def one_profile(self, request: Request) -> None:
        """POST /mcp/{profile_slug}"""
        await self._handle(request, await self._profile(request))

    async def listen_to_one_profile(self, request: Request) -> None:
        """GET /mcp/{profile_slug}"""
        await self._listen(request, await self._profile(request))

    async def leave_one_profile(self, request: Request) -> None:
        """DELETE /mcp/{profile_slug}"""
        await self._leave(request, await self._profile(request))

    async def _server(self, request: Request) -> OneServer:
        return await one_server(self._hub, request, request.values[0])

    async def _profile(self, request: Request) -> OneProfile:
        caller, slug, profiles = request.known_caller(), request.values[0], self._hub.profiles
        return OneProfile(self._hub, profiles.find(caller, slug) or await profiles.resolve(caller, slug))

    # ---- POST

    async def _handle(self, request: Request, view: View) -> None:
        body = await request.json_body(self._hub.settings.max_body_bytes)
        if body[:1] != b"{" and is_batch(body):
            await self._batches.answer(request, view, body)
            return
        message = classify(request.headers, body)
        modern = isinstance(message, Message) and message.modern
        session_id = None if modern else request.headers.get(SESSION_ID)
        session = None if session_id is None else self._sessions.get(request.known_caller(), session_id, view.door)
        if isinstance(message, Message):
            outlet = Outlet(request, self._hub.streams)
            talk = Conversation(request, message, outlet, self._sessions, session)
            try:
                await self._answer(request, view, talk, outlet)
            finally:
                talk.close()
                outlet.close()
            return
        if session is not None:
            tell(session, message)
        await request.respond(202, b"")

    async def _answer(self, request: Request, view: View, talk: Conversation, outlet: Outlet) -> None:
        try:
            frame = await self._run(request, view, talk, outlet)
            extra = None if talk.opened is None else [(SESSION_ID, talk.opened.id.encode())]
        except HubError as error:
            frame, extra = self._refused(error, request, talk)
        if outlet.open:
            await outlet.end(talk.last(frame))
        elif talk.session is not None and talk.status == 200 and talk.prefers_stream():
            await request.respond_events(talk.streamed(frame), extra)
        else:
            await request.respond(talk.status, frame, extra=extra)

    def _refused(self, error: HubError, request: Request, talk: Conversation) -> tuple[bytes, list[Header]]:
        """Frame and headers of an answer that says what went wrong."""
        request.error = error
        talk.status = http_status(error, modern=talk.message.modern)
        extra = [NO_STORE, *error_headers(error, request, self._hub.settings.public_url)]
        return error_frame(talk.message.id, error_object(error, request.id)), extra

    async def _run(self, request: Request, view: View, talk: Conversation, outlet: Outlet) -> bytes:
        message = talk.message
        if message.modern:
            doubled = request.repeated(_MIRRORED)
            if doubled is not None:
                raise HeaderMismatch(f"{_SPELLED[doubled]} header appears more than once")
            check_modern(request.headers, message)
        method = method_of(request, view, talk)
        if method.rests:
            return await self._rest(view, talk, outlet, method)
        if method.cost and not self._hub.admission.charge_at_once(request, talk.caller, method.cost):
            await self._hub.admission.charge(request, talk.caller, method.cost)
        work = method.handler(view, talk)
        if message.modern:
            return await outlet.run(work, leaving_cancels=True)
        # To older clients a broken connection is not a cancellation (MCP 2025-11-25 "Cancellation"): a notification is.
        return await cancellable(talk.session, message.id, work, outlet)

    async def _rest(self, view: View, talk: Conversation, outlet: Outlet, method: Method) -> bytes:
        """A stream until its client leaves. Whatever else ends it, it ends in good order."""
        require_event_stream(talk.request)
        await self._hub.admission.admit_stream(talk.request, talk.caller, method.cost)
        outlet.rest()
        try:
            return await outlet.run(method.handler(view, talk), leaving_cancels=True)
        except HubError:
            if not outlet.open:
                raise
            return farewell(talk)

    # ---- GET and DELETE

    async def _listen(self, request: Request, view: View) -> None:
        session_id = request.headers.get(SESSION_ID)
        if session_id is None or request.headers.get(b"mcp-protocol-version", b"").decode("latin-1") in versions.MODERN:
            raise MethodNotAllowed(_NO_SESSION, headers={"allow": "POST"})
        require_event_stream(request)
        caller = request.known_caller()
        caller.require("execute:tools")
        session = self._sessions.get(caller, session_id, view.door)
        stream, after = _stream_of(session, request.headers.get(b"last-event-id", b"").decode("latin-1"))
        await self._hub.admission.admit_stream(request, caller, 1)
        outlet = Outlet(request, self._hub.streams)
        outlet.rest()
        try:
            if stream is session.listening:
                await attend(view, caller, session)
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
    one, profile = ONE_SERVER_PATH, ONE_PROFILE_PATH
    return [
        _post("/mcp", door.everything, "MCP: every server the key may use"),
        _post(one, door.one_server, "MCP: one server, transparent"),
        _post(profile, door.one_profile, "MCP: one profile"),
        _row("GET", "/mcp", door.listen_to_everything, "MCP: the stream of a session"),
        _row("GET", one, door.listen_to_one_server, "MCP: the stream of a session with one server"),
        _row("GET", profile, door.listen_to_one_profile, "MCP: the stream of a session with one profile"),
        _row("DELETE", "/mcp", door.leave_everything, "MCP: end a session"),
        _row("DELETE", one, door.leave_one_server, "MCP: end a session with one server"),
        _row("DELETE", profile, door.leave_one_profile, "MCP: end a session with one profile"),
    ]


def _post(path: str, handler: Callable[[Request], Awaitable[None]], summary: str) -> Route:
    return Route("POST", path, AUTHENTICATED, handler, summary, "MCP", "mcp", cost=0, hot=True, input=RpcPost, output=RpcAnswer)


def _row(method: str, path: str, handler: Callable[[Request], Awaitable[None]], summary: str) -> Route:
    status, kind = (200, "text/event-stream") if method == "GET" else (204, "application/json")
    output = str if method == "GET" else None
    headers = ("Mcp-Session-Id",)
    return Route(
        method,
        path,
        AUTHENTICATED,
        handler,
        summary,
        "MCP",
        "mcp",
        status,
        cost=0,
        hot=True,
        headers=headers,
        output=output,
        output_kind=kind,
    )
