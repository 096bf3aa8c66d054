"""The older transport for clients, HTTP+SSE (MCP 2024-11-05 "Transports"): one stream out, messages by POST beside it.

`GET /sse` and `GET /servers/{uuid}/sse` open the stream; its first event says where to POST. The id in that address is no credential:
every POST shows the key that opened the stream. Everything else is as at `/mcp`, but that the session ends with its stream, and the
calls that are under way with it: nobody is left who could hear their answers.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

from plughub.door.request import Request
from plughub.door.routes import AUTHENTICATED, Route
from plughub.door.shapes import RpcRequest
from plughub.door.stream import followed
from plughub.gateway.hub import Hub
from plughub.gateway.streams import Feed
from plughub.kit.caller import Caller
from plughub.kit.errors import HubError, MethodNotAllowed, Unavailable
from plughub.mcp.conversation import Conversation
from plughub.mcp.everything import Everything
from plughub.mcp.listen import attend
from plughub.mcp.render import MCP_SCOPE, error_object
from plughub.mcp.running import admitted, cancellable, require_event_stream, tell
from plughub.mcp.sessions import Session, SessionNotFound, Sessions, Stream
from plughub.mcp.views import View, one_server
from plughub.protocol.envelope import Request as Message
from plughub.protocol.envelope import classify, error_frame, sse_message

MESSAGES_PATH = "/sse/messages"
ONE_SERVER_SSE_PATH = "/servers/{uuid}/sse"
MAX_UNDER_WAY = 64
_ENDED = "The stream has ended"


class Line:
    """One client's stream. What is told on the way is dropped when the client reads too slowly; an answer waits for it."""

    def __init__(self, request: Request, feed: Feed, server: str | None) -> None:
        self.id = secrets.token_urlsafe(24)
        self.server = server
        self.key_id = request.known_caller().key_id
        self.session: Session | None = None
        self.stream = _Unkept(0, own=self, outlet=self)
        self.under_way: set[asyncio.Task[object]] = set()
        self.ended = False
        self._request = request
        self._feed = feed
        self._writing = asyncio.Lock()

    @property
    def behind(self) -> bool:
        """See `sessions.Reader`."""
        return self._feed.dropped > 0

    def push(self, frame: bytes, *, needed: bool = False) -> None:
        """See `sessions.Reader`."""
        self._feed.push(frame, needed=needed)

    def stop(self, error: HubError) -> None:
        """See `sessions.Reader`."""
        self._feed.stop(error)

    async def send(self, frame: bytes) -> None:
        """Send what waits and then the frame; waits while the client reads slowly."""
        async with self._writing:
            await self._request.write(self._feed.take() + frame)

    def begin(self, session: Session) -> Session | None:
        """The client has shaken hands; the session that it had before, if it had one."""
        before, self.session = self.session, session
        session.listening = self.stream
        session.on_end.append(lambda: self._over(session))
        return before

    def _over(self, session: Session) -> None:
        if self.session is session:
            self.stop(SessionNotFound("The session has ended"))

    def end(self) -> None:
        """Nobody listens any more: what is under way ends."""
        self.ended, self.stream.outlet = True, None
        for task in self.under_way:
            task.cancel()


class _Unkept(Stream):
    """Cannot be taken up again: frames have no numbers, and none is kept."""

    __slots__ = ()

    def _keep(self, frame: bytes) -> bytes:
        return frame


class _Talk(Conversation):
    """A request whose answer, and all that comes before it, goes over the line."""

    __slots__ = ("line",)

    def __init__(self, request: Request, message: Message, line: Line, sessions: Sessions, session: Session | None) -> None:
        super().__init__(request, message, line, sessions, session)
        self.line = line

    def takes_streams(self) -> bool:
        """It has one already."""
        return True

    def _own_stream(self, session: Session) -> Stream:
        return self.line.stream


