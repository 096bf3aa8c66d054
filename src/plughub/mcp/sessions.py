"""Sessions of clients of the handshake revisions (MCP 2025-11-25 "Session Management", "Resumability and Redelivery").

A session is bound to the key that opened it and to the door it was opened at; to everybody else it does not exist. It holds what the
client said of itself, what it is asked and has not answered yet, and the last frames of its streams, so that a client whose connection
broke takes up where it was. A session without a request for `session_idle_s` is forgotten; each key has a bounded number of them.
"""

import asyncio
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from plughub.db.unit_of_work import Event
from plughub.events.catalogue import KEY_REVOKED, KEY_SUSPENDED
from plughub.gateway.listening import Listener
from plughub.kit.caller import Caller
from plughub.kit.clock import Clock
from plughub.kit.errors import Conflict, HubError, NotFound, UpstreamError
from plughub.protocol.envelope import cancelled_frame, request_frame, sse_message
from plughub.upstream.target import Answer, RawJson

SESSION_ID = b"mcp-session-id"
MAX_STREAMS = 16
MAX_FRAMES = 256
MAX_FRAME_BYTES = 256 * 1024
MAX_QUESTIONS = 64
RETRY_MS = 1000
_SWEEP_S = 30.0


class SessionNotFound(NotFound):
    """Unknown, forgotten, or somebody else's: the client begins anew."""

    message = "Session not found"
    jsonrpc = -32001
    hint = "Send initialize again"


class Reader(Protocol):
    """Where the frames of a stream go. `behind`: it is read so slowly that frames were lost."""

    @property
    def behind(self) -> bool: ...

    def push(self, frame: bytes) -> None: ...

    def stop(self, error: HubError) -> None: ...


@dataclass(slots=True)
class Stream:
    """One event stream of a session: its last frames, and who reads it just now."""

    number: int
    own: Reader | None = None  # of the request that it belongs to; the stream of GET has none
    outlet: Reader | None = None
    sent: int = 0
    kept_bytes: int = 0
    kept: deque[tuple[int, bytes]] = field(default_factory=deque)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def priming(self, version: str) -> bytes:
        """What a request's stream begins with: an id to take it up from, and how long to wait before that; nothing before 2025-11-25."""
        return b"id: %d-0\nretry: %d\ndata: \n\n" % (self.number, RETRY_MS) if version >= "2025-11-25" else b""

    def push(self, frame: bytes) -> None:
        """Number a message, keep it, and hand it to the reader."""
        whole = self._keep(frame)
        if self.outlet is not None:
            self.outlet.push(whole)

    def finish(self, frame: bytes) -> bytes:
        """The last message, numbered and kept; another reader than the request itself hears it from here."""
        whole = self._keep(frame)
        if self.outlet is not None and self.outlet is not self.own:
            self.outlet.push(whole)
        self.over.set()
        return whole

    def read_by(self, outlet: Reader, after: int) -> None:
        """From now on `outlet` is the reader; it hears what came after that number."""
        if self.outlet is not None and self.outlet is not self.own:  # the request goes on without a reader
            self.outlet.stop(Conflict("The stream is read over another connection"))
        self.outlet = outlet
        for at, frame in self.kept:
            if at > after:
                outlet.push(frame)

    def _keep(self, frame: bytes) -> bytes:
        self.sent += 1
        whole = b"id: %d-%d\n%b" % (self.number, self.sent, frame)
        self.kept.append((self.sent, whole))
        self.kept_bytes += len(whole)
        while len(self.kept) > MAX_FRAMES or self.kept_bytes > MAX_FRAME_BYTES:
            self.kept_bytes -= len(self.kept.popleft()[1])
        return whole


