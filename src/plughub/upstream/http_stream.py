"""Streams that a client asks for: what a server says of its own accord, and the rest of a stream that broke off."""

import asyncio
from collections.abc import Callable

from plughub.kit.errors import UpstreamUnreachable
from plughub.protocol.sse import SseEvent, SseOverlong
from plughub.upstream import messages
from plughub.upstream.http_connection import Exchange
from plughub.upstream.http_connections import Connections
from plughub.upstream.messages import Incoming, Unreadable
from plughub.upstream.noise import price_of
from plughub.upstream.watching import ACKNOWLEDGED, Heard, NoStream

# A server that has no such stream says so (MCP 2025-11-25 "Listening for Messages from the Server": 405); many say it otherwise.
WITHOUT = frozenset((400, 404, 405, 406, 415, 501))
MAX_EVENT_ID = 1024


def last_event(exchange: Exchange) -> bytes:
    """The id of the last event of a stream, by which it can be taken up again; empty when it named none that a header can hold."""
    found = b"" if exchange.sse is None else exchange.sse.last_id
    return found if len(found) <= MAX_EVENT_ID else b""


def retry_s(exchange: Exchange) -> float | None:
    """How long the server wants a client to wait before it takes the stream up again."""
    return None if exchange.sse is None or exchange.sse.retry_ms is None else exchange.sse.retry_ms / 1000


class _Listening(Exchange):
    """The exchange of such a stream. `on_begun` is called at its head, or for 2026-07-28 at its first event, the acknowledgement."""

    __slots__ = ("events", "id", "on_begun", "result")

    def __init__(self, done: asyncio.Future[None], on_event: Callable[[Exchange, SseEvent], None], id_: str) -> None:
        super().__init__(done, on_event)
        self.id = id_
        self.events = 0
        self.result = b""
        self.on_begun: Callable[[], None] = lambda: None
        self.skips = True

    def begun(self) -> None:
        if not self.id and self.sse is not None:
            self.on_begun()


class OwnStream:
    """What the server says of its own accord, on a connection of its own. `hear` takes each message but the end of the stream itself."""

    def __init__(self, connections: Connections, hear: Callable[[Incoming], None], note: Callable[[str], None]) -> None:
        self._connections = connections
        self._hear = hear
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._last_id = b""
        self._listens = 0

    def forget(self) -> None:
        """The session is another one: its streams begin anew."""
        self._last_id = b""

    def next_id(self) -> str:
        """The id of the next `subscriptions/listen`."""
        self._listens += 1
        return f"listen-{self._listens}"

    @property
    def after(self) -> bytes:
        """The header that takes the stream up where it broke off, if it can be."""
        return b"Last-Event-ID: %b\r\n" % self._last_id if self._last_id else b""

    async def run(self, data: bytes, id_: str, begun: Callable[[], None]) -> tuple[int, Heard]:
        """Send a whole request and hear its stream to the end: the HTTP status, and what became of it. `id_` is that of the request.

        Raises NoStream, UpstreamUnreachable, UpstreamTimeout.
        """
        stream = _Listening(self._loop.create_future(), self._on_event, id_)
        stream.on_begun = begun
        self._connections.beyond += 1
        try:
            connection = self._connections.take() or await self._connections.connect()
            connection.send(stream, data)
            await stream.done
        except UpstreamUnreachable:
            if stream.sse is None:
                raise
            # A stream that has stood is over like any other when its connection is.
        finally:
            self._connections.beyond -= 1
            stream.release()
            self._last_id = last_event(stream) or self._last_id
        code = messages.code_of(messages.error_in(stream.result or b"".join(stream.body)[:MAX_EVENT_ID]))
        if code == messages.NO_METHOD:
            raise NoStream
        if stream.sse is None and 200 <= stream.status < 300 and not code:
            raise NoStream  # it took the request for another one
        return stream.status, Heard(useful=stream.events > 0, retry_s=retry_s(stream))

    def _on_event(self, exchange: Exchange, event: SseEvent) -> None:
        assert isinstance(exchange, _Listening)
        exchange.noise += price_of(len(event.data))
        if isinstance(event, SseOverlong):
            self._note(f"an event of {event.size} bytes was skipped")
        elif event.data and event.event == b"message":
            exchange.events += 1
            try:
                for message in messages.read_messages(event.data):
                    self._on_message(exchange, message, event.data)
            except Unreadable as error:
                self._note(f"not a message: {error}")

    def _on_message(self, exchange: _Listening, message: Incoming, data: bytes) -> None:
        if message.method == ACKNOWLEDGED:
            exchange.on_begun()
        elif message.method is None and exchange.id and message.id == exchange.id:
            exchange.result = data
            exchange.complete()
        else:
            self._hear(message)