class SseDoor:
    """The handlers, and the owner of the lines: as many as there are places for streams."""

    def __init__(self, hub: Hub, sessions: Sessions) -> None:
        self._hub = hub
        self._sessions = sessions
        self._everything = Everything(hub)
        self._lines: dict[str, Line] = {}
        self._messages = urlsplit(hub.settings.public_url).path.rstrip("/") + MESSAGES_PATH

    async def open_everything(self, request: Request) -> None:
        """GET /sse"""
        await self._open(request, None)

    async def open_one_server(self, request: Request) -> None:
        """GET /servers/{uuid}/sse"""
        await self._open(request, request.values[0])

    async def _open(self, request: Request, server: str | None) -> None:
        if request.scope["method"] == "HEAD":  # a stream without a body would never end
            raise MethodNotAllowed(headers={"allow": "GET"})
        await self._view(request, server)
        require_event_stream(request)
        caller = request.known_caller()
        await self._hub.admission.admit_stream(request, caller, 0)
        feed = self._hub.streams.open(caller, resting=True)
        line = Line(request, feed, server)
        self._lines[line.id] = line
        try:
            await request.start_stream()
            await line.send(b"event: endpoint\ndata: %b?session_id=%b\n\n" % (self._messages.encode(), line.id.encode()))
            await followed(request, feed, _lost, line.send)
        except HubError as error:
            request.error = error
            await request.end_stream()
        finally:
            feed.close()
            del self._lines[line.id]
            self._end(line, caller)

    def _end(self, line: Line, caller: Caller) -> None:
        line.end()
        if line.session is not None:
            self._drop(line.session, caller)

    def _drop(self, session: Session, caller: Caller) -> None:
        with suppress(SessionNotFound):  # it may be what ended the line
            self._sessions.end(caller, session.id.encode(), session.door)

    async def _view(self, request: Request, server: str | None) -> View:
        return self._everything if server is None else await one_server(self._hub, request, server)

    async def take(self, request: Request) -> None:
        """POST /sse/messages"""
        line = self._line(request)
        message = classify(request.headers, await request.json_body(self._hub.settings.max_body_bytes))
        caller, session = request.known_caller(), line.session
        if session is not None:  # the one used last
            session = self._sessions.get(caller, session.id.encode(), session.door)
        if not isinstance(message, Message):
            if session is not None:
                tell(session, message)
            await request.respond(202, b"")
            return
        if len(line.under_way) >= MAX_UNDER_WAY:
            raise Unavailable(f"{MAX_UNDER_WAY} messages of this stream wait for their answers")
        view = await self._view(request, line.server)
        message.modern = False  # this transport ended before 2026-07-28: its clients are told so, method by method
        await self._answer(request, view, _Talk(request, message, line, self._sessions, session))

    def _line(self, request: Request) -> Line:
        """The stream that the address names. Raises SessionNotFound: unknown, over, and another key's look alike."""
        query: bytes = request.scope["query_string"]
        line = self._lines.get(parse_qs(query.decode("latin-1")).get("session_id", [""])[0])
        if line is None or line.key_id != request.known_caller().key_id:
            raise SessionNotFound("Session not found: open the stream again")
        return line

    async def _answer(self, request: Request, view: View, talk: _Talk) -> None:
        """Take the message, then run it: its answer comes over the line, whatever it is."""
        line, task = talk.line, asyncio.current_task()
        assert task is not None
        line.under_way.add(task)
        try:
            await request.respond(202, b"")
            await line.send(sse_message(await self._run(request, view, talk)))
        except asyncio.CancelledError:
            if not line.ended:
                raise
            task.uncancel()
            request.error = SessionNotFound(_ENDED)
        finally:
            line.under_way.discard(task)

    async def _run(self, request: Request, view: View, talk: _Talk) -> bytes:
        message = talk.message
        try:
            method = await admitted(self._hub, request, view, talk)
            frame = await cancellable(talk.session, message.id, method.handler(view, talk))
        except HubError as error:
            request.error = error
            return error_frame(message.id, error_object(error, request.id))
        if talk.opened is not None:
            before = talk.line.begin(talk.opened)
            if before is not None:
                self._drop(before, talk.caller)
            await attend(view, talk.caller, talk.opened)
            await attend(view, talk.caller, talk.opened)
        return frame


def _lost(count: int) -> bytes:
    return b": %d messages were not sent, being read too slowly\n\n" % count


def routes(hub: Hub, sessions: Sessions) -> list[Route]:
    """The rows."""
    door = SseDoor(hub, sessions)
    return [
        _stream("/sse", door.open_everything, "MCP over HTTP+SSE: every server the key may use"),
        _stream(ONE_SERVER_SSE_PATH, door.open_one_server, "MCP over HTTP+SSE: one server, transparent"),
        Route(
            "POST",
            MESSAGES_PATH,
            AUTHENTICATED,
            door.take,
            "MCP over HTTP+SSE: a message, answered on the stream",
            "MCP",
            "mcp",
            202,
            cost=0,
            hot=True,
            input=RpcRequest,
        ),
    ]


def _stream(path: str, handler: Callable[[Request], Awaitable[None]], summary: str) -> Route:
    return Route("GET", path, MCP_SCOPE, handler, summary, "MCP", "mcp", cost=0, hot=True, output=str, output_kind="text/event-stream")