class Session:
    """One client. `capabilities` and `info` are raw JSON as `initialize` brought them."""

    __slots__ = (
        "_asked",
        "_questions",
        "_streams",
        "calls",
        "capabilities",
        "door",
        "id",
        "info",
        "listener",
        "listening",
        "log_level",
        "on_end",
        "over",
        "subscriptions",
        "used_at",
        "version",
    )

    def __init__(self, id_: str, door: str, version: str, capabilities: RawJson, info: RawJson | None) -> None:
        self.id = id_
        self.door = door
        self.version = version
        self.capabilities = capabilities
        self.info = info
        self.log_level: RawJson | None = None
        self.used_at = 0.0
        self.calls: dict[bytes, asyncio.Task[object]] = {}
        self._questions: dict[bytes, asyncio.Future[Answer]] = {}
        self._asked = 0
        self._streams: OrderedDict[int, Stream] = OrderedDict()
        self.listening: Stream | None = None  # the stream of GET
        self.listener: Listener | None = None
        # The resources that the client watches, by the URI as it knows them: (id of the server, the server's own URI).
        self.subscriptions: dict[str, tuple[str, str]] = {}
        self.on_end: list[Callable[[], None]] = []
        self.over = False

    # ---- what the client is asked

    async def ask(self, stream: Stream, method: str, params: RawJson) -> Answer:
        """Put a server's request to the client and wait for its answer.

        Raises UpstreamError (nothing more was run) when the client is asked too much at once, or has gone.
        """
        if len(self._questions) >= MAX_QUESTIONS:
            raise UpstreamError("The client has not answered what it was asked before", executed="unknown")
        self._asked += 1
        id_ = b'"q%d"' % self._asked
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._questions[id_] = future
        stream.push(sse_message(request_frame(id_, method, params)))
        try:
            return await future
        except asyncio.CancelledError:
            stream.push(sse_message(cancelled_frame(id_)))
            raise
        finally:
            self._questions.pop(id_, None)

    def answered(self, id_: bytes, answer: Answer) -> bool:
        """The client's answer; False when nobody asked."""
        future = self._questions.get(id_)
        if future is None or future.done():
            return False
        future.set_result(answer)
        return True

    def cancel(self, id_: bytes) -> None:
        """The client does not want the answer to that request any more."""
        task = self.calls.pop(id_, None)
        if task is not None:
            task.cancel()

    # ---- what the client hears

    def stream(self) -> Stream:
        """A new stream; the oldest that is over makes room."""
        number = next(reversed(self._streams), 0) + 1
        found = self._streams[number] = Stream(number)
        while len(self._streams) > MAX_STREAMS:
            oldest = next((key for key, each in self._streams.items() if each.over.is_set()), None)
            if oldest is None or oldest == number:
                break
            del self._streams[oldest]
        return found

    def find_stream(self, event_id: str) -> tuple[Stream, int] | None:
        """The stream of an event's id, and the event's number in it."""
        number, mark, at = event_id.partition("-")
        if not (mark and number.isdigit() and at.isdigit() and len(event_id) < 40):
            return None
        stream = self._streams.get(int(number))
        return None if stream is None else (stream, int(at))

    def tell(self, frame: bytes) -> None:
        """A message that belongs to no request: on the stream of GET, kept a little when nobody reads it just now."""
        if self.listening is not None:
            self.listening.push(frame)

    def end(self, error: HubError | None = None) -> None:
        """Everything that is under way for the session ends."""
        self.over = True
        for future in self._questions.values():
            if not future.done():
                future.set_exception(error or UpstreamError("The client ended its session", executed="unknown"))
                future.exception()  # whoever asked may be gone too
        for task in list(self.calls.values()):
            task.cancel()
        for stream in self._streams.values():
            if stream.outlet is not None:
                stream.outlet.stop(error or SessionNotFound("The session has ended"))
        for call in self.on_end:
            call()
        self.on_end.clear()


class Sessions:
    """All sessions of this process, by the key that opened them. A listener of the database: they end with their key."""

    def __init__(self, clock: Clock, *, idle_s: float, most_per_key: int, node: str) -> None:
        self._clock = clock
        self._idle_s = idle_s
        self._most = most_per_key
        self._by_key: dict[str, OrderedDict[str, Session]] = {}
        self._node = node
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return sum(len(sessions) for sessions in self._by_key.values())

    def open(self, caller: Caller, door: str, version: str, capabilities: RawJson, info: RawJson | None) -> Session:
        """A new session; over the bound the one of this key that was longest unused goes."""
        sessions = self._by_key.setdefault(caller.key_id, OrderedDict())
        while len(sessions) >= self._most:
            sessions.popitem(last=False)[1].end()
        id_ = f"{self._node}-{secrets.token_urlsafe(18)}"
        session = sessions[id_] = Session(id_, door, version, capabilities, info)
        session.used_at = self._clock.monotonic()
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
        return session

    def get(self, caller: Caller, id_: bytes, door: str) -> Session:
        """The session, from now on used last. Raises SessionNotFound."""
        sessions = self._by_key.get(caller.key_id)
        name = id_.decode("latin-1")
        session = None if sessions is None else sessions.get(name)
        if sessions is None or session is None or session.door != door:
            raise SessionNotFound
        sessions.move_to_end(name)
        session.used_at = self._clock.monotonic()
        return session

    def end(self, caller: Caller, id_: bytes, door: str) -> None:
        """The client says good-bye. Raises SessionNotFound."""
        session = self.get(caller, id_, door)
        self._drop(caller.key_id, session.id)
        session.end()

    async def follow(self, events: Sequence[Event]) -> None:
        """End the sessions of keys that may no longer call."""
        for event in events:
            if event.name in (KEY_REVOKED, KEY_SUSPENDED) and event.key_id is not None:
                for session in self._by_key.pop(event.key_id, {}).values():
                    session.end()

    def sweep(self) -> None:
        """Forget what was idle too long; a session that is listening or has a request under way is not idle."""
        before = self._clock.monotonic() - self._idle_s
        for key_id, sessions in list(self._by_key.items()):
            for session in list(sessions.values()):
                if session.used_at > before:
                    break  # the rest was used later
                if session.calls or (session.listening is not None and session.listening.outlet is not None):
                    session.used_at = self._clock.monotonic()
                    sessions.move_to_end(session.id)
                    continue
                self._drop(key_id, session.id)
                session.end()

    def close(self) -> None:
        """The hub stops."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for sessions in self._by_key.values():
            for session in sessions.values():
                session.end()
        self._by_key.clear()

    def _drop(self, key_id: str, id_: str) -> None:
        sessions = self._by_key.get(key_id)
        if sessions is not None:
            sessions.pop(id_, None)
            if not sessions:
                del self._by_key[key_id]

    def _sweep(self) -> None:
        self.sweep()
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep) if self._by_key else None
