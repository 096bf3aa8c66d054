"""One request of an MCP client while it runs: what it asked, in which session, and what it hears before the answer."""

from dataclasses import replace

import msgspec

from plughub.door.request import Request
from plughub.kit.errors import UpstreamError
from plughub.mcp.sessions import Reader, Session, Sessions, Stream
from plughub.protocol import versions
from plughub.protocol.envelope import Request as Message
from plughub.protocol.envelope import object_of, sse_message
from plughub.upstream.target import Answer, Notify, Peer, Question, RawJson

EVENTS, JSON_TYPE = b"text/event-stream", b"application/json"


class Conversation:
    """Made by the endpoint for each request. `opened` is the session that this request began; `status` the HTTP status of its answer."""

    __slots__ = ("_outlet", "_parked", "_stream", "caller", "message", "opened", "request", "session", "sessions", "status")

    def __init__(self, request: Request, message: Message, outlet: Reader, sessions: Sessions, session: Session | None) -> None:
        self.request = request
        self.caller = request.known_caller()
        self.message = message
        self.sessions = sessions
        self.session = session
        self.opened: Session | None = None
        self.status = 200
        self._outlet = outlet
        self._stream: Stream | None = None
        self._parked: Peer | None = None

    def peer(self) -> Peer:
        """Whoever asked, as servers see it. Without a session a client of the handshake revisions cannot be asked anything."""
        if self._parked is not None:
            return self._parked
        session, meta = self.session, self.message.meta
        if session is not None:
            return Peer(self.notify, self.ask, session.capabilities, session.info, session.log_level, session.id)
        if not self.message.modern:
            return Peer(self.notify)
        capabilities, level = meta.get(versions.META_CAPABILITIES, b""), meta.get(versions.META_LOG_LEVEL)
        return Peer(self.notify, None, capabilities, meta.get(versions.META_CLIENT_INFO), level, self.caller.key_id, modern=True)

    def park(self, notify: Notify, ask: Question) -> None:
        """From here on servers know of this client by an exchange that may outlive the request."""
        self._parked = replace(self.peer(), notify=notify, ask=ask)

    def notify(self, method: str, params: dict[str, RawJson]) -> None:
        """A server's notification about this request."""
        meta = self.message.meta
        if method == "notifications/progress" and "progressToken" not in meta:
            return  # nobody asked for it
        if method == "notifications/message" and self.message.modern and versions.META_LOG_LEVEL not in meta:
            return  # 2026-07-28: a client that names no level hears nothing
        if method == "notifications/progress":
            params["progressToken"] = meta["progressToken"]  # a request that was taken up again has another one
        self._push(notification_frame(method, params))

    def tell(self, method: str, params: dict[str, RawJson]) -> None:
        """Something that the client has asked to hear."""
        self._push(notification_frame(method, params))

    @property
    def behind(self) -> bool:
        """Whether the client reads so slowly that it has missed something."""
        return self._outlet.behind

    async def ask(self, method: str, params: RawJson) -> Answer:
        """A server's request to the client. Raises UpstreamError when it cannot be asked."""
        if self.session is None:
            raise UpstreamError("The server asks for input, which a client without a session cannot be asked for", executed="unknown")
        if not self.takes_streams():
            raise UpstreamError("The server asks for input, and the client's Accept header has no text/event-stream", executed="unknown")
        return await self.session.ask(self._own_stream(self.session), method, params)

    def takes_streams(self) -> bool:
        """Whether it can be told anything before the answer."""
        return EVENTS in self.request.headers.get(b"accept", b"")

    def _push(self, frame: bytes) -> None:
        if not self.takes_streams():
            return
        if self.session is None:
            self._outlet.push(frame)
        else:
            self._own_stream(self.session).push(frame)

    def _own_stream(self, session: Session) -> Stream:
        if self._stream is None:
            self._stream = session.stream()
            self._stream.own = self._stream.outlet = self._outlet
            priming = self._stream.priming(session.version)
            if priming:
                self._outlet.push(priming)
        return self._stream

    def last(self, frame: bytes) -> bytes:
        """The answer as the last frame of the stream, kept for a client that takes it up again."""
        whole = sse_message(frame)
        return whole if self._stream is None else self._stream.finish(whole)

    def prefers_stream(self) -> bool:
        """Whether this client of a session names event streams before plain JSON, or alone, so that an answer is one."""
        if self.session is None:
            return False
        accept = self.request.headers.get(b"accept", b"")
        if accept.startswith(JSON_TYPE):  # as nearly every client has it
            return False
        at, plain = accept.find(EVENTS), accept.find(JSON_TYPE)
        return at >= 0 and not 0 <= plain < at

    def streamed(self, frame: bytes) -> bytes:
        """The answer of a request that told nothing before, as a whole event stream."""
        assert self.session is not None
        stream = self.session.stream()
        return stream.priming(self.session.version) + stream.finish(sse_message(frame))

    def close(self) -> None:
        """The request is over."""
        if self._stream is not None and self._stream.outlet is self._outlet:
            self._stream.outlet = None


def notification_frame(method: str, params: dict[str, RawJson]) -> bytes:
    """A notification as a frame of an event stream."""
    return sse_message(b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (msgspec.json.encode(method), object_of(params)))
