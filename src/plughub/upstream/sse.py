"""One server of the old HTTP+SSE transport (MCP 2024-11-05 "Transports"): requests are POSTed, every answer comes on one stream.

The stream is opened first; its `endpoint` event says where to POST. Servers know us by that stream, so its end is the connection's.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from plughub.kit.dial import Tls
from plughub.kit.errors import UpstreamTimeout, UpstreamUnreachable
from plughub.protocol.sse import SseEvent, SseOverlong
from plughub.settings import Settings
from plughub.upstream import handshake, messages
from plughub.upstream.calls import SHOWN, Call, Calls
from plughub.upstream.handshake import OtherTransport
from plughub.upstream.http_address import address_of, endpoint_path, refusal
from plughub.upstream.http_beside import Beside, ignore
from plughub.upstream.http_connection import LINGER_S, Exchange, HttpConnection
from plughub.upstream.http_connections import Connections
from plughub.upstream.noise import price_of
from plughub.upstream.redact import Redactor
from plughub.upstream.target import Answer, Ask, Facts, Hooks, Peer, Target
from plughub.upstream.watching import Heard, NoStream, Wanted, Watching

NOT_SPOKEN = frozenset((400, 404, 405, 406, 415))
NO_ENDPOINT = "the server's stream brought no endpoint event"
# The first revision whose clients name it in a header; servers of older ones may refuse what they do not know.
HEADER_SINCE = "2025-06-18"


class SseUpstream:
    """The connection. `on_end(self, reason)` hears once that it is over; calls under way have failed by then."""

    def __init__(self, target: Target, settings: Settings, hooks: Hooks, tls: Tls, on_end: Callable[["SseUpstream", str], None]) -> None:
        self.target = target
        self.facts: Facts
        self.ended: str | None = None
        self._hooks = hooks
        self._redact = Redactor(target)
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._address = address_of(target.url, target.headers)
        self.connections = Connections(
            self._address,
            target.private_networks,
            tls,
            most=settings.max_connections + 1,  # the stream
            max_bytes=settings.max_message_bytes,
            timeout_s=target.start_timeout_s or settings.start_timeout_s,
        )
        self.connections.on_slow = lambda: self._note("the server sends more noise than answers; its stream is read slowly")
        self.peer: Peer | None = None
        self.calls = Calls(target, hooks, self._redact, self, most=settings.max_in_flight, max_bytes=settings.max_message_bytes)
        self._beside = Beside(self.connections, self._note)
        self._connecting = 0  # calls that wait for a connection
        self._stream = Exchange(self._loop.create_future(), self._on_event)
        self._stream.skips = True
        self._stream.done.add_done_callback(self._on_stream_end)
        self._endpoint: asyncio.Future[bytes] = self._loop.create_future()
        self._head = b""
        self.watching = Watching(self)

    # ---- the handshake

    async def open(self, timeout_s: float) -> None:
        """Open the stream, learn the endpoint, shake hands. Raises OtherTransport, another UpstreamUnreachable or UpstreamTimeout."""
        until = self._loop.time() + timeout_s
        endpoint = await self._listen(timeout_s)
        head = b"POST %b HTTP/1.1\r\n%bAccept: */*\r\nContent-Type: application/json\r\n" % (endpoint, self._address.head)
        self._head = head
        rest_s = max(0.001, until - self._loop.time())
        with handshake.initializing(timeout_s):
            facts = handshake.legacy_facts(await self.request(handshake.initialize_ask(rest_s, self.peer)), self._redact)
        if facts.version >= HEADER_SINCE:
            self._head = head + b"MCP-Protocol-Version: %b\r\n" % facts.version.encode()
        await self._beside.exchange(self._framed(handshake.INITIALIZED))
        if self.ended is not None:
            raise UpstreamUnreachable(self.ended, executed="no")
        self.facts = facts

    async def _listen(self, timeout_s: float) -> bytes:
        """Open the stream and wait for the path of the endpoint; once answered, half of the time: the rest is for who speaks otherwise."""
        connection = await self._connect(self._loop.time() + timeout_s, timeout_s)
        head = b"GET %b HTTP/1.1\r\n%bAccept: text/event-stream\r\nCache-Control: no-store\r\n\r\n"
        stream = self._stream
        connection.send(stream, head % (self._address.path, self._address.head))
        for _ in range(2):
            await asyncio.wait((self._endpoint, stream.done), timeout=timeout_s / 2, return_when=asyncio.FIRST_COMPLETED)
            if self._endpoint.done():
                return self._endpoint.result()
            if stream.done.done():
                raise self._not_opened(stream)
            if stream.status:
                raise OtherTransport(f"{NO_ENDPOINT} within {timeout_s / 2:.3g} s", executed="no")
        raise UpstreamTimeout(f"the server did not answer the request for its stream within {timeout_s:.3g} s", executed="no")

    def _not_opened(self, stream: Exchange) -> UpstreamUnreachable:
        """Why there is no stream."""
        error = stream.done.exception()
        if isinstance(error, UpstreamUnreachable):
            return UpstreamUnreachable(error.reason, executed="no")
        if stream.sse is not None:
            return OtherTransport(f"{NO_ENDPOINT} before it ended", executed="no")
        if 200 <= stream.status < 300:
            kind = self._redact(stream.content_type.decode("latin-1"), 80) or "none"
            return OtherTransport(f"the server answered HTTP {stream.status} with the content type {kind}, not a stream", executed="no")
        refused = refusal(stream.status, stream.location, self._redact)
        self._note(refused.reason)
        return (OtherTransport if stream.status in NOT_SPOKEN else UpstreamUnreachable)(refused.reason, executed="no")

    def _on_endpoint(self, data: bytes) -> None:
        if self._endpoint.done() or self.ended is not None:
            self.calls.note("another endpoint event was ignored", len(data))
            return
        try:
            self._endpoint.set_result(endpoint_path(self.target.url, data, self._redact))
        except UpstreamUnreachable as error:
            self._note(error.reason)
            self._endpoint.set_exception(error)

    # ---- asking

    @property
    def sent(self) -> int:
        """How many requests were sent, those of the handshake included."""
        return self.calls.sent

    @property
    def answered(self) -> int:
        """How many of them were answered."""
        return self.calls.answered

    @property
    def in_flight(self) -> int:
        """Calls that wait for an answer or for a connection."""
        return len(self.calls.pending) + self._connecting

    async def request(self, ask: Ask) -> Answer:
        """Ask and wait; see `target.Upstream`."""
        if self.ended is not None:
            raise UpstreamUnreachable(self.ended, executed="no")
        self.calls.require_room(self._connecting)
        until = self._loop.time() + ask.timeout_s
        connection = self.connections.take() or await self._connect(until, ask.timeout_s)
        call = self.calls.begin(ask, max(0.001, until - self._loop.time()))
        post = self._post(call, connection, self._framed(messages.write_request(call.id, ask, messages.LEGACY_META)), ask.method)
        try:
            return await call.future
        except asyncio.CancelledError:
            self.calls.abandon(call.id, "the caller went away")
            raise
        finally:
            if post.connection is not None:  # whatever the server still has to say to the POST, it should say soon
                self._loop.call_later(LINGER_S, post.release)

    async def _connect(self, until: float, timeout_s: float) -> HttpConnection:
        self._connecting += 1
        try:
            async with asyncio.timeout_at(until):
                return await self.connections.connect()
        except TimeoutError as error:
            raise UpstreamTimeout(f"no connection to the server was free within {timeout_s:g} s", executed="no") from error
        finally:
            self._connecting -= 1

    @property
    def streams(self) -> bool:
        """See `watching.Watched`: everything comes on the one stream."""
        return False

    async def listen(self, wanted: Wanted, begun: Callable[[], None]) -> Heard:
        """See `watching.Watched`."""
        raise NoStream

    async def rest(self) -> bool:
        """See `lending.Lendable`."""
        return await self.calls.questions.rest()

    def _framed(self, body: bytes) -> bytes:
        """A message as a whole request."""
        return b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body)

    def _post(self, call: Call, connection: HttpConnection, data: bytes, method: str) -> Exchange:
        post = Exchange(self._loop.create_future(), ignore)
        again = partial(self._repeat, call, data, method) if not connection.fresh and method in messages.REPEATABLE else None
        post.done.add_done_callback(lambda done: self._on_posted(call, post, again))
        connection.send(post, data)
        return post

    def _on_posted(self, call: Call, post: Exchange, again: Callable[[], None] | None) -> None:
        """The POST is answered: fail the call when the server did not take it. Its own answer comes, or has come, on the stream."""
        error = post.done.exception()
        if call.id not in self.calls.pending or (error is None and 200 <= post.status < 300):
            return
        if isinstance(error, UpstreamUnreachable):
            if again is not None and not post.touched:
                again()
            elif not 200 <= post.status < 300:
                self.calls.fail(call.id, error)
            return
        refused = refusal(post.status, post.location, self._redact)
        self._note(refused.reason)
        self.calls.fail(call.id, refused)
        if post.status in (404, 410) or (post.status == 400 and b"ession" in b"".join(post.body)[:SHOWN]):
            self._finish(f"the server does not know its own stream any more: {refused.reason}")

    def _repeat(self, call: Call, data: bytes, method: str) -> None:
        """Send a request a second time whose kept connection closed before anything came back."""

        async def repeat() -> None:
            try:
                post = self._post(call, await self.connections.connect(), data, method)
            except (UpstreamUnreachable, UpstreamTimeout) as error:
                self.calls.fail(call.id, error)
            else:
                await asyncio.wait((call.future,))
                post.release()

        self._beside.run(repeat())

    def tell(self, data: bytes) -> None:
        """Send what wants no answer; nowhere to, before the endpoint is known."""
        if self._head:
            self._beside.later(self._framed(data))

    # ---- hearing

    def _on_event(self, exchange: Exchange, event: SseEvent) -> None:
        if isinstance(event, SseOverlong):
            self.calls.hear_long(event.data, event.tail, event.size, "an event")
        elif event.event == b"endpoint":
            self._on_endpoint(event.data)
        elif event.event == b"message":
            self.calls.hear(event.data)
        else:
            self.spend(price_of(len(event.data)))

    def spend(self, size: int) -> None:
        """Count noise; the stream pays for it."""
        self._stream.noise += size

    def _note(self, text: str) -> None:
        self._hooks.log(self.target, f"plughub: {self._redact(text)}")

    # ---- ending

    def _on_stream_end(self, done: asyncio.Future[None]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        reason = f": {error.reason}" if isinstance(error, UpstreamUnreachable) else ""
        self._finish(f"the server's stream ended{reason}")

    async def aclose(self, reason: str) -> None:
        """Close every connection; calls under way fail with `reason`."""
        self._finish(reason)

    def _finish(self, reason: str) -> None:
        if self.ended is not None:
            return
        self.ended = reason
        self.watching.stop()
        self.calls.fail_all(reason)
        self._beside.cancel()
        self.connections.close(reason)
        self._stream.done.cancel()
        self._on_end(self, reason)
